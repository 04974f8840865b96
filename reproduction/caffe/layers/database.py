"""The layer Data, which reads images and labels from a database of the format LMDB."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from reproduction.caffe.errors import DataError, NetError, ReproductionError
from reproduction.caffe.formats import caffemodel
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.data import BatchLayer
from reproduction.caffe.layers.image_data import Transform
from reproduction.caffe.schema import DatabaseBackend, DataParameter, Datum
from reproduction.caffe.typing import Array

_WANT = "an LMDB database, as Caffe's convert_imageset -backend lmdb writes"

# The open databases by process and path, since LMDB must open a database once in a process.
_OPEN: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()


class Database:
    """The values of an LMDB database in the order of their keys, which are read by number.

    Args:
        path: The folder of the database, or its file.

    Raises:
        DataError: If the package lmdb is missing, or the database cannot be read or is empty.

    Source: BVLC/caffe@9b89154 src/caffe/util/db_lmdb.cpp L10-L40.
    """

    def __init__(self, path: str):
        self.path = path
        self._process, self._place = -1, 0
        self._cursor: Any = None
        self.count = self._open()
        if self.count == 0:
            raise DataError("the database is empty", path=path)

    def _open(self) -> int:
        """Open the database in this process, and return the number of its values."""
        try:
            import lmdb
        except ModuleNotFoundError:
            remedy = "Install it: pip install lmdb."
            raise DataError("LMDB databases need the package lmdb", path=self.path, remedy=remedy) from None
        where = Path(self.path)
        if where.is_dir() and not (where / "data.mdb").is_file():
            kind = "a LevelDB database" if (where / "CURRENT").is_file() else "a folder without data.mdb"
            raise DataError("this is not an LMDB database", path=self.path, got=kind, want=_WANT)
        key = os.getpid(), os.path.realpath(self.path)
        environment = _OPEN.get(key)
        try:
            if environment is None:
                # Without a lock, a database on a read-only disk can be read; nothing may write to it at the same time.
                environment = lmdb.open(self.path, subdir=where.is_dir(), readonly=True, lock=False, create=False)
                _OPEN[key] = environment
        except lmdb.Error as error:
            raise DataError(f"the database cannot be read: {error}", path=self.path) from None
        self._environment = environment  # which a cursor does not keep open
        self._cursor = environment.begin(buffers=True).cursor()
        self._process, self._place = os.getpid(), -1
        return int(environment.stat()["entries"])

    def read(self, number: int) -> Datum:
        """Return the sample with this number; after the last one, the first follows.

        Raises:
            DataError: If the value is not a Datum.
        """
        if self._process != os.getpid():  # LMDB must not be used by a process that inherited it
            self._open()
        number %= self.count
        if self._place < 0 or number < self._place:
            self._cursor.first()
            self._place = 0
        while self._place < number:
            self._cursor.next()
            self._place += 1
        place = f"{self.path}, key {bytes(self._cursor.key())[:80].decode(errors='replace')!r}"
        try:
            return caffemodel.loads(bytes(self._cursor.value()), Datum, place)
        except ReproductionError as error:
            raise DataError(f"the value is not a Datum: {error.problem}", path=place) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Database, (self.path,)

    def __deepcopy__(self, memo: object) -> Database:
        return Database(self.path)


def read_pixels(datum: Datum, place: str, *, color: bool | None = None) -> Array:
    """Return the pixels of a sample, (C, H, W); color images have the order BGR.

    Encoded images are decoded by Pillow. Caffe uses OpenCV, whose pixels of JPEG and PNG files are the same; with other
    versions of the JPEG library they may differ by one level.

    Args:
        datum: The sample.
        place: The place to name in errors.
        color: For an encoded image, whether to convert it to color, or to gray; None keeps it as it is.

    Returns:
        uint8, or float32 for a sample with ``float_data``.

    Raises:
        DataError: If the image cannot be decoded, or the number of values is not that of the shape.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L128-L180, src/caffe/data_transformer.cpp L45-L127.
    """
    if datum.encoded:
        from reproduction.caffe.formats import image_files  # imported here, since most nets read no image files

        with image_files.open_image(io.BytesIO(datum.data)) as image:
            wide = image.mode not in ("1", "L", "I", "I;16", "F") if color is None else color
            pixels = image_files.decode(image, lambda each: np.asarray(each.convert("RGB" if wide else "L")))
        return pixels[:, :, ::-1].transpose(2, 0, 1) if wide else pixels[None]
    shape = (datum.channels, datum.height, datum.width)
    values = np.frombuffer(datum.data, np.uint8) if datum.data else datum.float_data
    if min(shape) < 1 or values.size != np.prod(shape):
        raise DataError("the sample is damaged", path=place, got=f"{values.size} values", want=shape)
    return values.reshape(shape)


@register
class Data(BatchLayer):
    """Batches of images and labels from an LMDB database, in the order of its keys; the last is followed by the first.

    Random crops and mirroring use other random numbers than Caffe. As in Caffe, ``rand_skip`` is not read.

    Shapes:
        data   (batch_size, C, H, W), in the order BGR for images that ``convert_imageset`` wrote
        label  (batch_size,), optional

    Raises:
        NetError: If the backend is LEVELDB, or ``batch_size`` is 0.
        DataError: If the database or a sample cannot be read, or the samples of a batch differ in size.

    Source: BVLC/caffe@9b89154 src/caffe/layers/data_layer.cpp L15-L125, src/caffe/data_transformer.cpp L45-L155.
    """

    reads = frozenset(
        [f"data_param.{name}" for name in ("source", "batch_size", "backend", "prefetch", "rand_skip")]
        + [f"transform_param.{name}" for name in ("scale", "mirror", "crop_size", "mean_file", "mean_value")]
        + [f"transform_param.{name}" for name in ("force_color", "force_gray")]
    )
    tops = (1, 2)

    def setup(self, bottoms: list[Shape]) -> None:
        """Open the database, and load the mean that is subtracted."""
        super().setup(bottoms)
        param, transform = self.settings(), self.layer_param.transform_param
        if transform.force_color and transform.force_gray:
            raise NetError("force_color and force_gray are both set", want="one of them")
        if param.backend is not DatabaseBackend.LMDB:
            raise DataError("LevelDB databases are not read", path=param.source or "<no source>", want=_WANT)
        self._color = True if transform.force_color else False if transform.force_gray else None
        self._database = Database(param.source)
        self._transform = Transform(transform, self.generator)

    def settings(self) -> DataParameter:
        return self.layer_param.data_param

    def place(self, number: int) -> str:
        return f"{self._database.path}, sample {number % self._database.count}"

    def load(self, number: int) -> tuple[Array, ...]:
        """Load a sample, and return its pixels and its label."""
        datum, place = self._database.read(number), self.place(number)
        try:
            pixels = read_pixels(datum, place, color=self._color)
        except DataError as error:
            raise error if error.place == place else DataError(error.problem, path=place, got=error.got) from None
        tops = (
            self._transform(pixels.transpose(1, 2, 0), place, training=self.training),
            np.asarray(datum.label, np.float32),
        )
        return tops[: len(self.layer_param.top)]

"""The layers HDF5Data and HDF5Output."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import DataError, NetError, did_you_mean
from reproduction.caffe.formats import files, hdf5
from reproduction.caffe.formats.hdf5_file.messages import HDF5Dataset
from reproduction.caffe.formats.hdf5_file.objects import HDF5File
from reproduction.caffe.formats.hdf5_file.values import read_values
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive, legacy_shape
from reproduction.caffe.layers.data import BaseDataLayer, Shuffle, read_file_list
from reproduction.caffe.typing import Array


@register
class HDF5Data(BaseDataLayer):
    """Batches of rows of HDF5 files, one file after the other; the last file is followed by the first.

    ``source`` is a text file with the names of the HDF5 files. Each file contains a data set for each top, with the
    name of the top; all have the same number of rows. ``shuffle`` shuffles the files and the rows of each file, but the
    order is not that of Caffe.

    Shapes:
        tops  (batch_size, ...), where the other sizes are those of a row

    Raises:
        DataError: If a file is missing or lacks a data set, or the shapes of data sets do not fit.

    Source: BVLC/caffe@9b89154 src/caffe/layers/hdf5_data_layer.cpp L29-L172.
    """

    reads = frozenset({"hdf5_data_param.source", "hdf5_data_param.batch_size", "hdf5_data_param.shuffle"})
    refuses = frozenset({"transform_param"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Load the list of files and the first file."""
        super().setup(bottoms)
        param = self.layer_param.hdf5_data_param
        check_positive(param, "batch_size")
        self._files: list[str] = read_file_list(param.source).split()
        if not self._files:
            raise DataError("the list names no HDF5 files", path=param.source)
        self._shuffle = Shuffle(param.shuffle, self.generator)
        self._rows: dict[str, int] = {}
        self._columns: list[Array] = []
        self._loaded = ""
        self._next_row = 0
        self._set_position(0, 0)

    def seek(self, draw: int) -> None:
        """Choose the batch that the next forward pass returns.

        For any other batch than the one after the last forward pass, the rows of all files are counted.

        Args:
            draw: The number of the batch, from 0.
        """
        start = draw * self.layer_param.hdf5_data_param.batch_size
        if start == self._next_row:
            return
        self._next_row = start
        epoch, start = divmod(start, sum(self._count_rows(path) for path in self._files))
        place = 0
        while start >= (count := self._count_rows(self._path_of(epoch, place))):
            start -= count
            place += 1
        self._set_position(epoch, place, start)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return [(self.layer_param.hdf5_data_param.batch_size, *rows.shape[1:]) for rows in self._columns]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        parts = []
        missing = self.layer_param.hdf5_data_param.batch_size
        self._next_row += missing
        while missing:
            picked = self._order[self._row : self._row + missing]
            parts.append([rows[picked] for rows in self._columns])
            missing -= len(picked)
            self._row += len(picked)
            if self._row == len(self._order):
                last = self._place + 1 == len(self._files)
                self._set_position(self._epoch + last, 0 if last else self._place + 1)
        columns = (column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*parts, strict=True))
        return tuple(self.to_net_tensor(column) for column in columns)

    def _set_position(self, epoch: int, place: int, row: int = 0) -> None:
        """Set the position to row number ``row``, in shuffled order, of file number ``place`` of the epoch."""
        path = self._path_of(epoch, place)
        if path != self._loaded:
            self._load_file(path)
        self._epoch, self._place, self._row = epoch, place, row
        self._order = self._shuffle(len(self._columns[0]), epoch, place)

    def _path_of(self, epoch: int, place: int) -> str:
        return self._files[int(self._shuffle(len(self._files), epoch)[place])]

    def _count_rows(self, path: str) -> int:
        if path not in self._rows:
            self._rows[path] = (_find_dataset(self._open_file(path), self.layer_param.top[0]).shape or (0,))[0]
        return self._rows[path]

    def _open_file(self, path: str) -> HDF5File:
        if not files.is_file(path):
            raise DataError(
                "there is no such file", path=path, remedy=f"{self.layer_param.hdf5_data_param.source} names it."
            )
        return hdf5.HDF5Reader(path).file

    def _load_file(self, path: str) -> None:
        file = self._open_file(path)
        columns = [_load_dataset(file, top) for top in self.layer_param.top]
        rows = {top: len(column) for top, column in zip(self.layer_param.top, columns, strict=True)}
        if len(set(rows.values())) > 1 or not rows[self.layer_param.top[0]]:
            raise DataError("the data sets must have as many rows, and at least one", path=path, got=rows)
        got, want = ([column.shape[1:] for column in each] for each in (columns, self._columns or columns))
        if got != want:
            raise DataError("the rows differ in shape from those of the files before", path=path, got=got, want=want)
        self._columns, self._loaded, self._rows[path] = columns, path, rows[self.layer_param.top[0]]


def _find_dataset(file: HDF5File, name: str) -> HDF5Dataset:
    """Return the data set ``name``; raise ``DataError`` unless it has at least one axis and real numbers."""
    found = file.member(file.root, name)
    path = file.path
    if not isinstance(found, HDF5Dataset):
        got = sorted(file.root.links)
        raise DataError(f"there is no data set {name!r}", path=path, got=got, remedy=did_you_mean(name, got))
    if found.dtype is None or found.dtype.kind not in "iuf" or not found.shape:
        what = f"{found.type} {found.shape}"
        raise DataError(f"data set {name!r} cannot be used", path=path, got=what, want="rows of numbers")
    return found


def _load_dataset(file: HDF5File, name: str) -> Array:
    """Load a data set as floats; integers become float32.

    Source: BVLC/caffe@9b89154 src/caffe/util/hdf5.cpp L10-L93.
    """
    found = _find_dataset(file, name)
    assert found.dtype is not None
    return read_values(file, found, found.dtype.newbyteorder("<") if found.dtype.kind == "f" else np.float32)


@register
class HDF5Output(Layer):
    """Write the bottoms to an HDF5 file, as the data sets ``data`` and ``label``.

    The first forward pass writes the file. As in Caffe, a second one is an error.

    Shapes:
        data   (N, C, H, W), or fewer axes; the data set has four
        label  (N, ...), at most four axes; the data set has four

    Source: BVLC/caffe@9b89154 src/caffe/layers/hdf5_output_layer.cpp L13-L74.
    """

    reads = frozenset({"hdf5_output_param.file_name"})
    bottoms = (2, 2)
    tops = (0, 0)
    differentiable = ()

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that there is a file name."""
        if not self.layer_param.hdf5_output_param.file_name:
            raise NetError("hdf5_output_param.file_name is missing")
        self._written = False

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check that both bottoms have the same first axis, and return an empty list, as there are no tops."""
        data, label = (legacy_shape(bottom) for bottom in bottoms)
        if data[0] != label[0]:
            raise NetError("data and label must have the same first dimension", got=f"{bottoms[0]} and {bottoms[1]}")
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Write the bottoms to the file and return an empty tuple, as there are no tops.

        Raises:
            NetError: If the layer has written the file before.
        """
        path = self.layer_param.hdf5_output_param.file_name
        if self._written:
            raise NetError(
                f"{path} holds an earlier batch already", remedy="Run the net once, on one batch with all rows."
            )
        with hdf5.open_for_writing(path) as file:
            for name, bottom in zip(("data", "label"), bottoms, strict=True):
                values = bottom.detach().cpu().numpy()
                file.create_dataset(name, data=values.reshape(legacy_shape(values.shape)))
        self._written = True
        return ()

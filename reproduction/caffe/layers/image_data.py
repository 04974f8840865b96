"""The layer ImageData, and the functions that read, resize and transform its images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reproduction.caffe.errors import DataError, NetError
from reproduction.caffe.formats import blobs
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.data import BatchLayer, Shuffle, read_file_list
from reproduction.caffe.schema import ImageDataParameter, TransformationParameter
from reproduction.caffe.typing import Float32, Int64, UInt8


def read_image(path: str, *, color: bool = True) -> UInt8:
    """Load an image as OpenCV's ``imread`` does, rotated according to its EXIF orientation.

    Color JPEG and PNG files give the same pixels as with OpenCV; a color PNG loaded as gray may differ by one level.

    Args:
        path: The image file.
        color: Whether to return three channels; otherwise one.

    Returns:
        The pixels, uint8: (H, W, 3) in the order BGR, or (H, W, 1).

    Raises:
        DataError: If the file is missing or cannot be decoded.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L73-L90 (ReadImageToCVMat).
    """
    from PIL import Image  # imported here, since most nets read no image files

    from reproduction.caffe.formats import image_files

    def to_bgr(image: Image.Image) -> UInt8:
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # 16 bits to 8
        return np.asarray(image.convert("RGB"))[:, :, ::-1] if color else np.asarray(image.convert("L"))[:, :, None]

    with image_files.open_image(path) as image:
        if not color:
            image.draft("L", image.size)  # the luminance channel of a JPEG, as in OpenCV
        pixels = image_files.decode(image, to_bgr)
        return image_files.turn_upright(pixels, image_files.orientation(image))


def resize(image: UInt8, height: int, width: int) -> UInt8:
    """Return an image of the given size, resized as OpenCV's ``resize`` does by default.

    This is bilinear interpolation in fixed-point arithmetic with weights in 1/2048. Fewer than 1 % of the values differ
    from OpenCV's, by one level.

    Args:
        image: The pixels, (H, W, C).
        height: The new height.
        width: The new width.

    Source: BVLC/caffe@9b89154 src/caffe/util/io.cpp L83 (cv::resize).
    """
    if image.shape[:2] == (height, width):
        return image
    left, right, near, far = _interpolation_taps(image.shape[1], width)
    pixels = image.astype(np.int64)
    rows = (pixels[:, left] * near[:, None] + pixels[:, right] * far[:, None]) >> 4
    top, bottom, near, far = _interpolation_taps(image.shape[0], height)
    upper, lower = (near[:, None, None] * rows[top]) >> 16, (far[:, None, None] * rows[bottom]) >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _interpolation_taps(size: int, wanted: int) -> tuple[Int64, ...]:
    """Return, for each new pixel, the indices of the two old pixels around it and their weights, whose sum is 2048."""
    place = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).clip(0, size - 1).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = np.rint((place - first) * 2048).astype(np.int64)
    return first, np.minimum(first + 1, size - 1), 2048 - share, share


def draw(generator: torch.Generator | None, count: int) -> int:
    """Return a random integer from 0 to ``count - 1``."""
    return int(torch.randint(count, (), generator=generator))


class Transform:
    """The operations of ``transform_param``: subtract a mean, crop, mirror and scale.

    Args:
        param: The field ``transform_param`` of the layer.
        generator: The random number generator; None for torch's default generator.

    Raises:
        NetError: If a mean file and mean values are both set.
        ReproductionError: If the mean file cannot be read.

    Source: BVLC/caffe@9b89154 src/caffe/data_transformer.cpp L17-L43, L232-L339.
    """

    def __init__(self, param: TransformationParameter, generator: torch.Generator | None = None):
        self.param = param
        self.generator = generator
        self.mean: Float32 | None = None
        if param.has("mean_file"):
            if param.mean_value:
                raise NetError("mean_file and mean_value are both set", want="one of them")
            loaded = blobs.load_mean(param.mean_file)
            shape = legacy_shape(loaded.shape if loaded.ndim != 3 else (1, *loaded.shape))
            self.mean = loaded.reshape(shape)[0].astype(np.float32)
        elif param.mean_value:
            self.mean = np.array(param.mean_value, np.float32)[:, None, None]

    def __call__(self, image: UInt8, path: str, *, training: bool) -> Float32:
        """Transform one image.

        Args:
            image: The pixels, (H, W, C).
            path: The file of the image, for error messages.
            training: Whether to crop at a random position; otherwise at the center.

        Returns:
            The transformed image, float32: (C, H, W), or (C, crop_size, crop_size) if ``crop_size`` is set.

        Raises:
            DataError: If the image is smaller than ``crop_size`` or does not fit the mean.
        """
        values = image.transpose(2, 0, 1).astype(np.float32)
        if self.mean is not None:
            whole = self.param.has("mean_file")
            if self.mean.shape != values.shape if whole else len(self.mean) not in (1, len(values)):
                want = self.mean.shape if whole else f"{len(self.mean)} channels"
                raise DataError("the image does not fit the mean", path=path, got=values.shape, want=want)
            values -= self.mean
        values = self._crop(values, path, training)
        if self.param.mirror and draw(self.generator, 2):
            values = values[:, :, ::-1]
        return values * np.float32(self.param.scale)

    def _crop(self, values: Float32, path: str, training: bool) -> Float32:
        crop = self.param.crop_size
        if not crop:
            return values
        spare = [size - crop for size in values.shape[1:]]
        if min(spare) < 0:
            raise DataError("the image is smaller than crop_size", path=path, got=values.shape[1:], want=(crop, crop))
        top, left = (draw(self.generator, n + 1) if training else n // 2 for n in spare)
        return values[:, top : top + crop, left : left + crop]


class ListedFilesLayer(BatchLayer):
    """The base class of layers that load images, and labels of them, from the files of a list.

    A batch consists of the next ``batch_size`` lines of the list; the last line is followed by the first. A subclass
    implements ``settings``, ``read_list`` and ``load_item``.
    """

    sized_by = "new_height and new_width, crop_size"

    def read_list(self, source: str) -> list[Any]:
        """Load the list, and return the arguments of ``load_item`` for each line as a tuple."""
        raise NotImplementedError(type(self).__name__)

    def load_item(self, *line: Any) -> tuple[Float32, ...]:
        """Load what a line of the list names, and return one array for each top."""
        raise NotImplementedError(type(self).__name__)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings and load the list."""
        super().setup(bottoms)
        param = self.settings()
        if (param.new_height == 0) != (param.new_width == 0):
            raise NetError(
                "new_height and new_width must be set together", got=f"{param.new_height} and {param.new_width}"
            )
        self._lines = self.read_list(param.source)
        self._shuffle = Shuffle(param.shuffle, self.generator)
        self._skipped = draw(self.generator, param.rand_skip) if param.rand_skip else 0
        if self._skipped >= len(self._lines):
            raise DataError(f"there are too few images to skip {self._skipped}", path=param.source)

    def load(self, number: int) -> tuple[Float32, ...]:
        """Load the files of a line by its number, counted over all epochs."""
        return self.load_item(*self._find_line(number))

    def place(self, number: int) -> str:
        """Return the path of an image by the number of its line."""
        return str(self.settings().root_folder + self._find_line(number)[0])

    def _find_line(self, number: int) -> Any:
        """Return line ``number``, counted over all epochs and in shuffled order."""
        epoch, place = divmod(self._skipped + number, len(self._lines))
        return self._lines[int(self._shuffle(len(self._lines), epoch)[place])]


@register
class ImageData(ListedFilesLayer):
    """Batches of images and labels from a list of files; the last image is followed by the first.

    ``source`` is a text file with lines ``path label``; ``root_folder`` is prepended to each path without a separator.
    Each image is loaded, resized to ``new_height`` x ``new_width`` if these are set, and transformed. All images of a
    batch must then have the same size. Random crops, mirroring, shuffling and skipping use other random numbers than
    Caffe.

    Shapes:
        data   (batch_size, 3, H, W) in the order BGR, or (batch_size, 1, H, W) with ``is_color: false``
        label  (batch_size,)

    Raises:
        DataError: If the list or an image cannot be read, or the images of a batch differ in size.

    Source: BVLC/caffe@9b89154 src/caffe/layers/image_data_layer.cpp L23-L172.
    """

    reads = frozenset(
        [f"transform_param.{name}" for name in ("scale", "mirror", "crop_size", "mean_file", "mean_value")]
        + [
            f"image_data_param.{name}"
            for name in (
                *("source", "batch_size", "rand_skip", "shuffle"),
                *("new_height", "new_width", "is_color", "root_folder"),
            )
        ]
    )
    tops = (2, 2)

    def settings(self) -> ImageDataParameter:
        return self.layer_param.image_data_param

    def read_list(self, source: str) -> list[tuple[str, int]]:
        return read_image_list(source)

    def setup(self, bottoms: list[Shape]) -> None:
        """Load the list of images, and the mean that is subtracted."""
        super().setup(bottoms)
        self._transform = Transform(self.layer_param.transform_param, self.generator)

    def load_item(self, name: str, label: int) -> tuple[Float32, ...]:
        """Load an image, and return it with its label."""
        param = self.settings()
        path = param.root_folder + name
        image = read_image(path, color=param.is_color)
        if param.new_height:
            image = resize(image, param.new_height, param.new_width)
        return self._transform(image, path, training=self.training), np.asarray(label, np.float32)


def read_image_list(source: str) -> list[tuple[str, int]]:
    """Load a list of images and return the path and label of each.

    Args:
        source: The text file, with lines ``path label``; a path may contain spaces.

    Raises:
        DataError: If the list cannot be read or is empty, or a line does not end with a space and a 32-bit integer.
    """
    found = []
    for number, line in enumerate(read_file_list(source).splitlines(), 1):
        path, _, label = line.rpartition(" ")
        try:
            value = int(label)
        except ValueError:
            path, value = "", 0
        if not path or not -(1 << 31) <= value < 1 << 31:
            raise DataError(
                "this line is not valid", path=f"{source}:{number}", got=repr(line[:80]), want="'path label'"
            )
        found.append((path, value))
    if not found:
        raise DataError("the list names no images", path=source)
    return found

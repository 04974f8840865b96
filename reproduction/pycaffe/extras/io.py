"""pycaffe's ``caffe.io``: load and preprocess images, and convert arrays to and from Caffe's messages.

Pillow reads images and SciPy resizes them, with the results of the scikit-image that pycaffe used: greyscale by the
weights of ITU-R BT.709, resizing without anti-aliasing, and a constant beyond the edges.

Source: BVLC/caffe@9b89154 python/caffe/io.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from reproduction.caffe.errors import DataError, ReproductionError, StrPath
from reproduction.caffe.formats import blobs
from reproduction.caffe.schema import BlobProto
from reproduction.caffe.typing import Array, Float32
from reproduction.pycaffe.proto import caffe_pb2
from reproduction.pycaffe.proto.message import ProtoMessage, unwrap

_PIXELS_AT_A_TIME = 1 << 18  # pixels to scale at a time, to bound memory
_GREY = np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, in scikit-image's rounding


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Array:
    """Convert the values of a ``BlobProto`` to an array of its shape.

    Args:
        blob: A ``caffe_pb2.BlobProto``.
        return_diff: Whether to convert the gradient instead of the values.

    Raises:
        ValueError: If the number of values does not match the shape.
    """
    message = unwrap(blob) if isinstance(blob, ProtoMessage) else None
    if not return_diff and isinstance(message, BlobProto) and message.unknown:
        return np.array(blobs.to_array(message))  # forks of Caffe store values in fields that the schema does not have
    values = np.array(blob.diff if return_diff else blob.data)
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):
        return values.reshape([getattr(blob, name) for name in legacy])
    return values.reshape(blob.shape.dim)


def array_to_blobproto(arr: Array, diff: Array | None = None) -> Any:
    """Return a ``BlobProto``, Caffe's message for a blob, with the values of an array.

    Args:
        arr: The values, of any shape.
        diff: The gradient, or None.
    """
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(arr.ravel())
    if diff is not None:
        blob.diff.extend(diff.ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """Return the bytes of a serialized ``BlobProtoVector``, Caffe's message for a list of blobs, with these arrays."""
    vector = caffe_pb2.BlobProtoVector()
    vector.blobs.extend([array_to_blobproto(array) for array in arraylist])
    return vector.SerializeToString()  # type: ignore[no-any-return]


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:  # noqa: A002 - Caffe's name
    """Parse a serialized ``BlobProtoVector`` and return its arrays."""
    vector = caffe_pb2.BlobProtoVector.FromString(str)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: Array, label: int | None = None) -> Any:
    """Return a ``Datum``, Caffe's message for an image in a database, with the values of an array.

    Args:
        arr: An array (C, H, W). A ``Datum`` stores uint8 as bytes and any other type as floats.
        label: The label to store, or None.

    Raises:
        ReproductionError: If the array does not have three axes.
    """
    if arr.ndim != 3:
        raise ReproductionError("a Datum needs three axes", got=arr.shape, want="channels, height and width")
    datum = caffe_pb2.Datum()
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.ravel())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> Array:
    """Return the array (C, H, W) of a ``Datum``: uint8 if it stores bytes, else float64.

    Raises:
        ValueError: If the number of values does not match the shape, such as for an encoded image.
    """
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        return np.frombuffer(datum.data, np.uint8).reshape(shape).copy()
    return np.array(datum.float_data).reshape(shape)


class Transformer:
    """Preprocessing of images (H, W, K) for the inputs of a net.

    In this order: resize, transpose, reorder the channels, multiply by ``raw_scale``, subtract the mean, multiply by
    ``input_scale``. Steps that are not set for an input are skipped. In all methods, ``in_`` is the name of the input.

    Args:
        inputs: The shapes of the net's inputs by name.

    Raises:
        ReproductionError: If a method's input name is unknown, or a setting does not fit the input's shape.

    Source: BVLC/caffe@9b89154 python/caffe/io.py L99-L274.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]):
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise ReproductionError(f"{in_!r} is not an input of the net", want=f"one of {list(self.inputs)}")
        return tuple(self.inputs[in_])

    def preprocess(self, in_: str, data: Array) -> Float32:
        """Return an image as the net's input ``in_`` needs it, by the steps that are set for this input.

        Args:
            in_: The name of the input.
            data: An image (H, W, K) of any size; it is not modified.

        Returns:
            The image, float32 and resized to the input's size; (K, H, W) if the transpose is (2, 0, 1).
        """
        size = self._shape(in_)[2:]
        # Upstream bug, fixed: Caffe's Transformer modifies the caller's image in place if it needs no resizing (io.py
        # L153-L162). Here the image is copied first.
        picture = np.array(data, np.float32)
        if picture.shape[:2] != size:
            picture = resize_image(picture, size)
        if in_ in self.transpose:
            picture = picture.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            picture = picture[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            picture *= self.raw_scale[in_]
        if in_ in self.mean:
            picture -= self.mean[in_]
        if in_ in self.input_scale:
            picture *= self.input_scale[in_]
        return picture

    def deprocess(self, in_: str, data: Array) -> Array:
        """Return the image of a preprocessed input, by undoing the steps of ``preprocess`` except resizing.

        Args:
            in_: The name of the input.
            data: The preprocessed image; axes of length 1, such as that of the batch, are removed.
        """
        self._shape(in_)
        picture = np.array(data).squeeze()
        if in_ in self.input_scale:
            picture /= self.input_scale[in_]
        if in_ in self.mean:
            picture += self.mean[in_]
        if in_ in self.raw_scale:
            picture /= self.raw_scale[in_]
        if in_ in self.channel_swap:
            picture = picture[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            picture = picture.transpose(np.argsort(self.transpose[in_]))
        return picture

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the image's axes: (2, 0, 1) transposes (H, W, K) to (K, H, W)."""
        self.transpose[in_] = _check_order(in_, "axes", order, len(self._shape(in_)) - 1)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the channels, the first axis after transposing: (2, 1, 0) converts RGB to BGR."""
        self.channel_swap[in_] = _check_order(in_, "channels", order, self._shape(in_)[1])

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor that is applied before subtracting the mean: 255 scales values from [0, 1] to [0, 255]."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Set the mean that ``preprocess`` subtracts.

        Args:
            in_: The name of the input.
            mean: One value for each channel (K,), or an image (H, W) or (K, H, W), which is resized to the input.
        """
        channels, *size = self._shape(in_)[1:]
        if mean.ndim == 1:
            if mean.shape[0] != channels:
                raise ReproductionError(f"the mean does not fit {in_!r}", got=mean.shape, want=f"({channels},)")
            self.mean[in_] = mean[:, np.newaxis, np.newaxis]
            return
        if mean.ndim not in (2, 3):
            raise ReproductionError("a mean has the wrong number of axes", got=mean.shape, want="1 to 3 axes")
        planes = mean.reshape((1, *mean.shape)[-3:])
        if planes.shape != (channels, *size):
            planes = resize_image(planes.transpose(1, 2, 0), size).transpose(2, 0, 1)
        self.mean[in_] = planes

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor that is applied last, after subtracting the mean."""
        self._shape(in_)
        self.input_scale[in_] = scale


def _check_order(in_: str, what: str, order: Sequence[int], count: int) -> Sequence[int]:
    if len(order) != count:
        raise ReproductionError(f"the order of {what} does not fit {in_!r}", got=tuple(order), want=f"{count} {what}")
    return order


def load_image(filename: StrPath, color: bool = True) -> Float32:
    """Load an image of any format that Pillow reads.

    Args:
        filename: The file.
        color: Whether to return RGB rather than greyscale.

    Returns:
        RGB (H, W, 3) or greyscale (H, W, 1), float32 in [0, 1].

    Raises:
        OSError: If the file does not exist or is not an image.
    """
    from reproduction.caffe.formats import image_files  # imported late: most programs load no images

    try:
        with image_files.open_image(filename) as image:
            mode = image.mode
            if mode == "P":
                next(image_files.split_rows(image))  # decodes the image, and with it the palette
                colours = np.reshape(image.getpalette() or [0, 0, 0], (-1, 3))
                mode = "L" if np.ptp(colours, axis=1).max() == 0 else "RGB"
            elif mode not in ("1", "L", "RGB", "F") and not mode.startswith("I"):
                mode = "L" if mode == "LA" else "RGB"
            pixels = image_files.decode(
                image, lambda part: np.asarray(part if part.mode == mode else part.convert(mode))
            )
    except DataError as error:
        raise OSError(str(error)) from None
    del image  # frees its pixels
    loaded = np.empty((*pixels.shape[:2], 3 if color else 1), np.float32)
    rows = max(_PIXELS_AT_A_TIME // pixels.shape[1], 1)
    for top in range(0, len(pixels), rows):
        loaded[top : top + rows] = _scale_to_unit(pixels[top : top + rows], color)
    return loaded


def _scale_to_unit(pixels: Array, color: bool) -> Array:
    """Scale pixels (H, W) or (H, W, 3) to [0, 1].

    Returns:
        (H, W, 3) if the pixels are RGB and ``color`` is true, else greyscale (H, W, 1).
    """
    if pixels.dtype == np.int32:  # some versions of Pillow store 16-bit images in 32 bits
        pixels = pixels.astype(np.uint16)
    greatest = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    scaled = pixels / greatest
    if scaled.ndim == 3:
        if color:
            return scaled
        scaled = scaled @ _GREY
    return scaled[..., np.newaxis]


def resize_image(im: Array, new_dims: Sequence[int] | Array, interp_order: int = 1) -> Float32:
    """Resize an image by spline interpolation.

    Args:
        im: An image (H, W, K). One with 1 or 3 channels is extended beyond its edges by its smallest value.
        new_dims: The new height and width.
        interp_order: The order of the splines: 0 for the nearest pixel, 1 for linear, 3 for cubic interpolation.

    Returns:
        (height, width, K), float32.

    Source: BVLC/caffe@9b89154 python/caffe/io.py L306-L339; scikit-image's ``transform.resize(..., mode="constant",
    anti_aliasing=False)``.
    """
    from scipy import ndimage

    height, width = (int(size) for size in new_dims)
    factors = (height / im.shape[0], width / im.shape[1], 1)
    if im.shape[-1] not in (1, 3):
        return ndimage.zoom(im, factors, order=interp_order).astype(np.float32)  # type: ignore[no-any-return]
    low, high = im.min(), im.max()
    if high == low:
        return np.full((height, width, im.shape[-1]), low, np.float32)
    even = ((im - low) / (high - low)).astype(np.float64)
    resized = ndimage.zoom(even, factors, order=interp_order, mode="grid-constant", grid_mode=True)
    return (resized.clip(0, 1) * (high - low) + low).astype(np.float32)  # type: ignore[no-any-return]


def oversample(images: Sequence[Array], crop_dims: Sequence[int] | Array) -> Float32:
    """Crop the four corners and the centre of images, and mirror each crop horizontally.

    Args:
        images: N images (H, W, K) of the same size.
        crop_dims: The height and width of the crops.

    Returns:
        (10 N, height, width, K), float32: for each image, five crops and then their mirror images.
    """
    (rows, columns), (height, width) = np.shape(images[0])[:2], (int(size) for size in crop_dims)
    corners = [(y, x) for y in (0, rows - height) for x in (0, columns - width)]
    places = [*corners, (int(rows / 2 - height / 2), int(columns / 2 - width / 2))]
    crops = []
    for image in images:
        five = [image[y : y + height, x : x + width] for y, x in places]
        crops += [*five, *(crop[:, ::-1] for crop in five)]
    return np.array(crops, np.float32)

"""``blobFromImage`` and what it needs: OpenCV's bilinear resizing, which equals OpenCV's to the last bit on bytes.

Source: opencv/opencv@4.x modules/dnn/src/dnn_utils.cpp (blobFromImages), modules/imgproc/src/resize.cpp (resizeGeneric,
HResizeLinear, VResizeLinear, FixedPtCast).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from reproduction.caffe.errors import DataError
from reproduction.caffe.typing import Array, Float32, Integer

__all__ = ["blobFromImage", "blobFromImages", "imagesFromBlob"]

CV_8U, CV_32F = 0, 5
_COEFFICIENT_BITS = 11


def blobFromImage(
    image: Array,
    scalefactor: float = 1.0,
    size: Sequence[int] = (0, 0),
    mean: float | Sequence[float] = (0.0, 0.0, 0.0),
    swapRB: bool = False,
    crop: bool = False,
    ddepth: int = CV_32F,
) -> Array:
    """Return an image as a blob (1, C, H, W): resized, minus ``mean``, times ``scalefactor``, as ``cv2.dnn`` does.

    Args:
        image: (H, W) or (H, W, C) of any numeric dtype, with 1, 3 or 4 channels; channels are BGR as read by OpenCV.
        scalefactor: A factor by which values are multiplied after the mean is subtracted.
        size: (width, height) of the blob; (0, 0) for the size of the image.
        mean: Values to subtract from each channel; a single number is that of the first channel, as in OpenCV. In the
            order of the blob, which is R, G, B if ``swapRB`` is set and the image is BGR.
        swapRB: Whether to exchange the first and the third channel.
        crop: Whether to keep the aspect ratio and cut out the centre, rather than to distort the image.
        ddepth: ``CV_32F`` for float32; ``CV_8U`` for bytes, without mean and scale.

    Raises:
        DataError: If the image or an argument does not fit.
    """
    return blobFromImages([image], scalefactor, size, mean, swapRB, crop, ddepth)


def blobFromImages(
    images: Iterable[Array],
    scalefactor: float = 1.0,
    size: Sequence[int] = (0, 0),
    mean: float | Sequence[float] = (0.0, 0.0, 0.0),
    swapRB: bool = False,
    crop: bool = False,
    ddepth: int = CV_32F,
) -> Array:
    """Return images as one blob (N, C, H, W); see ``blobFromImage``.

    Without ``size``, all images get the size of the first. They must have the same number of channels.
    """
    arrays = [_check_image(image) for image in images]
    if not arrays:
        raise DataError("there are no images", path="blobFromImages")
    if ddepth not in (CV_8U, CV_32F):
        raise DataError(
            "no such depth", path="blobFromImages", got=ddepth, want=f"{CV_32F} (float32) or {CV_8U} (uint8)"
        )
    width, height = (int(each) for each in size) if any(size) else arrays[0].shape[1::-1]
    fitted = [_fit(image, width, height, crop) for image in arrays]
    channels = {image.shape[2] for image in fitted}
    if len(channels) > 1:
        raise DataError("images of one blob have one number of channels", path="blobFromImages", got=sorted(channels))
    means = _scalar(mean)
    blob = np.stack(fitted).transpose(0, 3, 1, 2)
    if swapRB and blob.shape[1] > 2:
        blob = blob[:, [2, 1, 0, *range(3, blob.shape[1])]]
    if ddepth == CV_8U:
        if scalefactor != 1 or means.any() or blob.dtype != np.uint8:
            want = "images of uint8, no mean and a scalefactor of 1"
            raise DataError("a blob of bytes is not scaled", path="blobFromImages", want=want)
        return np.ascontiguousarray(blob)
    values = np.ascontiguousarray(blob, np.float32)
    return (values - means[: values.shape[1]].astype(np.float32).reshape(-1, 1, 1)) * np.float32(scalefactor)


def imagesFromBlob(blob: Array) -> list[Float32]:
    """Return the images of a blob (N, C, H, W) as arrays (H, W, C) of float32, or (H, W) for a single channel."""
    if blob.ndim != 4:
        raise DataError("not a blob of images", path="imagesFromBlob", got=blob.shape, want="four axes (N, C, H, W)")
    images = np.ascontiguousarray(blob.transpose(0, 2, 3, 1), np.float32)
    return [image[..., 0] if image.shape[2] == 1 else image for image in images]


def resize(image: Array, width: int, height: int, step: float | None = None) -> Array:
    """Resize an image bilinearly, as ``cv2.resize`` does by default.

    On bytes, the result equals OpenCV's: weights have 11 bits, and a reduction to exactly a half averages 2 x 2 pixels.
    Other dtypes are computed in float32 and equal it up to rounding.

    Args:
        image: (H, W, C).
        width: The width of the result, in pixels.
        height: The height of the result, in pixels.
        step: The distance of two pixels of the result, in pixels of the image; None for the ratio of the sizes.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (2 * height, 2 * width) and step in (None, 2):
        return _halve(image)
    left, right, across = _taps(width, columns, columns / width if step is None else step)
    across[left == right] = 0  # OpenCV does so for columns, but not for rows, whose rounding differs by it
    above, below, down = _taps(height, rows, rows / height if step is None else step)
    across, down = across[:, None], down[:, None, None]
    if image.dtype == np.uint8:
        values = image.astype(np.int32)
        wide = values[:, left] * _fixed(1 - across) + values[:, right] * _fixed(across)
        total = ((_fixed(1 - down) * (wide[above] >> 4)) >> 16) + ((_fixed(down) * (wide[below] >> 4)) >> 16)
        return np.asarray((total + 2) >> 2).astype(np.uint8)
    smooth = _blend(image[:, left].astype(np.float32), image[:, right].astype(np.float32), across)
    return _blend(smooth[above], smooth[below], down).astype(image.dtype)


def _taps(count: int, source: int, step: float) -> tuple[Array, Array, Float32]:
    """Return the pixels on both sides of each pixel of the result along one axis, and the weight of the second."""
    at = ((np.arange(count) + 0.5) * step - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    return first.clip(0, source - 1), (first + 1).clip(0, source - 1), at - first.astype(np.float32)


def _fixed(weight: Float32) -> Integer:
    """Return weights as OpenCV's integers of 11 bits."""
    return np.asarray(np.rint(weight * np.float32(1 << _COEFFICIENT_BITS))).astype(np.int32)


def _blend(first: Float32, second: Float32, weight: Float32) -> Float32:
    return first * (1 - weight) + second * weight


def _halve(image: Array) -> Array:
    """Average 2 x 2 pixels, which OpenCV does instead of bilinear resizing to a half."""
    quads = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, image.shape[2])
    if image.dtype == np.uint8:
        return np.asarray((quads.astype(np.int32).sum((1, 3)) + 2) >> 2).astype(np.uint8)
    return np.asarray(quads.astype(np.float32).mean((1, 3))).astype(image.dtype)


def _check_image(image: Array) -> Array:
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size or array.dtype.kind not in "uif":
        want = "(H, W) or (H, W, C) with 1, 3 or 4 channels of numbers"
        raise DataError("not an image", path="blobFromImage", got=f"{array.shape} of {array.dtype}", want=want)
    return array


def _fit(image: Array, width: int, height: int, crop: bool) -> Array:
    """Resize an image to the size of the blob; with ``crop``, the smaller ratio decides and the centre is kept."""
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if not crop:
        return resize(image, width, height)
    factor = float(max(np.float32(width) / np.float32(columns), np.float32(height) / np.float32(rows)))
    wide, high = round(columns * factor), round(rows * factor)
    bigger = resize(image, wide, high, 1 / factor)
    left, top = math.trunc(0.5 * (wide - width)), math.trunc(0.5 * (high - height))
    return bigger[top : top + height, left : left + width]


def _scalar(mean: float | Sequence[float]) -> Array:
    """Return four values, as OpenCV's Scalar: those given, and zeros."""
    values = np.atleast_1d(np.asarray(mean, np.float64)).ravel()
    if values.size > 4:
        raise DataError("mean has too many values", path="blobFromImage", got=values.size, want="at most 4")
    return np.concatenate([values, np.zeros(4 - values.size)])

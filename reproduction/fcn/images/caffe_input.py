"""Reading of the published data sets' images, and the preprocessing of the published data layers.

``images.decode`` accepts any image; this module is strict. An image in another mode than the data set was published in
would train and score a different task without any error, so it raises one here.
"""

from __future__ import annotations

from collections.abc import Container
from typing import BinaryIO

import numpy as np

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import Array, Float32, Int16, UInt8

#: The weights of red, green and blue in the brightness, in 1/65536, as Pillow and OpenCV round them.
GREY_WEIGHTS = (19595, 38470, 7471)

_DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I", "L")


def read_rgb(path: StrPath) -> UInt8:
    """Read an RGB image of a published data set; an image of another mode raises an error.

    Args:
        path: Path of the image file.

    Returns:
        (H, W, 3) uint8, in RGB order.

    Raises:
        DataError: If the file is missing or broken, or its mode is not RGB.
    """
    return _pixels(path, ("RGB",), "RGB", "The published images are: extract them again.")


def read_depth(path: StrPath | BinaryIO) -> Array:
    """Read a depth map of a published data set: one integer for each pixel.

    Args:
        path: Path of the image file, or the open file.

    Returns:
        (H, W), in the file's own integer type: 16-bit millimetres in NYUDv2.

    Raises:
        DataError: If the file is missing or broken, or is not an image of one integer channel.
    """
    return _pixels(path, _DEPTH_MODES, "16-bit grey", "The published depths are: extract them again.")


def _pixels(path: StrPath | BinaryIO, modes: Container[str], want: str, remedy: str) -> Array:
    with image_files.open_image(path) as image:
        if image.mode not in modes:
            raise DataError("the image has another mode", got=image.mode, want=want, remedy=remedy)
        return image_files.decode(image)


def subtract_mean(pixels: Array, mean: Array, *, flip: bool) -> Float32:
    """Subtract the mean from an image and move its channels to the front, as every published data layer does.

    The published code subtracts in place from a float32 array. With a float64 mean, NumPy computes the difference in
    double precision and rounds it once; with a float32 mean it computes in single precision. The dtype of the mean
    therefore affects the result.

    Args:
        pixels: (H, W, 3), such as uint8.
        mean: (3,) float32 or float64, in the channel order of the result.
        flip: If True, reverse the channels (RGB to BGR).

    Returns:
        (3, H, W) float32.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L90-103.
    """
    planes = pixels[:, :, ::-1] if flip else pixels
    values = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):
        np.subtract(planes[:, :, channel], mean[channel], out=values[channel], casting="same_kind")
    return values


def to_grey(rgb: UInt8) -> UInt8:
    """Return the brightness of each pixel, (H, W) uint8, as Pillow and OpenCV compute it.

    Args:
        rgb: (H, W, 3) uint8.
    """
    return ((rgb.astype(np.uint32) @ np.array(GREY_WEIGHTS, np.uint32) + 0x8000) >> 16).astype(np.uint8)


def subtract_grey_mean(rgb: UInt8, mean: Array) -> Float32:
    """Return the brightness of each pixel minus its mean, (1, H, W) float32.

    Args:
        rgb: (H, W, 3) uint8.
        mean: (1,) float32 or float64, in whose precision the difference is computed.
    """
    values: Float32 = (to_grey(rgb) - mean).astype(np.float32)[None]
    return values


def check_labels(values: Array, high: int, *, low: int = 0, void: int | None = None) -> Int16:
    """Check that a label map contains only valid class numbers, and return it as int16.

    Args:
        values: (H, W), of any real dtype.
        high: The largest valid label.
        low: The smallest valid label.
        void: One more value that is valid, or None.

    Returns:
        (H, W) int16.

    Raises:
        DataError: If a value is out of range or not an integer. The error lists up to five such values.
    """
    allowed = (values >= low) & (values <= high)
    if void is not None:
        allowed |= values == void
    if values.dtype.kind == "f":
        allowed &= values == np.floor(values)
    if not allowed.all():
        wrong = values[~allowed]
        found = [f"{value:g}" for value in np.unique(wrong)[:5]]
        more = "..." if len(np.unique(wrong)) > 5 else ""
        raise DataError(
            "labels out of range",
            got=f"{', '.join(found)}{more} in {wrong.size} pixels",
            want=f"{low} to {high}" + (f" or {void} for void" if void is not None else ""),
        )
    return values.astype(np.int16)

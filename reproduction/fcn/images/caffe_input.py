"""The data sets' pictures -> arrays, as the published layers make them.

Strict where ``images`` is lenient: a picture in another mode than the data set publishes would not fail but train and
score another task, so it is an error here.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

_DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I", "L")


def rgb(path: StrPath) -> UInt8:
    """Read a colour picture, (H, W, 3) uint8, R G B.

    Raises:
        DataError: the file is missing or broken, or not in RGB.
    """
    return _pixels(path, ("RGB",), "RGB", "The published images are: extract them again.")


def depth(path: StrPath) -> Array:
    """Read a depth picture, (H, W), as it is stored: 16-bit millimetres in NYUDv2.

    Raises:
        DataError: the file is missing or broken, or has several channels.
    """
    return _pixels(path, _DEPTH_MODES, "16-bit grey", "The published depths are: extract them again.")


def _pixels(path: StrPath, modes: Container[str], want: str, remedy: str) -> Array:
    with image_files.open_image(path) as image:
        if image.mode not in modes:
            raise DataError("the picture is in another mode", got=image.mode, want=want, remedy=remedy)
        return image_files.decode(image)


def caffe_input(pixels: Array, mean: Array, *, flip: bool) -> Float32:
    """Subtract the mean and put channels first, as every published data layer does.

    The published code subtracts in place from float32: a float64 mean makes the difference in double precision and
    rounds it once, a float32 mean makes it in single; so the mean's type is part of the result.

    Args:
        pixels: (H, W, 3).
        mean: (3,), in the order of the result's channels, float32 or float64.
        flip: R G B to B G R.

    Returns:
        (3, H, W) float32.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L90-103.
    """
    planes = pixels[:, :, ::-1] if flip else pixels
    values = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel in range(3):
        np.subtract(planes[:, :, channel], mean[channel], out=values[channel], casting="same_kind")
    return values


def class_numbers(values: Array, high: int, *, low: int = 0, void: int | None = None) -> npt.NDArray[np.int16]:
    """Check that a label map holds class numbers.

    Args:
        values: (H, W), any real type.
        high: greatest class number.
        low: smallest.
        void: one more value that may be there.

    Returns:
        (H, W) int16.

    Raises:
        DataError: a label is out of range or no whole number; says which.
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

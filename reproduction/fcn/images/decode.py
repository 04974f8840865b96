"""Reading of any image file as an RGB array, as a viewer displays it.

This module is for users' images. The images of the published data sets are read by ``images.caffe_input``, which
converts nothing.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import UInt8

_WHITE = (255, 255, 255, 255)


def read_rgb(path: StrPath) -> UInt8:
    """Read an image as a viewer displays it.

    Grey images get three equal channels, 16-bit images are scaled to 8 bits, transparent images are composited on
    white, CMYK is converted without a colour profile, and the EXIF orientation is applied. Of an animation or a
    multi-page file, the first frame is read.

    Args:
        path: Path of a file in one of ``image_files.FORMATS``.

    Returns:
        (H, W, 3) uint8, in RGB order.

    Raises:
        DataError: If the file is missing, is not a regular file, has another format, is truncated, or has more pixels
            than ``image_files.set_max_pixels`` allows; or if its pixels have no known range (floats, 32-bit integers).
    """
    with image_files.open_image(path) as image:
        return from_pil(image)


def from_pil(image: Image.Image) -> UInt8:
    """Convert an open Pillow image to an RGB array, as a viewer displays it; see ``read_rgb``.

    Args:
        image: The Pillow image.

    Returns:
        (H, W, 3) uint8, in RGB order.

    Raises:
        DataError: If the image has no pixels, cannot be decoded, or has pixels without a known range.
    """
    if 0 in image.size:
        raise DataError("the image has no pixels", got=f"{image.width} x {image.height}")
    rgb = image_files.decode(image, _rgb)
    return image_files.turn_upright(rgb, image_files.orientation(image))


def _rgb(image: Image.Image) -> UInt8:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return np.asarray(image.convert("RGB"))


def fit_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size that an image has after ``shrink``, with its longer side at most ``side`` pixels.

    Args:
        size: (height, width) of the image, in pixels.
        side: The largest longer side, in pixels; 0 for no limit.

    Returns:
        (height, width), each at least 1; ``size`` if the image is small enough.
    """
    longer = max(size)
    if not side or longer <= side:
        return size
    height, width = (max(1, round(length * side / longer)) for length in size)
    return height, width


def shrink(pixels: UInt8, side: int, *, smooth: bool = True) -> UInt8:
    """Shrink an image, keeping its proportions, so that its longer side is at most ``side`` pixels.

    An image that is small enough is returned unchanged.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
        side: The largest longer side, in pixels; 0 for no limit.
        smooth: If True, interpolate (bicubic). If False, take the nearest pixel, as labels require: the mean of two
            class numbers is a third class.

    Returns:
        (H', W') or (H', W', 3) uint8, of the size that ``fit_size`` returns.
    """
    height, width = fit_size((pixels.shape[0], pixels.shape[1]), side)
    if (height, width) == pixels.shape[:2]:
        return pixels
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize((width, height), how))


def _eight_bits(image: Image.Image) -> UInt8:
    pixels = np.asarray(image)
    if image.mode == "F" or (image.mode == "I" and (pixels.min() < 0 or pixels.max() > 0xFFFF)):
        raise DataError(
            "the pixels have no known range",
            got="floats" if image.mode == "F" else "32-bit integers",
            want="8 or 16 bits",
            remedy="Save it as 8-bit PNG.",
        )
    # Scale 0xFFFF to 255, rounded to nearest.
    return cast(UInt8, ((pixels.astype(np.uint32) * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))

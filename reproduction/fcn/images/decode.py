"""Any picture that people have -> the RGB array that a net's preprocessing starts from.

The data sets' own images are read as the published layers read them (``datasets``); this module is for the
pictures of everybody else.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files

UInt8 = npt.NDArray[np.uint8]

_WHITE = (255, 255, 255, 255)


def read_rgb(path: StrPath) -> UInt8:
    """Read a picture as a viewer would show it.

    Grey becomes three equal channels, 16 bits become 8 over the full range, transparency is laid on white, CMYK is
    converted without a colour profile, EXIF orientation is applied, and of an animation or a book of pages the first
    is taken.

    Args:
        path: a file in one of ``image_files.FORMATS``.

    Returns:
        (H, W, 3) uint8, R G B.

    Raises:
        DataError: the file is missing, not a regular file, in another format, truncated, has more pixels than
            ``image_files.set_max_pixels`` allows, or pixels without a known range (floats, 32-bit integers).
    """
    with image_files.open_image(path) as image:
        return from_pil(image)


def from_pil(image: Image.Image) -> UInt8:
    """Convert an open image as ``read_rgb`` does.

    Returns:
        (H, W, 3) uint8, R G B.

    Raises:
        DataError: the pixels cannot be decoded, or have no known range.
    """
    if 0 in image.size:
        raise DataError("the image has no pixels", got=f"{image.width} x {image.height}")
    rgb = image_files.decode(image, _rgb)
    return image_files.upright(rgb, image_files.orientation(image))


def _rgb(image: Image.Image) -> UInt8:
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return np.asarray(image.convert("RGB"))


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Give height and width of a picture whose longer side is at most ``side`` pixels; 0 leaves any as it is."""
    longer = max(size)
    if not side or longer <= side:
        return size
    height, width = (max(1, round(length * side / longer)) for length in size)
    return height, width


def shrink(pixels: UInt8, side: int, *, smooth: bool = True) -> UInt8:
    """Shrink a picture whose longer side is above ``side``.

    Args:
        pixels: (H, W) or (H, W, 3).
        side: the most pixels of its longer side; 0 leaves it as it is.
        smooth: whether pixels are averaged; labels never are, since the mean of two classes is a third.

    Returns:
        The same, smaller, as ``fit`` says.
    """
    height, width = fit((pixels.shape[0], pixels.shape[1]), side)
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
    return cast(UInt8, ((pixels.astype(np.uint32) * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))

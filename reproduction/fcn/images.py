"""Any picture that people have -> the RGB array that a net's preprocessing starts from.

The data sets' own images are read as the published layers read them (``datasets``); this module is for the
pictures of everybody else.
"""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from reproduction.caffe.errors import DataError, StrPath

UInt8 = npt.NDArray[np.uint8]

# The EXIF orientation tag and what brings each of its values upright (CIPA DC-008, tag 0x0112).
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255, 255)

# Warning filters belong to the whole process: only one thread at a time may change and restore them.
_filters = threading.Lock()


def read_rgb(path: StrPath) -> UInt8:
    """Read a picture as a viewer would show it.

    Grey becomes three equal channels, 16 bits become 8 over the full range, transparency is laid on white, CMYK is
    converted without a colour profile, EXIF orientation is applied, and of an animation or a book of pages the first
    is taken.

    Args:
        path: a file in any format that Pillow reads.

    Returns:
        (H, W, 3) uint8, R G B.

    Raises:
        DataError: the file is missing, unreadable, truncated, larger than ``PIL.Image.MAX_IMAGE_PIXELS``, or has
            pixels without a known range (floats, 32-bit integers).
    """
    try:
        with open_image(path) as image:
            return from_pil(image)
    except DataError as error:
        raise error.at(os.fspath(path)) from None


def from_pil(image: Image.Image) -> UInt8:
    """Convert an open image as ``read_rgb`` does.

    Returns:
        (H, W, 3) uint8, R G B.

    Raises:
        DataError: the pixels cannot be decoded, or have no known range.
    """
    try:
        image.load()
        image = _turn_upright(image)
        if image.mode.startswith("I") or image.mode == "F":
            image = Image.fromarray(_eight_bits(image))
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
        rgb = np.array(image.convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to, down to IndexError
        raise DataError(f"the image cannot be decoded ({_first_line(error)})") from None
    if rgb.size == 0:
        raise DataError("the image has no pixels", got=f"{image.width} x {image.height}")
    return rgb


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


def open_image(path: StrPath) -> Image.Image:
    """Open an image file without decoding its pixels yet.

    Returns:
        The image; the caller closes it, best by ``with``.

    Raises:
        DataError: as ``read_rgb``, but for the pixels, which have not been looked at; the place is left to the caller.
    """
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which we do not use
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(path)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise DataError(
                "the image is too large to open", want=f"at most {Image.MAX_IMAGE_PIXELS} pixels", remedy="Shrink it."
            ) from None
        except UnidentifiedImageError:
            raise DataError("not an image in a known format", got=_beginning(path)) from None
        except OSError as error:
            raise DataError(f"the image cannot be read ({(error.strerror or _first_line(error)).lower()})") from None
        except Exception as error:
            raise DataError(f"the image cannot be decoded ({_first_line(error)})") from None


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # broken metadata does not make the pixels worse
        return image
    turn = _UPRIGHT.get(cast(int, orientation))
    return image if turn is None else image.transpose(turn)


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


def _beginning(path: StrPath) -> str:
    with Path(path).open("rb") as file:
        start = file.read(16)
    return f"a file that begins with {start!r}" if start else "an empty file"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

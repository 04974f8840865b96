"""Image files: which formats are opened, how many pixels they may have, and how they are decoded in bounded memory.

Every image file of the project is opened by ``open_image``, so that the list of formats and the limit hold for
pictures, labels and data sets in the same way.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (TIFF is registered)

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files, image_headers

Array = npt.NDArray[Any]

#: The formats that are opened, by Pillow's names. Pillow knows more of them, among them EPS, which starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: The endings that files of these formats have.
ENDINGS = frozenset(
    (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".jfif", ".png", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
#: The most pixels of an image, unless ``set_max_pixels`` allows more.
MAX_PIXELS = 100_000_000
#: The most pixels of a side. Pillow takes time that grows with the square of a row's bytes.
MAX_SIDE = 1 << 18
#: The most bytes of a file that Pillow decodes in Python, at one to three seconds for each million.
MAX_SLOW_BYTES = 2_000_000

_PART = 1 << 18  # pixels that are converted at a time
_ORIENTATION = 0x0112  # EXIF tag. Source: CIPA DC-008, 4.6.4.

# How an array of pixels is turned upright, for each value of the EXIF orientation but 1.
_UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}

# Warning filters belong to the whole process: only one thread at a time may change and restore them.
_filters = threading.Lock()
_max_pixels = MAX_PIXELS


def set_max_pixels(pixels: int) -> None:
    """Set the most pixels that an image may have, for the whole process; reading takes up to 16 bytes for each.

    Pillow's own limit, ``PIL.Image.MAX_IMAGE_PIXELS``, is raised where it is lower.
    """
    global _max_pixels
    _max_pixels = pixels
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)


@contextlib.contextmanager
def open_image(path: StrPath | BinaryIO) -> Iterator[Image.Image]:
    """Open an image file, whose pixels are not decoded yet.

    Args:
        path: a file in one of ``FORMATS``; or one that is open already, which stays open.

    Yields:
        The image, which is closed at the end.

    Raises:
        DataError: the file is missing, not a regular file, in another format, damaged, or has too many pixels; or the
            caller raised one without a place, which becomes the file.
    """
    try:
        with _regular(path) as file, _identified(file) as image:
            _check_size(*image.size)
            _check_codec(image, file)
            yield image
    except DataError as error:
        place = os.fspath(path) if isinstance(path, str | os.PathLike) else str(getattr(path, "name", "<file>"))
        raise error if error.place else error.at(place) from None


def _regular(path: StrPath | BinaryIO) -> contextlib.AbstractContextManager[BinaryIO]:
    if not isinstance(path, str | os.PathLike):
        return contextlib.nullcontext(path)
    try:
        return files.open_regular(path)
    except OSError as error:
        raise DataError(f"the image cannot be read ({(error.strerror or str(error)).lower()})") from None


def _identified(file: BinaryIO) -> Image.Image:
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which we do not use, and of its own limit
        try:
            image_headers.check(file)
            head = file.read(12)
            file.seek(0)
            return _WebP(file) if head[:4] + head[8:] == b"RIFFWEBP" else Image.open(file, formats=FORMATS)
        except DataError:
            raise
        except Image.DecompressionBombError:
            raise _too_large() from None
        except UnidentifiedImageError:
            want = f"one of {', '.join(FORMATS)}"
            raise DataError("not an image in a known format", got=_beginning(file), want=want) from None
        except Exception as error:  # parsers of headers raise whatever a broken file leads them to
            raise _undecodable(error) from None


class _WebP(WebPImagePlugin.WebPImageFile):
    """A WebP whose decoder, which holds two copies of the pixels, is freed before Pillow makes two more."""

    def load_prepare(self) -> None:
        """Free the decoder, which has returned the one frame that is wanted."""
        vars(self).pop("_decoder", None)
        super().load_prepare()


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DataError("the image has no pixels", got=f"{width} x {height}")
    if width * height > _max_pixels:
        raise _too_large(f"{width} x {height}")
    if max(width, height) > MAX_SIDE:
        got, want = f"{width} x {height}", f"at most {MAX_SIDE:,} pixels a side"
        raise DataError("the image is too wide or too high to open", got=got, want=want)


def _check_codec(image: Image.Image, file: BinaryIO) -> None:
    """Limit the files that Pillow decodes in Python: plain or unusual PPM, and compressed BMP."""
    if any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ())):
        place, size = file.tell(), file.seek(0, os.SEEK_END)
        file.seek(place)
        if size > MAX_SLOW_BYTES:
            got, want = f"{size:,} bytes", f"at most {MAX_SLOW_BYTES:,}"
            raise DataError("this encoding takes too long to decode", got=got, want=want, remedy="Save it as PNG.")


def _too_large(got: str | None = None) -> DataError:
    want = f"at most {_max_pixels:,} pixels"
    return DataError(
        "the image is too large to open", got=got, want=want, remedy="Shrink it, or allow more by --max-pixels."
    )


def decode(image: Image.Image, convert: Callable[[Image.Image], Array] = np.asarray) -> Array:
    """Decode an image into an array, a part at a time: large images need no second copy in another mode.

    Args:
        image: the image.
        convert: makes an array (h, w) or (h, w, C) of a part of the image, the same whatever other parts hold.

    Returns:
        (H, W) or (H, W, C), as ``convert`` makes it, writable; EXIF orientation is not applied.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    whole: Array | None = None
    for rows, part in parts(image):
        pixels = _converted(part, convert)
        if part.size == image.size:
            return pixels if pixels.flags.writeable else pixels.copy()
        if whole is None:
            whole = np.empty((image.height, image.width, *pixels.shape[2:]), pixels.dtype)
        whole[rows] = pixels
    assert whole is not None
    return whole


def parts(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Decode an image and cut it into parts of whole rows, of up to 262,144 pixels; most images are one part.

    Yields:
        The rows of a part, and the part.

    Raises:
        DataError: the pixels cannot be decoded.
    """
    try:
        image.load()
    except Exception as error:  # decoders raise whatever a broken file leads them to, down to IndexError
        raise _undecodable(error) from None
    width, height = image.size
    if width * height <= _PART:
        yield slice(0, height), image
        return
    rows = max(_PART // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def _converted(part: Image.Image, convert: Callable[[Image.Image], Array]) -> Array:
    try:
        return convert(part)
    except DataError:
        raise
    except Exception as error:  # as of a palette that is too short
        raise _undecodable(error) from None


def _undecodable(error: Exception) -> DataError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return DataError(f"the image cannot be decoded ({reason})")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, which is upright, where there is none or the metadata are broken."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # broken metadata does not make the pixels worse
        return 1
    return cast(int, found) if found in _UPRIGHT else 1


def upright(pixels: Array, orientation: int) -> Array:
    """Turn an array (H, W) or (H, W, C) upright.

    Args:
        pixels: the pixels as they are stored.
        orientation: the EXIF orientation, 1 to 8.
    """
    return pixels if orientation == 1 else np.ascontiguousarray(_UPRIGHT[orientation](pixels))


def _beginning(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(16)
    return f"a file that begins with {start!r}" if start else "an empty file"

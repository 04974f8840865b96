"""Image files: the supported formats, the limit of pixels, and decoding in bounded memory.

Every image file of the project is opened by ``open_image``, so the same formats and limits apply to photos, label
maps and data sets.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (TIFF is registered)

from reproduction.caffe.errors import DataError, StrPath, cannot_read
from reproduction.caffe.formats import files, image_headers
from reproduction.caffe.typing import Array

#: The supported formats, by Pillow's names. Pillow supports more, such as EPS, for which it starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: The endings of files in these formats.
ENDINGS = frozenset(
    (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".jfif", ".png", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
#: The default limit of the pixels of an image; ``set_max_pixels`` changes it.
MAX_PIXELS = 100_000_000
#: The limit of width and height. Pillow takes time that grows with the square of a row's bytes.
MAX_SIDE = 1 << 18
#: The limit of a file, in bytes, if Pillow decodes its format in Python, at one to three seconds for each million.
MAX_SLOW_BYTES = 2_000_000

_PIXELS_AT_A_TIME = 1 << 18  # pixels that are converted at once
_ORIENTATION = 0x0112  # EXIF tag. Source: CIPA DC-008, 4.6.4.

# The functions that turn an array of pixels upright, for each EXIF orientation except 1.
_UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}

# Warning filters are global to the process, so only one thread at a time may change and restore them.
_filters = threading.Lock()
_max_pixels = MAX_PIXELS


def set_max_pixels(pixels: int) -> None:
    """Set the most pixels that an image may have to be opened, for the whole process; see ``MAX_PIXELS``.

    Reading an image takes up to 16 bytes of memory per pixel. If Pillow's limit, ``PIL.Image.MAX_IMAGE_PIXELS``, is
    lower, it is raised.
    """
    global _max_pixels  # noqa: PLW0603 - a limit of the process, as Pillow's own
    _max_pixels = pixels
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, pixels)


@contextlib.contextmanager
def open_image(path: StrPath | BinaryIO) -> Iterator[Image.Image]:
    """Context manager that opens an image file, without decoding its pixels.

    Args:
        path: a file in one of ``FORMATS``; or an open file, which is not closed.

    Yields:
        The image, which is closed at the end of the context.

    Raises:
        DataError: If the file is missing, not a regular file, in another format, damaged, or has too many pixels. A
            DataError without a place that is raised inside the context gets the file as its place.
    """
    try:
        with _open_file(path) as file, _identify(file) as image:
            check_size(*image.size)
            _check_codec(image, file)
            yield image
    except DataError as error:
        place = os.fspath(path) if isinstance(path, str | os.PathLike) else str(getattr(path, "name", "<file>"))
        raise error if error.place else error.at(place) from None


def _open_file(path: StrPath | BinaryIO) -> contextlib.AbstractContextManager[BinaryIO]:
    if not isinstance(path, str | os.PathLike):
        return contextlib.nullcontext(path)
    try:
        return files.open_regular(path)
    except OSError as error:
        raise cannot_read(error, "the image", "") from None


def _identify(file: BinaryIO) -> Image.Image:
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about unusual metadata, which is not used, and about its limit
        try:
            image_headers.check_header(file)
            head = file.read(12)
            file.seek(0)
            return _WebP(file) if head[:4] + head[8:] == b"RIFFWEBP" else Image.open(file, formats=FORMATS)
        except DataError:
            raise
        except Image.DecompressionBombError:
            raise _too_large_error() from None
        except UnidentifiedImageError:
            want = f"one of {', '.join(FORMATS)}"
            raise DataError("not an image in a known format", got=_describe_beginning(file), want=want) from None
        except Exception as error:  # Pillow's header parsers may raise any exception for a damaged file
            raise _decoding_error(error) from None


class _WebP(WebPImagePlugin.WebPImageFile):
    """A WebP image whose decoder, with its two copies of the pixels, is freed before Pillow allocates two more."""

    def load_prepare(self) -> None:
        """Free the decoder, which has already returned the first frame; later frames are not used."""
        vars(self).pop("_decoder", None)
        super().load_prepare()


def check_size(width: int, height: int) -> None:
    """Check that an image of a size in pixels may be opened, or allocated, within the limits.

    Raises:
        DataError: If a side is below 1 or above ``MAX_SIDE``, or there are more pixels than ``set_max_pixels`` allows.
    """
    if width < 1 or height < 1:
        raise DataError("the image has no pixels", got=f"{width} x {height}")
    if width * height > _max_pixels:
        raise _too_large_error(f"{width} x {height}")
    if max(width, height) > MAX_SIDE:
        got, want = f"{width} x {height}", f"at most {MAX_SIDE:,} pixels a side"
        raise DataError("the image is too wide or too high to open", got=got, want=want)


def _check_codec(image: Image.Image, file: BinaryIO) -> None:
    """Limit the size of files that Pillow decodes in Python: plain or unusual PPM, and compressed BMP."""
    if any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ())):
        place, size = file.tell(), file.seek(0, os.SEEK_END)
        file.seek(place)
        if size > MAX_SLOW_BYTES:
            got, want = f"{size:,} bytes", f"at most {MAX_SLOW_BYTES:,}"
            raise DataError("this encoding takes too long to decode", got=got, want=want, remedy="Save it as PNG.")


def _too_large_error(got: str | None = None) -> DataError:
    want = f"at most {_max_pixels:,} pixels"
    return DataError(
        "the image is too large to open", got=got, want=want, remedy="Shrink it, or allow more by --max-pixels."
    )


def decode(image: Image.Image, convert: Callable[[Image.Image], Array] = np.asarray) -> Array:
    """Decode an image into an array, in parts of at most 262,144 pixels if possible, to save memory.

    Args:
        image: the image.
        convert: a function that converts an image to an array ``(h, w)`` or ``(h, w, C)``. It is called with each part,
            so the result for a pixel must not depend on other pixels.

    Returns:
        A writable array ``(H, W)`` or ``(H, W, C)`` of the dtype that ``convert`` returns. The EXIF orientation is not
        applied; see ``turn_upright``.

    Raises:
        DataError: If the pixels cannot be decoded.
    """
    whole: Array | None = None
    for rows, part in split_rows(image):
        with _decoding():
            pixels = convert(part)
        if part.size == image.size:
            return pixels if pixels.flags.writeable else pixels.copy()
        if whole is None:
            whole = np.empty((image.height, image.width, *pixels.shape[2:]), pixels.dtype)
        whole[rows] = pixels
    assert whole is not None
    return whole


def split_rows(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Decode an image, and split it into parts of whole rows, so that a large image is converted part by part.

    A part has at most 262,144 pixels, or one row; most images are a single part.

    Yields:
        The rows of a part, as a slice; and the part, as an image.

    Raises:
        DataError: If the pixels cannot be decoded.
    """
    with _decoding():
        image.load()
    width, height = image.size
    if width * height <= _PIXELS_AT_A_TIME:
        yield slice(0, height), image
        return
    rows = max(_PIXELS_AT_A_TIME // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Context manager that converts the errors of Pillow, which may raise any exception for a damaged file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # even IndexError; or such as for a palette that is too short
        raise _decoding_error(error) from None


def _decoding_error(error: Exception) -> DataError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return DataError(f"the image cannot be decoded ({reason})")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 (upright) if it has none or its metadata is damaged."""
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata does not affect the pixels
        return 1
    return cast(int, found) if found in _UPRIGHT else 1


def turn_upright(pixels: Array, orientation: int) -> Array:
    """Return an array ``(H, W)`` or ``(H, W, C)`` turned upright; orientations 5 to 8 swap its height and width.

    Args:
        pixels: the pixels in the order of the file.
        orientation: the EXIF orientation, 1 to 8.
    """
    return pixels if orientation == 1 else np.ascontiguousarray(_UPRIGHT[orientation](pixels))


def _describe_beginning(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(16)
    return f"a file that begins with {start!r}" if start else "an empty file"

"""``scipy.misc`` before scipy 1.2: image functions based on Pillow, and functions that moved to ``scipy.special``.

``bytescale`` converts an array to an image: unless it is uint8, it is scaled so that its minimum becomes 0 and its
maximum 255. ``imsave`` writes this image, and ``imresize`` resizes it.

Source: scipy/scipy@v1.1.0 scipy/misc/pilutil.py, compared with scipy 1.1.0 in the tests.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import Array, UInt8

__all__ = [  # noqa: F822 - those of scipy.special are found when they are asked for
    "bytescale", "comb", "factorial", "factorial2", "factorialk", "fromimage", "imfilter", "imread", "imresize",
    "imrotate", "imsave", "logsumexp", "toimage",
]  # fmt: skip

_SPECIAL = ("comb", "factorial", "factorial2", "factorialk", "logsumexp")
_COLOR_MODES = {3: ("RGB", "YCbCr"), 4: ("RGBA", "CMYK")}
_RESAMPLING = {
    **{name: Image.Resampling[name.upper()] for name in ("nearest", "lanczos", "bilinear", "bicubic")},
    "cubic": Image.Resampling.BICUBIC,
}
_FILTERS = {
    name: getattr(ImageFilter, name.upper())
    for name in ("blur", "contour", "detail", "edge_enhance", "edge_enhance_more", "emboss", "find_edges",
                 "sharpen", "smooth", "smooth_more")
}  # fmt: skip


def bytescale(
    data: Array, cmin: float | None = None, cmax: float | None = None, high: int = 255, low: int = 0
) -> UInt8:
    """Scale an array to uint8, so that ``cmin`` becomes ``low`` and ``cmax`` becomes ``high``.

    Values outside of this range are clipped. A uint8 array is returned unchanged.

    Args:
        data: An array of any shape.
        cmin: The value that becomes ``low``; by default the minimum of the data.
        cmax: The value that becomes ``high``; by default the maximum of the data.
        high: The greatest result, at most 255.
        low: The least result, at least 0.

    Raises:
        ValueError: If ``cmax < cmin``, or not ``0 <= low <= high <= 255``.
    """
    if data.dtype == np.uint8:
        return data
    if not 0 <= low <= high <= 255:
        raise ValueError(f"want 0 <= low <= high <= 255; got low {low} and high {high}")
    least = data.min() if cmin is None else cmin
    span = (data.max() if cmax is None else cmax) - least
    if span < 0:
        raise ValueError("cmax must not be less than cmin")
    scaled = (data - least) * (float(high - low) / (span if span != 0 else 1)) + low
    return (scaled.clip(low, high) + 0.5).astype(np.uint8)


def toimage(
    arr: Any,
    high: int = 255,
    low: int = 0,
    cmin: float | None = None,
    cmax: float | None = None,
    pal: Any = None,
    mode: str | None = None,
    channel_axis: int | None = None,
) -> Image.Image:
    """Convert an array to a Pillow image; its values are scaled by ``bytescale``, except in modes F, I and 1.

    Args:
        arr: An array (H, W), or one of three axes, of which one has 3 or 4 channels.
        high: The greatest value after scaling. For mode 1, pixels greater than this are white.
        low: The least value after scaling.
        cmin: The value that becomes ``low``; by default the minimum of the array.
        cmax: The value that becomes ``high``; by default the maximum of the array.
        pal: A palette (n, 3) for an array (H, W), or None.
        mode: Pillow's mode of the image. ``"F"`` does not scale, and ``"I"`` scales to integers of 32 bits. By default
            it is ``"L"``, ``"P"`` with a palette, ``"RGB"`` or ``"RGBA"``.
        channel_axis: The axis of the channels; by default the first axis of size 3, else of size 4.

    Raises:
        ValueError: If the array is complex, or its shape does not fit the mode.
    """
    data = np.asarray(arr)
    if np.iscomplexobj(data):
        raise ValueError("a complex array is not an image")
    if data.ndim == 2:
        return _flat_image(data, high, low, cmin, cmax, pal, mode)
    if data.ndim != 3 or {3, 4}.isdisjoint(data.shape):
        raise ValueError(f"an array of shape {data.shape} is not an image")
    if channel_axis is None:
        channel_axis = data.shape.index(3 if 3 in data.shape else 4)
    channels = data.shape[channel_axis]
    if channels not in _COLOR_MODES:
        raise ValueError(f"axis {channel_axis} does not have 3 or 4 channels; got {channels}")
    mode = mode or _COLOR_MODES[channels][0]
    if mode not in _COLOR_MODES[channels]:
        raise ValueError(f"an array of {channels} channels has no mode {mode!r}")
    pixels = np.moveaxis(bytescale(data, cmin, cmax, high, low), channel_axis, 2)
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


def _flat_image(
    data: Array, high: int, low: int, cmin: float | None, cmax: float | None, pal: Any, mode: str | None
) -> Image.Image:
    size = (data.shape[1], data.shape[0])
    if mode == "F":
        return Image.frombytes(mode, size, data.astype(np.float32).tobytes())
    if mode == "1":
        return Image.fromarray(data > high)
    if mode == "I":
        least = data.min() if cmin is None else cmin
        greatest = data.max() if cmax is None else cmax
        scaled = (data * 1.0 - least) * (high - low) / (greatest - least) + low
        return Image.frombytes(mode, size, scaled.astype(np.uint32).tobytes())
    if mode not in (None, "L", "P"):
        raise ValueError(f"an array of two axes has no mode {mode!r}")
    image = Image.frombytes("L", size, bytescale(data, cmin, cmax, high, low).tobytes())
    if pal is None and mode == "P":
        pal = np.repeat(np.arange(256)[:, np.newaxis], 3, axis=1)
    if pal is not None:
        image.putpalette(np.asarray(pal, np.uint8).tobytes())
    return image


def fromimage(im: Image.Image, flatten: bool = False, mode: str | None = None) -> Array:
    """Return the pixels of a Pillow image as an array.

    Args:
        im: The image.
        flatten: Whether to return greyscale values (H, W), float32.
        mode: Pillow's mode to convert to first. By default a palette image is converted to RGB, or to RGBA if it has
            transparency; other images are not converted.

    Raises:
        TypeError: If ``im`` is not a Pillow image.
    """
    if not isinstance(im, Image.Image):
        raise TypeError("Input is not a PIL image.")
    if mode is None and im.mode == "P":
        mode = "RGBA" if "transparency" in im.info else "RGB"
    if mode is not None and mode != im.mode:
        im = im.convert(mode)
    if flatten:
        im = im.convert("F")
    elif im.mode == "1":
        im = im.convert("L")
    return np.array(im)


def imread(name: Any, flatten: bool = False, mode: str | None = None) -> Array:
    """Load an image from a file and return its pixels as an array.

    Args:
        name: The file.
        flatten: Whether to return greyscale values (H, W), float32.
        mode: Pillow's mode to convert to first. By default a palette image is converted to RGB, or to RGBA if it has
            transparency; other images are not converted.

    Raises:
        OSError: If the file cannot be opened or is not an image.
    """
    try:
        with image_files.open_image(name) as image:
            return image_files.decode(image, lambda part: fromimage(part, flatten, mode))
    except DataError as error:
        raise OSError(str(error)) from None


def imsave(name: Any, arr: Any, format: str | None = None) -> None:
    """Write an array to an image file, with its values scaled by ``bytescale``.

    Args:
        name: The file; its extension selects the format.
        arr: An array (H, W), (H, W, 3) or (H, W, 4).
        format: Pillow's name of a format to use instead, or None.
    """
    toimage(arr, channel_axis=2).save(name, format)


def imresize(arr: Any, size: Any, interp: str = "bilinear", mode: str | None = None) -> Array:
    """Convert an array to an image, resize it, and return its pixels.

    Args:
        arr: An array that ``toimage`` accepts; it is scaled by ``bytescale``.
        size: The new size ``(height, width)``; or an integer, the new size in percent; or a float, the factor.
        interp: ``"nearest"``, ``"lanczos"``, ``"bilinear"``, ``"bicubic"`` or ``"cubic"``.
        mode: Pillow's mode of the image, such as ``"F"`` for floats that are not scaled; by default that of
            ``toimage``.
    """
    image = toimage(arr, mode=mode)
    if isinstance(size, (int, float, np.number)):
        factor = size / 100.0 if isinstance(size, (int, np.integer)) else size
        width, height = (np.array(image.size) * factor).astype(int)
    else:
        height, width = size[0], size[1]
    return fromimage(image.resize((int(width), int(height)), _RESAMPLING[interp]))


def imrotate(arr: Any, angle: float, interp: str = "bilinear") -> Array:
    """Return the pixels of an image rotated counter-clockwise, with the same size.

    Args:
        arr: An array that ``toimage`` accepts; it is scaled by ``bytescale``.
        angle: The angle in degrees.
        interp: ``"nearest"``, ``"lanczos"``, ``"bilinear"``, ``"bicubic"`` or ``"cubic"``.
    """
    return fromimage(toimage(arr).rotate(angle, resample=_RESAMPLING[interp]))


def imfilter(arr: Any, ftype: str) -> Array:
    """Return the pixels of an image after one of Pillow's filters.

    Args:
        arr: An array that ``toimage`` accepts; it is scaled by ``bytescale``.
        ftype: The filter, such as ``"blur"`` or ``"find_edges"``.

    Raises:
        ValueError: If there is no filter of that name.
    """
    if ftype not in _FILTERS:
        raise ValueError(f"unknown filter {ftype!r}; want one of {', '.join(_FILTERS)}")
    return fromimage(toimage(arr).filter(_FILTERS[ftype]))


def __getattr__(name: str) -> Any:
    if name in _SPECIAL:
        return getattr(importlib.import_module("scipy.special"), name)
    raise AttributeError(f"module 'scipy.misc' has no attribute {name!r}")

"""``scipy.misc`` as it was until scipy 1.2: pictures by way of Pillow, and a few functions that moved.

An array becomes a picture by ``bytescale``: one that is not uint8 is stretched, so that its least value is 0 and its
greatest 255. This is what ``imsave`` writes and what ``imresize`` resizes.

Source: scipy/scipy@v1.1.0 scipy/misc/pilutil.py, compared with scipy 1.1.0 in the tests.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import image_files

Array = npt.NDArray[Any]

__all__ = [  # noqa: F822 - those of scipy.special are found when they are asked for
    "bytescale", "comb", "factorial", "factorial2", "factorialk", "fromimage", "imfilter", "imread", "imresize",
    "imrotate", "imsave", "logsumexp", "toimage",
]  # fmt: skip

_SPECIAL = ("comb", "factorial", "factorial2", "factorialk", "logsumexp")
_MODES = {3: ("RGB", "YCbCr"), 4: ("RGBA", "CMYK")}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "cubic": Image.Resampling.BICUBIC,
}
_FILTERS = {
    "blur": ImageFilter.BLUR,
    "contour": ImageFilter.CONTOUR,
    "detail": ImageFilter.DETAIL,
    "edge_enhance": ImageFilter.EDGE_ENHANCE,
    "edge_enhance_more": ImageFilter.EDGE_ENHANCE_MORE,
    "emboss": ImageFilter.EMBOSS,
    "find_edges": ImageFilter.FIND_EDGES,
    "sharpen": ImageFilter.SHARPEN,
    "smooth": ImageFilter.SMOOTH,
    "smooth_more": ImageFilter.SMOOTH_MORE,
}


def bytescale(
    data: Array, cmin: float | None = None, cmax: float | None = None, high: int = 255, low: int = 0
) -> npt.NDArray[np.uint8]:
    """Scale values to bytes: ``cmin`` to ``low`` and ``cmax`` to ``high``. uint8 stays as it is.

    Args:
        data: an array of any shape.
        cmin: the least value; by default that of the data.
        cmax: the greatest value; by default that of the data.
        high: at most 255.
        low: at least 0.

    Raises:
        ValueError: the bounds are the wrong way round or no bytes.
    """
    if data.dtype == np.uint8:
        return data
    if not 0 <= low <= high <= 255:
        raise ValueError(f"low and high must be bytes in this order; got {low} and {high}")
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
    """Make a picture of an array.

    Args:
        arr: (H, W), or three axes, one of them with 3 or 4 channels.
        high: see ``bytescale``; likewise ``low``, ``cmin`` and ``cmax``.
        low: see ``high``.
        cmin: see ``high``.
        cmax: see ``high``.
        pal: (n, 3) colours of a picture (H, W).
        mode: of the picture, as Pillow names it; ``"F"`` is not scaled, and ``"I"`` is not made bytes.
        channel_axis: which axis has the channels; by default the first one of size 3, else of size 4.

    Raises:
        ValueError: the array is complex, or its shape does not fit the mode.
    """
    data = np.asarray(arr)
    if np.iscomplexobj(data):
        raise ValueError("a complex array is no picture")
    if data.ndim == 2:
        return _flat_image(data, high, low, cmin, cmax, pal, mode)
    if data.ndim != 3 or {3, 4}.isdisjoint(data.shape):
        raise ValueError(f"an array of shape {data.shape} is no picture")
    if channel_axis is None:
        channel_axis = data.shape.index(3 if 3 in data.shape else 4)
    channels = data.shape[channel_axis]
    if channels not in _MODES:
        raise ValueError(f"axis {channel_axis} has no 3 or 4 channels; got {channels}")
    mode = mode or _MODES[channels][0]
    if mode not in _MODES[channels]:
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
    """Return the pixels of a picture; a palette becomes its colours.

    Args:
        im: the picture.
        flatten: whether to return grey as float32.
        mode: what to convert it to first, as Pillow names it.

    Raises:
        TypeError: it is no picture.
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
    """Load a picture from a file; see ``fromimage``.

    Raises:
        OSError: it cannot be opened, or is no picture.
    """
    try:
        with image_files.open_image(name) as image:
            return image_files.decode(image, lambda part: fromimage(part, flatten, mode))
    except DataError as error:
        raise OSError(str(error)) from None


def imsave(name: Any, arr: Any, format: str | None = None) -> None:
    """Write an array (H, W), (H, W, 3) or (H, W, 4) to a file, after ``bytescale``."""
    toimage(arr, channel_axis=2).save(name, format)


def imresize(arr: Any, size: Any, interp: str = "bilinear", mode: str | None = None) -> Array:
    """Resize an array as a picture, after ``bytescale``.

    Args:
        arr: as ``toimage``.
        size: (height, width); or an integer, the size in percent; or a float, the factor.
        interp: ``"nearest"``, ``"lanczos"``, ``"bilinear"``, ``"bicubic"`` or ``"cubic"``.
        mode: as ``toimage``.
    """
    image = toimage(arr, mode=mode)
    if isinstance(size, (int, float, np.number)):
        factor = size / 100.0 if isinstance(size, (int, np.integer)) else size
        width, height = (np.array(image.size) * factor).astype(int)
    else:
        height, width = size[0], size[1]
    return fromimage(image.resize((int(width), int(height)), _RESAMPLING[interp]))


def imrotate(arr: Any, angle: float, interp: str = "bilinear") -> Array:
    """Rotate an array as a picture, after ``bytescale``, by degrees against the clock; the size stays."""
    return fromimage(toimage(arr).rotate(angle, resample=_RESAMPLING[interp]))


def imfilter(arr: Any, ftype: str) -> Array:
    """Filter an array as a picture, after ``bytescale``.

    Raises:
        ValueError: there is no filter of that name.
    """
    if ftype not in _FILTERS:
        raise ValueError(f"unknown filter {ftype!r}; want one of {', '.join(_FILTERS)}")
    return fromimage(toimage(arr).filter(_FILTERS[ftype]))


def __getattr__(name: str) -> Any:
    if name in _SPECIAL:
        return getattr(importlib.import_module("scipy.special"), name)
    raise AttributeError(f"module 'scipy.misc' has no attribute {name!r}")

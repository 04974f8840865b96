"""Names that libraries have removed since programs for Caffe were written, and what replaces them today.

``restore_libraries`` applies these tables.

Source: the release notes of numpy 1.20 to 2.3, scipy 1.0 to 1.17, Pillow 3 to 13, scikit-image 0.10 to 0.26,
Matplotlib 2 to 3.11, h5py 3.0, PyYAML 6.0 and Python 3.0 to 3.13.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

import numpy as np


class _Cast:
    """``numpy.cast[kind](values)``."""

    def __getitem__(self, kind: Any) -> Callable[[Any], Any]:
        return lambda values: np.asarray(values).astype(kind)


def _random_integers(low: int, high: int | None = None, size: Any = None) -> Any:
    """Draw integers from ``low`` to ``high``, inclusive; from 1 to ``low`` if ``high`` is None."""
    first, last = (1, low) if high is None else (low, high)
    return np.random.randint(first, last + 1, size)  # noqa: NPY002 - the generator that programs seed


def _scalar_type(value: Any) -> Any:
    try:
        return np.dtype(value).type
    except TypeError:
        return None


#: Module -> removed name -> its value.
VALUES: dict[str, dict[str, Any]] = {
    "numpy": {
        "Inf": np.inf, "Infinity": np.inf, "NINF": -np.inf, "NZERO": -0.0, "NaN": np.nan, "PINF": np.inf, "PZERO": 0.0,
        "infty": np.inf,
        "bool": bool, "complex": complex, "float": float, "int": int, "long": int, "object": object, "str": str,
        "unicode": str,
        "alen": lambda a: len(np.atleast_1d(a)),
        "asfarray": lambda a, dtype=float: np.asarray(a, dtype),
        "asscalar": lambda a: a.item(),
        "cast": _Cast(),
        "find_common_type": lambda arrays, scalars: np.result_type(*arrays, *scalars),
        "in1d": lambda ar1, ar2, *args, **options: np.isin(np.ravel(ar1), ar2, *args, **options),
        "issubclass_": lambda a, b: isinstance(a, type) and issubclass(a, b),
        "issctype": lambda kind: isinstance(kind, type) and issubclass(kind, np.generic),
        "msort": lambda a: np.sort(a, axis=0),
        "obj2sctype": _scalar_type,
        "rank": np.ndim,
        "sctypes": {
            "int": [np.int8, np.int16, np.int32, np.int64],
            "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
            "float": [np.float16, np.float32, np.float64, np.longdouble],
            "complex": [np.complex64, np.complex128, np.clongdouble],
            "others": [bool, object, bytes, str, np.void],
        },
    },
    "numpy.random": {"random_integers": _random_integers},
    "time": {"clock": time.perf_counter},
    "sys": {"setdefaultencoding": lambda name: None},
    "os": {"errno": errno},
}  # fmt: skip

#: Module -> removed name -> the path of its equivalent today.
MOVED: dict[str, dict[str, str]] = {
    "numpy": {
        "alltrue": "numpy.all", "bool8": "numpy.bool_", "bytes0": "numpy.bytes_", "cfloat": "numpy.complex128",
        "clongfloat": "numpy.clongdouble", "complex_": "numpy.complex128", "cumproduct": "numpy.cumprod",
        "fastCopyAndTranspose": "numpy.transpose", "float_": "numpy.float64", "int0": "numpy.intp",
        "longcomplex": "numpy.clongdouble", "longfloat": "numpy.longdouble", "mat": "numpy.asmatrix", "math": "math",
        "safe_eval": "ast.literal_eval", "byte_bounds": "numpy.lib.array_utils.byte_bounds",
        "object0": "numpy.object_", "product": "numpy.prod", "round_": "numpy.round", "row_stack": "numpy.vstack",
        "setmember1d": "numpy.in1d", "singlecomplex": "numpy.complex64", "sometrue": "numpy.any",
        "str0": "numpy.str_", "string_": "numpy.bytes_", "trapz": "numpy.trapezoid", "typeDict": "numpy.sctypeDict",
        "uint0": "numpy.uintp", "unicode_": "numpy.str_", "unique1d": "numpy.unique", "void0": "numpy.void",
    },
    "numpy.lib": {"pad": "numpy.pad"},
    "fractions": {"gcd": "math.gcd"},
    "cgi": {"escape": "html.escape"},
    "PIL.Image": {
        "ANTIALIAS": "PIL.Image.LANCZOS", "CUBIC": "PIL.Image.BICUBIC", "LINEAR": "PIL.Image.BILINEAR",
        "VERSION": "PIL.__version__", "fromstring": "PIL.Image.frombytes",
    },
    "PIL": {"PILLOW_VERSION": "PIL.__version__", "VERSION": "PIL.__version__"},
    "scipy.integrate": {
        "cumtrapz": "scipy.integrate.cumulative_trapezoid", "simps": "scipy.integrate.simpson",
        "trapz": "scipy.integrate.trapezoid",
    },
    "scipy.ndimage": {"imread": "reproduction.pycaffe.run.scipy_misc.imread"},
    "scipy.signal": {"hanning": "scipy.signal.windows.hann"},
    "scipy.stats": {"nanmean": "numpy.nanmean", "nanmedian": "numpy.nanmedian", "nanstd": "numpy.nanstd"},
    "skimage.color": {"grey2rgb": "skimage.color.gray2rgb", "rgb2grey": "skimage.color.rgb2gray"},
    "skimage.feature": {"greycomatrix": "skimage.feature.graycomatrix", "greycoprops": "skimage.feature.graycoprops"},
    "skimage.filters": {
        "gabor_filter": "skimage.filters.gabor", "gaussian_filter": "skimage.filters.gaussian",
        "hprewitt": "skimage.filters.prewitt_h", "hscharr": "skimage.filters.scharr_h",
        "hsobel": "skimage.filters.sobel_h", "threshold_adaptive": "skimage.filters.threshold_local",
        "vprewitt": "skimage.filters.prewitt_v", "vscharr": "skimage.filters.scharr_v",
        "vsobel": "skimage.filters.sobel_v",
    },
    "skimage.measure": {
        "compare_mse": "skimage.metrics.mean_squared_error",
        "compare_nrmse": "skimage.metrics.normalized_root_mse",
        "compare_psnr": "skimage.metrics.peak_signal_noise_ratio",
        "compare_ssim": "skimage.metrics.structural_similarity",
        "structural_similarity": "skimage.metrics.structural_similarity",
    },
    "skimage.morphology": {"watershed": "skimage.segmentation.watershed"},
    "skimage.transform": {"hough": "skimage.transform.hough_line"},
    "skimage.util": {"montage2d": "skimage.util.montage", "pad": "numpy.pad"},
}  # fmt: skip

#: Module -> the module that has its removed names today.
FALLBACKS = {"collections": "collections.abc", "scipy": "numpy", "scipy.signal": "scipy.signal.windows"}

#: Removed module -> the module that replaces it.
MODULES = {
    **{name: f"PIL.{name}" for name in ("Image", "ImageChops", "ImageColor", "ImageDraw", "ImageEnhance", "ImageFile",
                                        "ImageFilter", "ImageFont", "ImageMath", "ImageOps", "ImagePalette",
                                        "ImageStat")},
    "scipy.misc": "reproduction.pycaffe.run.scipy_misc",
    "scipy.misc.pilutil": "reproduction.pycaffe.run.scipy_misc",
    "skimage.filter": "skimage.filters",
    "sklearn.externals.joblib": "joblib",
}  # fmt: skip

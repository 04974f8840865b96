"""Restores, in this process, names that libraries have removed since programs for Caffe were written.

A name is restored only if it is missing and an equivalent still exists. A library that the program imports later is
changed when it is imported.

Source: the release notes of numpy 1.20 to 2.3, scipy 1.0 to 1.17, Pillow 3 to 13, scikit-image 0.10 to 0.26,
Matplotlib 2 to 3.11, h5py 3.0, PyYAML 6.0 and Python 3.0 to 3.13.
"""

from __future__ import annotations

import errno
import importlib
import importlib.abc
import importlib.machinery
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from reproduction.pycaffe.run import restore_libraries, scipy_misc

Change = Callable[[Any], None]


def _fromstring(string: bytes, dtype: Any = float, count: int = -1, sep: str = "") -> Any:
    """Return an array copied from bytes, or parsed from text if ``sep`` is set, as ``numpy.fromstring`` did."""
    return np.frombuffer(string, dtype, count).copy() if sep == "" else _NUMPY_FROMSTRING(string, dtype, count, sep=sep)


_NUMPY_FROMSTRING = np.fromstring


class _Cast:
    """``numpy.cast[kind](values)``."""

    def __getitem__(self, kind: Any) -> Callable[[Any], Any]:
        return lambda values: np.asarray(values).astype(kind)


def _random_integers(low: int, high: int | None = None, size: Any = None) -> Any:
    """Draw integers from ``low`` to ``high``, inclusive; from 1 to ``low`` if ``high`` is None."""
    first, last = (1, low) if high is None else (low, high)
    return np.random.randint(first, last + 1, size)  # noqa: NPY002 - the numbers of np.random.seed


def _scalar_type(value: Any) -> Any:
    try:
        return np.dtype(value).type
    except TypeError:
        return None


# Module -> removed name -> its value.
_VALUES: dict[str, dict[str, Any]] = {
    "numpy": {
        "Inf": np.inf,
        "Infinity": np.inf,
        "NINF": -np.inf,
        "NZERO": -0.0,
        "NaN": np.nan,
        "PINF": np.inf,
        "PZERO": 0.0,
        "alen": lambda a: len(np.atleast_1d(a)),
        "asfarray": lambda a, dtype=float: np.asarray(a, dtype),
        "asscalar": lambda a: a.item(),
        "bool": bool,
        "cast": _Cast(),
        "complex": complex,
        "find_common_type": lambda arrays, scalars: np.result_type(*arrays, *scalars),
        "float": float,
        "in1d": lambda ar1, ar2, *args, **options: np.isin(np.ravel(ar1), ar2, *args, **options),
        "infty": np.inf,
        "int": int,
        "issubclass_": lambda a, b: isinstance(a, type) and issubclass(a, b),
        "issctype": lambda kind: isinstance(kind, type) and issubclass(kind, np.generic),
        "long": int,
        "msort": lambda a: np.sort(a, axis=0),
        "obj2sctype": _scalar_type,
        "object": object,
        "rank": np.ndim,
        "sctypes": {
            "int": [np.int8, np.int16, np.int32, np.int64],
            "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
            "float": [np.float16, np.float32, np.float64, np.longdouble],
            "complex": [np.complex64, np.complex128, np.clongdouble],
            "others": [bool, object, bytes, str, np.void],
        },
        "str": str,
        "unicode": str,
    },
    "numpy.random": {"random_integers": _random_integers},
    "time": {"clock": time.perf_counter},
    "sys": {"setdefaultencoding": lambda name: None},
    "os": {"errno": errno},
}

# Module -> removed name -> the path of its equivalent today.
_MOVED: dict[str, dict[str, str]] = {
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
    "collections": {
        name: f"collections.abc.{name}"
        for name in ("Callable", "Container", "Hashable", "Iterable", "Iterator", "ItemsView", "KeysView", "Mapping",
                     "MutableMapping", "MutableSequence", "MutableSet", "Sequence", "Set", "Sized", "ValuesView")
    },
    "fractions": {"gcd": "math.gcd"},
    "cgi": {"escape": "html.escape"},
    "PIL.Image": {
        "ANTIALIAS": "PIL.Image.LANCZOS", "CUBIC": "PIL.Image.BICUBIC", "LINEAR": "PIL.Image.BILINEAR",
        "VERSION": "PIL.__version__", "fromstring": "PIL.Image.frombytes",
    },
    "PIL": {"PILLOW_VERSION": "PIL.__version__", "VERSION": "PIL.__version__"},
    "scipy": {
        "interp": "numpy.interp",
        **{
            name: f"numpy.{name}"
            for name in ("abs", "absolute", "allclose", "any", "arange", "argmax", "argmin", "argsort", "array", "ceil",
                         "concatenate", "cos", "cumsum", "diag", "dot", "exp", "eye", "floor", "hstack", "inf",
                         "linspace", "log", "log10", "log2", "max", "mean", "median", "min", "nan", "ones",
                         "percentile", "pi", "power", "rand", "randn", "round", "sign", "sin", "sqrt", "std", "sum",
                         "tan", "tile", "transpose", "unique", "var", "vstack", "where", "zeros", "zeros_like")
        },
    },
    "scipy.integrate": {
        "cumtrapz": "scipy.integrate.cumulative_trapezoid", "simps": "scipy.integrate.simpson",
        "trapz": "scipy.integrate.trapezoid",
    },
    "scipy.ndimage": {"imread": "reproduction.pycaffe.run.scipy_misc.imread"},
    "scipy.signal": {
        name: f"scipy.signal.windows.{name}"
        for name in ("bartlett", "blackman", "gaussian", "hamming", "hann", "kaiser", "triang")
    } | {"hanning": "scipy.signal.windows.hann"},
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

# Removed modules -> the modules that replace them.
_MODULES = {
    **{name: f"PIL.{name}" for name in ("Image", "ImageChops", "ImageColor", "ImageDraw", "ImageEnhance", "ImageFile",
                                        "ImageFilter", "ImageFont", "ImageMath", "ImageOps", "ImagePalette",
                                        "ImageStat")},
    "scipy.misc": "reproduction.pycaffe.run.scipy_misc",
    "scipy.misc.pilutil": "reproduction.pycaffe.run.scipy_misc",
    "skimage.filter": "skimage.filters",
    "sklearn.externals.joblib": "joblib",
}  # fmt: skip

# Module -> the function that restores its changed interfaces.
_CHANGES: dict[str, Change] = {
    "PIL.Image": restore_libraries.pillow,
    "PIL.ImageDraw": restore_libraries.pillow_draw,
    "PIL.ImageFont": restore_libraries.pillow_font,
    "cv2": restore_libraries.opencv,
    "h5py": restore_libraries.h5py,
    "inspect": restore_libraries.inspect,
    "matplotlib": restore_libraries.matplotlib,
    "matplotlib.cm": restore_libraries.matplotlib_cm,
    "matplotlib.pyplot": restore_libraries.matplotlib_pyplot,
    "numpy": lambda module: setattr(module, "fromstring", _fromstring),
    "scipy.misc": lambda module: _give(module, {name: getattr(scipy_misc, name) for name in scipy_misc.__all__}),
    "skimage.io": restore_libraries.skimage_io,
    "unittest": restore_libraries.unittest,
    "yaml": restore_libraries.yaml,
}


def restore() -> None:
    """Restore the names: in imported modules now, in all others when they are imported."""
    for name in {**_VALUES, **_MOVED, **_CHANGES}:
        if name in sys.modules:
            _change(sys.modules[name])
    if not any(isinstance(finder, _Changing) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Changing())
        sys.meta_path.append(_Lost())


def _change(module: types.ModuleType) -> None:
    name = module.__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hasattr() on a deprecated name warns
        _give(module, _VALUES.get(name, {}))
        for old, today in _MOVED.get(name, {}).items():
            if not hasattr(module, old):
                _give(module, {old: _find(today)})
        if name in _CHANGES:
            _CHANGES[name](module)


def _give(module: types.ModuleType, names: Mapping[str, Any]) -> None:
    for name, value in names.items():
        if value is not None and not name.startswith("_") and name not in vars(module):
            setattr(module, name, value)


def _find(path: str) -> Any:
    """Return the object at a dotted path, such as ``numpy.inf``; None if the installed version does not have it."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name) if module else importlib.import_module(name)
    except (ImportError, AttributeError):
        return None


class _Changing(importlib.abc.MetaPathFinder):
    """A finder that restores the names of a library as soon as it is imported."""

    def find_spec(self, fullname: str, path: Any, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname in table for table in (_VALUES, _MOVED, _CHANGES)):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_change(module: types.ModuleType) -> None:
                run(module)
                _change(module)

            spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


class _Lost(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder of last resort for the removed modules in ``_MODULES``."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in _MODULES else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Replace this module in ``sys.modules`` by its successor."""
        sys.modules[module.__name__] = importlib.import_module(_MODULES[module.__name__])

"""Restores, in this process, names and interfaces that libraries have removed since programs for Caffe were written.

A name is restored only if it is missing and an equivalent still exists. A library that the program imports later is
changed when it is imported. ``removed_names`` has the tables; interfaces that changed in more than names have a
function here.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections import namedtuple
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from reproduction.pycaffe.run import scipy_misc
from reproduction.pycaffe.run.removed_names import FALLBACKS, MODULES, MOVED, VALUES

Change = Callable[[Any], None]

# Module -> the function that restores its changed interfaces.
_CHANGES: dict[str, Change] = {}

_ASSERTIONS = {
    "assertEquals": "assertEqual", "assertItemsEqual": "assertCountEqual", "assertNotEquals": "assertNotEqual",
    "assertAlmostEquals": "assertAlmostEqual", "assertNotAlmostEquals": "assertNotAlmostEqual",
    "assertRaisesRegexp": "assertRaisesRegex", "assertRegexpMatches": "assertRegex", "assert_": "assertTrue",
}  # fmt: skip

ArgSpec = namedtuple("ArgSpec", "args varargs keywords defaults")  # noqa: PYI024 - as the removed one


def restore() -> None:
    """Restore the removed names and interfaces: in imported modules now, in all others when they are imported."""
    for name in {**VALUES, **MOVED, **FALLBACKS, **_CHANGES}:
        if name in sys.modules:
            _restore_module(sys.modules[name])
    if not any(isinstance(finder, _RestoringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RestoringFinder())
        sys.meta_path.append(_RemovedModuleFinder())


def _restore_module(module: types.ModuleType) -> None:
    name = module.__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hasattr() on a deprecated name warns
        for old, value in VALUES.get(name, {}).items():
            vars(module).setdefault(old, value)  # even if the module's __getattr__ finds it, which issues a warning
        for old, path in MOVED.get(name, {}).items():
            if not hasattr(module, old) and (value := _import_object(path)) is not None:
                setattr(module, old, value)
        if name in FALLBACKS:
            _add_fallback(module, FALLBACKS[name])
        if name in _CHANGES:
            _CHANGES[name](module)


def _import_object(path: str) -> Any:
    """Return the object at a dotted path, such as ``numpy.inf``; None if the installed version does not have it."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name) if module else importlib.import_module(name)
    except (ImportError, AttributeError):
        return None


def _add_fallback(module: types.ModuleType, other: str) -> None:
    """Look up the names that a module lacks in another module."""
    own: Callable[[str], Any] | None = vars(module).get("__getattr__")

    def find(name: str) -> Any:
        if own is not None:
            try:
                return own(name)
            except AttributeError:
                pass
        if not name.startswith("_") and (value := _import_object(f"{other}.{name}")) is not None:
            return value
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    vars(module)["__getattr__"] = find


class _RestoringFinder(importlib.abc.MetaPathFinder):
    """A finder that restores the names of a library as soon as it is imported."""

    def find_spec(self, fullname: str, path: Any, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname in table for table in (VALUES, MOVED, FALLBACKS, _CHANGES)):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_restore(module: types.ModuleType) -> None:
                run(module)
                _restore_module(module)

            spec.loader.exec_module = run_and_restore  # type: ignore[method-assign]
        return spec


class _RemovedModuleFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder of last resort for removed modules."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Replace this module in ``sys.modules`` by its successor."""
        sys.modules[module.__name__] = importlib.import_module(MODULES[module.__name__])


def _restores(module: str) -> Callable[[Change], Change]:
    """Return a decorator that registers a function to run on a module when it is imported."""

    def register(change: Change) -> Change:
        _CHANGES[module] = change
        return change

    return register


def _add_missing(owner: Any, **names: Any) -> None:
    for name, value in names.items():
        if not hasattr(owner, name):
            setattr(owner, name, value)


def _rename_arguments(function: Callable[..., Any], **new_names: str | None) -> Callable[..., Any]:
    """Wrap a function to accept keyword arguments by their old names.

    Args:
        function: The function.
        new_names: Old name -> new name, or None to ignore the argument.
    """

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        for old, new in new_names.items():
            if old in options:
                value = options.pop(old)
                if new is not None:
                    options.setdefault(new, value)
        return function(*args, **options)

    return call


@_restores("inspect")
def _restore_inspect(module: Any) -> None:
    """Restore ``getargspec``, which returns four values."""
    _add_missing(module, getargspec=lambda function: ArgSpec(*module.getfullargspec(function)[:4]))


@_restores("unittest")
def _restore_unittest(module: Any) -> None:
    """Restore the old names of assertion methods."""
    case = module.TestCase
    _add_missing(case, **{name: getattr(case, today) for name, today in _ASSERTIONS.items()})


@_restores("yaml")
def _restore_yaml(module: Any) -> None:
    """Restore ``load`` without a loader; it uses the safe loader, which rejects tags that create Python objects."""
    for name in ("load", "load_all"):
        setattr(module, name, _load_safely(getattr(module, name), module.SafeLoader))


def _load_safely(load: Callable[..., Any], loader: Any) -> Callable[..., Any]:
    return wraps(load)(lambda stream, Loader=loader: load(stream, Loader=Loader))  # noqa: N803 - PyYAML's name


@_restores("PIL.Image")
def _restore_pillow(module: Any) -> None:
    """Restore methods of ``Image``."""
    image = module.Image

    def offset(self: Any, xoffset: int, yoffset: int | None = None) -> Any:
        return importlib.import_module("PIL.ImageChops").offset(self, xoffset, yoffset)

    _add_missing(image, fromstring=image.frombytes, tostring=image.tobytes, offset=offset)
    _add_missing(module, isImageType=lambda value: isinstance(value, image))


@_restores("PIL.ImageDraw")
def _restore_pillow_draw(module: Any) -> None:
    """Restore ``textsize`` of ``ImageDraw``, the size of a text in pixels."""

    def textsize(self: Any, text: str, font: Any = None, *args: Any, **options: Any) -> tuple[int, int]:
        _, _, right, bottom = self.textbbox((0, 0), text, font, *args, **options)
        return int(right), int(bottom)

    _add_missing(module.ImageDraw, textsize=textsize, multiline_textsize=textsize)


@_restores("PIL.ImageFont")
def _restore_pillow_font(module: Any) -> None:
    """Restore ``getsize`` of fonts, the size of a text in pixels."""

    def getsize(self: Any, text: str, *args: Any, **options: Any) -> tuple[int, int]:
        _, _, right, bottom = self.getbbox(text, *args, **options)
        return int(right), int(bottom)

    for name in ("FreeTypeFont", "ImageFont", "TransposedFont"):
        _add_missing(getattr(module, name), getsize=getsize)


@_restores("cv2")
def _restore_opencv(module: Any) -> None:
    """Restore constants of OpenCV 2 in ``cv2``, and ``cv2.cv`` for the names with the prefix ``CV_``."""
    _add_missing(
        module,
        CV_AA=module.LINE_AA,
        CV_LOAD_IMAGE_COLOR=module.IMREAD_COLOR,
        CV_LOAD_IMAGE_GRAYSCALE=module.IMREAD_GRAYSCALE,
        CV_LOAD_IMAGE_UNCHANGED=module.IMREAD_UNCHANGED,
    )
    old = types.ModuleType("cv2.cv")

    def find_constant(name: str) -> Any:
        for today in (name, name.removeprefix("CV_"), f"COLOR_{name.removeprefix('CV_')}"):
            if hasattr(module, today):
                return getattr(module, today)
        raise AttributeError(f"module 'cv2' has no attribute {name!r}")

    vars(old)["__getattr__"] = find_constant
    _add_missing(module, cv=old)


@_restores("h5py")
def _restore_h5py(module: Any) -> None:
    """Restore ``Dataset.value``, and ``"a"`` (read and write) as the default mode of ``File``."""
    _add_missing(module.Dataset, value=property(lambda self: self[()]))
    initialize = module.File.__init__

    @wraps(initialize)
    def open_for_both(self: Any, name: Any, mode: str | None = None, *args: Any, **options: Any) -> None:
        initialize(self, name, "a" if mode is None else mode, *args, **options)

    module.File.__init__ = open_for_both


@_restores("matplotlib")
def _restore_matplotlib(module: Any) -> None:
    """Restore ``use(backend, warn=)``; ``warn`` is ignored."""
    module.use = _rename_arguments(module.use, warn=None)


@_restores("matplotlib.cm")
def _restore_matplotlib_cm(module: Any) -> None:
    """Restore ``get_cmap``."""

    def get_cmap(name: str | None = None, lut: int | None = None) -> Any:
        return importlib.import_module("matplotlib.pyplot").get_cmap(name, lut)

    _add_missing(module, get_cmap=get_cmap)


@_restores("matplotlib.pyplot")
def _restore_matplotlib_pyplot(module: Any) -> None:
    """Restore ``hold``, which is now always on, ``hist(normed=)``, and the ``axis_bgcolor`` methods of axes."""
    axes = module.Axes
    for owner in (module, axes, module.Figure):
        _add_missing(owner, hold=lambda *args: None, ishold=lambda *args: True)
    for owner in (module, axes):
        owner.hist = _rename_arguments(owner.hist, normed="density")
    _add_missing(axes, set_axis_bgcolor=axes.set_facecolor, get_axis_bgcolor=axes.get_facecolor)


@_restores("skimage.io")
def _restore_skimage_io(module: Any) -> None:
    """Restore ``imread(as_grey=)``."""
    module.imread = _rename_arguments(module.imread, as_grey="as_gray")


_numpy_fromstring = np.fromstring


def _fromstring(string: bytes, dtype: Any = float, count: int = -1, sep: str = "") -> Any:
    """Return an array copied from bytes, or parsed from text if ``sep`` is set, as ``numpy.fromstring`` did."""
    return np.frombuffer(string, dtype, count).copy() if sep == "" else _numpy_fromstring(string, dtype, count, sep=sep)


@_restores("numpy")
def _restore_numpy(module: Any) -> None:
    """Restore ``fromstring`` of bytes."""
    module.fromstring = _fromstring


@_restores("scipy.misc")
def _restore_scipy_misc(module: Any) -> None:
    """Restore the functions that are missing in the versions of scipy that still have this module."""
    _add_missing(module, **{name: getattr(scipy_misc, name) for name in scipy_misc.__all__})

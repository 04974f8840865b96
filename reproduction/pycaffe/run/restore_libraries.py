"""Restores interfaces of libraries that changed in more than names: one function for each module.

Each function takes the imported module and adds or wraps what programs for Caffe use. See ``removed_names``.
"""

from __future__ import annotations

import importlib
import types
from collections import namedtuple
from collections.abc import Callable
from functools import wraps
from typing import Any

_ASSERTIONS = {
    "assertEquals": "assertEqual",
    "assertItemsEqual": "assertCountEqual",
    "assertNotEquals": "assertNotEqual",
    "assertAlmostEquals": "assertAlmostEqual",
    "assertNotAlmostEquals": "assertNotAlmostEqual",
    "assertRaisesRegexp": "assertRaisesRegex",
    "assertRegexpMatches": "assertRegex",
    "assert_": "assertTrue",
}

ArgSpec = namedtuple("ArgSpec", "args varargs keywords defaults")  # noqa: PYI024 - as the removed one


def _give(owner: Any, **names: Any) -> None:
    for name, value in names.items():
        if not hasattr(owner, name):
            setattr(owner, name, value)


def _renamed(function: Callable[..., Any], **today: str | None) -> Callable[..., Any]:
    """Wrap a function to accept keyword arguments by their old names.

    Args:
        function: The function.
        today: Old name -> new name, or None to ignore the argument.
    """

    @wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        for old, new in today.items():
            if old in options:
                value = options.pop(old)
                if new is not None:
                    options.setdefault(new, value)
        return function(*args, **options)

    return called


def inspect(module: Any) -> None:
    """Restore ``getargspec``, which returns four values."""
    _give(module, getargspec=lambda function: ArgSpec(*module.getfullargspec(function)[:4]))


def unittest(module: Any) -> None:
    """Restore the old names of assertion methods."""
    case = module.TestCase
    _give(case, **{name: getattr(case, today) for name, today in _ASSERTIONS.items()})


def yaml(module: Any) -> None:
    """Restore ``load`` without a loader; it uses the safe loader, which rejects tags that create Python objects."""
    for name in ("load", "load_all"):
        setattr(module, name, _safe(getattr(module, name), module.SafeLoader))


def _safe(load: Callable[..., Any], loader: Any) -> Callable[..., Any]:
    return wraps(load)(lambda stream, Loader=loader: load(stream, Loader=Loader))  # noqa: N803 - PyYAML's name


def pillow(module: Any) -> None:
    """Restore methods of ``Image``."""
    picture = module.Image

    def offset(self: Any, xoffset: int, yoffset: int | None = None) -> Any:
        return importlib.import_module("PIL.ImageChops").offset(self, xoffset, yoffset)

    _give(picture, fromstring=picture.frombytes, tostring=picture.tobytes, offset=offset)
    _give(module, isImageType=lambda value: isinstance(value, picture))


def pillow_draw(module: Any) -> None:
    """Restore ``textsize`` of ``ImageDraw``, the size of a text in pixels."""

    def textsize(self: Any, text: str, font: Any = None, *args: Any, **options: Any) -> tuple[int, int]:
        _, _, right, bottom = self.textbbox((0, 0), text, font, *args, **options)
        return int(right), int(bottom)

    _give(module.ImageDraw, textsize=textsize, multiline_textsize=textsize)


def pillow_font(module: Any) -> None:
    """Restore ``getsize`` of fonts, the size of a text in pixels."""

    def getsize(self: Any, text: str, *args: Any, **options: Any) -> tuple[int, int]:
        _, _, right, bottom = self.getbbox(text, *args, **options)
        return int(right), int(bottom)

    for name in ("FreeTypeFont", "ImageFont", "TransposedFont"):
        _give(getattr(module, name), getsize=getsize)


def opencv(module: Any) -> None:
    """Restore constants of OpenCV 2 in ``cv2``, and ``cv2.cv`` for the names with the prefix ``CV_``."""
    _give(
        module,
        CV_AA=module.LINE_AA,
        CV_LOAD_IMAGE_COLOR=module.IMREAD_COLOR,
        CV_LOAD_IMAGE_GRAYSCALE=module.IMREAD_GRAYSCALE,
        CV_LOAD_IMAGE_UNCHANGED=module.IMREAD_UNCHANGED,
    )
    old = types.ModuleType("cv2.cv")

    def find(name: str) -> Any:
        for today in (name, name.removeprefix("CV_"), f"COLOR_{name.removeprefix('CV_')}"):
            if hasattr(module, today):
                return getattr(module, today)
        raise AttributeError(f"module 'cv2' has no attribute {name!r}")

    vars(old)["__getattr__"] = find
    _give(module, cv=old)


def h5py(module: Any) -> None:
    """Restore ``Dataset.value``, and ``"a"`` (read and write) as the default mode of ``File``."""
    _give(module.Dataset, value=property(lambda self: self[()]))
    begin = module.File.__init__

    @wraps(begin)
    def begin_for_both(self: Any, name: Any, mode: str | None = None, *args: Any, **options: Any) -> None:
        begin(self, name, "a" if mode is None else mode, *args, **options)

    module.File.__init__ = begin_for_both


def matplotlib(module: Any) -> None:
    """Restore ``use(backend, warn=)``; ``warn`` is ignored."""
    module.use = _renamed(module.use, warn=None)


def matplotlib_cm(module: Any) -> None:
    """Restore ``get_cmap``."""
    _give(module, get_cmap=lambda name=None, lut=None: importlib.import_module("matplotlib.pyplot").get_cmap(name, lut))


def matplotlib_pyplot(module: Any) -> None:
    """Restore ``hold``, which is now always on, ``hist(normed=)``, and the ``axis_bgcolor`` methods of axes."""
    axes = module.Axes
    for owner in (module, axes, module.Figure):
        _give(owner, hold=lambda *args: None, ishold=lambda *args: True)
    for owner in (module, axes):
        owner.hist = _renamed(owner.hist, normed="density")
    _give(axes, set_axis_bgcolor=axes.set_facecolor, get_axis_bgcolor=axes.get_facecolor)


def skimage_io(module: Any) -> None:
    """Restore ``imread(as_grey=)``."""
    module.imread = _renamed(module.imread, as_grey="as_gray")

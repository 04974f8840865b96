"""What libraries changed in more than names since programs for Caffe were written: one function for each module.

Each takes the module and restores what is missing; what is there stays. See ``removed_names``.
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

ArgSpec = namedtuple("ArgSpec", "args varargs keywords defaults")


def _give(owner: Any, **names: Any) -> None:
    for name, value in names.items():
        if not hasattr(owner, name):
            setattr(owner, name, value)


def _renamed(function: Callable[..., Any], **today: str | None) -> Callable[..., Any]:
    """Let a function take arguments by the names that they had; those without a name today are ignored."""

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
    """``getargspec``, which returns four values."""
    _give(module, getargspec=lambda function: ArgSpec(*module.getfullargspec(function)[:4]))


def unittest(module: Any) -> None:
    """The names of assertions."""
    case = module.TestCase
    _give(case, **{name: getattr(case, today) for name, today in _ASSERTIONS.items()})


def yaml(module: Any) -> None:
    """``load`` without a loader: the safe one, since a file is data; tags that name Python objects are refused."""
    for name in ("load", "load_all"):
        setattr(module, name, _safe(getattr(module, name), module.SafeLoader))


def _safe(load: Callable[..., Any], loader: Any) -> Callable[..., Any]:
    return wraps(load)(lambda stream, Loader=loader: load(stream, Loader=Loader))


def pillow(module: Any) -> None:
    """Methods of pictures."""
    picture = module.Image

    def offset(self: Any, xoffset: int, yoffset: int | None = None) -> Any:
        return importlib.import_module("PIL.ImageChops").offset(self, xoffset, yoffset)

    _give(picture, fromstring=picture.frombytes, tostring=picture.tobytes, offset=offset)
    _give(module, isImageType=lambda value: isinstance(value, picture))


def pillow_draw(module: Any) -> None:
    """The size of a text."""

    def textsize(self: Any, text: str, font: Any = None, *args: Any, **options: Any) -> tuple[int, int]:
        _, _, right, bottom = self.textbbox((0, 0), text, font, *args, **options)
        return int(right), int(bottom)

    _give(module.ImageDraw, textsize=textsize, multiline_textsize=textsize)


def pillow_font(module: Any) -> None:
    """The size of a text in a font."""

    def getsize(self: Any, text: str, *args: Any, **options: Any) -> tuple[int, int]:
        _, _, right, bottom = self.getbbox(text, *args, **options)
        return int(right), int(bottom)

    for name in ("FreeTypeFont", "ImageFont", "TransposedFont"):
        _give(getattr(module, name), getsize=getsize)


def opencv(module: Any) -> None:
    """Constants of OpenCV 2, by either of the names that they had."""
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
    """``dataset.value``, and files that are open for writing where no mode is named."""
    _give(module.Dataset, value=property(lambda self: self[()]))
    begin = module.File.__init__

    @wraps(begin)
    def begin_for_both(self: Any, name: Any, mode: str | None = None, *args: Any, **options: Any) -> None:
        begin(self, name, "a" if mode is None else mode, *args, **options)

    module.File.__init__ = begin_for_both


def matplotlib(module: Any) -> None:
    """``use(backend, warn=)``."""
    module.use = _renamed(module.use, warn=None)


def matplotlib_cm(module: Any) -> None:
    """``get_cmap``."""
    _give(module, get_cmap=lambda name=None, lut=None: importlib.import_module("matplotlib.pyplot").get_cmap(name, lut))


def matplotlib_pyplot(module: Any) -> None:
    """``hold``, which is always on, the densities of a histogram, and the colour behind a plot."""
    axes = module.Axes
    for owner in (module, axes, module.Figure):
        _give(owner, hold=lambda *args: None, ishold=lambda *args: True)
    for owner in (module, axes):
        owner.hist = _renamed(owner.hist, normed="density")
    _give(axes, set_axis_bgcolor=axes.set_facecolor, get_axis_bgcolor=axes.get_facecolor)


def skimage_io(module: Any) -> None:
    """``as_grey``."""
    module.imread = _renamed(module.imread, as_grey="as_gray")

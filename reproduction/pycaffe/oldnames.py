"""Names that libraries took away since programs for Caffe were written, given back to this process.

Only a name that is missing is given, and only one whose meaning another name has today.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np


def _fromstring(string: bytes, dtype: Any = float, count: int = -1, sep: str = "") -> Any:
    """Read an array of bytes, or of text if there is a separator."""
    return np.frombuffer(string, dtype, count).copy() if sep == "" else _NUMPY_FROMSTRING(string, dtype, count, sep=sep)


_NUMPY_FROMSTRING = np.fromstring

# Module -> name -> what it was.
NAMES: dict[str, dict[str, Any]] = {
    "numpy": {
        "Inf": np.inf,
        "NINF": -np.inf,
        "NaN": np.nan,
        "PINF": np.inf,
        "alltrue": np.all,
        "asscalar": lambda a: a.item(),
        "bool": bool,
        "complex": complex,
        "complex_": np.complex128,
        "cumproduct": np.cumprod,
        "float": float,
        "float_": np.float64,
        "in1d": np.isin,
        "infty": np.inf,
        "int": int,
        "long": int,
        "object": object,
        "product": np.prod,
        "round_": np.round,
        "row_stack": np.vstack,
        "sometrue": np.any,
        "str": str,
        "string_": np.bytes_,
        "unicode": str,
        "unicode_": np.str_,
    },
    "time": {"clock": time.perf_counter},
    "sys": {"setdefaultencoding": lambda name: None},
}

# Module -> name -> the module and name that it has today.
_MOVED: dict[str, dict[str, tuple[str, str]]] = {
    "collections": {
        name: ("collections.abc", name)
        for name in ("Callable", "Hashable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence", "Set")
    },
    "fractions": {"gcd": ("math", "gcd")},
    "inspect": {"getargspec": ("inspect", "getfullargspec")},
    "PIL.Image": {"ANTIALIAS": ("PIL.Image", "LANCZOS")},
}

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


def restore() -> None:
    """Give the names back."""
    from unittest import TestCase

    for module, names in NAMES.items():
        for name, value in names.items():
            _give(importlib.import_module(module), name, value)
    for module, moved in _MOVED.items():
        for name, (home, today) in moved.items():
            _give(importlib.import_module(module), name, getattr(importlib.import_module(home), today))
    for name, today in _ASSERTIONS.items():
        _give(TestCase, name, getattr(TestCase, today))
    setattr(np, "fromstring", _fromstring)  # noqa: B010 - its type is that of several functions


def _give(owner: object, name: str, value: Any) -> None:
    if name not in vars(owner):
        setattr(owner, name, value)

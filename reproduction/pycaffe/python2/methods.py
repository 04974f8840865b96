"""Methods that have been removed from strings, arrays and other objects.

Methods cannot be added to the builtin types of Python and numpy. Instead, ``translate`` replaces calls of these names
by calls of ``find``.

Source: numpy.org/doc/stable/release (2.0.0, 2.3.0); docs.python.org/2.7/library/stdtypes.html (string methods).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from reproduction.pycaffe.python2 import library
from reproduction.pycaffe.python2.streams import as_bytes


def _itemset(array: Any, *where_and_value: Any) -> None:
    *where, value = where_and_value
    if not where:
        array[...] = value
    elif len(where) == 1 and not isinstance(where[0], tuple):
        array.flat[where[0]] = value
    else:
        array[where[0] if len(where) == 1 else tuple(where)] = value


#: Removed methods of arrays, images and XML trees.
LOST: dict[str, Callable[..., Any]] = {
    "fromstring": lambda owner, *args: owner.frombytes(*args),
    "itemset": _itemset,
    "newbyteorder": lambda array, order="S": array.view(array.dtype.newbyteorder(order)),
    "ptp": np.ptp,
    "tostring": lambda owner, *args: owner.tobytes(*args),
}

#: Methods of Python 2's strings.
_OF_TEXT: dict[str, Callable[..., Any]] = {
    "decode": lambda text, encoding="ascii", errors="strict": as_bytes(text).decode(encoding, errors),
    "translate": library.translate,
}

#: The names of all methods that Python 2 sources look up here.
PYTHON2 = frozenset({*LOST, *_OF_TEXT})


def find(owner: Any, name: str) -> Callable[..., Any]:
    """Return a bound method: Python 2's version for a string, else the object's method, else the replacement."""
    if isinstance(owner, str) and name in _OF_TEXT:
        return partial(_OF_TEXT[name], owner)
    if name in LOST and not hasattr(owner, name):
        return partial(LOST[name], owner)
    own: Callable[..., Any] = getattr(owner, name)
    return own


def message(owner: Any) -> Any:
    """Return ``owner.message``; for an exception without it, the only argument, or ``""``, as in Python 2."""
    if isinstance(owner, BaseException) and not hasattr(owner, "message"):
        return owner.args[0] if len(owner.args) == 1 else ""
    return owner.message

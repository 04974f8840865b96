"""Methods that have been removed from strings, arrays and other objects.

Methods cannot be added to the builtin types of Python and numpy. Instead, ``translate`` replaces calls of these names
by calls of ``get_method``.

Source: numpy.org/doc/stable/release (2.0.0, 2.3.0); docs.python.org/2.7/library/stdtypes.html (string methods).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from reproduction.pycaffe.python2 import standard_library
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
REMOVED: dict[str, Callable[..., Any]] = {
    "fromstring": lambda owner, *args: owner.frombytes(*args),
    "itemset": _itemset,
    "newbyteorder": lambda array, order="S": array.view(array.dtype.newbyteorder(order)),
    "ptp": np.ptp,
    "tostring": lambda owner, *args: owner.tobytes(*args),
}

#: Methods of Python 2's strings.
_STR_METHODS: dict[str, Callable[..., Any]] = {
    "decode": lambda text, encoding="ascii", errors="strict": as_bytes(text).decode(encoding, errors),
    "translate": standard_library.translate,
}

#: The names of all methods that Python 2 sources look up here.
PYTHON2 = frozenset({*REMOVED, *_STR_METHODS})


def get_method(owner: Any, name: str) -> Callable[..., Any]:
    """Return a method of an object, in place of ``owner.name``, also if newer libraries have removed it.

    Args:
        owner: The object. For a string, ``decode`` and ``translate`` are Python 2's methods.
        name: The name of the method. If the object lacks it, a function of ``REMOVED`` replaces it.
    """
    if isinstance(owner, str) and name in _STR_METHODS:
        return partial(_STR_METHODS[name], owner)
    if name in REMOVED and not hasattr(owner, name):
        return partial(REMOVED[name], owner)
    own: Callable[..., Any] = getattr(owner, name)
    return own


def get_message(owner: Any) -> Any:
    """Return the attribute ``message`` of an object, also for exceptions, which have it only in Python 2.

    For an exception it is the argument if there is exactly one, else ``""``.
    """
    if isinstance(owner, BaseException) and not hasattr(owner, "message"):
        return owner.args[0] if len(owner.args) == 1 else ""
    return owner.message

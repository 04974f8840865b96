"""Division, rounding and array sizes with the semantics of Python 2 and numpy 1.

Source: docs.python.org/2.7/reference/expressions.html; numpy/numpy@v1.9.3 doc/release (sizes that are not integers
are deprecated there, and rounded towards zero), compared with Python 2.7.18 in the tests.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from reproduction.pycaffe.python2.streams import as_bytes


def divide(left: Any, right: Any) -> Any:
    """Return ``left / right`` as Python 2 does: integers and integer arrays are divided with rounding down."""
    return left // right if _divides_integers(left, right) else left / right


def divide_in_place(left: Any, right: Any) -> Any:
    """Compute ``left /= right`` as Python 2 does, and return the new value of ``left``.

    An array is changed in place and returned. A translated source assigns the result to the name on the left.
    """
    if _divides_integers(left, right):
        left //= right
    else:
        left /= right
    return left


def divide_item(owner: Any, index: Any, right: Any) -> None:
    """Compute ``owner[index] /= right`` as Python 2 does, which divides integers with rounding down."""
    owner[index] = divide_in_place(owner[index], right)


def divide_attribute(owner: Any, name: str, right: Any) -> None:
    """Compute ``owner.name /= right`` as Python 2 does, which divides integers with rounding down."""
    setattr(owner, name, divide_in_place(getattr(owner, name), right))


def _divides_integers(left: Any, right: Any) -> bool:
    """Return whether both operands are integers or integer arrays; next to an array, a list counts as an array."""
    arrays = isinstance(left, np.ndarray) or isinstance(right, np.ndarray)
    return _is_integral(left, arrays) and _is_integral(right, arrays)


def _is_integral(value: Any, beside_array: bool) -> bool:
    if isinstance(value, (int, np.integer, np.bool_)):
        return True
    if beside_array and isinstance(value, (list, tuple)):
        value = np.asarray(value)
    return isinstance(value, np.ndarray) and value.dtype.kind in "biu"


def round_half_away(number: float, ndigits: int = 0) -> float:
    """Round as Python 2's ``round`` does, with halves away from zero: 0.5 becomes 1.0, where Python 3 returns 0.

    Args:
        number: The number.
        ndigits: The number of decimals to keep; negative to round to tens, hundreds and so on.
    """
    if not math.isfinite(number):
        return float(number)
    return float(Decimal(float(number)).quantize(Decimal(1).scaleb(-ndigits), ROUND_HALF_UP))


def truncate(value: Any) -> Any:
    """Return a float as an integer, rounded towards zero; return any other value unchanged.

    Python 2 and numpy 1 accept floats as bounds of slices and as sizes of arrays.
    """
    return int(value) if isinstance(value, (float, np.floating)) else value


def _truncate_sizes(value: Any) -> Any:
    """Convert a size, or a sequence of sizes, from floats to integers, rounding towards zero."""
    if isinstance(value, (list, tuple)):
        return tuple(truncate(size) for size in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return value.astype(int)
    return truncate(value)


def _accept_float_size(function: Callable[..., Any], position: int, name: str) -> Callable[..., Any]:
    """Wrap a function to accept floats in its size argument, which has this position and keyword."""

    def call_with_integers(*args: Any, **options: Any) -> Any:
        if len(args) > position:
            args = (*args[:position], _truncate_sizes(args[position]), *args[position + 1 :])
        elif name in options:
            options[name] = _truncate_sizes(options[name])
        return function(*args, **options)

    return call_with_integers


def _accept_float_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *sizes: function(*map(truncate, sizes))


def _accept_ragged_lists(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function to return an array of objects for lists of different lengths, as before numpy 1.24."""

    def create(value: Any, *args: Any, **options: Any) -> Any:
        try:
            return function(value, *args, **options)
        except ValueError as error:
            if args or options or "inhomogeneous" not in str(error):
                raise
            return function(value, dtype=object)

    return create


def _divide(left: Any, right: Any, *args: Any, **options: Any) -> Any:
    whole = all(np.asarray(value).dtype.kind in "biu" for value in (left, right))
    return (np.floor_divide if whole else np.divide)(left, right, *args, **options)


def _overlay_module(base: types.ModuleType, **names: Any) -> types.ModuleType:
    """Return a module with these names; all other names are looked up in ``base`` when they are used."""
    module = types.ModuleType(base.__name__, base.__doc__)
    vars(module).update(names, __getattr__=lambda name: getattr(base, name), __all__=getattr(base, "__all__", []))
    return module


def _create_numpy() -> types.ModuleType:
    random = {
        name: _accept_float_size(getattr(np.random, name), position, "size")
        for name, position in {"choice": 1, "normal": 2, "randint": 2, "random_sample": 0, "uniform": 2}.items()
    }
    random |= {name: _accept_float_arguments(getattr(np.random, name)) for name in ("rand", "randn")}
    sized = {
        name: _accept_float_size(getattr(np, name), position, argument)
        for name, (position, argument) in {
            "empty": (0, "shape"), "eye": (0, "N"), "full": (0, "shape"), "linspace": (2, "num"), "ones": (0, "shape"),
            "reshape": (1, "newshape"), "resize": (1, "new_shape"), "tile": (1, "reps"), "zeros": (0, "shape"),
        }.items()
    }  # fmt: skip
    return _overlay_module(
        np,
        **sized,
        array=_accept_ragged_lists(np.array),
        asarray=_accept_ragged_lists(np.asarray),
        divide=_divide,
        fromstring=lambda string, *args, **options: np.fromstring(as_bytes(string), *args, **options),
        random=_overlay_module(np.random, **random),
    )


#: numpy with the semantics that Python 2 sources expect.
NUMPY = _create_numpy()

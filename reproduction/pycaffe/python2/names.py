"""What Python 2's names meant: its builtins, division of integers, rounding, and order of random numbers.

Source: docs.python.org/2.7/library/functions.html; python/cpython@v2.7.18 Lib/random.py L186-L345 (randrange, choice,
shuffle, sample), held against Python 2.7.18 in the tests.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import itertools
import math
import random
import sys
import types
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np

# The names by which translated sources call these.
DIVIDE, DIVIDE_NAME, DIVIDE_ITEM, DIVIDE_ATTRIBUTE = (
    f"__python2_{what}__" for what in ("divide", "divide_name", "divide_item", "divide_attribute")
)


def divide(left: Any, right: Any) -> Any:
    """Divide as ``/`` does in Python 2: integers, and arrays of them, give integers, rounded down."""
    return left // right if _whole(left) and _whole(right) else left / right


def _divide_in_place(left: Any, right: Any) -> Any:
    if _whole(left) and _whole(right):
        left //= right
    else:
        left /= right
    return left


def _divide_item(owner: Any, index: Any, right: Any) -> None:
    owner[index] = _divide_in_place(owner[index], right)


def _divide_attribute(owner: Any, name: str, right: Any) -> None:
    setattr(owner, name, _divide_in_place(getattr(owner, name), right))


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) or (isinstance(value, np.ndarray) and value.dtype.kind in "iu")


def round_half_away(number: float, ndigits: int = 0) -> float:
    """Round to a float, halves away from zero."""
    if not math.isfinite(number):
        return float(number)
    return float(Decimal(float(number)).quantize(Decimal(1).scaleb(-ndigits), ROUND_HALF_UP))


def compare(left: Any, right: Any) -> int:
    """Return -1, 0 or 1: ``cmp``."""
    return int(left > right) - int(left < right)


def _sorted(
    iterable: Iterable[Any], cmp: Callable[[Any, Any], int] | None = None, key: Any = None, reverse: bool = False
) -> list[Any]:
    order = functools.cmp_to_key(cmp) if cmp else None
    if order is not None and key is not None:
        return sorted(iterable, key=lambda item: order(key(item)), reverse=reverse)
    return sorted(iterable, key=order or key, reverse=reverse)


def _map(function: Callable[..., Any] | None, *iterables: Iterable[Any]) -> list[Any]:
    if function is None:
        return list(iterables[0]) if len(iterables) == 1 else list(itertools.zip_longest(*iterables))
    return [function(*items) for items in itertools.zip_longest(*iterables)]


def _filter(function: Callable[[Any], Any] | None, iterable: Iterable[Any]) -> Any:
    kept = list(filter(function, iterable))
    if isinstance(iterable, str):
        return "".join(kept)
    return tuple(kept) if isinstance(iterable, tuple) else kept


def _open(name: Any, mode: str = "r", buffering: int = -1) -> Any:
    """Open a file; text that is not UTF-8 is read, and written back as it was."""
    binary = "b" in mode
    return Path(name).open(mode.replace("U", "") or "r", buffering, errors=None if binary else "surrogateescape")


def _apply(function: Callable[..., Any], args: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None) -> Any:
    return function(*args, **(keywords or {}))


class Random(random.Random):
    """Python 2's generator: the same numbers for the same seed in every method."""

    def seed(self, a: Any = None, version: int = 1) -> None:
        """Begin anew, from a number, a string or the clock."""
        super().seed(a, version=1)

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """Draw one of ``range(start, stop, step)``."""
        choices = range(start) if stop is None else range(start, stop, step)
        if not choices:
            raise ValueError("empty range for randrange()")
        return choices[self._below(len(choices))]

    def randint(self, a: int, b: int) -> int:
        """Draw an integer from ``a`` to ``b``, both among them."""
        return self.randrange(a, b + 1)

    def choice(self, seq: Any) -> Any:
        """Draw one of a sequence."""
        return seq[int(self.random() * len(seq))]

    def shuffle(self, x: MutableSequence[Any], random: Callable[[], float] | None = None) -> None:
        """Put a list in a random order."""
        draw = random or self.random
        for i in reversed(range(1, len(x))):
            j = int(draw() * (i + 1))
            x[i], x[j] = x[j], x[i]

    def sample(self, population: Any, k: int) -> list[Any]:  # type: ignore[override]
        """Draw ``k`` of a population, none twice."""
        n = len(population)
        if not 0 <= k <= n:
            raise ValueError("sample larger than population")
        set_size = 21 + (4 ** math.ceil(math.log(k * 3, 4)) if k > 5 else 0)
        if n <= set_size or hasattr(population, "keys"):
            pool = list(population)
            drawn = []
            for i in range(k):
                j = int(self.random() * (n - i))
                drawn.append(pool[j])
                pool[j] = pool[n - i - 1]
            return drawn
        places: dict[int, None] = {}
        while len(places) < k:
            places[int(self.random() * n)] = None
        members = population if isinstance(population, Sequence) else tuple(population)
        return [members[j] for j in places]

    def _below(self, n: int) -> int:
        return int(self.random() * n) if n < 1 << 53 else self._randbelow(n)  # type: ignore[attr-defined]


def _random_module() -> types.ModuleType:
    module = types.ModuleType("random", random.__doc__)
    module.__dict__.update({name: value for name, value in vars(random).items() if not name.startswith("__")})
    generator = Random()
    for name in dir(random):
        if isinstance(vars(random)[name], types.MethodType | types.BuiltinMethodType) and hasattr(generator, name):
            setattr(module, name, getattr(generator, name))
    module.__dict__.update(Random=Random, _inst=generator)
    return module


# Modules that translated sources are given in the place of Python 3's.
MODULES = {"random": _random_module()}


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> Any:
    """Import as Python 2 does: in a package, a module of that package comes first."""
    package = (globals or {}).get("__package__")
    if level == 0 and package and name not in MODULES:
        top = name.split(".")[0]
        if importlib.util.find_spec(f"{package}.{top}") is not None:
            inner = importlib.import_module(f"{package}.{name}")
            return inner if fromlist else sys.modules[f"{package}.{top}"]
    if level == 0 and name in MODULES:
        return MODULES[name]
    return builtins.__import__(name, globals, locals, fromlist, level)


#: The builtins of translated modules.
BUILTINS: dict[str, Any] = {
    **vars(builtins),
    "StandardError": Exception,
    "__import__": _import,
    "apply": _apply,
    "basestring": str,
    "buffer": memoryview,
    "cmp": compare,
    "file": _open,
    "filter": _filter,
    "intern": sys.intern,
    "long": int,
    "map": _map,
    "open": _open,
    "range": lambda *bounds: list(range(*bounds)),
    "raw_input": input,
    "reduce": functools.reduce,
    "reload": importlib.reload,
    "round": round_half_away,
    "sorted": _sorted,
    "unichr": chr,
    "unicode": str,
    "xrange": range,
    "zip": lambda *iterables: list(zip(*iterables, strict=False)),
    DIVIDE: divide,
    DIVIDE_NAME: _divide_in_place,
    DIVIDE_ITEM: _divide_item,
    DIVIDE_ATTRIBUTE: _divide_attribute,
}

"""Python 2's builtins and import rules, for translated modules.

Source: docs.python.org/2.7/library/functions.html, compared with Python 2.7.18 in the tests.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reproduction.pycaffe.python2 import numeric, removed_methods, standard_library, translate
from reproduction.pycaffe.python2.streams import as_text, open_file

# Names in MODULES that always mean the library's module; for the others, a module of the program takes precedence.
_PYTHON3 = sys.stdlib_module_names | {"numpy"}


def compare(left: Any, right: Any) -> int:
    """Return -1, 0 or 1 if ``left`` is less than, equal to or greater than ``right``, as Python 2's ``cmp`` does."""
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


def _apply(function: Callable[..., Any], args: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None) -> Any:
    return function(*args, **(keywords or {}))


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002 - Python's names, which callers pass by keyword
    locals: Mapping[str, Any] | None = None,  # noqa: A002
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> Any:
    """Import a module as Python 2 does.

    Inside a package, search that package first (an implicit relative import), then Python 2's library, then the
    other modules.
    """
    package = (globals or {}).get("__package__")
    top = name.split(".", maxsplit=1)[0]
    if level == 0 and package and importlib.util.find_spec(f"{package}.{top}") is not None:
        inner = importlib.import_module(f"{package}.{name}")
        return inner if fromlist else sys.modules[f"{package}.{top}"]
    old = standard_library.MODULES.get(name if fromlist else top) if level == 0 else None
    if old is None or (top not in _PYTHON3 and importlib.util.find_spec(top) is not None):
        return builtins.__import__(name, globals, locals, fromlist, level)
    if "." in name:
        importlib.import_module(name)
    return old


def _compile(source: Any, filename: str, mode: str, *args: Any, **options: Any) -> Any:
    if isinstance(source, (str, bytes)) and mode in ("exec", "eval"):
        return translate.compile_python2(as_text(source), filename, mode)
    return builtins.compile(source, filename, mode, *args, **options)


def _code(source: Any, mode: str, true_division: bool) -> Any:
    """Compile the source that ``exec`` or ``eval`` runs; return a value that is not text or bytes unchanged."""
    if not isinstance(source, (str, bytes)):
        return source
    return _compile_cached(as_text(source), mode, true_division)


@functools.lru_cache(maxsize=256)
def _compile_cached(source: str, mode: str, true_division: bool) -> types.CodeType:
    return translate.compile_python2(source, "<string>", mode, true_division)


#: The builtins of translated modules.
BUILTINS: dict[str, Any] = {
    **vars(builtins),
    "__import__": _import, "apply": _apply, "cmp": compare, "compile": _compile, "file": open_file, "filter": _filter,
    "intern": sys.intern, "map": _map, "open": open_file, "raw_input": input, "reduce": functools.reduce,
    "reload": importlib.reload, "round": numeric.round_half_away, "sorted": _sorted, "unichr": chr,
    "range": lambda *bounds: list(range(*bounds)),
    "zip": lambda *iterables: list(zip(*iterables, strict=False)),
    "StandardError": Exception, "basestring": str, "buffer": memoryview, "long": int, "unicode": str, "xrange": range,
    translate.BOUND: numeric.truncate,
    translate.CODE: _code,
    translate.DIVIDE: numeric.divide,
    translate.DIVIDE_NAME: numeric.divide_in_place,
    translate.DIVIDE_ITEM: numeric.divide_item,
    translate.DIVIDE_ATTRIBUTE: numeric.divide_attribute,
    translate.MESSAGE: removed_methods.get_message,
    translate.METHOD: removed_methods.get_method,
}  # fmt: skip

"""Modules of Python 2's standard library that are different, incomplete or missing in Python 3.

Source: docs.python.org/2.7/library; python/cpython@v2.7.18 Lib/random.py L186-L345, Lib/string.py, compared
with Python 2.7.18 in the tests.
"""

from __future__ import annotations

import builtins
import collections.abc
import csv
import io
import itertools
import math
import operator
import pickle
import random
import string
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from reproduction.pycaffe.python2 import numeric
from reproduction.pycaffe.python2.streams import StringIO, as_bytes, as_text, get_binary_file


class Random(random.Random):
    """Python 2's random number generator; for the same seed, each method returns Python 2's numbers."""

    def seed(self, a: Any = None, version: int = 1) -> None:
        """Seed the generator as Python 2 does.

        Args:
            a: A number, a string, or None for a seed that differs in each run.
            version: Ignored; Python 3's code passes it.
        """
        super().seed(a, version=1)

    def _randbelow(self, n: int) -> int:
        # The methods differ from Python 2's only in how they draw an integer, which they do here.
        if n < 1 << 53:
            return int(self.random() * n)
        return self._randbelow_with_getrandbits(n)  # type: ignore[attr-defined, no-any-return]

    def sample(self, population: Any, k: int) -> list[Any]:  # type: ignore[override]
        """Return ``k`` different elements in random order; with the same seed, those that Python 2 returns.

        Args:
            population: A sequence, a set, or a dict, of which keys are returned. Python 3 accepts only sequences.
            k: The number of elements.
        """
        return super().sample(population if isinstance(population, Sequence) else tuple(population), k)


def _copy_module(module: types.ModuleType, **names: Any) -> types.ModuleType:
    """Return a copy of a module with these names changed or added."""
    copy = types.ModuleType(module.__name__, module.__doc__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in vars(copy)}, **names)
    return copy


def _create_module(name: str, **names: Any) -> types.ModuleType:
    return _copy_module(types.ModuleType(name), **names)


def _create_random() -> types.ModuleType:
    generator = Random()
    methods = {name: getattr(generator, name) for name in random.__all__ if hasattr(generator, name)}
    return _copy_module(random, **methods, Random=Random, _inst=generator)


def _str_method(name: str) -> Callable[..., Any]:
    return lambda text, *args: getattr(text, name)(*args)


def _create_string() -> types.ModuleType:
    methods = (
        "capitalize", "center", "count", "expandtabs", "find", "index", "ljust", "lower", "lstrip", "replace", "rfind",
        "rindex", "rjust", "rsplit", "rstrip", "split", "strip", "swapcase", "upper",
    )  # fmt: skip
    errors = dict.fromkeys(("atof_error", "atoi_error", "atol_error", "index_error"), ValueError)
    named: dict[str, Any] = {name: _str_method(name) for name in methods}
    named |= {
        "atof": float,
        "atoi": lambda text, base=10: int(text, base),
        "atol": lambda text, base=10: int(text, base),
        "join": lambda words, sep=" ": sep.join(words),
        "joinfields": lambda words, sep=" ": sep.join(words),
        "letters": string.ascii_letters,
        "lowercase": string.ascii_lowercase,
        "maketrans": str.maketrans,
        "splitfields": named["split"],
        "translate": translate,
        "uppercase": string.ascii_uppercase,
        "zfill": lambda text, width: (text if isinstance(text, str) else repr(text)).zfill(width),
    }
    # Python 3 has the same whitespace characters in a different order.
    return _copy_module(string, **named, **errors, whitespace="\t\n\x0b\x0c\r ")


def translate(text: str, table: Any, deletions: str = "") -> str:
    """Return a text without some characters and with others replaced, as Python 2's ``str.translate`` does.

    Args:
        text: The text.
        table: A table from ``string.maketrans`` that maps the remaining characters; None keeps them.
        deletions: The characters to delete first.
    """
    kept = "".join(character for character in text if character not in deletions) if deletions else text
    return kept if table is None else kept.translate(table)


def _create_types() -> types.ModuleType:
    kinds: dict[str, Any] = {
        "BooleanType": bool, "BufferType": memoryview, "ClassType": type, "ComplexType": complex, "DictType": dict,
        "DictionaryType": dict, "EllipsisType": type(...), "FileType": io.IOBase, "FloatType": float, "IntType": int,
        "ListType": list, "LongType": int, "NoneType": type(None), "NotImplementedType": type(NotImplemented),
        "ObjectType": object, "SliceType": slice, "StringType": str, "StringTypes": (str,), "TupleType": tuple,
        "TypeType": type, "UnboundMethodType": types.FunctionType, "UnicodeType": str, "XRangeType": range,
    }  # fmt: skip
    return _copy_module(types, **kinds)


class _Unpickler(pickle.Unpickler):
    # Python 2 pickles store arrays as strings of bytes; latin1 decodes each byte to one character.
    def __init__(self, file: Any, **options: Any):
        super().__init__(get_binary_file(file), **{"encoding": "latin1", **options})


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, protocol: int = 0):
        super().__init__(get_binary_file(file), protocol)


def _dumps(value: Any, protocol: int = 0) -> bytes:
    file = io.BytesIO()
    _Pickler(file, protocol).dump(value)
    return file.getvalue()


def _create_pickle() -> types.ModuleType:
    return _copy_module(
        pickle,
        load=lambda file, **options: _Unpickler(file, **options).load(),
        loads=lambda data, **options: _Unpickler(io.BytesIO(as_bytes(data)), **options).load(),
        dump=lambda value, file, protocol=0: _Pickler(file, protocol).dump(value),
        dumps=_dumps,
        Pickler=_Pickler,
        Unpickler=_Unpickler,
    )


def _decode_lines(lines: Iterable[Any]) -> Iterator[Any]:
    return (as_text(line) for line in lines)


class _DictReader(csv.DictReader):  # type: ignore[type-arg]
    def __init__(self, f: Iterable[Any], *args: Any, **options: Any):
        super().__init__(_decode_lines(f), *args, **options)


def _imap(function: Callable[..., Any] | None, *iterables: Iterable[Any]) -> Iterator[Any]:
    return zip(*iterables, strict=False) if function is None else map(function, *iterables)


def _check_output(*args: Any, **options: Any) -> Any:
    return as_text(subprocess.check_output(*args, **options))


#: The modules that translated sources import, by name.
MODULES: dict[str, types.ModuleType] = {
    "UserDict": _create_module(
        "UserDict",
        UserDict=collections.UserDict,
        IterableUserDict=collections.UserDict,
        DictMixin=collections.abc.MutableMapping,
    ),
    "csv": _copy_module(csv, reader=lambda lines, *args, **options: csv.reader(_decode_lines(lines), *args, **options),
                    DictReader=_DictReader),
    "exceptions": _copy_module(builtins, StandardError=Exception),
    "io": _copy_module(io, StringIO=StringIO),
    "itertools": _copy_module(itertools, izip=zip, imap=_imap, ifilter=filter, izip_longest=itertools.zip_longest,
                          ifilterfalse=itertools.filterfalse),
    # Python 2's ceil and floor return floats; integers would change the division that follows.
    "math": _copy_module(math, ceil=lambda x: float(math.ceil(x)) if math.isfinite(x) else float(x),
                     floor=lambda x: float(math.floor(x)) if math.isfinite(x) else float(x)),
    "numpy": numeric.NUMPY,
    "numpy.random": numeric.NUMPY.random,
    "operator": _copy_module(operator, div=numeric.divide, isCallable=callable),
    "pickle": _create_pickle(),
    "random": _create_random(),
    "sets": _create_module("sets", Set=set, ImmutableSet=frozenset),
    "string": _create_string(),
    "subprocess": _copy_module(subprocess, check_output=_check_output),
    "types": _create_types(),
}  # fmt: skip
#: The modules among them that Python 3 does not have, and the names that Python 3's versions of the others lack.
PYTHON2_MODULES = frozenset(MODULES) - sys.stdlib_module_names - {"numpy", "numpy.random"}
PYTHON2_NAMES = {
    name: frozenset(vars(module)) - set(dir(sys.modules[name]))
    for name, module in MODULES.items()
    if name in sys.stdlib_module_names
}
MODULES |= {"StringIO": MODULES["io"], "cStringIO": MODULES["io"], "cPickle": MODULES["pickle"]}

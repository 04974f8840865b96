"""Reader of untrusted JSON: parse it within limits, and convert it to a dataclass by the types of its fields.

    @dataclass(frozen=True)
    class Point:
        x: Annotated[float, between(0, 1)]
        names: Sequence[str] = ()

    load("p.json", Point, "this is not a point")      # Point(x=0.5, names=["a"]), or
    # DataError: p.json: this is not a point: names[1] is 3; want a string.

Supported types are ``bool``, ``int``, ``float``, ``str``, ``None``, unions, string enumerations, ``Sequence``,
``tuple``, ``Mapping`` with string keys, and dataclasses, whose fields are the names of a JSON object. A dataclass may
have a method ``check``: if the fields are inconsistent, it returns what is expected, else None. Names in
``extra_names`` of a dataclass are ignored; ``"*"`` stands for all unknown names. No other module parses JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from reproduction.caffe.errors import DataError, StrPath, did_you_mean
from reproduction.caffe.formats import files

T = TypeVar("T")
LIMIT = 256 << 20
"""The most bytes of a file, several times what the scores of a large data set take."""

_INTEGERS = 1 << 63  # integers are limited to 64 bits
_SHOWN = 60  # characters of a value in an error
# Numbers that may exceed the range of a double, and escapes that may be lone surrogates.
_SUSPICIOUS = re.compile(rb"[eE]\+?\d{3}|\d{300}|\\u[dD][89a-fA-F]")


class NotJsonError(ValueError):
    """The error for text that is not JSON, or contains a value that ``parse`` rejects; the message is the reason."""


class MismatchError(ValueError):
    """The error for a parsed JSON value that does not match the declared type.

    Attributes:
        place: where the value is, such as ``nets[2].mean_iu``; empty for the document itself.
        problem: what is wrong with it, such as ``is 3``.
        want: what is expected, such as ``a string``; None if the problem says it.
        remedy: a suggestion for an unknown name, or an empty string.
    """

    def __init__(self, problem: str, want: str | None = None, remedy: str = "") -> None:
        super().__init__(problem)
        self.place, self.problem, self.want, self.remedy = "", problem, want, remedy

    def inside(self, step: str) -> MismatchError:
        """Put a name, or an index such as ``[2]``, in front of the place of this error, and return the error."""
        joined = "" if not self.place or self.place.startswith("[") else "."
        self.place = f"{step}{joined}{self.place}"
        return self

    def __str__(self) -> str:
        return f"{self.place or 'it'} {self.problem}"


@dataclass(frozen=True)
class Constraint:
    """A condition on a value in JSON, written ``Annotated[TYPE, constraint]`` in a dataclass.

    Attributes:
        want: the expected value in words, for errors.
        holds: a function that takes the value, and returns a true value if the condition is met.
    """

    want: str
    holds: Callable[[Any], object]


def between(low: float, high: float) -> Constraint:
    """Return a constraint that allows numbers from ``low`` to ``high``, both included."""
    return Constraint(f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


def at_least(low: int) -> Constraint:
    """Return a constraint that allows numbers of at least ``low``."""
    return Constraint(f"{low} or more", lambda value: value >= low)


def one_of(values: Iterable[str]) -> Constraint:
    """Return a constraint that allows only the strings in ``values``."""
    known = tuple(values)
    return Constraint(" or ".join(known), lambda value: value in known)


def matching(pattern: str, want: str) -> Constraint:
    """Return a constraint that allows strings that a regular expression matches completely.

    Args:
        pattern: the regular expression.
        want: what it matches, in words, for errors.
    """
    compiled = re.compile(pattern)
    return Constraint(want, compiled.fullmatch)


class OpenRecord:
    """A base of dataclasses that ignore the names for which they have no field; see ``extra_names``."""

    extra_names: ClassVar = ("*",)


def parse(text: bytes) -> Any:
    """Parse JSON text to dicts, lists and scalars, more strictly than ``json.loads``.

    Numbers must be finite, and the names of an object unique. Lone surrogates are rejected in strings, except those by
    which Python represents undecodable bytes of file names (U+DC80 to U+DCFF).

    Raises:
        NotJsonError: If the text is not such JSON.
    """
    try:
        value = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_check_names, parse_constant=_reject_constant)
        if _SUSPICIOUS.search(text):
            _check_values(value)
    except RecursionError:
        raise NotJsonError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise NotJsonError(f"byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise NotJsonError(str(error).partition("; use sys.")[0].splitlines()[0]) from None
    return value


def _check_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {format_value(twice)} occurs twice")
    return found


def _reject_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _check_values(value: Any) -> None:
    """Check that a parsed value has no infinite numbers and no lone surrogates; see ``parse``."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_values(name)
            _check_values(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large")
    elif isinstance(value, str) and re.search("[\ud800-\udc7f\udd00-\udfff]", value):
        raise ValueError(f"the string {format_value(value)} is not text")


def convert(kind: type[T], value: object) -> T:
    """Convert a value that ``parse`` returned to an instance of the type ``kind``, such as a dataclass.

    Raises:
        MismatchError: If the value does not match the type.
    """
    converted: T = _converter(typing.cast(Any, kind))(value)
    return converted


def loads(
    text: bytes, kind: type[T], path: StrPath, problem: str, *, remedy: str = "", version: int | None = None
) -> T:
    """Parse JSON text, and convert it to an instance of the type ``kind``.

    Args:
        text: the JSON, UTF-8.
        kind: the type, such as a dataclass.
        path: the file to name in errors.
        problem: the beginning of the error's message, such as ``this is not a model card``.
        remedy: the end of the error's message.
        version: if not None, the document must have the name ``format`` with this value, which is not passed to
            ``kind``.

    Raises:
        DataError: If the text is not JSON, or does not match the type; the message names the place.
    """
    try:
        value = parse(text)
        if version is not None:
            value = _check_version(value, version)
        return convert(kind, value)
    except NotJsonError as error:
        raise DataError(f"{problem}: {error}", path=path, want="JSON", remedy=remedy) from None
    except MismatchError as error:
        hint = " ".join(filter(None, (error.remedy, remedy)))
        raise DataError(f"{problem}: {error}", path=path, want=error.want, remedy=hint) from None


def load(
    path: StrPath,
    kind: type[T],
    problem: str,
    *,
    remedy: str = "",
    version: int | None = None,
    limit: int = LIMIT,
) -> T:
    """Load a JSON file, and convert it to an instance of the type ``kind``.

    Args:
        path: the file.
        kind: see ``loads``.
        problem: see ``loads``.
        remedy: see ``loads``.
        version: see ``loads``.
        limit: the most bytes that the file may have.

    Raises:
        DataError: If the file is not JSON, does not match the type, is not a regular file, or is larger than ``limit``.
        OSError: If the file cannot be read.
    """
    text = files.read_regular(path, limit)
    return loads(text, kind, path, problem, remedy=remedy, version=version)


def dumps(value: object, indent: int | None = None) -> str:
    """Return a value as JSON text. Characters outside of ASCII are not escaped, unless UTF-8 cannot encode the text.

    Args:
        value: the value: dicts, lists and scalars.
        indent: spaces of indentation for each level; None for a single line.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return text if files.is_utf8(text) else json.dumps(value, indent=indent, allow_nan=False)


def format_value(value: object) -> str:
    """Return a value as JSON text of at most 60 characters, for errors; the name of its type if it cannot be JSON."""
    try:
        text = dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _check_version(value: object, version: int) -> object:
    members = _check_object(value)
    if "format" not in members:
        raise MismatchError("has no format", str(version))
    got = members["format"]
    if type(got) is not int or got != version:
        raise _mismatch(got, str(version)).inside("format")
    return {name: inner for name, inner in members.items() if name != "format"}


def _mismatch(value: object, want: str) -> MismatchError:
    return MismatchError(f"is {format_value(value)}", want)


_Converter = Callable[[Any], Any]


@cache
def _converter(kind: Any) -> _Converter:
    """Return the function that converts parsed JSON to the type ``kind``; the result is cached."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _constrained(_converter(parts[0]), [part for part in parts[1:] if isinstance(part, Constraint)])
    if origin in (Union, types.UnionType):
        return _union([part for part in parts if part is not type(None)], none=type(None) in parts)
    if origin is tuple and parts[-1] is not Ellipsis:
        return _fixed([_converter(part) for part in parts])
    if origin in (list, tuple, Sequence, frozenset):
        return _sequence(_converter(parts[0]), list if origin is Sequence else origin)
    if origin in (dict, Mapping):
        return _mapping(_converter(parts[1]))
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _enum_member({str(member): member for member in kind})
    return _SCALARS[kind]


def _constrained(inner: _Converter, checks: Sequence[Constraint]) -> _Converter:
    def converter(value: Any) -> Any:
        converted = inner(value)
        for check in checks:
            if not check.holds(converted):
                raise _mismatch(value, check.want)
        return converted

    return converter


def _union(kinds: Sequence[Any], *, none: bool) -> _Converter:
    converters = [_converter(kind) for kind in kinds]

    def converter(value: Any) -> Any:
        if value is None and none:
            return None
        for inner in converters[:-1]:  # the error of the last type, if any, is the one that is reported
            try:
                return inner(value)
            except MismatchError:
                continue
        return converters[-1](value)

    return converter


def _enum_member(values: Mapping[str, StrEnum]) -> _Converter:
    def converter(value: Any) -> StrEnum:
        if not isinstance(value, str) or value not in values:
            raise _mismatch(value, " or ".join(map(str, values)))
        return values[value]

    return converter


def _convert_each(converters: Sequence[_Converter], items: list[Any]) -> list[Any]:
    converted, number = [], 0
    try:
        for number, (converter, item) in enumerate(zip(converters, items, strict=True)):  # noqa: B007 (read in the error)
            converted.append(converter(item))
    except MismatchError as error:
        raise error.inside(f"[{number}]") from None
    return converted


def _sequence(inner: _Converter, kind: Callable[[list[Any]], Any]) -> _Converter:
    return lambda value: kind(_convert_each([inner] * len(_check_list(value)), value))


def _fixed(converters: Sequence[_Converter]) -> _Converter:
    def converter(value: Any) -> Any:
        if len(_check_list(value)) != len(converters):
            raise _mismatch(value, f"{len(converters)} values")
        return tuple(_convert_each(converters, value))

    return converter


def _mapping(inner: _Converter) -> _Converter:
    return lambda value: _convert_members(value, lambda _: inner)


def _convert_members(value: Any, find: Callable[[str], _Converter | None]) -> dict[str, Any]:
    """Convert the members of an object, each by the converter that ``find`` returns for its name; None omits it."""
    converted, name = {}, ""
    members = _check_object(value).items()
    try:
        for name, item in members:
            if (inner := find(name)) is not None:
                converted[name] = inner(item)
    except MismatchError as error:
        raise error.inside(_path_step(name)) from None
    return converted


def _path_step(name: str) -> str:
    return name if re.fullmatch(r"\w{1,60}", name) else f"[{format_value(name)}]"


def _dataclass(kind: Any) -> _Converter:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: _converter(hints[field.name]) for field in dataclasses.fields(kind)}
    needed = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    extra = set(getattr(kind, "extra_names", ()))

    def find(name: str) -> _Converter | None:
        if name not in fields and name not in extra and "*" not in extra:
            raise MismatchError("is not a known name", ", ".join(fields), did_you_mean(name, fields))
        return fields.get(name)

    def converter(value: Any) -> Any:
        found = _convert_members(value, find)
        for name in needed:
            if name not in found:
                raise MismatchError("is missing").inside(name)
        converted = kind(**found)
        if hasattr(converted, "check") and (want := converted.check()):
            raise MismatchError("is inconsistent", want)
        return converted

    return converter


def _is_integer(value: object) -> bool:
    return type(value) is int and -_INTEGERS <= value < _INTEGERS


def _integer(value: Any) -> int:
    if not _is_integer(value):
        raise _mismatch(value, "an integer")
    return int(value)


def _number(value: Any) -> float:
    if type(value) is not float and not _is_integer(value):
        raise _mismatch(value, "a number")
    return float(value)


def _of_type(kind: type, want: str) -> _Converter:
    def converter(value: Any) -> Any:
        if type(value) is not kind:
            raise _mismatch(value, want)
        return value

    return converter


_check_list, _check_object = _of_type(list, "a list"), _of_type(dict, "an object")

_SCALARS: dict[Any, _Converter] = {
    int: _integer,
    float: _number,
    str: _of_type(str, "a string"),
    bool: _of_type(bool, "true or false"),
    dict: _check_object,
    Any: lambda value: value,
}

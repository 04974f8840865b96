"""The descriptors that declare the fields of messages.

Each function of this module declares a field of one kind, such as ``int32(3, default=1)``; the first argument is the
number of the field in the wire format, as in ``caffe.proto``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import numpy as np

from reproduction.caffe.errors import ReproductionError, did_you_mean, spelling_hint
from reproduction.caffe.schema.dialect import Dialect
from reproduction.caffe.schema.scalar_types import (
    BOOL,
    BYTES,
    FLOAT,
    INT32,
    INT64,
    LENGTH,
    STRING,
    UINT32,
    VARINT,
    MisfitError,
    ScalarType,
)
from reproduction.caffe.typing import Array

if TYPE_CHECKING:
    from reproduction.caffe.schema.message import Message

T = TypeVar("T")
E = TypeVar("E", bound=enum.IntEnum)
M = TypeVar("M", bound="Message")


class MessageList(list[M]):
    """The list of a repeated sub-message, such as ``net.layer``. ``message`` is the class of its elements."""

    def __init__(self, message: type[M], items: Iterable[M] = ()):
        super().__init__(items)
        self.message = message

    def add(self, **fields: Any) -> M:
        """Create a message with these field values, append it to the list, and return it."""
        self.append(self.message(**fields))
        return self[-1]


class Field(Generic[T]):
    """A declared field of a message class: a descriptor that gets and sets the field's value on a message.

    Attributes:
        name: the field's name, as in a prototxt.
        owner: the name of the message class that declares the field.
        number: the field's number in the wire format, as in ``caffe.proto``.
        kind: the scalar type, such as INT32; None for enums and messages.
        enum: the enum class, or None.
        message: the class of the sub-message, or None.
        repeated: whether the value is a list.
        packed: whether a repeated scalar is written packed. Both forms are always read.
        array: whether the list is a one-dimensional NumPy array (weights) instead of a Python list.
        default: the value of an unset scalar; None for the zero of ``kind`` or the first value of ``enum``.
        required: whether the field must be set (proto2 ``required``); only ClipParameter has such fields.
        dialect: the fork of Caffe that adds the field; None for BVLC's fields.
        fork_enums: enums of forks with further values of a field that has an enum. A value whose number BVLC uses for
            another one is read from text alone.
        has_effect: whether the field changes results. False for fields of forks that only choose how to compute them.
    """

    name: str = ""
    owner: str = ""
    dialect: Dialect | None = None
    fork_enums: tuple[type[enum.IntEnum], ...] = ()
    has_effect: bool = True

    def __init__(
        self,
        number: int,
        *,
        kind: ScalarType | None = None,
        enum: type[enum.IntEnum] | None = None,
        message: type[Message] | None = None,
        repeated: bool = False,
        packed: bool = False,
        array: bool = False,
        required: bool = False,
        default: Any = None,
    ):
        self.number, self.kind, self.enum, self.message = number, kind, enum, message
        self.repeated, self.packed, self.array, self.required = repeated, packed, array, required
        self.default = kind.check(default) if kind and default is not None else default

    def __set_name__(self, owner: type[Message], name: str) -> None:
        self.name, self.owner = name, owner.__name__

    @property
    def wire(self) -> int:
        """The wire type of one value of this field, such as VARINT; a packed list has LENGTH instead."""
        return self.kind.wire if self.kind else VARINT if self.enum else LENGTH

    def check(self, value: Any) -> Any:
        """Return a value of this field, converted to the form in which the field stores it.

        A repeated field takes a list. An enum may be its name, and a sub-message a dict.

        Raises:
            ReproductionError: If the value is not of the field's type; the message contains the value.
        """
        if self.repeated:
            return self._check_list(value)
        return self.check_one(value)

    def check_one(self, value: Any) -> Any:
        """Return a single value, or one element of a repeated field, converted as by ``check``."""
        try:
            if self.kind is not None:
                return self.kind.check(value)
            return self._check_enum(value) if self.enum is not None else self._check_message(value)
        except MisfitError as misfit:
            raise self.error(misfit.got, misfit.want, misfit.remedy) from None

    def error(self, got: str, want: str, remedy: str = "") -> ReproductionError:
        """Return the error for a value that this field cannot hold.

        Args:
            got: the value as text; it is cut to 80 characters.
            want: what the field can hold, in words.
            remedy: a sentence on what to do.
        """
        got = got if len(got) <= 80 else f"{got[:77]}..."
        return ReproductionError(f"wrong value for {self.owner}.{self.name}", got=got, want=want, remedy=remedy)

    def _check_enum(self, value: Any) -> enum.IntEnum:
        assert self.enum is not None
        if isinstance(value, self.fork_enums):
            return value
        try:
            return self.enum[value] if isinstance(value, str) else self.enum(value)
        except (KeyError, ValueError):
            if (found := self._find_fork_value(value)) is not None:
                return found
            names = list(self.enum.__members__)
            want = f"one of {', '.join(names)}" if len(names) < 10 else f"a name of {self.enum.__name__}"
            near = did_you_mean if len(names) < 10 else spelling_hint
            others = [name for each in self.fork_enums for name in each.__members__]
            raise MisfitError(value, want, near(value, [*names, *others]) if isinstance(value, str) else "") from None

    def _find_fork_value(self, name: Any) -> enum.IntEnum | None:
        from reproduction.caffe.schema.message import Message  # imported here, as it imports this module

        if not any(name in each.__members__ for each in self.fork_enums):
            Message.import_late_fields()
        return next((each[name] for each in self.fork_enums if name in each.__members__), None)

    def find_numbered(self, number: int) -> enum.IntEnum | None:
        """Return the value of the field's enum, or of a fork's, that a binary file has as ``number``; None if none."""
        assert self.enum is not None
        return next((each(number) for each in (self.enum, *self.fork_enums) if number in each._value2member_map_), None)

    def _check_message(self, value: Any) -> Message:
        assert self.message is not None
        if isinstance(value, dict):
            value = self.message(**value)
        if not isinstance(value, self.message):
            raise MisfitError(value, f"a {self.message.__name__}")
        value.present = True
        return value

    def _check_list(self, value: Any) -> Any:
        if self.array:
            return self._check_array(value)
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise self.error(repr(value), "a list")
        items = [self.check_one(item) for item in value]
        return MessageList(self.message, items) if self.message else items

    def _check_array(self, value: Any) -> Array:
        assert self.kind is not None
        try:
            with np.errstate(over="ignore"):  # as in C++, a value out of range becomes an infinity
                return np.asarray(value, self.kind.dtype).reshape(-1)
        except (TypeError, ValueError):
            raise self.error(repr(value), "an array of numbers") from None

    def unset(self) -> Any:
        """Return what an unset field reads as: its default, an empty list or array, or a new, empty message."""
        if self.array:
            assert self.kind is not None
            return np.empty(0, self.kind.dtype)
        if self.repeated:
            return MessageList(self.message) if self.message else []
        if self.message is not None:
            return self.message()
        if self.default is not None:
            return self.default
        return self.kind.zero if self.kind else next(iter(self.enum or ()))

    @overload
    def __get__(self, instance: None, owner: type[Message]) -> Self: ...
    @overload
    def __get__(self, instance: Message, owner: type[Message]) -> T: ...
    def __get__(self, instance: Message | None, owner: type[Message]) -> Self | T:
        if instance is None:
            return self
        value = instance.values.get(self.name)
        if value is None:
            value = self.unset()
            if self.repeated or self.message:
                instance.values[self.name] = value  # stored, so that later changes of the list or message persist
        return value  # type: ignore[no-any-return]

    def __set__(self, instance: Message, value: T) -> None:
        instance.values[self.name] = self.check(value)

    def get(self, message: Message) -> T:
        """Return the value of this field in ``message``.

        The same as ``message.NAME``, but with a type that type checkers know, for fields added by
        ``Message.add_field``. If several dialects add a sub-message of this name, it is returned as that of this
        field, with its defaults; both share their values.
        """
        value = getattr(message, self.name)
        if self.message is None or self.repeated or isinstance(value, self.message):
            return value  # type: ignore[no-any-return]
        own = self.message()
        own.values, own.present, own.line = value.values, value.present, value.line
        return own  # type: ignore[return-value]

    def as_written(self, value: Any) -> tuple[Field[Any], Any]:
        """Return the field and the value that are written to a binary file for a value of this field."""
        return self, value


def int32(number: int, default: int | None = None) -> Field[int]:
    """Declare an optional int32 field; unset, it reads as ``default`` or 0."""
    return Field(number, kind=INT32, default=default)


def int64(number: int, default: int | None = None) -> Field[int]:
    """Declare an optional int64 field; unset, it reads as ``default`` or 0."""
    return Field(number, kind=INT64, default=default)


def uint32(number: int, default: int | None = None) -> Field[int]:
    """Declare an optional uint32 field; unset, it reads as ``default`` or 0."""
    return Field(number, kind=UINT32, default=default)


def boolean(number: int, default: bool | None = None) -> Field[bool]:
    """Declare an optional bool field; unset, it reads as ``default`` or False."""
    return Field(number, kind=BOOL, default=default)


def single(number: int, default: float | None = None, *, required: bool = False) -> Field[float]:
    """Declare an optional (or required) float; unset, it reads as ``default`` or 0. Values have single precision."""
    return Field(number, kind=FLOAT, default=default, required=required)


def string(number: int, default: str | None = None) -> Field[str]:
    """Declare an optional string field; unset, it reads as ``default`` or ""."""
    return Field(number, kind=STRING, default=default)


def octets(number: int) -> Field[bytes]:
    """Declare an optional bytes field."""
    return Field(number, kind=BYTES)


def choice(number: int, values: type[E], default: E | None = None) -> Field[E]:
    """Declare an optional field of the enum ``values``; unset, it reads as ``default`` or the enum's first value."""
    return Field(number, enum=values, default=default)


def nested(number: int, message: type[M]) -> Field[M]:
    """Declare an optional sub-message, whose class is ``message``."""
    return Field(number, message=message)


def messages(number: int, message: type[M]) -> Field[MessageList[M]]:
    """Declare a repeated sub-message, whose class is ``message``; the value is a ``MessageList``."""
    return Field(number, message=message, repeated=True)


def integers(number: int, kind: ScalarType, *, packed: bool = False) -> Field[list[int]]:
    """Declare a repeated integer field of the kind INT32, INT64 or UINT32; the value is a list."""
    return Field(number, kind=kind, repeated=True, packed=packed)


def booleans(number: int) -> Field[list[bool]]:
    """Declare a repeated bool field; the value is a list."""
    return Field(number, kind=BOOL, repeated=True)


def singles(number: int) -> Field[list[float]]:
    """Declare a repeated float field whose value is a Python list; ``array`` declares one for weights."""
    return Field(number, kind=FLOAT, repeated=True)


def strings(number: int) -> Field[list[str]]:
    """Declare a repeated string field; the value is a list."""
    return Field(number, kind=STRING, repeated=True)


def choices(number: int, values: type[E]) -> Field[list[E]]:
    """Declare a repeated enum field, with values of the enum class ``values``; the value is a list."""
    return Field(number, enum=values, repeated=True)


def array(number: int, kind: ScalarType, *, packed: bool = True) -> Field[Array]:
    """Declare a repeated FLOAT or DOUBLE field whose value is a one-dimensional NumPy array, for weights."""
    return Field(number, kind=kind, repeated=True, packed=packed, array=True)

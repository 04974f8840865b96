"""The base class of messages, and the descriptors that declare their fields.

Every message of ``caffe.proto`` is a class whose attributes are ``Field`` descriptors. The readers and writers of the
text format and of the wire format use only these declarations and contain no field names.

Presence follows proto2: a scalar that is not set reads as its default, and ``has`` returns False. A sub-message is
created on first access, so ``layer.pooling_param.kernel_size`` returns its default and
``layer.pooling_param.kernel_size = 2`` sets it. It counts as set if it is not empty or was set explicitly.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np

from reproduction.caffe.errors import ReproductionError, did_you_mean, spelling_hint
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
    """

    name: str = ""
    owner: str = ""

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
        try:
            return self.enum[value] if isinstance(value, str) else self.enum(value)
        except (KeyError, ValueError):
            names = list(self.enum.__members__)
            want = f"one of {', '.join(names)}" if len(names) < 10 else f"a name of {self.enum.__name__}"
            near = did_you_mean if len(names) < 10 else spelling_hint
            raise MisfitError(value, want, near(value, names) if isinstance(value, str) else "") from None

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
        ``Message.add_field``.
        """
        return self.__get__(message, type(message))


class _SlotsMeta(type):
    """A metaclass that adds ``__slots__``, so that assigning to a misspelt field raises an AttributeError."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _SlotsMeta:
        namespace.setdefault("__slots__", ())
        return super().__new__(mcs, name, bases, namespace)


class Message(metaclass=_SlotsMeta):
    """The base class of every message of Caffe's format, such as ``NetParameter``. Keyword arguments set fields.

    Attributes:
        fields: the declared fields by name, sorted by number.
        by_number: the declared fields by number.
        required: the names of the fields that must be set.
        dialects: message classes that declare the fields that Caffe forks add to this class. When such a field is read,
            from text too, its bytes are stored in ``unknown`` until the dialect converts them.
        late_fields: a function that imports the modules that add fields to this class, or None. It is called once, when
            a name is looked up that is not declared.
        values: the values by field name. An unset field is absent, or its value is empty.
        present: True for a sub-message that was set explicitly, even if it is empty.
        line: the line of a prototxt at which the message begins; 0 if it was not read from text.
        unknown: the bytes, in the wire format, of fields that are not declared; they are written back, as by protobuf.
    """

    __slots__ = ("line", "present", "unknown", "values")

    fields: ClassVar[dict[str, Field[Any]]] = {}
    by_number: ClassVar[dict[int, Field[Any]]] = {}
    required: ClassVar[tuple[str, ...]] = ()
    dialects: ClassVar[tuple[type[Message], ...]] = ()
    late_fields: ClassVar[Callable[[], None] | None] = None

    def __init_subclass__(cls) -> None:
        declared = [value for value in vars(cls).values() if isinstance(value, Field)]
        cls.fields = {field.name: field for field in sorted(declared, key=lambda field: field.number)}
        cls.by_number = {field.number: field for field in cls.fields.values()}
        cls.required = tuple(field.name for field in cls.fields.values() if field.required)

    def __init__(self, **fields: Any):
        self.values: dict[str, Any] = {}
        self.present = False
        self.line = 0
        self.unknown = b""
        for name, value in fields.items():
            setattr(self, self.field(name).name, value)

    @classmethod
    def add_field(cls, name: str, field: Field[T]) -> Field[T]:
        """Declare a field that is not in ``caffe.proto``, such as ``nested(1001, BlurParameter)``, and return it.

        Raises:
            TypeError: If there is a field of this name or number.
        """
        if name in cls.fields or field.number in cls.by_number:
            raise TypeError(f"{cls.__name__} has a field {name!r} or {field.number}")
        field.__set_name__(cls, name)
        setattr(cls, name, field)
        cls.by_number = dict(sorted({**cls.by_number, field.number: field}.items()))
        cls.fields = {each.name: each for each in cls.by_number.values()}
        return field

    @classmethod
    def find_field(cls, name: str) -> Field[Any] | None:
        """Return the declared field of this name, or None; the modules that add fields are imported first."""
        if name not in cls.fields and cls.late_fields is not None:
            add_fields, cls.late_fields = cls.late_fields, None
            add_fields()
        return cls.fields.get(name)

    @classmethod
    def field(cls, name: str) -> Field[Any]:
        """Return the declared field of this name.

        Raises:
            ReproductionError: If there is no such field; the remedy names one with a similar name.
        """
        found = cls.fields.get(name) or cls.find_field(name)
        if found is None:
            raise ReproductionError(f"unknown field {name!r} in {cls.__name__}", remedy=spelling_hint(name, cls.fields))
        return found

    def has(self, name: str) -> bool:
        """Return True if the field ``name`` is set; a repeated field is set if it is not empty."""
        value = self.values.get(self.field(name).name)
        if value is None:
            return False
        if isinstance(value, Message):
            return value.present or not value.is_empty()
        return len(value) > 0 if self.fields[name].repeated else True

    def is_empty(self) -> bool:
        """Return True if no field is set, and there are no bytes of unknown fields."""
        return not self.unknown and not any(self.has(name) for name in self.values)

    def clear(self, name: str) -> None:
        """Unset the field ``name``, so that it reads as its default."""
        self.values.pop(self.field(name).name, None)

    def set_fields(self) -> Iterator[tuple[Field[Any], Any]]:
        """Yield ``(field, value)`` for each field that is set, sorted by field number."""
        for name, field in self.fields.items():
            if name in self.values and self.has(name):
                yield field, self.values[name]

    def merge(self, other: Self) -> None:
        """Merge another message into this one as protobuf does: replace scalars, extend lists, merge sub-messages.

        Args:
            other: a message of the same class, which is not changed; its values win.
        """
        for field, value in other.set_fields():
            if field.array:
                self.values[field.name] = np.concatenate([getattr(self, field.name), value])
            elif field.repeated:
                items = [item.copy() for item in value] if field.message else value
                getattr(self, field.name).extend(items)
            elif field.message:
                getattr(self, field.name).merge(value)
                getattr(self, field.name).present = True
            else:
                self.values[field.name] = value
        self.unknown += other.unknown

    def copy(self) -> Self:
        """Return a deep copy; only the arrays of weights are shared with this message."""
        twin = type(self)()
        twin.present, twin.line, twin.unknown = self.present, self.line, self.unknown
        for field, value in self.set_fields():
            if field.message and field.repeated:
                twin.values[field.name] = MessageList(field.message, [item.copy() for item in value])
            elif field.message:
                twin.values[field.name] = value.copy()
            else:
                twin.values[field.name] = list(value) if field.repeated and not field.array else value
        return twin

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Message):
            return NotImplemented
        mine, theirs = dict(self._named()), dict(other._named())
        if mine.keys() != theirs.keys() or self.unknown != other.unknown:
            return False
        return all(_equal_values(self.fields[name], mine[name], theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]  # messages are mutable

    def _named(self) -> Iterator[tuple[str, Any]]:
        return ((field.name, value) for field, value in self.set_fields())

    def __repr__(self) -> str:
        parts = [f"{name}={'...' if self.fields[name].array else repr(value)}" for name, value in self._named()]
        return f"{type(self).__name__}({', '.join(parts)})"


def _equal_values(field: Field[Any], mine: Any, theirs: Any) -> bool:
    if field.kind is not None and field.kind.dtype is not None:
        return np.array_equal(mine, theirs, equal_nan=True)
    return bool(mine == theirs)


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

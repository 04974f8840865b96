"""What a message of protobuf's Python interface can do, over a message of our schema.

A ``ProtoMessage`` holds no field of its own: it shows a ``Message`` of ``reproduction.caffe.schema`` with protobuf's
names and manners. Reading, writing, text and bytes are the schema's.

Source: protobuf.dev/reference/python/python-generated.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np

from reproduction.caffe.errors import CaffemodelError, ReproductionError, did_you_mean
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.schema import Field, Message
from reproduction.caffe.schema.message import BOOL, BYTES, DOUBLE, FLOAT, STRING
from reproduction.pycaffe.proto.containers import Array, Messages, Repeated
from reproduction.pycaffe.proto.descriptors import Descriptor

#: What shows the messages of each class of the schema; ``caffe_pb2`` fills it.
VIEWS: dict[type[Message], type[ProtoMessage]] = {}


class NoFieldError(ReproductionError, AttributeError):
    """A message has no such field."""


class MisfitError(ReproductionError, TypeError):
    """A value does not fit its field."""


def show(message: Message) -> ProtoMessage:
    """Show a message of the schema as programs know it; changes go both ways."""
    view = VIEWS[type(message)]
    shown = view.__new__(view)
    object.__setattr__(shown, "_message", message)
    return shown


def plain(message: ProtoMessage) -> Message:
    """Return the message of the schema behind a program's message; changes go both ways."""
    return message._message


class ProtoMessage:
    """A message with protobuf's methods; see the module.

    Fields are attributes: reading one that is not set gives its default, and repeated fields and sub-messages are
    live. Keyword arguments set fields.

    Raises:
        NoFieldError: there is no such field; it is an AttributeError, too.
        MisfitError: a value does not fit its field; it is a TypeError, too.
    """

    __slots__ = ("_message",)

    DESCRIPTOR: ClassVar[Descriptor]
    _schema: ClassVar[type[Message]]
    _message: Message

    def __init__(self, **fields: Any):
        object.__setattr__(self, "_message", self._schema())
        for name, value in fields.items():
            if value is not None:
                self._assign(name, value)

    def __getattr__(self, name: str) -> Any:
        field = self._field(name)
        if field.array:
            return Array(self._message, field, lambda value: _convert(field, value))
        if field.message and field.repeated:
            return Messages(self._message, field, lambda value: _copied(field, value), show)
        if field.repeated:
            return Repeated(self._message, field, lambda value: _convert(field, value))
        value = getattr(self._message, name)
        if field.message:
            return show(value)
        return int(value) if field.enum else value

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._field(name)
        if field.message or field.repeated:
            kind = "a repeated field" if field.repeated else "a sub-message"
            verb = "extend()" if field.repeated else "CopyFrom()"
            raise NoFieldError(f"{self._name}.{name} is {kind}; nothing is assigned to it", remedy=f"Use {verb}.")
        setattr(self._message, name, _convert(field, value))
        self._message.present = True

    def __delattr__(self, name: str) -> None:
        self.ClearField(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._schema.fields]

    @property
    def _name(self) -> str:
        return self._schema.__name__

    def _field(self, name: str) -> Field[Any]:
        found = self._schema.fields.get(name)
        if found is None:
            near = did_you_mean(name, [*self._schema.fields, *(each for each in dir(type(self)) if each[0] != "_")])
            raise NoFieldError(f"{self._name} has no field {name!r}", remedy=near)
        return found

    def _assign(self, name: str, value: Any) -> None:
        """Set a field as a keyword of the constructor does: lists, dicts and messages are taken, too."""
        field = self._field(name)
        if field.repeated:
            getattr(self, name).extend(value)
        elif field.message:
            getattr(self, name).CopyFrom(show(_copied(field, value)))
        else:
            setattr(self, name, value)

    def HasField(self, field_name: str) -> bool:
        """Say whether a field, not repeated, was set."""
        if self._field_or_value_error(field_name).repeated:
            raise ReproductionError(f"{self._name}.{field_name} is repeated", remedy="Ask for its len().")
        return self._message.has(field_name)

    def ClearField(self, field_name: str) -> None:
        """Unset a field."""
        self._field_or_value_error(field_name)
        self._message.clear(field_name)
        self._message.present = True

    def _field_or_value_error(self, name: str) -> Field[Any]:
        return self._schema.field(name)

    def Clear(self) -> None:
        """Unset every field."""
        self._message.values.clear()
        self._message.unknown = b""
        self._message.present = True

    def CopyFrom(self, other_msg: ProtoMessage) -> None:
        """Become a copy of another message of the same type."""
        if other_msg is not self:
            copy = self._same_type(other_msg).copy()
            self.Clear()
            self._message.merge(copy)

    def MergeFrom(self, other_msg: ProtoMessage) -> None:
        """Take the fields of another message of the same type: scalars replace, lists append, sub-messages merge."""
        self._message.merge(self._same_type(other_msg).copy())
        self._message.present = True

    def _same_type(self, other: ProtoMessage) -> Message:
        if type(other) is not type(self):
            raise MisfitError("wrong type of message", got=type(other).__name__, want=self._name)
        return other._message

    def SetInParent(self) -> None:
        """Count as set, even if empty."""
        self._message.present = True

    def MergeFromString(self, serialized: bytes) -> int:
        """Merge a message of the wire format; return the number of bytes.

        Raises:
            CaffemodelError: the bytes are no such message. It is ``google.protobuf.message.DecodeError`` here.
        """
        data = bytes(serialized)
        self._message.merge(caffemodel.loads(data, self._schema))
        self._message.present = True
        return len(data)

    def ParseFromString(self, serialized: bytes) -> int:
        """Become the message that these bytes of the wire format hold; return their number.

        Raises:
            CaffemodelError: the bytes are no such message.
        """
        self.Clear()
        return self.MergeFromString(serialized)

    @classmethod
    def FromString(cls, s: bytes) -> Self:
        """Read a message from bytes; see ``ParseFromString``."""
        message = cls()
        message.ParseFromString(s)
        return message

    def SerializeToString(self, **_: bool) -> bytes:
        """Write the message in the wire format.

        Raises:
            ReproductionError: a required field is not set.
        """
        return caffemodel.dumps(self._message)

    def ByteSize(self) -> int:
        """Return the size of the wire format."""
        return len(self.SerializeToString())

    def ListFields(self) -> list[tuple[Any, Any]]:
        """List the fields that are set, each as its descriptor and its value, by number."""
        by_name = self.DESCRIPTOR.fields_by_name
        return [(by_name[field.name], getattr(self, field.name)) for field, _ in self._message.set_fields()]

    def WhichOneof(self, oneof_group: str) -> str | None:
        """Raise: no message of Caffe's has a oneof."""
        raise ReproductionError(f"{self._name} has no oneof {oneof_group!r}")

    def FindInitializationErrors(self) -> list[str]:
        """List the required fields that are not set, here and below."""
        return list(_missing(self._message, ""))

    def IsInitialized(self) -> bool:
        """Say whether every required field is set."""
        return not self.FindInitializationErrors()

    def __eq__(self, other: object) -> bool:
        return self._message == other._message if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # messages change

    def __deepcopy__(self, memo: object) -> Self:
        return show(self._message.copy())  # type: ignore[return-value]

    def __copy__(self) -> Self:
        return self.__deepcopy__(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).FromString, (self.SerializeToString(),)

    def __str__(self) -> str:
        return prototxt.dumps(self._message)

    __repr__ = __str__


def _missing(message: Message, place: str) -> Iterator[str]:
    yield from (place + name for name in message.required if not message.has(name))
    for field, value in message.set_fields():
        if field.message:
            for i, item in enumerate(value if field.repeated else [value]):
                index = f"[{i}]" if field.repeated else ""
                yield from _missing(item, f"{place}{field.name}{index}.")


def _convert(field: Field[Any], value: Any) -> Any:
    """Make the stored value of one that a program gives, as freely as protobuf: 1 is true, bytes may be a string."""
    try:
        if field.kind is BOOL or (field.kind not in (STRING, BYTES) and isinstance(value, (bool, np.bool_))):
            number = operator.index(value if not isinstance(value, np.bool_) else bool(value))
            return bool(number) if field.kind is BOOL else field.check_one(number)
        if field.kind is STRING and isinstance(value, bytes):
            return value.decode("utf-8", "surrogateescape")
        if field.kind in (FLOAT, DOUBLE) and isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
        return field.check_one(value)
    except (ReproductionError, TypeError):
        error = field.error(repr(value), _wanted(field))
        raise MisfitError(error.problem, got=error.got, want=error.want, remedy=error.remedy) from None


def _wanted(field: Field[Any]) -> str:
    if field.enum:
        return f"a value of {field.enum.__name__}"
    assert field.kind is not None
    return {"string": "a string", "bytes": "bytes", "bool": "true or false"}.get(
        field.kind.name, f"a {field.kind.name}"
    )


def _copied(field: Field[Any], value: Any) -> Message:
    """Make the schema's message of a program's message, or of a dict of its fields."""
    assert field.message is not None
    view = VIEWS[field.message]
    if isinstance(value, dict):
        return view(**value)._message
    if isinstance(value, view):
        return value._message.copy()
    raise MisfitError(f"wrong value for {field.owner}.{field.name}", got=repr(value), want=f"a {view.__name__}")


__all__ = ["VIEWS", "CaffemodelError", "MisfitError", "NoFieldError", "ProtoMessage", "plain", "show"]

"""protobuf's Python interface to messages of ``reproduction.caffe.schema``.

A ``ProtoMessage`` stores no fields: it is a view of a ``Message`` of the schema, with protobuf's method names and
semantics. The schema stores the fields, and ``reproduction.caffe.formats`` reads and writes text and bytes.

Source: protobuf.dev/reference/python/python-generated.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import numpy as np

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.schema import Field, Message
from reproduction.caffe.schema.scalar_types import BOOL, BYTES, DOUBLE, FLOAT, STRING
from reproduction.pycaffe.proto.containers import RepeatedMessages, RepeatedNumbers, RepeatedScalars
from reproduction.pycaffe.proto.descriptors import Descriptor


class _ProtoClasses(dict[type[Message], "type[ProtoMessage]"]):
    """A dict that calls ``create``, which ``caffe_pb2`` sets, for a message class that a program has added."""

    create: Callable[[type[Message]], type[ProtoMessage]]

    def __missing__(self, message: type[Message]) -> type[ProtoMessage]:
        return self.create(message)


#: The ``ProtoMessage`` subclass for each message class of the schema.
PROTO_CLASSES = _ProtoClasses()


class NoFieldError(ReproductionError, AttributeError):
    """Raised when a message has no such field, or a repeated field or sub-message is assigned, as in protobuf."""


class MisfitError(ReproductionError, TypeError):
    """Raised when a value does not fit its field; also a TypeError."""


def wrap(message: Message) -> ProtoMessage:
    """Return the ``ProtoMessage`` that gives a message of the schema protobuf's interface.

    Both have the same fields, so that a change of one changes the other. ``unwrap`` is the inverse.
    """
    kind = PROTO_CLASSES[type(message)]
    view = kind.__new__(kind)
    object.__setattr__(view, "_message", message)
    return view


def unwrap(message: ProtoMessage) -> Message:
    """Return the message of ``reproduction.caffe.schema`` in which a ``ProtoMessage`` stores its fields.

    It is not a copy: a change of one changes the other. Functions of ``reproduction.caffe`` take such messages.
    """
    return message._message


class ProtoMessage:
    """A message of Caffe with protobuf's attributes and methods; the base class of those in ``caffe_pb2``.

    Fields are attributes. A field that is not set reads as its default; repeated fields and sub-messages can be changed
    in place, as in ``net.layer[0].convolution_param.num_output = 64``. Keyword arguments of the constructor set fields.

    The fields are stored in a message of ``reproduction.caffe.schema``, which ``unwrap`` returns.

    Attributes:
        DESCRIPTOR: The names, types and numbers of the fields.

    Raises:
        NoFieldError: If there is no such field; also an AttributeError.
        MisfitError: If a value does not fit its field; also a TypeError.
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
        field = self._find_field(name)
        if field.array:
            return RepeatedNumbers(self._message, field, lambda value: _convert(field, value))
        if field.message and field.repeated:
            return RepeatedMessages(self._message, field, lambda value: _to_message(field, value), wrap)
        if field.repeated:
            return RepeatedScalars(self._message, field, lambda value: _convert(field, value))
        value = getattr(self._message, name)
        if field.message:
            return wrap(value)
        return int(value) if field.enum else value

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._find_field(name)
        if field.message or field.repeated:
            kind = "a repeated field" if field.repeated else "a sub-message"
            verb = "extend()" if field.repeated else "CopyFrom()"
            raise NoFieldError(f"{self._name}.{name} is {kind}, which cannot be assigned", remedy=f"Use {verb}.")
        setattr(self._message, name, _convert(field, value))
        self._message.present = True

    def __delattr__(self, name: str) -> None:
        self.ClearField(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._schema.fields]

    @property
    def _name(self) -> str:
        return self._schema.__name__

    def _find_field(self, name: str) -> Field[Any]:
        found = self._schema.find_field(name)
        if found is None:
            near = did_you_mean(name, [*self._schema.fields, *(each for each in dir(type(self)) if each[0] != "_")])
            raise NoFieldError(f"{self._name} has no field {name!r}", remedy=near)
        return found

    def _assign(self, name: str, value: Any) -> None:
        """Set a field from a keyword argument: a value, a message or dict, or an iterable for a repeated field."""
        field = self._find_field(name)
        if field.repeated:
            getattr(self, name).extend(value)
        elif field.message:
            getattr(self, name).CopyFrom(wrap(_to_message(field, value)))
        else:
            setattr(self, name, value)

    def HasField(self, field_name: str) -> bool:
        """Return whether a field is set, rather than reads as its default.

        Raises:
            ReproductionError: If there is no such field, or it is repeated.
        """
        if self._schema.field(field_name).repeated:
            raise ReproductionError(f"{self._name}.{field_name} is repeated", remedy="Use len().")
        return self._message.has(field_name)

    def ClearField(self, field_name: str) -> None:
        """Reset a field to its default, so that it is not set."""
        self._schema.field(field_name)  # raises a ValueError for an unknown name, as protobuf does
        self._message.clear(field_name)
        self._message.present = True

    def Clear(self) -> None:
        """Reset every field to its default, so that none is set."""
        self._message.values.clear()
        self._message.unknown = b""
        self._message.present = True

    def CopyFrom(self, other_msg: ProtoMessage) -> None:
        """Replace all fields by copies of those of another message of the same type."""
        if other_msg is not self:
            copy = self._check_type(other_msg).copy()
            self.Clear()
            self._message.merge(copy)

    def MergeFrom(self, other_msg: ProtoMessage) -> None:
        """Merge another message of the same type into this one.

        Scalars that it sets replace those of this message, repeated fields are appended, and sub-messages merged.
        """
        self._message.merge(self._check_type(other_msg).copy())
        self._message.present = True

    def _check_type(self, other: ProtoMessage) -> Message:
        if type(other) is not type(self):
            raise MisfitError("the messages have different types", got=type(other).__name__, want=self._name)
        return other._message

    def SetInParent(self) -> None:
        """Mark this sub-message as set in the message that contains it, even if it is empty."""
        self._message.present = True

    def MergeFromString(self, serialized: bytes) -> int:
        """Parse a serialized message and merge its fields into this message, as ``MergeFrom`` does.

        Args:
            serialized: A message of this type in protobuf's wire format.

        Returns:
            The number of bytes that were parsed.

        Raises:
            CaffemodelError: If the bytes are not a message of this type. Without Google's protobuf installed, a program
                imports it as ``google.protobuf.message.DecodeError``.
        """
        data = bytes(serialized)
        self._message.merge(caffemodel.loads(data, self._schema))
        self._message.present = True
        return len(data)

    def ParseFromString(self, serialized: bytes) -> int:
        """Parse a serialized message, which replaces all fields of this message.

        Args:
            serialized: A message of this type in protobuf's wire format.

        Returns:
            The number of bytes that were parsed.

        Raises:
            CaffemodelError: If the bytes are not a message of this type.
        """
        self.Clear()
        return self.MergeFromString(serialized)

    @classmethod
    def FromString(cls, s: bytes) -> Self:
        """Return a new message of this type, parsed from bytes in protobuf's wire format.

        Raises:
            CaffemodelError: If the bytes are not a message of this type.
        """
        message = cls()
        message.ParseFromString(s)
        return message

    def SerializeToString(self, **_: bool) -> bytes:
        """Return the message in protobuf's wire format; keyword arguments such as ``deterministic`` have no effect.

        Raises:
            ReproductionError: If a required field is not set.
        """
        return caffemodel.dumps(self._message)

    def ByteSize(self) -> int:
        """Return the size of the serialized message in bytes."""
        return len(self.SerializeToString())

    def ListFields(self) -> list[tuple[Any, Any]]:
        """Return pairs of ``FieldDescriptor`` and value for the fields that are set, ordered by field number."""
        by_name = self.DESCRIPTOR.fields_by_name
        return [(by_name[field.name], getattr(self, field.name)) for field, _ in self._message.set_fields()]

    def WhichOneof(self, oneof_group: str) -> str | None:
        """Raise a ReproductionError, since no message of Caffe has a oneof."""
        raise ReproductionError(f"{self._name} has no oneof {oneof_group!r}")

    def FindInitializationErrors(self) -> list[str]:
        """Return the paths of required fields that are not set, also of those in sub-messages."""
        return list(_find_missing_fields(self._message, ""))

    def IsInitialized(self) -> bool:
        """Return whether every required field is set, including those of sub-messages."""
        return not self.FindInitializationErrors()

    def __eq__(self, other: object) -> bool:
        return self._message == other._message if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # messages change

    def __deepcopy__(self, memo: object) -> Self:
        return wrap(self._message.copy())  # type: ignore[return-value]

    def __copy__(self) -> Self:
        return self.__deepcopy__(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).FromString, (self.SerializeToString(),)

    def __str__(self) -> str:
        return prototxt.dumps(self._message)

    __repr__ = __str__


def _find_missing_fields(message: Message, place: str) -> Iterator[str]:
    yield from (place + name for name in message.required if not message.has(name))
    for field, value in message.set_fields():
        if field.message:
            for i, item in enumerate(value if field.repeated else [value]):
                index = f"[{i}]" if field.repeated else ""
                yield from _find_missing_fields(item, f"{place}{field.name}{index}.")


def _convert(field: Field[Any], value: Any) -> Any:
    """Convert a program's value to the value to store, as permissively as protobuf.

    For example, a bool field takes 1, and a string field takes bytes.

    Raises:
        MisfitError: If the value does not fit the field.
    """
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
        error = field.error(repr(value), _describe_type(field))
        raise MisfitError(error.problem, got=error.got, want=error.want, remedy=error.remedy) from None


def _describe_type(field: Field[Any]) -> str:
    if field.enum:
        return f"a value of {field.enum.__name__}"
    assert field.kind is not None
    return {"string": "a string", "bytes": "bytes", "bool": "true or false"}.get(
        field.kind.name, f"a {field.kind.name}"
    )


def _to_message(field: Field[Any], value: Any) -> Message:
    """Return a new message of the schema, from a ``ProtoMessage`` or a dict of fields.

    Raises:
        MisfitError: If the value is neither a dict nor a message of the field's type.
    """
    assert field.message is not None
    kind = PROTO_CLASSES[field.message]
    if isinstance(value, dict):
        return kind(**value)._message
    if isinstance(value, kind):
        return value._message.copy()
    raise MisfitError(f"wrong value for {field.owner}.{field.name}", got=repr(value), want=f"a {kind.__name__}")

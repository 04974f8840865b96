"""Google's protobuf as a reference for our formats: its classes, built from our declarations.

``test_schema`` compares the declarations with Caffe's published schema; protobuf then defines the meaning of any text
or bytes. Protobuf is a dependency only of the tests.
"""

from __future__ import annotations

import enum
import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from reproduction.caffe import schema
from reproduction.caffe.schema import Field, Message

PACKAGE = "judge"
PROTO = descriptor_pb2.FieldDescriptorProto

MESSAGES: tuple[type[Message], ...] = tuple(
    value
    for value in vars(schema).values()
    if isinstance(value, type) and issubclass(value, Message) and value is not Message
)


def judge(message: type[Message]) -> Any:
    """Return protobuf's class for one of our messages, with the same names, numbers, types and defaults."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{message.__name__}"))


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="judge.proto", package=PACKAGE, syntax="proto2")
    enums: set[type[enum.IntEnum]] = set()
    for message in MESSAGES:
        proto = file.message_type.add(name=message.__name__)
        for field in message.by_number.values():
            _declare(proto.field.add(), field)
            if field.enum:
                enums.add(field.enum)
    for each in sorted(enums, key=lambda each: each.__name__):
        # Each enum needs a separate message, because protobuf puts an enum's values into the scope around the enum.
        proto = file.message_type.add(name=f"Scope{each.__name__}").enum_type.add(name=each.__name__)
        for value in each:
            proto.value.add(name=value.name, number=value.value)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _declare(proto: descriptor_pb2.FieldDescriptorProto, field: Field[Any]) -> None:
    proto.name, proto.number = field.name, field.number
    proto.label = (
        PROTO.LABEL_REPEATED if field.repeated else PROTO.LABEL_REQUIRED if field.required else PROTO.LABEL_OPTIONAL
    )
    if field.packed:
        proto.options.packed = True
    if field.message:
        proto.type, proto.type_name = PROTO.TYPE_MESSAGE, f".{PACKAGE}.{field.message.__name__}"
    elif field.enum:
        name = field.enum.__name__
        proto.type, proto.type_name = PROTO.TYPE_ENUM, f".{PACKAGE}.Scope{name}.{name}"
    else:
        assert field.kind is not None
        proto.type = getattr(PROTO, f"TYPE_{field.kind.name.upper()}")
    if field.default is not None:
        value = field.default
        proto.default_value = (
            value.name
            if isinstance(value, enum.IntEnum)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )


def to_judge(message: Message) -> Any:
    """Convert one of our messages to protobuf's class."""
    theirs = judge(type(message))()
    for field, value in message.set_fields():
        if not field.repeated and field.message:
            getattr(theirs, field.name).MergeFrom(to_judge(value))
            getattr(theirs, field.name).SetInParent()
        elif not field.repeated:
            setattr(theirs, field.name, value)
        else:
            getattr(theirs, field.name).extend([to_judge(item) for item in value] if field.message else list(value))
    return theirs


def octets(theirs: Any) -> bytes:
    """Serialize one of protobuf's messages deterministically."""
    return theirs.SerializePartialToString(deterministic=True)

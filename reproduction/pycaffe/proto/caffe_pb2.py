"""``caffe.proto.caffe_pb2``: Caffe's messages and enums, such as ``caffe_pb2.NetParameter()``.

The names are those that ``protoc`` generates from caffe.proto. The classes are created at import from
``reproduction.caffe.schema``, which declares every field; there is no generated code.

Source: BVLC/caffe@9b89154 src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import enum
from typing import Any

from reproduction.caffe import schema
from reproduction.caffe.errors import did_you_mean
from reproduction.caffe.schema import Message
from reproduction.pycaffe.proto.descriptors import PACKAGE, Descriptor, Enum, EnumDescriptor
from reproduction.pycaffe.proto.message import PROTO_CLASSES, ProtoMessage

# Enums with other names in caffe.proto: it nests them in messages, while the schema declares all at module level.
_NESTED_NAMES = {"HingeNorm": "Norm", "DatabaseBackend": "DB", "V1LayerType": "LayerType"}

TRAIN = int(schema.Phase.TRAIN)
TEST = int(schema.Phase.TEST)


def _create_enum(values: type[enum.IntEnum], scope: str = "") -> Enum:
    name = _NESTED_NAMES.get(values.__name__, values.__name__)
    return Enum(EnumDescriptor(name, ".".join(filter(None, (PACKAGE, scope, name))), values))


def _create_class(message: type[Message]) -> type[ProtoMessage]:
    """Create the ``ProtoMessage`` subclass for a message of the schema, with the enums that caffe.proto nests in it."""
    descriptor = Descriptor(message)
    members: dict[str, Any] = {
        "__slots__": (),
        "__module__": __name__,
        "__doc__": message.__doc__,
        "_schema": message,
        "DESCRIPTOR": descriptor,
    }
    enums: dict[type[enum.IntEnum] | None, EnumDescriptor] = {schema.Phase: _PHASE.DESCRIPTOR}
    for field in message.fields.values():
        members[f"{field.name.upper()}_FIELD_NUMBER"] = field.number
        if field.enum and field.enum is not schema.Phase:
            nested = _create_enum(field.enum, message.__name__)
            enums[field.enum] = descriptor.enum_types_by_name[nested.DESCRIPTOR.name] = nested.DESCRIPTOR
            members[nested.DESCRIPTOR.name] = nested
            members.update(nested.items())
    created = PROTO_CLASSES[message] = type(message.__name__, (ProtoMessage,), members)
    for field in message.fields.values():  # once the class is known, since messages refer to each other
        message_type = PROTO_CLASSES[field.message].DESCRIPTOR if field.message else None
        descriptor.add(field, message_type, enums.get(field.enum))
    return created


_PHASE = _create_enum(schema.Phase)
PROTO_CLASSES.create = _create_class
Message.import_late_fields()  # those of Caffe's forks, whose messages are created with those of LayerParameter
for _each in vars(schema).values():
    if isinstance(_each, type) and issubclass(_each, Message) and _each is not Message:
        PROTO_CLASSES[_each]

globals().update({view.__name__: view for view in PROTO_CLASSES.values()}, Phase=_PHASE)


def __getattr__(name: str) -> Any:
    near = did_you_mean(name, [view.__name__ for view in PROTO_CLASSES.values()])
    raise AttributeError(f"caffe_pb2 has no message or enum {name!r}. {near}".rstrip())

"""Descriptors of messages, fields and enums, as protobuf's ``DESCRIPTOR`` attribute returns them.

Source: protobuf.dev/reference/python; google/protobuf/descriptor.proto (numbers of types and labels).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, ClassVar

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.caffe.schema import Field, Message

PACKAGE = "caffe"

# Type name -> (protobuf's type number, number of the C++ type that stores it).
_TYPES = {
    "double": (1, 5), "float": (2, 6), "int64": (3, 2), "int32": (5, 1), "bool": (8, 7), "string": (9, 9),
    "message": (11, 10), "bytes": (12, 9), "uint32": (13, 3), "enum": (14, 8),
}  # fmt: skip


@dataclass(frozen=True)
class EnumValueDescriptor:
    """A value of an enum, such as ``TRAIN`` of ``Phase``.

    Attributes:
        name: Its name.
        index: Its position among the values of the enum, from 0.
        number: Its number in messages.
    """

    name: str
    index: int
    number: int


class EnumDescriptor:
    """The names and numbers of an enum's values, such as those of ``Phase``.

    Args:
        name: The name of the enum.
        full_name: The name with its package and message, such as ``caffe.PoolingParameter.PoolMethod``.
        values: The enum's values.
    """

    def __init__(self, name: str, full_name: str, values: type[enum.IntEnum]):
        self.name, self.full_name = name, full_name
        self.values = [EnumValueDescriptor(value.name, i, int(value)) for i, value in enumerate(values)]
        self.values_by_name = {value.name: value for value in self.values}
        self.values_by_number = {value.number: value for value in self.values}


class Enum:
    """An enum with protobuf's interface: ``Phase.TRAIN``, ``Phase.Value("TRAIN")``, ``Phase.Name(0)``.

    Args:
        descriptor: The names and numbers of its values.
    """

    def __init__(self, descriptor: EnumDescriptor):
        self.DESCRIPTOR = descriptor

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):  # asked by copy before DESCRIPTOR is set
            raise AttributeError(name)
        try:
            return self.Value(name)
        except ReproductionError as error:
            raise AttributeError(str(error)) from None

    def Value(self, name: str) -> int:
        """Return the number of the value with this name.

        Raises:
            ReproductionError: If the enum has no such name.
        """
        if name not in self.DESCRIPTOR.values_by_name:
            near = did_you_mean(name, self.keys())
            raise ReproductionError(f"{self.DESCRIPTOR.name} has no value {name!r}", remedy=near)
        return self.DESCRIPTOR.values_by_name[name].number

    def Name(self, number: int) -> str:
        """Return the name of the value with this number.

        Raises:
            ReproductionError: If the enum has no such number.
        """
        if number not in self.DESCRIPTOR.values_by_number:
            raise ReproductionError(f"{self.DESCRIPTOR.name} has no value {number}", want=f"one of {self.values()}")
        return self.DESCRIPTOR.values_by_number[number].name

    def keys(self) -> list[str]:
        """Return the names of the values."""
        return [name for name, _ in self.items()]

    def values(self) -> list[int]:
        """Return the numbers of the values."""
        return [number for _, number in self.items()]

    def items(self) -> list[tuple[str, int]]:
        """Return pairs of name and number."""
        return [(value.name, value.number) for value in self.DESCRIPTOR.values]


@dataclass(frozen=True)
class FieldDescriptor:
    """A field of a message, described as by protobuf's class of this name, with the same numbers for label and types.

    Attributes:
        name: The field's name.
        full_name: The name with its package and message, such as ``caffe.LayerParameter.name``.
        number: The field's number in the wire format.
        label: Whether it is optional, required or repeated: one of the ``LABEL_`` numbers.
        type: The type in caffe.proto: one of the ``TYPE_`` numbers.
        cpp_type: The type that C++ stores it in: one of the ``CPPTYPE_`` numbers.
        default_value: What the field reads as if it is not set; an empty list for a repeated field, None for a
            sub-message.
        has_default_value: Whether caffe.proto sets the default.
        message_type: The descriptor of a sub-message, or None.
        enum_type: The descriptor of an enum, or None.
    """

    LABEL_OPTIONAL: ClassVar[int] = 1
    LABEL_REQUIRED: ClassVar[int] = 2
    LABEL_REPEATED: ClassVar[int] = 3

    name: str
    full_name: str
    number: int
    label: int
    type: int
    cpp_type: int
    default_value: Any
    has_default_value: bool
    message_type: Descriptor | None = dataclass_field(default=None, repr=False)
    enum_type: EnumDescriptor | None = dataclass_field(default=None, repr=False)


for _name, (_type, _cpp_type) in _TYPES.items():
    setattr(FieldDescriptor, f"TYPE_{_name.upper()}", _type)
    if _name != "bytes":
        setattr(FieldDescriptor, f"CPPTYPE_{_name.upper()}", _cpp_type)


class Descriptor:
    """A message type, described as by protobuf's class of this name: its name, fields and nested enums.

    Args:
        schema: The class of the message in ``reproduction.caffe.schema``.
    """

    def __init__(self, schema: type[Message]):
        self.name = schema.__name__
        self.full_name = f"{PACKAGE}.{self.name}"
        self.fields: list[FieldDescriptor] = []
        self.fields_by_name: dict[str, FieldDescriptor] = {}
        self.fields_by_number: dict[int, FieldDescriptor] = {}
        self.enum_types_by_name: dict[str, EnumDescriptor] = {}

    def add(self, field: Field[Any], message_type: Descriptor | None, enum_type: EnumDescriptor | None) -> None:
        """Add a field of the message.

        Fields are added after all descriptors exist, since messages refer to each other.

        Args:
            field: The field in the schema.
            message_type: The descriptor of the field's sub-message, or None.
            enum_type: The descriptor of the field's enum, or None.
        """
        kind = "enum" if field.enum else "message" if field.message else field.kind.name if field.kind else ""
        label = FieldDescriptor.LABEL_REPEATED if field.repeated else FieldDescriptor.LABEL_OPTIONAL
        default: Any = [] if field.repeated else None if field.message else field.unset()
        added = FieldDescriptor(
            field.name,
            f"{self.full_name}.{field.name}",
            field.number,
            FieldDescriptor.LABEL_REQUIRED if field.required else label,
            *_TYPES[kind],
            int(default) if field.enum and not field.repeated else default,
            field.default is not None,
            message_type,
            enum_type,
        )
        self.fields.append(added)
        self.fields_by_name[field.name] = added
        self.fields_by_number[field.number] = added

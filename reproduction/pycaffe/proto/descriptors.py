"""Descriptors of messages, fields and enums, as protobuf's ``DESCRIPTOR`` attribute returns them.

Source: protobuf.dev/reference/python; google/protobuf/descriptor.proto (numbers of types and labels).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.caffe.schema import Field, Message

PACKAGE = "caffe"

# Type name -> (protobuf's type number, number of the C++ type that stores it).
_TYPES = {
    "double": (1, 5),
    "float": (2, 6),
    "int64": (3, 2),
    "int32": (5, 1),
    "bool": (8, 7),
    "string": (9, 9),
    "message": (11, 10),
    "bytes": (12, 9),
    "uint32": (13, 3),
    "enum": (14, 8),
}


@dataclass(frozen=True)
class EnumValue:
    """A value of an enum."""

    name: str
    number: int

    @property
    def index(self) -> int:
        """The number, which in most of Caffe's enums equals protobuf's index, the position in the enum."""
        return self.number


class EnumDescriptor:
    """The names and numbers of an enum."""

    def __init__(self, name: str, full_name: str, values: type[enum.IntEnum]):
        self.name, self.full_name = name, full_name
        self.values = [EnumValue(value.name, int(value)) for value in values]
        self.values_by_name = {value.name: value for value in self.values}
        self.values_by_number = {value.number: value for value in self.values}


class Enum:
    """An enum with protobuf's interface: ``Phase.TRAIN``, ``Phase.Value("TRAIN")``, ``Phase.Name(0)``."""

    def __init__(self, descriptor: EnumDescriptor):
        self.DESCRIPTOR = descriptor

    def __getattr__(self, name: str) -> int:
        found = self.DESCRIPTOR.values_by_name.get(name)
        if found is None:
            raise AttributeError(f"{self.DESCRIPTOR.name} has no value {name!r}")
        return found.number

    def Value(self, name: str) -> int:
        """Return the number of the value with this name.

        Raises:
            ReproductionError: If the enum has no such name.
        """
        found = self.DESCRIPTOR.values_by_name.get(name)
        if found is None:
            near = did_you_mean(name, self.keys())
            raise ReproductionError(f"{self.DESCRIPTOR.name} has no value {name!r}", remedy=near)
        return found.number

    def Name(self, number: int) -> str:
        """Return the name of the value with this number.

        Raises:
            ReproductionError: If the enum has no such number.
        """
        found = self.DESCRIPTOR.values_by_number.get(number)
        if found is None:
            raise ReproductionError(f"{self.DESCRIPTOR.name} has no value {number}", want=f"one of {self.values()}")
        return found.name

    def keys(self) -> list[str]:
        """Return the names of the values."""
        return [value.name for value in self.DESCRIPTOR.values]

    def values(self) -> list[int]:
        """Return the numbers of the values."""
        return [value.number for value in self.DESCRIPTOR.values]

    def items(self) -> list[tuple[str, int]]:
        """Return pairs of name and number."""
        return [(value.name, value.number) for value in self.DESCRIPTOR.values]


@dataclass(frozen=True)
class FieldDescriptor:
    """A field of a message, with protobuf's numbers for its label and types."""

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
    message_type: Descriptor | None = field(default=None, repr=False)
    enum_type: EnumDescriptor | None = field(default=None, repr=False)


for _name, (_type, _cpp_type) in _TYPES.items():
    setattr(FieldDescriptor, f"TYPE_{_name.upper()}", _type)
    if _name != "bytes":
        setattr(FieldDescriptor, f"CPPTYPE_{_name.upper()}", _cpp_type)


class Descriptor:
    """The name, fields and nested enums of a message."""

    def __init__(self, schema: type[Message]):
        self.name = schema.__name__
        self.full_name = f"{PACKAGE}.{self.name}"
        self.fields: list[FieldDescriptor] = []
        self.fields_by_name: dict[str, FieldDescriptor] = {}
        self.fields_by_number: dict[int, FieldDescriptor] = {}
        self.enum_types_by_name: dict[str, EnumDescriptor] = {}

    def add(self, of: Field[Any], message_type: Descriptor | None, enum_type: EnumDescriptor | None) -> None:
        """Add a field.

        Fields are added after all descriptors exist, since messages refer to each other.

        Args:
            of: The schema's field.
            message_type: The descriptor of the sub-message; None for other fields.
            enum_type: The descriptor of the enum; None for other fields.
        """
        kind = "enum" if of.enum else "message" if of.message else of.kind.name if of.kind else ""
        label = FieldDescriptor.LABEL_REPEATED if of.repeated else FieldDescriptor.LABEL_OPTIONAL
        default: Any = [] if of.repeated else None if of.message else of.unset()
        added = FieldDescriptor(
            of.name,
            f"{self.full_name}.{of.name}",
            of.number,
            FieldDescriptor.LABEL_REQUIRED if of.required else label,
            *_TYPES[kind],
            int(default) if of.enum and not of.repeated else default,
            of.default is not None,
            message_type,
            enum_type,
        )
        self.fields.append(added)
        self.fields_by_name[of.name] = added
        self.fields_by_number[of.number] = added

"""The declared messages, compared with Caffe's published schema."""

import enum
import hashlib
from typing import Any

import pytest

from reproduction.caffe import schema
from reproduction.caffe.schema import Field, Message
from tests.helpers.protobuf_judge import MESSAGES, judge

# Of the lines that ``listing`` makes, made in the same form from protoc's descriptors of
# BVLC/caffe@9b89154 src/caffe/proto/caffe.proto.
SHA256 = "5a7e1e3adc74f17c45d38124aa7da343fd3c119fe3a785d4789a3e0913d880d3"


def listing() -> list[str]:
    """Return a line for each field: message, number, name, type, label, value when unset, packed."""
    lines = []
    for message in MESSAGES:
        for field in message.by_number.values():
            label = "repeated" if field.repeated else "required" if field.required else "optional"
            unset = "-" if field.repeated or field.message else shown(field.unset())
            packed = "packed" if field.packed else "-"
            lines.append(f"{message.__name__} {field.number} {field.name} {type_of(field)} {label} {unset} {packed}")
    return sorted(lines)


def type_of(field: Field[Any]) -> str:
    if field.message:
        return field.message.__name__
    if field.enum:
        return "{" + ",".join(f"{value.name}={value.value}" for value in sorted(field.enum)) + "}"
    assert field.kind is not None
    return field.kind.name


def shown(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else repr(value)


def test_every_message_and_field_of_caffe_is_declared_as_published():
    lines = listing()
    assert len(MESSAGES) == 63
    assert len(lines) == 423
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == SHA256


def test_the_room_names_everything_that_it_has():
    assert {message.__name__ for message in MESSAGES} < set(schema.__all__)
    enums = {field.enum for message in MESSAGES for field in message.by_number.values() if field.enum}
    assert {each.__name__ for each in enums} < set(schema.__all__)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_an_empty_message_reads_as_protobufs(message):
    ours, theirs = message(), judge(message)()
    for name, field in ((each.name, each) for each in message.by_number.values()):
        if not field.repeated and not field.message:
            assert getattr(ours, name) == getattr(theirs, name), name
        assert not ours.has(name)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_no_field_hides_what_every_message_has(message):
    assert not set(message.fields) & set(dir(Message))


def test_fields_are_found_by_name_and_by_number_in_order():
    for message in MESSAGES:
        numbers = [field.number for field in message.by_number.values()]
        assert numbers == sorted(set(numbers)) == list(message.by_number)
        assert all(message.by_number[field.number] is field for field in message.by_number.values())

"""The parser of protobuf's wire format, for any message of the schema.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.schema import Field, Message, ScalarType
from reproduction.caffe.schema.scalar_types import BOOL, FIXED32, FIXED64, INT32, INT64, LENGTH, STRING, UINT32, VARINT
from reproduction.caffe.typing import Array

Buffer = bytes | memoryview | mmap.mmap

STRUCT_FORMATS = {FIXED32: "<f", FIXED64: "<d"}  # Caffe's format has no fixed integers
_FIXED_SIZE = {FIXED32: 4, FIXED64: 8}
_GROUP, _END_GROUP = 3, 4
_MAX_DEPTH = 100
# Memory limit: Python objects may take _SPARE_BYTES and as many bytes as the file; then the estimated cost of each.
_SPARE_BYTES = 2**25
_MESSAGE, _TEXT, _ITEM = 400, 64, 40
_LETTER = 4  # bytes of a character in a string with any Unicode characters
_BLOCK = 2**18  # tags of a run of single values that are compared at once
_MASK32, _MASK64 = 2**32 - 1, 2**64 - 1
_DAMAGED = "The file is damaged, or of another kind."
# The signed ones sign-extend the low 32 or 64 bits, since protobuf encodes negative integers in two's complement.
_FROM_VARINT: dict[ScalarType | None, Callable[[int], int]] = {
    INT32: lambda value: ((value & _MASK32) ^ 2**31) - 2**31,
    INT64: lambda value: (value ^ 2**63) - 2**63,
    UINT32: lambda value: value & _MASK32,
    BOOL: bool,
}


def varint(value: int) -> bytes:
    """Return an integer as a varint, protobuf's encoding with 7 bits in each byte; a negative one takes ten bytes."""
    value &= _MASK64
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


class _Unknown:
    """The unknown fields of a message: bytes that are already joined, and the range of the file that follows them."""

    __slots__ = ("begin", "end", "joined", "message")

    def __init__(self, message: Message):
        self.message, self.joined = message, bytearray()
        self.begin = self.end = 0


class WireReader:
    """A parser of protobuf's wire format that makes one pass over the bytes of a file. ``read`` parses all of them.

    Memory stays below twice the file's size and 64 MiB. Arrays are views, and Python objects are counted, as two bytes
    can declare an empty sub-message. A message may be split into many parts, so its arrays and unknown fields are
    joined once, at the end.

    A field is a tag (field number and wire type) and a value. The methods share these names of byte positions:
    ``begin`` is where the tag of a field begins, ``pos`` the next byte to read, and ``end`` the end of the message that
    is read.

    Args:
        data: the bytes; arrays are views of them.
        path: the place to name in errors.
    """

    def __init__(self, data: Buffer, path: StrPath):
        self.data, self.size, self.path = data, len(data), path
        self.room = _SPARE_BYTES + self.size
        self.unchecked: list[tuple[Message, int]] = []  # messages with required fields, which are checked at the end
        # By id() of the message and name of the field; one part is a view, several are joined.
        self.arrays: dict[tuple[int, str], tuple[Message, Array | bytearray]] = {}
        self.unknown: dict[int, _Unknown] = {}
        # Sub-messages whose numbers forks use for others: message, field, sub-message, first and last byte.
        self.shared: list[tuple[Message, Field[Any], Message, int, int]] = []

    def error(self, problem: str, offset: int, got: str | None = None, want: str | None = None) -> CaffemodelError:
        """Return the error for damaged bytes, whose place is the byte ``offset`` of the file."""
        return CaffemodelError(problem, path=self.path, offset=offset, got=got, want=want, remedy=_DAMAGED)

    def truncation_error(self, what: str, start: int, got: int, want: int, end: int) -> CaffemodelError:
        """Return the error for a value that is cut off by the end of its message or file.

        Args:
            what: the value, in words.
            start: the position at which it begins.
            got: the number of its bytes that are present.
            want: the number of bytes that it should have.
            end: the end of the message.
        """
        if end < self.size:
            return self.error(f"{what} runs past the end of its message", start, f"{got} bytes", f"{want}")
        return CaffemodelError(
            f"{what} runs past the end of the file",
            path=self.path,
            offset=start,
            got=f"{got} bytes",
            want=f"{want} ({want - got} are missing)",
            remedy="The file was cut off or is damaged: download or copy it again.",
        )

    def read(self, target: Message) -> None:
        """Parse all bytes into ``target``, a message of the class that the bytes are.

        Raises:
            CaffemodelError: If the bytes are not such a message.
        """
        self.unchecked.append((target, 0))
        self.message(target, 0, self.size, 0)
        self.finish()

    def message(self, target: Message, pos: int, end: int, depth: int) -> None:
        """Parse the fields between bytes ``pos`` and ``end``, and merge them into the message ``target``.

        Args:
            target: the message.
            pos: the first byte.
            end: the byte after the last.
            depth: the number of messages around this one.
        """
        while pos < end:
            begin = pos
            number, wire, pos = self.read_tag(pos, end)
            field = target.by_number.get(number)
            if field is None or not (wire == field.wire or (wire == LENGTH and field.repeated)):
                pos = self.skip_field(number, wire, begin, pos, end, depth)
                self.keep_unknown(target, begin, pos)
            elif field.array:
                pos = self.read_array(target, field, wire, begin, pos, end)
            elif field.message:
                pos, stop = self.read_length(field, begin, pos, end)
                if field.name in target.shared_numbers and field.name not in target.values:
                    self.read_shared(target, field, begin, pos, stop, depth)
                else:
                    self.message(self.find_slot(target, field, begin), pos, stop, depth + 1)
                pos = stop
            else:
                pos = self.read_scalars(target, field, wire, begin, pos, end)

    def read_shared(self, target: Message, field: Field[Any], begin: int, pos: int, stop: int, depth: int) -> None:
        """Parse a sub-message between ``pos`` and ``stop``; one that only a fork has is kept as an unknown field."""
        child = self.find_slot(target, field, begin)
        self.shared.append((target, field, child, begin, stop))
        try:
            self.message(child, pos, stop, depth + 1)
        except CaffemodelError:
            self.drop_shared(target, field, child, begin, stop)

    def drop_shared(self, target: Message, field: Field[Any], child: Message, begin: int, stop: int) -> None:
        """Keep bytes as an unknown field, instead of the sub-message ``child``."""
        del target.values[field.name]
        self.unchecked = [(message, at) for message, at in self.unchecked if message is not child]
        self.keep_unknown(target, begin, stop)

    def finish(self) -> None:
        """Store the arrays and unknown fields that were collected in their messages, and check required fields."""
        for target, field, child, begin, stop in self.shared:
            if target.values.get(field.name) is child and not all(map(child.has, child.required)):
                self.drop_shared(target, field, child, begin, stop)
        for (_, name), (message, values) in self.arrays.items():
            dtype = message.fields[name].unset().dtype
            found = np.frombuffer(values, dtype) if isinstance(values, bytearray) else values
            found.flags.writeable = False
            message.values[name] = found
        for unknown in self.unknown.values():
            last = self.data[unknown.begin : unknown.end]
            unknown.message.unknown = bytes(unknown.joined + last if unknown.joined else last)
        for message, pos in self.unchecked:
            for name in message.required:
                if not message.has(name):
                    raise self.error(f"{type(message).__name__} lacks its required field {name!r}", pos)

    def spend(self, cost: int, pos: int) -> None:
        """Subtract estimated bytes of memory from what the result may still take; raise an error if too few are left.

        Args:
            cost: the estimated bytes.
            pos: the position to name in the error.
        """
        self.room -= cost
        if self.room < 0:
            raise self.error(f"too many messages, strings and numbers for {self.size} bytes", pos)

    def find_slot(self, target: Message, field: Field[Any], pos: int) -> Any:
        """Return the object into which the next value of a field is parsed, creating it if necessary.

        Args:
            target: the message that has the field.
            field: a sub-message, or a repeated scalar.
            pos: the position to name in errors.

        Returns:
            For a sub-message, the message: a new element if the field is repeated. For a repeated scalar, the list.
        """
        held = target.values.get(field.name)
        is_new = held is None or (field.repeated and field.message is not None)
        if is_new:
            self.spend(_MESSAGE, pos)
        if held is None:
            held = target.values[field.name] = field.unset()
        if field.message is None:
            return held
        found = held.add() if field.repeated else held
        found.present = True
        if is_new and found.required:
            self.unchecked.append((found, pos))
        return found

    def keep_unknown(self, target: Message, begin: int, end: int, head: bytes = b"") -> None:
        """Append the bytes of an unknown field to those that ``target`` will keep.

        Args:
            target: the message that contains the field.
            begin: the first byte.
            end: the byte after the last.
            head: bytes to insert before them, such as a tag that they lack in the file.
        """
        unknown = self.unknown.get(id(target))
        if unknown is None:
            self.spend(_MESSAGE, begin)
            unknown = self.unknown[id(target)] = _Unknown(target)
        if head or unknown.end != begin:
            unknown.joined += self.data[unknown.begin : unknown.end]
            unknown.joined += head
            unknown.begin = begin
        unknown.end = end

    def read_varint(self, pos: int, end: int, longest: int = 10) -> tuple[int, int]:
        """Return the varint at ``pos``, and the position after it.

        Args:
            pos: the position of its first byte.
            end: the end of the message, before which it must end.
            longest: the most bytes that it may have.
        """
        data, value, shift, start = self.data, 0, 0, pos
        while pos < end:
            byte = data[pos]
            pos += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & _MASK64, pos
            shift += 7
            if shift == 7 * longest:
                raise self.error(f"a number is longer than {longest} bytes", start)
        raise self.truncation_error("a number", start, pos - start, pos - start + 1, end)

    def read_tag(self, pos: int, end: int) -> tuple[int, int, int]:
        """Return the field number and wire type of the tag at ``pos``, and the position after it."""
        value, after = self.read_varint(pos, end, 5)
        number, wire = value >> 3, value & 7
        if not 0 < value <= _MASK32 or number == 0:
            raise self.error(f"field number {number} is not possible", pos)
        if wire > FIXED32:
            raise self.error(f"wire type {wire} of field {number} is not possible", pos)
        return number, wire, after

    def read_length(self, field: Field[Any] | int, begin: int, pos: int, end: int) -> tuple[int, int]:
        """Read the length prefix at ``pos``, and return the start and end of the bytes that it counts.

        Args:
            field: the field, or the number of an unknown one, for errors.
            begin: the position of the field's tag, for errors.
            pos: the position of the prefix.
            end: the end of the message.
        """
        size, pos = self.read_varint(pos, end)
        if size > end - pos:
            raise self.truncation_error(_describe_field(field), begin, end - pos, size, end)
        return pos, pos + size

    def skip_field(self, number: int, wire: int, begin: int, pos: int, end: int, depth: int) -> int:
        """Return the position after an unknown field; a group is skipped with all its fields.

        Args:
            number: the field's number.
            wire: its wire type.
            begin: the position of its tag.
            pos: the position of its value.
            end: the end of the message.
            depth: the number of messages around this one.
        """
        groups: list[int] = []
        while True:
            if wire == _GROUP:
                groups.append(number)
                if depth + len(groups) > _MAX_DEPTH:
                    raise self.error(f"messages are nested more than {_MAX_DEPTH} deep", begin)
            elif wire == _END_GROUP:
                if not groups or groups.pop() != number:
                    raise self.error(f"group {number} ends but did not begin", begin)
            elif wire == VARINT:
                pos = self.read_varint(pos, end)[1]
            elif wire == LENGTH:
                pos = self.read_length(number, begin, pos, end)[1]
            else:
                pos = self.skip_fixed(number, wire, begin, pos, end)
            if not groups:
                return pos
            if pos >= end:
                raise self.truncation_error(f"group {groups[-1]}", begin, 0, 1, end)
            begin = pos
            number, wire, pos = self.read_tag(pos, end)

    def skip_fixed(self, field: Field[Any] | int, wire: int, begin: int, pos: int, end: int) -> int:
        """Return the position after a value at ``pos`` of the wire type FIXED32 (four bytes) or FIXED64 (eight)."""
        size = _FIXED_SIZE[wire]
        if size > end - pos:
            raise self.truncation_error(_describe_field(field), begin, end - pos, size, end)
        return pos + size

    def read_scalars(self, target: Message, field: Field[Any], wire: int, begin: int, pos: int, end: int) -> int:
        """Parse a scalar field, one value or a packed list of values, into ``target``.

        Args:
            target: the message.
            field: the field.
            wire: the wire type of the tag.
            begin: the position of the tag.
            pos: the position of the value.
            end: the end of the message.

        Returns:
            The position after the field.
        """
        if wire != LENGTH or field.wire == LENGTH:
            value, pos = self.read_scalar(field, begin, pos, end)
            if value is None:
                self.keep_unknown(target, begin, pos)
            elif field.repeated:
                self.spend(_ITEM, begin)
                self.find_slot(target, field, begin).append(value)
            else:
                target.values[field.name] = value
            return pos
        pos, stop = self.read_length(field, begin, pos, end)
        values = self.find_slot(target, field, begin)
        while pos < stop:
            begin = pos
            value, pos = self.read_scalar(field, begin, pos, stop)
            if value is None:
                self.keep_unknown(target, begin, pos, varint(field.number << 3 | VARINT))
            else:
                self.spend(_ITEM, begin)
                values.append(value)
        return pos

    def read_scalar(self, field: Field[Any], begin: int, pos: int, end: int) -> tuple[Any, int]:
        """Return one value of a scalar field, read at ``pos``, and the position after it.

        The value is None if the field is an enum without this number; the caller keeps it as an unknown field.
        """
        wire = field.wire
        if wire == VARINT:
            value, pos = self.read_varint(pos, end)
            if field.enum:
                return field.find_numbered(_FROM_VARINT[INT32](value)), pos
            return _FROM_VARINT[field.kind](value), pos
        if wire == LENGTH:
            pos, stop = self.read_length(field, begin, pos, end)
            self.spend(_TEXT + (stop - pos) * (_LETTER if field.kind is STRING else 1), begin)
            octets = memoryview(self.data)[pos:stop]
            return str(octets, "utf-8", "surrogateescape") if field.kind is STRING else bytes(octets), stop
        after = self.skip_fixed(field, wire, begin, pos, end)
        return struct.unpack_from(STRUCT_FORMATS[wire], self.data, pos)[0], after

    def read_array(self, target: Message, field: Field[Any], wire: int, begin: int, pos: int, end: int) -> int:
        """Parse a field of weights into ``target`` as a view: a packed list, or a run of fields with one value each.

        Args:
            target: the message.
            field: the field, whose ``array`` is True.
            wire: the wire type of the first tag.
            begin: the position of the first tag.
            pos: the position of its value.
            end: the end of the message.

        Returns:
            The position after the packed list or the run.
        """
        dtype: np.dtype[Any] = field.unset().dtype
        if wire == LENGTH:
            pos, stop = self.read_length(field, begin, pos, end)
            count, rest = divmod(stop - pos, dtype.itemsize)
            if rest:
                raise self.error(
                    f"{_describe_field(field)} has {stop - pos} bytes, not a multiple of {dtype.itemsize}", begin
                )
            found: Array = np.frombuffer(self.data, dtype, count, pos) if count else np.empty(0, dtype)
        else:
            self.skip_fixed(field, wire, begin, pos, end)
            stride = pos - begin + dtype.itemsize
            count = self.count_run(begin, pos - begin, stride, (end - begin) // stride)
            stop = begin + count * stride
            before = self.arrays.get((id(target), field.name))
            if count == 1 and before is not None and isinstance(before[1], bytearray):
                before[1].extend(self.data[pos:stop])
                return stop
            found = np.ndarray((count,), dtype, self.data, pos, (stride,))
        key = id(target), field.name
        before = self.arrays.get(key)
        if before is None:
            self.spend(_MESSAGE, begin)
            self.arrays[key] = target, found
        else:
            # Caffe never writes an array in several parts. They are copied into one growing buffer, so that many small
            # parts do not take the memory of many views.
            joined = before[1] if isinstance(before[1], bytearray) else bytearray(before[1].tobytes())
            joined += found.tobytes()
            self.arrays[key] = target, joined
        return stop

    def count_run(self, begin: int, tag_size: int, stride: int, most: int) -> int:
        """Return the number of consecutive fields with the same tag and a value of fixed size.

        Args:
            begin: the position of the first tag.
            tag_size: the bytes of a tag.
            stride: the bytes of a tag and its value.
            most: the most fields that fit in the message.
        """
        if self.data[begin + stride : begin + stride + tag_size] != self.data[begin : begin + tag_size]:
            return 1
        # Blocks of growing size: a short run costs few comparisons, and a long one is compared by NumPy.
        rows = np.ndarray((most, stride), np.uint8, self.data, begin)[:, :tag_size]
        count, step = 1, 16
        while count < most:
            same = (rows[count : count + step] == rows[0]).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count += len(same)
            step = min(2 * step, _BLOCK)
        return count


def _describe_field(field: Field[Any] | int) -> str:
    return f"unknown field {field}" if isinstance(field, int) else f"field {field.name!r}"

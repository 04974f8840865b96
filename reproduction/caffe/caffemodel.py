"""The binary format: protobuf's wire format, driven by the schema, for any message.

Reading keeps weights where they are: every packed array is a view of the mapped file, so a model of half a
gigabyte opens in milliseconds. Writing sends each array from its own memory. Both treat a file as protobuf does:
what the schema does not know is kept as it is and written back after the known fields, and text that is not
UTF-8 is kept too (as Python's ``surrogateescape``), since C++ protobuf does not check the strings of proto2.

Source: protobuf.dev/programming-guides/encoding; BVLC/caffe@9b89154 src/caffe/util/io.cpp L51-78.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reproduction.caffe import files
from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath
from reproduction.caffe.schema import BlobProto, Field, Kind, Message, NetParameter, SolverState
from reproduction.caffe.schema.message import BOOL, FIXED32, FIXED64, INT32, INT64, LENGTH, STRING, UINT32, VARINT

M = TypeVar("M", bound=Message)
Buffer = bytes | memoryview | mmap.mmap
Values = npt.NDArray[Any]
Piece = bytes | Values

_GROUP, _END_GROUP = 3, 4
_FIXED_SIZE = {FIXED32: 4, FIXED64: 8}
_FORMAT = {FIXED32: "<f", FIXED64: "<d"}  # Caffe's format has no fixed integers
_MAX_DEPTH = 100
_MAX_OBJECTS, _BYTES_PER_OBJECT = 2**17, 64
_BLOCK = 2**18  # values copied at a time from an array that is not contiguous
_FILE_OF: dict[type[Message], str] = {
    NetParameter: "caffemodel",
    SolverState: "solverstate",
    BlobProto: "binaryproto",
}
_DAMAGED = "The file is damaged, or of another kind."
_MASK32, _MASK64 = 2**32 - 1, 2**64 - 1

_FROM_VARINT: dict[Kind | None, Callable[[int], int]] = {
    INT32: lambda value: ((value & _MASK32) ^ 2**31) - 2**31,
    INT64: lambda value: (value ^ 2**63) - 2**63,
    UINT32: lambda value: value & _MASK32,
    BOOL: bool,
}


def loads(data: bytes | memoryview, message: type[M], path: StrPath = "<bytes>") -> M:
    """Read a message from bytes; no bytes at all are an empty message.

    Args:
        data: the bytes; arrays of the message are views of them.
        message: the class of the message.
        path: the place to name in errors.

    Raises:
        CaffemodelError: the bytes are no such message; the place is the byte at which that shows.
    """
    return _read(data, message, path)


def load(path: StrPath, message: type[M] = NetParameter) -> M:  # type: ignore[assignment]
    """Read a message from a file, which is mapped, not read: arrays are views that load when they are touched.

    Raises:
        CaffemodelError: the file is empty or no such message; the place is the byte at which that shows.
        OSError: it cannot be opened.
    """
    return _read(files.mapped(path), message, path)


def dumps(message: Message) -> bytes:
    """Write a message to bytes, as C++ protobuf does: fields by number, then what was unknown.

    Raises:
        ReproductionError: a required field is not set.
    """
    pieces: list[Piece] = []
    _encode(message, pieces)
    return b"".join(block for piece in pieces for block in _blocks(piece))


def dump(message: Message, path: StrPath, progress: Callable[[int], object] | None = None) -> None:
    """Write a message to a file, whole or not at all; weights go from their own memory, never a second copy.

    Args:
        message: what to write.
        path: the file; it appears only when it is whole.
        progress: called with a number of bytes after each write.

    Raises:
        ReproductionError: a required field is not set, or the file cannot be written.
    """
    pieces: list[Piece] = []
    _encode(message, pieces)
    with files.atomic(path, progress) as file:
        for piece in pieces:
            for block in _blocks(piece):
                file.write(block)


def _read(data: Buffer, message: type[M], path: StrPath) -> M:
    reader = _Reader(data, path)
    result = message()
    try:
        reader.message(result, 0, reader.size, 0)
        reader.check_required()
    except CaffemodelError:
        found = files.kind(data)
        if found is None:
            raise
        remedy = {
            files.HTML: "The download failed: open the file to read why, and fetch it again.",
            files.TEXT: "Name the binary file; a prototxt holds no weights.",
            files.ZEROS: "The download was cut off: fetch it again.",
        }
        raise CaffemodelError(
            f"this is not a {_FILE_OF.get(message, message.__name__)}",
            path=path,
            got=found,
            remedy=remedy.get(found, ""),
        ) from None
    return result


class _Reader:
    """One pass over the bytes of one file.

    Memory stays in proportion to the file: arrays are views, and the number of Python objects is limited by the
    file's size, since two bytes are enough to declare an empty sub-message.
    """

    def __init__(self, data: Buffer, path: StrPath):
        self.data, self.size, self.path = data, len(data), path
        self.objects = 0
        self.unchecked: list[tuple[Message, int]] = []
        self.max_objects = _MAX_OBJECTS + self.size // _BYTES_PER_OBJECT

    def error(self, problem: str, offset: int, got: str | None = None, want: str | None = None) -> CaffemodelError:
        return CaffemodelError(problem, path=self.path, offset=offset, got=got, want=want, remedy=_DAMAGED)

    def short(self, what: str, start: int, got: int, want: int, end: int) -> CaffemodelError:
        """Make the error for ``want`` bytes where only ``got`` are left before ``end``."""
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

    def message(self, target: Message, pos: int, end: int, depth: int) -> None:
        """Read the fields between ``pos`` and ``end`` into ``target``, after what it has."""
        self.count(pos)
        if target.required:
            self.unchecked.append((target, pos))
        unknown = bytearray()
        arrays: dict[str, Values | bytearray] = {}
        while pos < end:
            begin = pos
            number, wire, pos = self.tag(pos, end)
            field = target.by_number.get(number)
            if field is None or not (wire == field.wire or (wire == LENGTH and field.repeated)):
                pos = self.skip(number, wire, begin, pos, end, depth)
                unknown += self.data[begin:pos]
            elif field.array:
                pos = self.array(arrays, field, wire, begin, pos, end)
            elif field.message:
                pos, stop = self.length(field, begin, pos, end)
                child = _slot(target, field)
                child.present = True
                self.message(child, pos, stop, depth + 1)
                pos = stop
            else:
                pos = self.scalars(target, field, wire, begin, pos, end, unknown)
        for name, values in arrays.items():
            _append(target, name, values)
        target.unknown += bytes(unknown)

    def check_required(self) -> None:
        """Check at the end, since a message may come in several parts."""
        for message, pos in self.unchecked:
            for name in message.required:
                if not message.has(name):
                    raise self.error(f"{type(message).__name__} lacks its required field {name!r}", pos)

    def count(self, pos: int) -> None:
        """Count one more Python object, and refuse a file with far too many for its size."""
        self.objects += 1
        if self.objects > self.max_objects:
            raise self.error(f"more than {self.max_objects} messages and strings in {self.size} bytes", pos)

    def varint(self, pos: int, end: int, longest: int = 10) -> tuple[int, int]:
        """Read a number of at most ``longest`` bytes; return it and the position after it."""
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
        raise self.short("a number", start, pos - start, pos - start + 1, end)

    def tag(self, pos: int, end: int) -> tuple[int, int, int]:
        """Read a field's number and wire type; return them and the position after them."""
        value, after = self.varint(pos, end, 5)
        number, wire = value >> 3, value & 7
        if not 0 < value <= _MASK32 or number == 0:
            raise self.error(f"field number {number} is not possible", pos)
        if wire > FIXED32:
            raise self.error(f"wire type {wire} of field {number} is not possible", pos)
        return number, wire, after

    def length(self, field: Field[Any] | int, begin: int, pos: int, end: int) -> tuple[int, int]:
        """Read a length; return where its bytes begin and end."""
        size, pos = self.varint(pos, end)
        if size > end - pos:
            raise self.short(_label(field), begin, end - pos, size, end)
        return pos, pos + size

    def skip(self, number: int, wire: int, begin: int, pos: int, end: int, depth: int) -> int:
        """Return the position after a field that is not known, with all that a group holds."""
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
                pos = self.varint(pos, end)[1]
            elif wire == LENGTH:
                pos = self.length(number, begin, pos, end)[1]
            else:
                pos = self.fixed(number, wire, begin, pos, end)
            if not groups:
                return pos
            if pos >= end:
                raise self.short(f"group {groups[-1]}", begin, 0, 1, end)
            begin = pos
            number, wire, pos = self.tag(pos, end)

    def fixed(self, field: Field[Any] | int, wire: int, begin: int, pos: int, end: int) -> int:
        """Return the position after a number of four or eight bytes."""
        size = _FIXED_SIZE[wire]
        if size > end - pos:
            raise self.short(_label(field), begin, end - pos, size, end)
        return pos + size

    def scalars(
        self, target: Message, field: Field[Any], wire: int, begin: int, pos: int, end: int, unknown: bytearray
    ) -> int:
        """Read one scalar, or the many of a packed field; return the position after them."""
        if wire != LENGTH or field.wire == LENGTH:
            value, pos = self.scalar(field, begin, pos, end)
            if value is None:
                unknown += self.data[begin:pos]
            elif field.repeated:
                _slot(target, field).append(value)
            else:
                target.values[field.name] = value
            return pos
        pos, stop = self.length(field, begin, pos, end)
        values = _slot(target, field)
        while pos < stop:
            begin = pos
            value, pos = self.scalar(field, begin, pos, stop)
            if value is None:
                unknown += _varint(field.number << 3 | VARINT) + self.data[begin:pos]
            else:
                values.append(value)
        return pos

    def scalar(self, field: Field[Any], begin: int, pos: int, end: int) -> tuple[Any, int]:
        """Read one value; None is an enum's value that the schema does not know, which protobuf keeps as unknown."""
        wire = field.wire
        if wire == VARINT:
            value, pos = self.varint(pos, end)
            if field.enum:
                return field.enum._value2member_map_.get(_FROM_VARINT[INT32](value)), pos
            return _FROM_VARINT[field.kind](value), pos
        if wire == LENGTH:
            self.count(begin)
            pos, stop = self.length(field, begin, pos, end)
            octets = bytes(self.data[pos:stop])
            return octets.decode("utf-8", "surrogateescape") if field.kind is STRING else octets, stop
        after = self.fixed(field, wire, begin, pos, end)
        return struct.unpack_from(_FORMAT[wire], self.data, pos)[0], after

    def array(
        self, arrays: dict[str, Values | bytearray], field: Field[Any], wire: int, begin: int, pos: int, end: int
    ) -> int:
        """Find the values of a packed field, or of a run of single ones; return the position after them."""
        assert field.kind is not None
        assert field.kind.dtype is not None
        dtype = field.kind.dtype
        if wire == LENGTH:
            pos, stop = self.length(field, begin, pos, end)
            count, rest = divmod(stop - pos, dtype.itemsize)
            if rest:
                raise self.error(f"{_label(field)} has {stop - pos} bytes, not a multiple of {dtype.itemsize}", begin)
            found: Values = np.frombuffer(self.data, dtype, count, pos) if count else np.empty(0, dtype)
        else:
            self.fixed(field, wire, begin, pos, end)
            stride = pos - begin + dtype.itemsize
            count = self.run(begin, pos - begin, stride, (end - begin) // stride)
            found = np.ndarray((count,), dtype, self.data, pos, (stride,))
            stop = begin + count * stride
        before = arrays.get(field.name)
        if before is None:
            arrays[field.name] = found
        else:
            # Values in several parts, which Caffe never writes: one growing copy, not a view for each part.
            joined = before if isinstance(before, bytearray) else bytearray(before.tobytes())
            joined += found.tobytes()
            arrays[field.name] = joined
        return stop

    def run(self, begin: int, tag_size: int, stride: int, most: int) -> int:
        """Count how often the tag at ``begin`` comes again, every ``stride`` bytes."""
        rows = np.ndarray((most, stride), np.uint8, self.data, begin)[:, :tag_size]
        count, step = 1, 16
        while count < most:
            same = (rows[count : count + step] == rows[0]).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count += len(same)
            step = min(2 * step, _BLOCK)
        return count


def _label(field: Field[Any] | int) -> str:
    return f"unknown field {field}" if isinstance(field, int) else f"field {field.name!r}"


def _slot(target: Message, field: Field[Any]) -> Any:
    """Return what to read into: the list of a repeated field, a new message in it, or the singular message."""
    held = target.values.get(field.name)
    if held is None:
        held = target.values[field.name] = field.unset()
    if field.repeated and field.message:
        return held.add()
    return held


def _append(target: Message, name: str, values: Values | bytearray) -> None:
    found = np.frombuffer(values, target.fields[name].unset().dtype) if isinstance(values, bytearray) else values
    found.flags.writeable = False
    if target.has(name):
        found = np.concatenate([target.values[name], found])
    target.values[name] = found


def _varint(value: int) -> bytes:
    value &= _MASK64
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _encode(message: Message, pieces: list[Piece]) -> int:
    """Append the pieces of a message and return their size; an array is a piece of its own, not copied."""
    missing = [name for name in message.required if not message.has(name)]
    if missing:
        raise ReproductionError(f"{type(message).__name__} lacks its required field {missing[0]!r}")
    size = sum(_encode_field(field, value, pieces) for field, value in message.set_fields())
    if message.unknown:
        pieces.append(message.unknown)
    return size + len(message.unknown)


def _encode_field(field: Field[Any], value: Any, pieces: list[Piece]) -> int:
    if field.array:
        return _encode_array(field, value, pieces)
    values = value if field.repeated else (value,)
    size = 0
    if field.message:
        for item in values:
            inner: list[Piece] = []
            length = _encode(item, inner)
            head = _varint(field.number << 3 | LENGTH) + _varint(length)
            pieces.append(head)
            pieces.extend(inner)
            size += len(head) + length
        return size
    if field.packed:
        body = b"".join(_scalar(field, item) for item in values)
        octets = _varint(field.number << 3 | LENGTH) + _varint(len(body)) + body
    else:
        tag = _varint(field.number << 3 | field.wire)
        octets = b"".join(tag + _scalar(field, item) for item in values)
    pieces.append(octets)
    return len(octets)


def _encode_array(field: Field[Any], values: Values, pieces: list[Piece]) -> int:
    if field.packed:
        head = _varint(field.number << 3 | LENGTH) + _varint(values.nbytes)
        pieces += head, values
        return len(head) + values.nbytes
    tag = np.frombuffer(_varint(field.number << 3 | field.wire), np.uint8)
    rows = np.empty((len(values), len(tag) + values.itemsize), np.uint8)
    rows[:, : len(tag)] = tag
    rows[:, len(tag) :] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    pieces.append(rows.reshape(-1))
    return rows.size


def _scalar(field: Field[Any], value: Any) -> bytes:
    wire = field.wire
    if wire == VARINT:
        return _varint(int(value))
    if wire == LENGTH:
        octets = _octets(field, value) if isinstance(value, str) else value
        return _varint(len(octets)) + octets
    return struct.pack(_FORMAT[wire], value)


def _octets(field: Field[Any], text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ReproductionError(f"field {field.name!r}: {text!r} cannot be written as UTF-8") from None


def _blocks(piece: Piece) -> Iterator[bytes | memoryview]:
    """Yield a piece as bytes to write: whole when it lies in one run of memory, else copied block by block."""
    if isinstance(piece, bytes):
        yield piece
    elif piece.flags.c_contiguous:
        yield piece.view(np.uint8).data
    else:
        for start in range(0, len(piece), _BLOCK):
            yield np.ascontiguousarray(piece[start : start + _BLOCK]).view(np.uint8).data

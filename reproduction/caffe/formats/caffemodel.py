"""The binary format: protobuf's wire format, driven by the schema, for any message.

Reading keeps weights where they are: every packed array is a view of the mapped file, so a model of half a
gigabyte opens in milliseconds. Writing sends each array from its own memory. Both treat a file as protobuf does:
what the schema does not know is kept as it is and written back after the known fields, and text that is not
UTF-8 is kept too (as Python's ``surrogateescape``), since C++ protobuf does not check the strings of proto2.

Source: protobuf.dev/programming-guides/encoding; BVLC/caffe@9b89154 src/caffe/util/io.cpp L51-78.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

import numpy as np

from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.formats.wire_reader import FORMAT, Buffer, Reader, Values, varint
from reproduction.caffe.schema import BlobProto, Field, Message, NetParameter, SolverState
from reproduction.caffe.schema.message import LENGTH, VARINT

M = TypeVar("M", bound=Message)
Piece = bytes | Values

_BLOCK = 2**18  # values copied at a time from an array that is not contiguous
_FILE_OF: dict[type[Message], str] = {
    NetParameter: "caffemodel",
    SolverState: "solverstate",
    BlobProto: "binaryproto",
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


def foreign_fields(message: Message) -> list[str]:
    """Return the names of a dialect's fields that were read into a message and not yet translated by an upgrade."""
    if not message.unknown:
        return []
    read = [loads(message.unknown, dialect) for dialect in type(message).dialects]
    return [field.name for each in read for field, _ in each.set_fields()]


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
    with files.atomic(path, progress) as file:
        write(message, file)


def write(message: Message, file: BinaryIO) -> None:
    """Write a message to an open file, weights from their own memory.

    Raises:
        ReproductionError: a required field is not set.
    """
    pieces: list[Piece] = []
    _encode(message, pieces)
    for piece in pieces:
        for block in _blocks(piece):
            file.write(block)


def _read(data: Buffer, message: type[M], path: StrPath) -> M:
    reader = Reader(data, path)
    result = message()
    try:
        reader.read(result)
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
            head = varint(field.number << 3 | LENGTH) + varint(length)
            pieces.append(head)
            pieces.extend(inner)
            size += len(head) + length
        return size
    if field.packed:
        body = b"".join(_scalar(field, item) for item in values)
        octets = varint(field.number << 3 | LENGTH) + varint(len(body)) + body
    else:
        tag = varint(field.number << 3 | field.wire)
        octets = b"".join(tag + _scalar(field, item) for item in values)
    pieces.append(octets)
    return len(octets)


def _encode_array(field: Field[Any], values: Values, pieces: list[Piece]) -> int:
    if field.packed:
        head = varint(field.number << 3 | LENGTH) + varint(values.nbytes)
        pieces += head, values
        return len(head) + values.nbytes
    tag = np.frombuffer(varint(field.number << 3 | field.wire), np.uint8)
    rows = np.empty((len(values), len(tag) + values.itemsize), np.uint8)
    rows[:, : len(tag)] = tag
    rows[:, len(tag) :] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    pieces.append(rows.reshape(-1))
    return rows.size


def _scalar(field: Field[Any], value: Any) -> bytes:
    wire = field.wire
    if wire == VARINT:
        return varint(int(value))
    if wire == LENGTH:
        octets = _octets(field, value) if isinstance(value, str) else value
        return varint(len(octets)) + octets
    return struct.pack(FORMAT[wire], value)


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

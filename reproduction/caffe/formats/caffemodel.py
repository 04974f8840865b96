"""Read and write any message of the schema in protobuf's wire format, as in ``.caffemodel`` and ``.binaryproto``.

No weights are copied: when a file is read, every packed array is a view of the mapped file, so a model of half a
gigabyte loads in milliseconds; when a file is written, each array is written from its own memory. Unknown fields are
kept, as in protobuf, and written after the known fields. Strings that are not UTF-8 are kept too (by Python's
``surrogateescape``), since C++ protobuf does not check the strings of proto2.

Source: protobuf.dev/programming-guides/encoding; BVLC/caffe@9b89154 src/caffe/util/io.cpp L51-78.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar

import numpy as np

from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.formats.wire_reader import STRUCT_FORMATS, Buffer, WireReader, varint
from reproduction.caffe.schema import BlobProto, Field, Message, NetParameter, SolverState
from reproduction.caffe.schema.scalar_types import LENGTH, VARINT
from reproduction.caffe.typing import Array, Progress

M = TypeVar("M", bound=Message)
Piece = bytes | Array

_BLOCK = 2**18  # values of a non-contiguous array that are copied at once
_FILE_OF: dict[type[Message], str] = {
    NetParameter: "caffemodel",
    SolverState: "solverstate",
    BlobProto: "binaryproto",
}


def loads(data: Buffer, message: type[M], path: StrPath = "<bytes>") -> M:
    """Parse a message from bytes; an empty string is an empty message.

    Args:
        data: the bytes; arrays of the message are views of them.
        message: the class of the message, such as ``NetParameter``.
        path: the place to name in errors.

    Raises:
        CaffemodelError: If the bytes are not such a message; the place is the offset of the byte that does not fit.
    """
    reader = WireReader(data, path)
    result = message()
    try:
        reader.read(result)
    except CaffemodelError:
        found = files.kind(data)
        if found is None:
            raise
        remedy = {
            files.HTML: "The download failed: open the file to read why, and fetch it again.",
            files.TEXT: "Name the binary file; a prototxt contains no weights.",
            files.ZEROS: "The download was cut off: fetch it again.",
        }
        raise CaffemodelError(
            f"this is not a {_FILE_OF.get(message, message.__name__)}",
            path=path,
            got=found,
            remedy=remedy.get(found, ""),
        ) from None
    return result


def load(path: StrPath, message: type[M] = NetParameter) -> M:  # type: ignore[assignment]
    """Load a message from a binary file, by default a caffemodel.

    Arrays are views of the mapped file; the system reads their values when they are accessed.

    Args:
        path: the file.
        message: the class of the message, such as ``BlobProto`` for a mean image.

    Raises:
        CaffemodelError: If the file is empty or not such a message; the place is the offset of the byte that does not
            fit.
        OSError: If the file cannot be opened.
    """
    return loads(files.map_file(path), message, path)


def dumps(message: Message) -> bytes:
    """Return a message in the wire format, as C++ protobuf writes it: known fields by number, then unknown ones.

    Raises:
        ReproductionError: If a required field is not set, or a string cannot be encoded as UTF-8.
    """
    return b"".join(_serialize(message))


def dump(message: Message, path: StrPath, progress: Progress | None = None) -> None:
    """Write a message in the wire format to a file, atomically and without a second copy of the weights.

    Args:
        message: the message, such as a net with weights.
        path: the file.
        progress: called after each write with the number of bytes written so far.

    Raises:
        ReproductionError: If a required field is not set, a string cannot be encoded as UTF-8, or the file cannot be
            written.
    """
    with files.open_atomic(path, progress) as file:
        write(message, file)


def write(message: Message, file: BinaryIO) -> None:
    """Write a message in the wire format to an open file, without a second copy of the weights.

    Raises:
        ReproductionError: If a required field is not set, or a string cannot be encoded as UTF-8.
    """
    file.writelines(_serialize(message))


def _serialize(message: Message) -> Iterator[bytes | memoryview]:
    """Return the bytes of a message in the wire format, block by block; errors are raised before the first one."""
    pieces: list[Piece] = []
    _encode(message, pieces)
    return (block for piece in pieces for block in _blocks(piece))


def _encode(message: Message, pieces: list[Piece]) -> int:
    """Append the pieces of a serialized message to ``pieces``, and return their size; packed arrays are not copied."""
    missing = [name for name in message.required if not message.has(name)]
    if missing:
        raise ReproductionError(f"{type(message).__name__} lacks its required field {missing[0]!r}")
    size = sum(_encode_field(*field.as_written(value), pieces) for field, value in message.set_fields())
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


def _encode_array(field: Field[Any], values: Array, pieces: list[Piece]) -> int:
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
        octets = _encode_text(field, value) if isinstance(value, str) else value
        return varint(len(octets)) + octets
    return struct.pack(STRUCT_FORMATS[wire], value)


def _encode_text(field: Field[Any], text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ReproductionError(f"field {field.name!r}: {text!r} cannot be written as UTF-8") from None


def _blocks(piece: Piece) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a piece: at once if its memory is contiguous, else as copies of up to 2^18 values."""
    if isinstance(piece, bytes):
        yield piece
    elif piece.flags.c_contiguous:
        yield piece.view(np.uint8).data
    else:
        for start in range(0, len(piece), _BLOCK):
            yield np.ascontiguousarray(piece[start : start + _BLOCK]).view(np.uint8).data

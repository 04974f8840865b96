"""A reader of the label arrays in the MAT files of SBD, NYUDv2, PASCAL-Context and SIFT Flow.

This reader covers MATLAB 5 files (``save -v6`` and ``-v7``) in which a numeric matrix is a variable or a field of a
structure, as in the data sets' label files. Everything else in the file is skipped. It exists because
``scipy.io.loadmat``, which the published layers use, crashes the process on some broken files; tests compare the two.

Source: "MAT-File Format", The MathWorks, chapter 1 (level 5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reproduction.caffe.errors import DataError, StrPath, cannot_read
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Array

_LIMIT_BYTES = 1 << 25  # for the file, and for its unpacked variables; the data sets' label maps have 0.5 MB
_HEADER_BYTES = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15  # element types (mi...)
_STRUCTURE, _NUMBERS = 2, range(6, 16)  # array classes (mx...)
_COMPLEX = 0x800
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def read(path: StrPath, *names: str) -> Array:
    """Read one matrix from a MAT file: ``read(path, "GTcls", "Segmentation")`` is MATLAB's ``GTcls.Segmentation``.

    Args:
        path: Path of a MATLAB 5 file.
        names: The name of a variable, followed by the names of the fields that lead from it to the matrix.

    Returns:
        (H, W), in the dtype in which the file stores it.

    Raises:
        DataError: If the file is missing, broken or too large, or has no such matrix of real numbers.
    """
    try:
        with files.open_regular(path) as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise cannot_read(error, "the label map", path) from None
    try:
        return _find(memoryview(data), names)
    except DataError as error:
        raise error.at(str(path)) from None


def _find(data: memoryview, names: tuple[str, ...]) -> Array:
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[_HEADER_BYTES - 2 : _HEADER_BYTES]))
    if order is None or len(data) > _LIMIT_BYTES or bytes(data[124:126]) not in (b"\x00\x01", b"\x01\x00"):
        raise DataError(
            "not a label map",
            got=_describe(bytes(data[:_HEADER_BYTES]), len(data)),
            want=f"a MATLAB 5 file of at most {_LIMIT_BYTES >> 20} MB",
            remedy="MATLAB writes one by save -v7.",
        )
    for element in _unpacked(data, order):
        array = _Reader(element, order).array()
        if array.name == names[0]:
            for name in names[1:]:
                array = array.field(name)
            return array.numbers()
    raise DataError(f"the MAT file has no variable {names[0]!r}")


def _unpacked(data: memoryview, order: str) -> Iterator[memoryview]:
    """Yield the bytes of each variable, decompressed; only one is in memory at a time."""
    file, room = _Reader(data, order, _HEADER_BYTES), _LIMIT_BYTES
    while file.at < len(data):
        kind, content = file.element()
        if kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            try:
                content = memoryview(inflate.decompress(content, room + 1))
            except zlib.error as error:
                raise _broken(str(error)) from None
            room -= len(content)
            if room < 0:
                raise DataError(
                    "the MAT file unpacks to too much for a label map", want=f"at most {_LIMIT_BYTES} bytes"
                )
            kind, content = _Reader(content, order).element()
        if kind == _MATRIX:
            yield content


class _Reader:
    """A sequential reader of a MAT file's elements: type, size, that many bytes, and padding to 8 bytes."""

    def __init__(self, data: memoryview, order: str, at: int = 0):
        self.data, self.order, self.at = data, order, at

    def element(self) -> tuple[int, memoryview]:
        if self.at + 8 > len(self.data):
            raise _broken(f"it ends within the tag at byte {self.at}")
        kind, size = struct.unpack_from(self.order + "II", self.data, self.at)
        start = self.at + 8
        if kind >> 16:  # small element format: size and type in the first word, data in the second
            kind, size, start = kind & 0xFFFF, kind >> 16, self.at + 4
        if start + size > len(self.data) or (start == self.at + 4 and size > 4):
            raise _broken(f"the element at byte {self.at} reaches past its end")
        # Compressed elements are not padded.
        padded = size if kind == _COMPRESSED else (size + 7) // 8 * 8
        self.at = self.at + 8 if start == self.at + 4 else start + padded
        return kind, self.data[start : start + size]

    def array(self) -> _Array:
        """Read the header of an array: flags, shape, name."""
        if self.at >= len(self.data):  # MATLAB writes an empty array in a field without any header
            return _Array(0, False, (0, 0), "", self)
        kind, flags = self.element()
        kind_of_size, size = self.element()
        kind_of_name, name = self.element()
        if (kind, kind_of_size, kind_of_name) != (_UINT32, _INT32, _INT8) or len(flags) != 8 or len(size) % 4:
            raise _broken("an array has no flags, size and name")
        bits = struct.unpack_from(self.order + "I", flags)[0]
        shape = struct.unpack(f"{self.order}{len(size) // 4}i", size)
        return _Array(bits & 0xFF, bool(bits & _COMPLEX), shape, str(name, "latin-1"), self)


@dataclass(frozen=True)
class _Array:
    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    rest: _Reader

    def field(self, name: str) -> _Array:
        """Return a field of a 1 x 1 structure."""
        if self.kind != _STRUCTURE or set(self.shape) != {1}:
            raise DataError(f"the MAT file's {self.name!r} has no field {name!r}", want="a structure")
        width = struct.unpack(self.rest.order + "i", self._content(_INT32, 4))[0]
        text = bytes(self._content(_INT8))
        if width < 1 or len(text) % width:
            raise _broken("a structure has no field names")
        fields = (text[at : at + width].split(b"\0")[0] for at in range(0, len(text), width))
        number = next((i for i, field in enumerate(fields) if field == name.encode()), None)
        if number is None:
            raise DataError(f"the MAT file's {self.name!r} has no field {name!r}")
        for _ in range(number):
            self._content(_MATRIX)
        return _Reader(self._content(_MATRIX), self.rest.order).array()

    def numbers(self) -> Array:
        """Read the array as a matrix, (H, W)."""
        if self.kind not in _NUMBERS or self.is_complex or len(self.shape) != 2 or min(self.shape) < 1:
            raise DataError("the MAT file's label map is not a matrix of real numbers", got=f"shape {self.shape}")
        kind, content = self.rest.element()
        if kind not in _STORED:
            raise _broken(f"numbers of type {kind}")
        dtype = np.dtype(self.rest.order + _STORED[kind])
        if len(content) != dtype.itemsize * self.shape[0] * self.shape[1]:
            raise _broken(f"{len(content)} bytes do not make {self.shape[0]} x {self.shape[1]} of {dtype.name}")
        return np.frombuffer(content, dtype).reshape(self.shape, order="F")  # MATLAB stores column by column

    def _content(self, want: int, size: int | None = None) -> memoryview:
        kind, content = self.rest.element()
        if kind != want or size not in (None, len(content)):
            raise _broken(f"an element is of type {kind}, want {want}")
        return content


def _broken(reason: str) -> DataError:
    return DataError(f"the MAT file is broken ({reason})", remedy="Extract or fetch it again.")


def _describe(data: bytes, size: int) -> str:
    if size > _LIMIT_BYTES:
        return "a larger one"
    if data.startswith(b"MATLAB 7.3"):
        return "a MATLAB 7.3 file"
    return f"a file that begins with {data[:16]!r}" if data else "an empty file"

"""Parsers of the messages in HDF5 object headers: shapes, types, layouts, filters and links.

Only the features that datasets of numbers and short strings need are supported.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", section IV.A.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from reproduction.caffe.formats.hdf5_file.hdf5_objects import File

_MAX_LINKS = 2**15
MAX_NAME = 1024  # bytes of a link's name
# The properties of IEEE floats by size in bytes: bit offset, precision, location and size of the exponent, location and
# size of the mantissa, and exponent bias.
_FLOATS = {2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}
_CLASSES = {
    2: "times", 4: "bit fields", 5: "opaque bytes", 6: "records", 7: "references", 8: "an enumeration",
    9: "sequences", 10: "arrays",
}  # fmt: skip
TEXT = "a string of any length"
ELSEWHERE = -1  # the address of a soft or external link, which is not resolved


@dataclass
class Group:
    """A group; ``links`` maps the names of members to addresses, or to ``ELSEWHERE`` for soft and external links."""

    name: str
    address: int
    links: dict[str, int]


@dataclass
class Layout:
    """The storage layout of a dataset.

    Attributes:
        kind: ``"none"`` if no values were written, ``"contiguous"``, ``"chunked"``, or another kind, which is not
            supported. The values of a compact dataset are contiguous too, in its header.
        address: the address of the values, or of the index of the chunks.
        chunk: the shape of a chunk.
        index: the type of the index of the chunks; 0 is the version 1 B-tree of layout version 3.
        size: the stored size in bytes of a filtered chunk that is the only one; else None.
        mask: the filters that were skipped for a chunk that is the only one, one bit for each.
        page_bits: the base-2 logarithm of the entries in a page of a fixed array.
    """

    kind: str = "none"
    address: int = 0
    chunk: tuple[int, ...] = ()
    index: int = 0
    size: int | None = None
    mask: int = 0
    page_bits: int = 0


@dataclass
class Dataset:
    """A dataset as its object header describes it.

    Attributes:
        name: its path in the file.
        address: the address of its header.
        shape: its shape; None for a null dataset.
        dtype: the dtype of its numbers or fixed-length strings; None for other types.
        kind: a phrase for the type if ``dtype`` is None, else an empty string.
        layout: where the values are stored.
        filters: the identifier and parameters of each filter, in the order in which they were applied.
        fill: the bytes of the fill value, for values that were never written; empty for zero.
    """

    name: str
    address: int
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[np.generic] | None = None
    kind: str = ""
    layout: Layout = field(default_factory=Layout)
    filters: list[tuple[int, list[int]]] = field(default_factory=list)
    fill: bytes = b""

    @property
    def type(self) -> str:
        """The type of the values, in words, for errors."""
        return self.kind or str(self.dtype)


class Cursor:
    """A position in the file, from which little-endian numbers are read.

    Args:
        file: the file.
        at: the offset of the position.
        end: the end of the block to read; None for the end of the file.

    Raises:
        CaffemodelError: If the position or the end of the block is past the end of the file.
    """

    def __init__(self, file: File, at: int, end: int | None = None):
        self.file, self.at = file, at
        self.end = len(file.data) if end is None else end
        if self.end > len(file.data) or at > self.end:
            raise file.error(f"a block at byte {at} reaches past its end")

    def take(self, size: int) -> memoryview:
        """Return the next ``size`` bytes, and advance."""
        if not 0 <= size <= self.end - self.at:
            raise self.file.error(f"a block ends at byte {self.end} in the middle of a value")
        self.at += size
        return self.file.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """Return the next unsigned number, of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def offset(self) -> int | None:
        """Return the next address; None for the undefined address, whose bits are all 1."""
        value = self.number(self.file.offset_size)
        return None if value == (1 << 8 * self.file.offset_size) - 1 else value

    def length(self) -> int:
        """Return the next length, of the size that the superblock states."""
        return self.number(self.file.length_size)

    def expect(self, signature: bytes) -> None:
        """Check the signature at the beginning of a block, and advance."""
        at = self.at
        if self.take(len(signature)) != signature:
            raise self.file.error(f"there is no {signature.decode()} at byte {at}")


def add(group: Group, name: bytes, target: int | None, file: File) -> None:
    """Add a link to a group; the target None stands for a soft or external link."""
    text = name.decode("utf-8", "surrogateescape")
    file.links += 1
    if file.links > _MAX_LINKS:
        raise file.error(f"it has more than {_MAX_LINKS} links")
    if len(name) >= MAX_NAME or not name or text in group.links:
        raise file.error(f"group {group.name} has a link that is twice there, or of a name that is too long")
    group.links[text] = ELSEWHERE if target is None else target


def read_link(group: Group, message: Cursor) -> None:
    """Parse a link message of a new-style group, and add the link to the group."""
    message.take(1)
    flags = message.number(1)
    kind = message.number(1) if flags & 8 else 0
    message.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = bytes(message.take(message.number(1 << (flags & 3))))
    add(group, name, message.offset() if kind == 0 else None, message.file)


def shape(message: Cursor) -> tuple[int, ...] | None:
    """Parse a dataspace message; return the shape, or None for a null dataspace."""
    version, rank, _ = message.number(1), message.number(1), message.number(1)
    kind = message.number(1)
    if version == 1:
        message.take(4)
    elif version != 2:
        raise message.file.unknown(f"a data space of version {version}")
    return None if version == 2 and kind == 2 else tuple(message.length() for _ in range(rank))


def type(message: Cursor) -> tuple[np.dtype[np.generic] | None, str]:
    """Parse a datatype message; return a dtype and an empty string, or None and a phrase for an unsupported type."""
    kind, bits, size = message.number(1) & 15, message.number(3), message.number(4)
    order = ">" if bits & 1 else "<"
    if kind == 0 and size in (1, 2, 4, 8) and (message.number(2), message.number(2)) == (0, 8 * size):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}"), ""
    if kind == 1 and size in _FLOATS and not bits & 64:
        found = struct.unpack("<HHBBBBI", message.take(12))
        return (np.dtype(f"{order}f{size}"), "") if found == _FLOATS[size] else (None, "unusual floats")
    if kind == 3 and 0 < size < 2**31:
        return np.dtype(f"S{size}"), ""
    if kind == 9 and bits & 15 == 1:
        return None, TEXT
    return None, _CLASSES.get(kind, f"numbers of {size} bytes")


def layout(message: Cursor) -> Layout:
    """Parse a data layout message."""
    version, kind = message.number(1), message.number(1)
    if version not in (3, 4, 5):
        raise message.file.unknown(f"a data layout of version {version}")
    if kind == 0:
        size = message.number(2)
        message.take(size)
        return Layout("contiguous", message.at - size)
    if kind == 1:
        address = message.offset()
        return Layout() if address is None else Layout("contiguous", address)
    if kind != 2:
        return Layout("virtual")
    if version == 3:
        rank = message.number(1)
        address = message.offset()
        chunk = tuple(message.number(4) for _ in range(rank))[:-1]
        return Layout("chunked" if address is not None else "none", address or 0, chunk)
    flags, rank, width = message.number(1), message.number(1), message.number(1)
    found = Layout("chunked", chunk=tuple(message.number(width) for _ in range(rank))[:-1], index=message.number(1))
    if found.index == 1 and flags & 2:
        found.size, found.mask = message.length(), message.number(4)
    elif found.index == 3:
        found.page_bits = message.number(1)
    elif found.index in (4, 5):
        message.take(5 if found.index == 4 else 6)
    address = message.offset()
    found.kind, found.address = "chunked" if address is not None else "none", address or 0
    return found


def filters(message: Cursor) -> list[tuple[int, list[int]]]:
    """Parse a filter pipeline message; return the identifier and parameters of each filter."""
    version, count = message.number(1), message.number(1)
    message.take(6 if version == 1 else 0)
    found = []
    for _ in range(count):
        number = message.number(2)
        named = message.number(2) if version == 1 or number >= 256 else 0
        message.take(2)
        values = message.number(2)
        message.take((named + 7) // 8 * 8 if version == 1 else named)
        found.append((number, [message.number(4) for _ in range(values)]))
        message.take(4 if version == 1 and values % 2 else 0)
    return found


def fill(message: Cursor) -> bytes:
    """Parse a fill value message; return the bytes of the value, or none if it is not defined."""
    version = message.number(1)
    if version == 3:
        defined = bool(message.number(1) & 32)
    else:
        message.take(2)
        defined = bool(message.number(1)) or version == 1
    return bytes(message.take(message.number(4))) if defined else b""

"""The messages of object headers: shapes, types, layouts, filters, fill values and links.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", section IV.A.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from reproduction.caffe.formats.hdf5_file.cursor import Cursor

DATASPACE, LINK_INFO, DATATYPE, FILL_VALUE, LINK, EXTERNAL_FILES, DATA_LAYOUT = 1, 2, 3, 5, 6, 7, 8  # message types
FILTER_PIPELINE, CONTINUATION, SYMBOL_TABLE = 11, 16, 17
ANY_LENGTH = "a string of any length"
# The properties of IEEE floats by size in bytes: bit offset, precision, location and size of the exponent, location and
# size of the mantissa, and exponent bias.
_FLOATS = {2: (0, 16, 10, 5, 0, 10, 15), 4: (0, 32, 23, 8, 0, 23, 127), 8: (0, 64, 52, 11, 0, 52, 1023)}
_INTEGER, _FLOAT, _STRING, _VARIABLE_LENGTH = 0, 1, 3, 9  # classes of datatypes
_OTHER_CLASSES = {
    2: "times", 4: "bit fields", 5: "opaque bytes", 6: "records", 7: "references", 8: "an enumeration",
    9: "sequences", 10: "arrays",
}  # fmt: skip


@dataclass
class StorageLayout:
    """Where and how the values of a dataset are stored.

    Attributes:
        kind: ``"none"`` if no values were written, ``"contiguous"``, ``"chunked"``, or another kind, which is not
            supported. The values of a compact dataset are contiguous too, in its header.
        address: the address of the values, or of the index of the chunks.
        chunk: the shape of a chunk.
        index: the type of the index of the chunks; 0 is the version 1 B-tree of layout version 3.
        size: if a filtered chunk is the only one, its stored size in bytes; else None.
        mask: if a chunk is the only one, the filters that were skipped for it, one bit for each.
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
class HDF5Dataset:
    """A dataset as its object header describes it.

    Attributes:
        name: its path in the file.
        shape: its shape; None for a null dataset.
        dtype: the dtype of its numbers or fixed-length strings; None for other types.
        kind: a phrase for the type if ``dtype`` is None, else an empty string.
        layout: where the values are stored.
        filters: the identifier and parameters of each filter, in the order in which they were applied.
        fill: the bytes of the fill value, for values that were never written; empty for zero.
    """

    name: str
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[np.generic] | None = None
    kind: str = ""
    layout: StorageLayout = field(default_factory=StorageLayout)
    filters: list[tuple[int, list[int]]] = field(default_factory=list)
    fill: bytes = b""

    @property
    def type(self) -> str:
        """The type of the values, in words, for errors."""
        return self.kind or str(self.dtype)


def parse_link(message: Cursor) -> tuple[bytes, int | None]:
    """Parse a link message (IV.A.2.g), which names a member of a group.

    Args:
        message: a cursor over the message.

    Returns:
        The name of the member, and its address; None for a soft or external link.
    """
    message.skip(1)
    flags = message.number(1)
    link_type = message.number(1) if flags & 8 else 0
    message.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))  # the creation order, and the character set
    name = bytes(message.take(message.number(1 << (flags & 3))))
    return name, message.offset() if link_type == 0 else None


def parse_dataspace(message: Cursor) -> tuple[int, ...] | None:
    """Parse a dataspace message (IV.A.2.b), and return the shape of the dataset; None for a null dataspace.

    Args:
        message: a cursor over the message.
    """
    version, rank, _, space_type = (message.number(1) for _ in range(4))
    if version == 1:
        message.skip(4)
    elif version != 2:
        raise message.file.unsupported(f"a data space of version {version}")
    return None if version == 2 and space_type == 2 else tuple(message.length() for _ in range(rank))


def parse_datatype(message: Cursor) -> tuple[np.dtype[np.generic] | None, str]:
    """Parse a datatype message (IV.A.2.d).

    Args:
        message: a cursor over the message.

    Returns:
        The dtype and an empty string; or None and a phrase for a type that NumPy does not have, or that Caffe's files
        never have.
    """
    kind, bits, size = message.number(1) & 15, message.number(3), message.number(4)
    order = ">" if bits & 1 else "<"
    if kind == _INTEGER and size in (1, 2, 4, 8) and (message.number(2), message.number(2)) == (0, 8 * size):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}"), ""
    if kind == _FLOAT and size in _FLOATS and not bits & 64:  # bit 6: the byte order of the VAX
        is_ieee = struct.unpack("<HHBBBBI", message.take(12)) == _FLOATS[size]
        return (np.dtype(f"{order}f{size}"), "") if is_ieee else (None, "unusual floats")
    if kind == _STRING and 0 < size < 2**31:
        return np.dtype(f"S{size}"), ""
    if kind == _VARIABLE_LENGTH and bits & 15 == 1:
        return None, ANY_LENGTH
    return None, _OTHER_CLASSES.get(kind, f"numbers of {size} bytes")


def parse_layout(message: Cursor) -> StorageLayout:
    """Parse a data layout message (IV.A.2.i), which says where the values of a dataset are.

    Args:
        message: a cursor over the message.
    """
    version, layout_class = message.number(1), message.number(1)
    if version not in (3, 4, 5):
        raise message.file.unsupported(f"a data layout of version {version}")
    if layout_class == 0:  # compact: the values are in the message
        size = message.number(2)
        message.skip(size)
        return StorageLayout("contiguous", message.at - size)
    if layout_class == 1:
        address = message.offset()
        return StorageLayout() if address is None else StorageLayout("contiguous", address)
    if layout_class != 2:
        return StorageLayout("virtual")
    layout = StorageLayout()
    if version == 3:
        rank = message.number(1)
        address = message.offset()
        width = 4
    else:
        flags, rank, width = message.number(1), message.number(1), message.number(1)
    # The last number is the size of a value in bytes, which the type states too.
    layout.chunk = tuple(message.number(width) for _ in range(rank))[:-1]
    if version > 3:
        layout.index = message.number(1)
        if layout.index == 1 and flags & 2:
            layout.size, layout.mask = message.length(), message.number(4)
        elif layout.index == 3:
            layout.page_bits = message.number(1)
        elif layout.index in (4, 5):  # the parameters of an array that grows, or a tree
            message.skip(5 if layout.index == 4 else 6)
        address = message.offset()
    layout.kind, layout.address = "chunked" if address is not None else "none", address or 0
    return layout


def parse_filters(message: Cursor) -> list[tuple[int, list[int]]]:
    """Parse a filter pipeline message (IV.A.2.l), and return the identifier and parameters of each filter.

    Args:
        message: a cursor over the message.
    """
    version, count = message.number(1), message.number(1)
    message.skip(6 if version == 1 else 0)
    found = []
    for _ in range(count):
        identifier = message.number(2)
        name_bytes = message.number(2) if version == 1 or identifier >= 256 else 0
        message.skip(2)
        values = message.number(2)
        message.skip((name_bytes + 7) // 8 * 8 if version == 1 else name_bytes)
        found.append((identifier, [message.number(4) for _ in range(values)]))
        message.skip(4 if version == 1 and values % 2 else 0)
    return found


def parse_fill_value(message: Cursor) -> bytes:
    """Parse a fill value message (IV.A.2.f), and return the bytes of the value; empty if it is not defined.

    Args:
        message: a cursor over the message.
    """
    version = message.number(1)
    if version == 3:
        is_defined = bool(message.number(1) & 32)
    else:
        message.skip(2)
        is_defined = bool(message.number(1)) or version == 1
    return bytes(message.take(message.number(4))) if is_defined else b""

"""Two structures of newer HDF5 files: version 2 B-trees, and the fractal heap that stores the links of large groups.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", sections III.A.2 and III.G.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reproduction.caffe.formats.hdf5_file.hdf5_messages import Cursor
    from reproduction.caffe.formats.hdf5_file.hdf5_objects import File

_NODE_BYTES = 10  # the signature, version, type and checksum of a node
_MAX_DEPTH = 16
LINK_NAMES, CHUNKS, FILTERED_CHUNKS = 5, 10, 11  # types of trees


def records(file: File, address: int, kind: int) -> Iterator[Cursor]:
    """Yield the records of a version 2 B-tree; those of a node come before those of its children.

    Args:
        file: the file.
        address: the address of the tree's header.
        kind: the expected type of the tree, such as ``LINK_NAMES``.

    Raises:
        CaffemodelError: If the tree is damaged, or of another type.
    """
    head = file.cursor(file.once(address))
    head.expect(b"BTHD")
    head.take(1)
    found, node_bytes, size, depth = head.number(1), head.number(4), head.number(2), head.number(2)
    head.take(2)
    root, count = head.offset(), head.number(2)
    if root is None:
        return
    if found != kind or not size or depth > _MAX_DEPTH or node_bytes <= _NODE_BYTES:
        raise file.error(f"the tree at byte {address} is not what it should be")
    # The maximum number of records below a node of each level; it determines the width of the counts in its parent.
    most = [(node_bytes - _NODE_BYTES) // size]
    width = _width(most[0])
    pointers = [0]
    for level in range(1, depth + 1):
        pointers.append(file.offset_size + width + (_width(most[level - 1]) if level > 1 else 0))
        own = (node_bytes - _NODE_BYTES - pointers[level]) // (size + pointers[level])
        most.append((own + 1) * most[level - 1] + own)
    waiting = [(root, count, depth)]
    while waiting:
        at, count, level = waiting.pop()
        node = file.cursor(file.once(at))
        node.expect(b"BTIN" if level else b"BTLF")
        node.take(2)
        for _ in range(count):
            file.step()
            node.take(size)
            yield file.cursor(node.at - size, node.at)
        for _ in range(count + 1 if level else 0):
            child, below = node.offset(), node.number(width)
            node.take(pointers[level] - file.offset_size - width)
            if child is None:
                raise file.error(f"the node at byte {at} has a branch to nowhere")
            waiting.append((child, below, level - 1))


def _width(most: int) -> int:
    """Return the number of bytes that HDF5 uses for numbers up to ``most``."""
    return (most.bit_length() - 1) // 8 + 1 if most > 0 else 1


class Heap:
    """A fractal heap, which stores objects in blocks whose size doubles from row to row.

    Args:
        file: the file.
        address: the address of the heap's header.

    Raises:
        CaffemodelError: If the heap is damaged, or compressed.
    """

    def __init__(self, file: File, address: int):
        head = file.cursor(file.once(address))
        head.expect(b"FRHP")
        head.take(3)
        filtered = head.number(2)
        head.take(1)
        managed = head.number(4)
        head.take(10 * file.length_size + 2 * file.offset_size)
        self.file, self.columns = file, head.number(2)
        self.first, largest, bits = head.length(), head.length(), head.number(2)
        head.take(2)
        self.root, self.rows = head.offset(), head.number(2)
        sizes = (self.first, largest, self.columns)
        if filtered or bits > 64 or any(size < 1 or size & (size - 1) for size in sizes) or largest < self.first:
            raise file.error(f"the heap at byte {address} is not what it should be")
        self.offset_bytes = (bits + 7) // 8
        self.length_bytes = min((largest.bit_length() + 6) // 8, _width(managed))
        self.direct_rows = largest.bit_length() - self.first.bit_length() + 2

    def read(self, identifier: Cursor) -> Cursor:
        """Return a cursor at the object with this heap ID.

        Raises:
            CaffemodelError: If the object is not in the heap, or is not a managed object (stored in a block).
        """
        if identifier.number(1) >> 4 != 0:
            raise self.file.unknown("objects outside of a heap's blocks")
        offset, length = identifier.number(self.offset_bytes), identifier.number(self.length_bytes)
        block, rows = self.root, self.rows
        for _ in range(_MAX_DEPTH):
            if block is None:
                break
            if rows == 0:
                head = self.file.cursor(block)
                head.expect(b"FHDB")
                return self.file.cursor(block + offset, block + offset + length)
            # All rows have the same number of blocks. The first two rows have the smallest blocks.
            row = (offset // (self.first * self.columns)).bit_length()
            size = self.first << max(row - 1, 0)
            offset -= size * self.columns if row else 0
            index = row * self.columns + offset // size
            offset %= size
            if row >= rows:
                break
            entry = self.file.cursor(block)
            entry.expect(b"FHIB")
            entry.take(1 + self.file.offset_size + self.offset_bytes + index * self.file.offset_size)
            block = entry.offset()
            rows = 0 if row < self.direct_rows else size.bit_length() - (self.first * self.columns).bit_length() + 1
        raise self.file.error("a link is not in its heap")

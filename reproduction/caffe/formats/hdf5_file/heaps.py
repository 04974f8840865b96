"""The heaps of HDF5 files, which hold what has no fixed size: names, links and strings.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", sections III.D, III.E and III.G.
"""

from __future__ import annotations

from reproduction.caffe.formats.hdf5_file.cursor import Cursor, FileBytes
from reproduction.caffe.formats.hdf5_file.trees import byte_width

MAX_NAME = 1024  # bytes of a link's name
_MAX_DEPTH = 16


class LocalHeap:
    """The names of the members of an old-style group, stored in a local heap (III.D).

    Args:
        file: the file.
        address: the address of the heap.
    """

    def __init__(self, file: FileBytes, address: int):
        head = file.open_block(address, b"HEAP")
        head.skip(4)
        size, _, start = head.length(), head.length(), head.offset()
        self._names = file.cursor(start or 0, (start or 0) + size)

    def name(self, offset: int | None) -> bytes:
        """Return the name that begins at an offset of the heap and ends with a zero byte, cut to ``MAX_NAME`` bytes.

        Args:
            offset: the offset in bytes; for None, the name is empty.
        """
        begin = self._names.end if offset is None else self._names.at + offset
        return bytes(self._names.file.data[begin : min(begin + MAX_NAME, self._names.end)]).split(b"\0")[0]


def read_global_object(file: FileBytes, address: int, index: int, size: int) -> bytes:
    """Return the beginning of an object in a global heap, such as a string of variable length (III.E).

    Args:
        file: the file.
        address: the address of the heap's collection.
        index: the index of the object in the collection.
        size: the number of bytes to return.
    """
    heap = file.cursor(address)
    heap.expect(b"GCOL")
    heap.skip(4)
    heap.end = min(heap.end, address + heap.length())
    while True:
        file.count_item()
        found = heap.number(2)
        heap.skip(6)
        length = heap.length()
        if found == index:
            return bytes(heap.take(size))
        heap.skip((length + 7) // 8 * 8)


class FractalHeap:
    """A reader of a fractal heap (III.G), which stores the links of a large new-style group.

    ``read`` returns the link that has a heap id; the ids are in the group's B-tree.

    Its objects are stored in direct blocks. The heap's address space is a table of blocks with a fixed number of
    columns; the blocks of the first two rows have the same size, and then the size doubles from row to row. The blocks
    of the rows from ``direct_rows`` on would be too large, so each is an indirect block: a table of the same form.

    Args:
        file: the file.
        address: the address of the heap's header.

    Raises:
        CaffemodelError: If the heap is damaged, or compressed.
    """

    def __init__(self, file: FileBytes, address: int):
        head = file.open_block(address, b"FRHP")
        head.skip(3)
        filter_bytes = head.number(2)
        head.skip(1)
        largest_object = head.number(4)
        head.skip(10 * file.length_size + 2 * file.offset_size)
        self.file, self.columns = file, head.number(2)
        self.first, largest, bits = head.length(), head.length(), head.number(2)  # sizes of blocks, and of the space
        head.skip(2)
        self.root, self.rows = head.offset(), head.number(2)
        sizes = (self.first, largest, self.columns)
        if filter_bytes or bits > 64 or largest < self.first or not all(size.bit_count() == 1 for size in sizes):
            raise file.error(f"the heap at byte {address} has a damaged header")
        # The widths of the offset and the length in a heap ID.
        self.offset_bytes = (bits + 7) // 8
        self.length_bytes = min((largest.bit_length() + 6) // 8, byte_width(largest_object))
        self.direct_rows = largest.bit_length() - self.first.bit_length() + 2

    def read(self, identifier: Cursor) -> Cursor:
        """Return a cursor over the object of a heap ID.

        Args:
            identifier: a cursor at the heap ID, which encodes the offset and length of the object in the heap.

        Raises:
            CaffemodelError: If the object is not in the heap, or is not a managed object (stored in a block).
        """
        if identifier.number(1) >> 4 != 0:  # the version, and the type: 0 for a managed object
            raise self.file.unsupported("objects outside of a heap's blocks")
        offset, length = identifier.number(self.offset_bytes), identifier.number(self.length_bytes)
        block, rows = self.root, self.rows
        for _ in range(_MAX_DEPTH):
            if block is None:
                break
            if rows == 0:
                self.file.cursor(block).expect(b"FHDB")
                return self.file.cursor(block + offset, block + offset + length)  # offsets include the block's header
            # Row r > 0 begins at the offset 2^(r - 1) * first * columns, which is also the size of the whole row.
            row = (offset // (self.first * self.columns)).bit_length()
            size = self.first << max(row - 1, 0)
            offset -= size * self.columns if row else 0
            index = row * self.columns + offset // size
            offset %= size
            if row >= rows:
                break
            entry = self.file.cursor(block)
            entry.expect(b"FHIB")
            entry.skip(1 + self.file.offset_size + self.offset_bytes + index * self.file.offset_size)
            block = entry.offset()
            # An indirect block has as many rows as it takes to fill its size.
            rows = 0 if row < self.direct_rows else size.bit_length() - (self.first * self.columns).bit_length() + 1
        raise self.file.error("a link is not in its heap")

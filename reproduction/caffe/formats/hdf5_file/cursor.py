"""The bytes of an HDF5 file: cursors that read numbers, and limits that end the reading of a malicious file.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", section II.
"""

from __future__ import annotations

import mmap

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import files

_MAX_ITEMS, _BYTES_PER_ITEM = 2**16, 4


class FileBytes:
    """The mapped bytes of an HDF5 file, with the counters by which the reading of a malicious file ends.

    A block may state that it contains itself, or that two blocks share a third, and so on: a file of a few kilobytes
    can describe an endless structure. So the blocks of an object are recorded, and all items are counted.

    Args:
        data: the mapped file.
        path: the file to name in errors.

    Attributes:
        offset_size: the number of bytes of an address in this file.
        length_size: the number of bytes of a length in this file.
        visited: the addresses of the blocks that were read for the current object.
    """

    def __init__(self, data: mmap.mmap | bytes, path: StrPath):
        self.data, self.path = memoryview(data), path
        self.offset_size = self.length_size = 8  # replaced by what the superblock states
        self.visited: set[int] = set()  # the addresses of the blocks of the object that is being read
        self._items_left = _MAX_ITEMS + len(data) // _BYTES_PER_ITEM
        self._claimed = 0

    def error(self, problem: str) -> CaffemodelError:
        """Return the error for a damaged file; ``problem`` follows "the HDF5 file cannot be read:"."""
        return CaffemodelError(
            f"the HDF5 file cannot be read: {problem}", path=self.path, remedy="It was cut off or is damaged."
        )

    def unsupported(self, what: str) -> CaffemodelError:
        """Return the error for a feature of HDF5 that this reader does not support; ``what`` names the feature."""
        remedy = "Copy it by `h5repack -f NONE -l CONTI OLD NEW`, or write it again with the default settings."
        return CaffemodelError(f"the HDF5 file has {what}, which is not supported", path=self.path, remedy=remedy)

    def cursor(self, at: int, end: int | None = None) -> Cursor:
        """Return a cursor at byte ``at`` of the file, which reads up to byte ``end``; None for the end of the file."""
        return Cursor(self, at, end)

    def open_block(self, address: int, signature: bytes = b"") -> Cursor:
        """Return a cursor that is positioned after the signature of a block.

        Each block belongs to one parent, so a block that is read twice for an object is part of a loop or is shared.

        Args:
            address: the address of the block.
            signature: the bytes with which the block must begin.

        Raises:
            CaffemodelError: If the block was already read for this object, or has another signature.
        """
        if address in self.visited:
            raise self.error(f"the block at byte {address} is part of itself, or of two others")
        self.visited.add(address)
        block = Cursor(self, address)
        block.expect(signature)
        return block

    def count_item(self) -> None:
        """Count a message, link or chunk; raise an error if there are more than the file has room for."""
        self._items_left -= 1
        if self._items_left < 0:
            raise self.error("its blocks overlap")

    def claim(self, size: int, ratio: int, spare: int) -> None:
        """Count bytes that are about to be allocated, and check the total by ``files.check_declared_size``.

        Args:
            size: the number of bytes.
            ratio: the limit of the total, as a multiple of the file's size.
            spare: bytes that are allowed in addition.
        """
        self._claimed += size
        files.check_declared_size(self._claimed, self.path, ratio, spare)


class Cursor:
    """A position in an HDF5 file, which advances as little-endian numbers are read, up to the end of a block.

    Args:
        file: the file.
        at: the position at the start.
        end: the end of the block; None for the end of the file.

    Raises:
        CaffemodelError: If the position or the end of the block is past the end of the file.
    """

    def __init__(self, file: FileBytes, at: int, end: int | None = None):
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

    def skip(self, size: int) -> None:
        """Advance by ``size`` bytes without reading them."""
        self.take(size)

    def number(self, size: int) -> int:
        """Read and return an unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def offset(self) -> int | None:
        """Read and return an address; None for HDF5's undefined address, whose bits are all 1."""
        value = self.number(self.file.offset_size)
        return None if value == (1 << 8 * self.file.offset_size) - 1 else value

    def length(self) -> int:
        """Read and return a length, a number of ``file.length_size`` bytes."""
        return self.number(self.file.length_size)

    def expect(self, signature: bytes) -> None:
        """Check that the next bytes are ``signature``, as at the beginning of a block, and advance past them."""
        at = self.at
        if self.take(len(signature)) != signature:
            raise self.file.error(f"there is no {signature.decode()} at byte {at}")

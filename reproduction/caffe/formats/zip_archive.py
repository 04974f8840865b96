"""Reader of zip archives of arrays, whose members are views of a mapped file.

Python's ``zipfile`` creates an object for each entry of the directory, without a limit of their number or size, and
copies every member. Here uncompressed members are views of the file, and compressed ones are unpacked into memory of
the size that the directory states. All sizes are checked before memory is allocated.

Source: PKWARE, APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import files

_LOCAL, _CENTRAL, _END, _END64, _LOCATOR = b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7"
_END_BYTES, _LOCATOR_BYTES, _COMMENT_BYTES = 22, 20, 2**16
_DIRECTORY_BYTES = 4 << 20  # about 40,000 members
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_STEP = 1 << 20
_REMEDY = "It was cut off or is damaged."


@dataclass(frozen=True, slots=True)
class Member:
    """One member (file) of a zip archive.

    Attributes:
        size: the uncompressed size in bytes.
        start: the offset of the stored bytes in the archive.
        packed: the number of stored bytes.
        method: the compression method: 0 for none, 8 for deflate.
        crc: the CRC-32 of the uncompressed bytes.
    """

    size: int
    start: int
    packed: int
    method: int
    crc: int


class Archive:
    """A zip archive of arrays, whose uncompressed members are read as views of the mapped file.

    Args:
        data: the mapped file.
        path: the file to name in errors.

    Attributes:
        members: the members by name, in the order of the archive's directory.

    Raises:
        CaffemodelError: If the directory is damaged or larger than 4 MiB, a member is encrypted or packed by another
            method than deflate, or the members need far more memory than the file has bytes.
    """

    def __init__(self, data: mmap.mmap, path: StrPath):
        self.file, self.data, self.path = data, memoryview(data), path
        self.members: dict[str, Member] = {}
        try:
            self._read_directory(*self._find_directory(data))
        except (struct.error, OverflowError):
            raise self._error("it ends within its directory") from None
        if sum(member.packed for member in self.members.values()) > len(data):
            raise self._error("its members overlap")
        files.check_declared_size(sum(member.size for member in self.members.values() if member.method), path)

    def read(self, name: str, *, checked: bool = True) -> memoryview:
        """Return the content of a member: a view if it is not compressed, else the unpacked bytes.

        Args:
            name: the name of the member.
            checked: whether to verify the checksum, which reads all bytes.

        Raises:
            CaffemodelError: If the member is damaged.
        """
        member = self.members[name]
        stored = self.data[member.start : member.start + member.packed]
        content = self._inflated(member) if member.method == _DEFLATED else stored
        if content is None or len(content) != member.size or (checked and zlib.crc32(content) != member.crc):
            raise self._error(f"its member {name!r} is damaged")
        return content

    def _find_directory(self, data: mmap.mmap) -> tuple[int, int]:
        """Return the start and end offsets of the directory."""
        end = data.rfind(_END, max(0, len(data) - _END_BYTES - _COMMENT_BYTES))
        if end < 0:
            raise self._error("it has no directory")
        size, start, comment = struct.unpack_from("<IIH", data, end + 12)
        locator = end - _LOCATOR_BYTES
        if locator >= 0 and data[locator : locator + 4] == _LOCATOR:
            at = struct.unpack_from("<Q", data, locator + 8)[0]
            if data[at : at + 4] != _END64:
                raise self._error("it has no directory")
            size, start = struct.unpack_from("<QQ", data, at + 40)
        if size > _DIRECTORY_BYTES:
            raise self._error(f"its directory has {size} bytes, more than {_DIRECTORY_BYTES}")
        if start + size > end or end + _END_BYTES + comment > len(data):
            raise self._error("its directory runs past its end")
        return start, start + size

    def _read_directory(self, at: int, end: int) -> None:
        while at < end:
            if self.data[at : at + 4] != _CENTRAL:
                raise self._error(f"byte {at} begins no entry of its directory")
            flags, method = struct.unpack_from("<HH", self.data, at + 8)
            crc, packed, size, *lengths = struct.unpack_from("<IIIHHH", self.data, at + 16)
            offset = struct.unpack_from("<I", self.data, at + 42)[0]
            extra = at + 46 + lengths[0]
            name = bytes(self.data[at + 46 : extra]).decode("utf-8", "surrogateescape")
            size, packed, offset = self._wide(extra, extra + lengths[1], [size, packed, offset])
            if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
                raise self._error(f"its member {name!r} is encrypted, or packed by method {method}")
            if name in self.members:
                raise self._error(f"its member {name!r} occurs twice")
            self.members[name] = Member(size, self._start(name, offset, packed), packed, method, crc)
            at = extra + lengths[1] + lengths[2]

    def _wide(self, at: int, end: int, values: list[int]) -> list[int]:
        """Return ``values`` with each 0xFFFFFFFF replaced by its 64-bit value from the ZIP64 extra field."""
        while at < end:
            kind, size = struct.unpack_from("<HH", self.data, at)
            if kind == 1:
                at += 4
                for i, value in enumerate(values):
                    if value == 2**32 - 1:
                        values[i] = struct.unpack_from("<Q", self.data, at)[0]
                        at += 8
                return values
            at += 4 + size
        return values

    def _start(self, name: str, offset: int, size: int) -> int:
        if self.data[offset : offset + 4] != _LOCAL:
            raise self._error(f"its member {name!r} is not where the directory states")
        start: int = offset + 30 + sum(struct.unpack_from("<HH", self.data, offset + 26))
        if start + size > len(self.data):
            raise self._error(f"its member {name!r} runs past its end")
        return start

    def _error(self, problem: str) -> CaffemodelError:
        return CaffemodelError(f"the zip archive cannot be read: {problem}", path=self.path, remedy=_REMEDY)

    def _inflated(self, member: Member) -> memoryview | None:
        """Return the unpacked bytes; None if they are damaged or not of the stated size."""
        content, filled = memoryview(bytearray(member.size)), 0
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        stop = member.start + member.packed
        try:
            for at in range(member.start, stop, _STEP):
                waiting = bytes(self.data[at : min(at + _STEP, stop)])
                while waiting:
                    block = inflate.decompress(waiting, _STEP)
                    waiting = inflate.unconsumed_tail
                    if filled + len(block) > member.size or (inflate.eof and inflate.unused_data):
                        return None
                    content[filled : filled + len(block)] = block
                    filled += len(block)
                files.release_pages(self.file, at, min(at + _STEP, stop))
        except zlib.error:
            return None
        return content.toreadonly() if inflate.eof and filled == member.size else None

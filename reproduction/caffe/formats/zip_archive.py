"""Zip archives of arrays: the members of a mapped file, as views.

``zipfile`` makes an object for every entry of a directory, of which it limits neither the number nor the size, and
copies each member. Here members that are stored are views of the file, those that are compressed take the size that
the directory states, and both are limited before any memory is taken.

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
    """One member of an archive.

    Attributes:
        size: its bytes, unpacked.
        start: where its bytes lie in the file.
        packed: how many these are.
        method: how they are packed; 0 for not at all, 8 for deflate.
        crc: the CRC-32 of the unpacked bytes.
    """

    size: int
    start: int
    packed: int
    method: int
    crc: int


class Archive:
    """The members of a zip archive by name, in the order of its directory.

    Args:
        data: the mapped file.
        path: its name, for errors.

    Raises:
        CaffemodelError: the directory is damaged, or has more members than any file of weights.
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
        files.check_declared(sum(member.size for member in self.members.values() if member.method), path)

    def read(self, name: str, *, checked: bool = True) -> memoryview:
        """Return the bytes of a member: a view where it is stored, else unpacked.

        Args:
            name: the member.
            checked: whether its checksum is computed, which reads all of it.

        Raises:
            CaffemodelError: it is damaged.
        """
        member = self.members[name]
        stored = self.data[member.start : member.start + member.packed]
        content = self._inflated(member) if member.method == _DEFLATED else stored
        if content is None or len(content) != member.size or (checked and zlib.crc32(content) != member.crc):
            raise self._error(f"its member {name!r} is damaged")
        return content

    def _find_directory(self, data: mmap.mmap) -> tuple[int, int]:
        """Return the first byte of the directory and the one after its last."""
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
                raise self._error(f"its member {name!r} is there twice")
            self.members[name] = Member(size, self._start(name, offset, packed), packed, method, crc)
            at = extra + lengths[1] + lengths[2]

    def _wide(self, at: int, end: int, values: list[int]) -> list[int]:
        """Replace the values that 32 bits cannot hold by those of the extra field for ZIP64."""
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
        """Unpack into memory of the stated size; None where the bytes are damaged, or more than that."""
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
                files.release(self.file, at, min(at + _STEP, stop))
        except zlib.error:
            return None
        return content.toreadonly() if inflate.eof and filled == member.size else None

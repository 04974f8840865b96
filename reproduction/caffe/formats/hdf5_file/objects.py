"""The objects of an HDF5 file: the superblock, object headers, and the links of groups.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", sections II.A, III.B, III.C and IV.A.1.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

from reproduction.caffe.errors import StrPath
from reproduction.caffe.formats.hdf5_file import heaps, messages, trees
from reproduction.caffe.formats.hdf5_file.cursor import Cursor, FileBytes
from reproduction.caffe.formats.hdf5_file.messages import HDF5Dataset, StorageLayout

ELSEWHERE = -1  # the address of a soft or external link, which is not resolved
_SIGNATURE_BYTES = 8
_MAX_BLOCKS = 4096  # of an object
_MAX_LINKS = 2**15
_SHARED = 2  # the flag of a message that is stored in another place and shared by objects


@dataclass
class HDF5Group:
    """A group of an HDF5 file.

    Attributes:
        name: its path in the file.
        links: the addresses of its members by name; ``ELSEWHERE`` for soft and external links.
    """

    name: str
    links: dict[str, int]


class HDF5File(FileBytes):
    """An HDF5 file, from which groups and datasets are read by name or address.

    Args:
        data: the mapped file.
        path: the file to name in errors.

    Attributes:
        root: the root group.

    Raises:
        CaffemodelError: If the file is cut off, damaged, or uses a feature that is not supported.
    """

    def __init__(self, data: mmap.mmap | bytes, path: StrPath):
        super().__init__(data, path)
        self._links = 0
        self.root = self._read_superblock()

    def member(self, group: HDF5Group, name: str) -> HDF5Group | HDF5Dataset | None:
        """Return a member of a group by its path, such as ``a/b``; None if there is none, or it is a soft link.

        Raises:
            CaffemodelError: If the member is damaged, or uses a feature that is not supported.
        """
        found: HDF5Group | HDF5Dataset | None = group
        for part in name.split("/"):
            if not isinstance(found, HDF5Group):
                return None
            address = found.links.get(part, ELSEWHERE)
            found = None if address == ELSEWHERE else self.object(address, f"{found.name.rstrip('/')}/{part}")
        return found

    def object(self, address: int, name: str) -> HDF5Group | HDF5Dataset | None:
        """Return the group or dataset whose object header is at ``address``; None for any other object.

        Args:
            address: the address of the header.
            name: the path of the object, which the result has as its name.

        Raises:
            CaffemodelError: If the object is damaged, or uses a feature that is not supported.
        """
        self.visited.clear()
        group, dataset = HDF5Group(name, {}), HDF5Dataset(name)
        kinds = set()
        for kind, flags, message in self._messages(address):
            kinds.add(kind)
            match kind:
                case messages.SYMBOL_TABLE:
                    self._read_symbol_table(group, message)
                case messages.LINK:
                    self._add_link(group, *messages.parse_link(message))
                case messages.LINK_INFO:
                    self._read_link_info(group, message)
                case messages.DATASPACE | messages.DATATYPE | messages.FILL_VALUE | messages.FILTER_PIPELINE if (
                    flags & _SHARED
                ):
                    raise self.unsupported("a type or another message that objects share")
                case messages.DATASPACE:
                    dataset.shape = messages.parse_dataspace(message)
                case messages.DATATYPE:
                    dataset.dtype, dataset.kind = messages.parse_datatype(message)
                case messages.DATA_LAYOUT:
                    dataset.layout = messages.parse_layout(message)
                case messages.FILTER_PIPELINE:
                    dataset.filters = messages.parse_filters(message)
                case messages.FILL_VALUE:
                    dataset.fill = messages.parse_fill_value(message)
        if messages.EXTERNAL_FILES in kinds:
            dataset.layout = StorageLayout("external")
        if kinds & {messages.SYMBOL_TABLE, messages.LINK, messages.LINK_INFO}:
            return group
        return dataset if kinds >= {messages.DATASPACE, messages.DATATYPE, messages.DATA_LAYOUT} else None

    def _read_superblock(self) -> HDF5Group:
        """Read the sizes of addresses and lengths, check the file's size, and return the root group (II.A)."""
        head = self.cursor(_SIGNATURE_BYTES)
        version = head.number(1)
        if version > 3:
            raise self.unsupported(f"version {version} of the format")
        if version < 2:
            head.skip(4)
        self.offset_size, self.length_size = head.number(1), head.number(1)
        if self.offset_size not in (2, 4, 8) or self.length_size not in (2, 4, 8):
            raise self.error(f"its addresses have {self.offset_size} and its sizes {self.length_size} bytes")
        head.skip({0: 9, 1: 13}.get(version, 1))
        base, _, end = head.offset(), head.offset(), head.offset()
        if base != 0:
            raise self.unsupported("data before its start")
        if end is None or end > len(self.data):
            raise self.error(f"it has {len(self.data)} bytes, and should have {end}")
        if version < 2:
            head.skip(2 * self.offset_size)  # the driver, and the offset of the root's name
        root = head.offset()
        found = None if root is None else self.object(root, "/")
        if not isinstance(found, HDF5Group):
            raise self.error("its root is not a group")
        return found

    def _messages(self, address: int) -> Iterator[tuple[int, int, Cursor]]:
        """Yield the type, flags and content of each message in an object header (IV.A.1).

        Version 2 begins with a signature, version 1 does not. A header consists of its first block, and of one more
        for each continuation message.
        """
        is_version_2 = bytes(self.data[address : address + 4]) == b"OHDR"
        head = self.open_block(address, b"OHDR" if is_version_2 else b"")
        if is_version_2:
            head.skip(1)
            flags = head.number(1)
            head_bytes = 6 if flags & 4 else 4  # of a message, with or without its creation order
            head.skip((16 if flags & 32 else 0) + (4 if flags & 16 else 0))
            size = head.number(1 << (flags & 3))
        else:
            if head.number(1) != 1:
                raise self.error(f"there is no object at byte {address}")
            head.skip(7)
            size, head_bytes = head.number(4), 8
            head.skip(4)
        blocks = [self.cursor(head.at, head.at + size)]
        for block in blocks:
            while block.end - block.at >= head_bytes:
                self.count_item()
                kind, length = block.number(1 if is_version_2 else 2), block.number(2)
                flags = block.number(1)
                block.skip(head_bytes - 4 if is_version_2 else 3)
                block.skip(length)
                message = self.cursor(block.at - length, block.at)
                if kind == messages.CONTINUATION:
                    blocks.append(self._open_continuation(message, b"OCHK" if is_version_2 else b""))
                else:
                    yield kind, flags, message

    def _open_continuation(self, message: Cursor, signature: bytes) -> Cursor:
        start, size = message.offset(), message.length()
        if start is None or len(self.visited) > _MAX_BLOCKS:
            raise self.error("a header continues at no address, or in too many blocks")
        block = self.open_block(start, signature)
        return self.cursor(block.at, start + size - (4 if signature else 0))  # version 2 ends with a checksum

    def _read_link_info(self, group: HDF5Group, message: Cursor) -> None:
        """Add the links of a large new-style group, which are in a fractal heap, indexed by a B-tree (IV.A.2.c)."""
        message.skip(1)
        message.skip(8 if message.number(1) & 1 else 0)
        heap_address, tree_address = message.offset(), message.offset()
        if heap_address is not None and tree_address is not None:  # else its links are messages of the header
            heap = heaps.FractalHeap(self, heap_address)
            for record in trees.walk_version_2(self, tree_address, trees.LINK_NAMES):
                record.skip(4)  # the hash of the name
                self._add_link(group, *messages.parse_link(heap.read(record)))

    def _read_symbol_table(self, group: HDF5Group, message: Cursor) -> None:
        """Add the links of an old-style group: symbol table nodes under a B-tree (IV.A.2.r, III.B and III.C)."""
        tree_address, heap_address = message.offset(), message.offset()
        if tree_address is None or heap_address is None:
            raise self.error(f"group {group.name} has no table")
        names = heaps.LocalHeap(self, heap_address)
        for _, address in trees.walk_version_1(self, tree_address, trees.GROUP_NODES, self.length_size):
            node = self.open_block(address, b"SNOD")
            node.skip(2)
            for _ in range(node.number(2)):
                name, target, cache_type = node.offset(), node.offset(), node.number(4)
                node.skip(20)
                self._add_link(group, names.name(name), target if cache_type < 2 else None)  # 2: a soft link

    def _add_link(self, group: HDF5Group, name: bytes, target: int | None) -> None:
        text = name.decode("utf-8", "surrogateescape")
        self._links += 1
        if self._links > _MAX_LINKS:
            raise self.error(f"it has more than {_MAX_LINKS} links")
        if len(name) >= heaps.MAX_NAME or not name or text in group.links:
            raise self.error(
                f"group {group.name} has two links of the same name, or one whose name is empty or too long"
            )
        group.links[text] = ELSEWHERE if target is None else target

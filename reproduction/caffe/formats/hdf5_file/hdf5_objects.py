"""The objects of an HDF5 file: groups, their links, and the headers of datasets.

The HDF5 library trusts its input: some files of a few kilobytes make it loop forever, crash the process, or exhaust
memory. Here every block is read once and every size is checked against the file. Only the features that datasets of
numbers and short strings need are supported: old-style and new-style groups, and contiguous or chunked arrays.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from reproduction.caffe.errors import CaffemodelError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.formats.hdf5_file import hdf5_heap
from reproduction.caffe.formats.hdf5_file import hdf5_messages as messages
from reproduction.caffe.formats.hdf5_file.hdf5_messages import ELSEWHERE, Cursor, Dataset, Group, Layout

_SIGNATURE_BYTES = 8
_MAX_BLOCKS, _MAX_DEPTH = 4096, 32
_MAX_STEPS, _BYTES_PER_STEP = 2**16, 4
_SPACE, _LINK_INFO, _TYPE, _FILL, _LINK, _EXTERNAL, _LAYOUT = 1, 2, 3, 5, 6, 7, 8  # types of messages
_FILTERS, _CONTINUED, _TABLE = 11, 16, 17
_SHARED = 2  # the flag of a message that is stored in another place and shared by objects


class File:
    """An HDF5 file; ``root`` is its root group.

    Args:
        data: the mapped file.
        path: the file to name in errors.

    Raises:
        CaffemodelError: If the file is cut off, damaged, or uses a feature that is not supported.
    """

    def __init__(self, data: mmap.mmap | bytes, path: StrPath):
        self.data, self.path = memoryview(data), path
        self.offset_size = self.length_size = 8
        self.visited: set[int] = set()
        self.steps = _MAX_STEPS + len(data) // _BYTES_PER_STEP
        self.links = self.claimed = 0
        self.root = self._root()

    def error(self, problem: str) -> CaffemodelError:
        """Return the error for a damaged file."""
        return CaffemodelError(
            f"the HDF5 file cannot be read: {problem}", path=self.path, remedy="It was cut off or is damaged."
        )

    def unknown(self, what: str) -> CaffemodelError:
        """Return the error for a feature of the format that is not supported."""
        remedy = "Copy it by `h5repack -f NONE -l CONTI OLD NEW`, or write it again with the default settings."
        return CaffemodelError(f"the HDF5 file has {what}, which is not read here", path=self.path, remedy=remedy)

    def step(self) -> None:
        """Count a message, link or chunk; each takes some bytes, so more than the file can contain is an error."""
        self.steps -= 1
        if self.steps < 0:
            raise self.error("its blocks overlap")

    def claim(self, size: int, ratio: int, spare: int) -> None:
        """Count ``size`` bytes to be allocated; raise an error if the total is too much for the file's size."""
        self.claimed += size
        files.check_declared_size(self.claimed, self.path, ratio, spare)

    def cursor(self, at: int, end: int | None = None) -> Cursor:
        """Return a cursor at the offset ``at``, for a block that ends at ``end`` (None: at the end of the file)."""
        return Cursor(self, at, end)

    def once(self, address: int) -> int:
        """Return ``address``, after a check that its block was not read before for the same object."""
        if address in self.visited:
            raise self.error(f"the block at byte {address} is part of itself, or of two others")
        self.visited.add(address)
        return address

    def member(self, group: Group, name: str) -> Group | Dataset | None:
        """Return a member of a group by its path, such as ``a/b``; None if there is none, or it is a soft link.

        Raises:
            CaffemodelError: If the member is damaged, or uses a feature that is not supported.
        """
        found: Group | Dataset | None = group
        for part in name.split("/"):
            if not isinstance(found, Group):
                return None
            address = found.links.get(part, ELSEWHERE)
            found = None if address == ELSEWHERE else self.object(address, f"{found.name.rstrip('/')}/{part}")
        return found

    def object(self, address: int, name: str) -> Group | Dataset | None:
        """Return the object whose header is at ``address``; None if it is neither a group nor a dataset.

        Raises:
            CaffemodelError: If the object is damaged, or uses a feature that is not supported.
        """
        self.visited.clear()
        group, dataset = Group(name, address, {}), Dataset(name, address)
        kinds = set()
        for kind, flags, message in self._messages(address):
            if flags & _SHARED and kind in (_SPACE, _TYPE, _FILL, _FILTERS):
                raise self.unknown("a type or another message that objects share")
            kinds.add(kind)
            if kind == _TABLE:
                self._read_table(group, message)
            elif kind == _LINK:
                messages.read_link(group, message)
            elif kind == _LINK_INFO:
                self._read_links(group, message)
            elif kind == _SPACE:
                dataset.shape = messages.shape(message)
            elif kind == _TYPE:
                dataset.dtype, dataset.kind = messages.type(message)
            elif kind == _LAYOUT:
                dataset.layout = messages.layout(message)
            elif kind == _FILTERS:
                dataset.filters = messages.filters(message)
            elif kind == _FILL:
                dataset.fill = messages.fill(message)
        if _EXTERNAL in kinds:
            dataset.layout = Layout("external")
        if kinds & {_TABLE, _LINK, _LINK_INFO}:
            return group
        return dataset if kinds >= {_SPACE, _TYPE, _LAYOUT} else None

    def _root(self) -> Group:
        head = Cursor(self, _SIGNATURE_BYTES)
        version = head.number(1)
        if version > 3:
            raise self.unknown(f"version {version} of the format")
        if version < 2:
            head.take(4)
        self.offset_size, self.length_size = head.number(1), head.number(1)
        if self.offset_size not in (2, 4, 8) or self.length_size not in (2, 4, 8):
            raise self.error(f"its addresses have {self.offset_size} and its sizes {self.length_size} bytes")
        head.take(1 if version > 1 else 9 if version == 0 else 13)
        base, _, end = head.offset(), head.offset(), head.offset()
        if base != 0:
            raise self.unknown("something before its beginning")
        if end is None or end > len(self.data):
            raise self.error(f"it has {len(self.data)} bytes, and should have {end}")
        head.take(2 * self.offset_size if version < 2 else 0)  # the driver, and the name of the root
        root = head.offset()
        found = None if root is None else self.object(root, "/")
        if not isinstance(found, Group):
            raise self.error("its root is no group")
        return found

    def _messages(self, address: int) -> Iterator[tuple[int, int, Cursor]]:
        """Yield the type, flags and content of each message in an object header, which may have several blocks."""
        head = Cursor(self, self.once(address))
        modern = bytes(self.data[address : address + 4]) == b"OHDR"
        header = 8
        if modern:
            head.take(5)
            flags = head.number(1)
            header = 6 if flags & 4 else 4  # with the creation order of the message
            head.take((16 if flags & 32 else 0) + (4 if flags & 16 else 0))
            size = head.number(1 << (flags & 3))
        else:
            if head.number(1) != 1:
                raise self.error(f"there is no object at byte {address}")
            head.take(7)
            size = head.number(4)
            head.take(4)
        blocks = [Cursor(self, head.at, head.at + size)]
        for block in blocks:
            while block.end - block.at >= header:
                self.step()
                kind, length = block.number(1 if modern else 2), block.number(2)
                flags = block.number(1)
                block.take(header - 4 if modern else 3)
                content = block.take(length)
                message = Cursor(self, block.at - len(content), block.at)
                if kind == _CONTINUED:
                    blocks.append(self._continued(message, modern))
                else:
                    yield kind, flags, message

    def _continued(self, message: Cursor, modern: bool) -> Cursor:
        start, size = message.offset(), message.length()
        if start is None or len(self.visited) > _MAX_BLOCKS:
            raise self.error("a header goes on nowhere, or in too many blocks")
        block = Cursor(self, self.once(start), start + size)
        if modern:
            block.expect(b"OCHK")
            block.end -= 4  # of the checksum
        return block

    def _read_links(self, group: Group, message: Cursor) -> None:
        """Add the links of a large new-style group, which are stored in a fractal heap and indexed by a B-tree."""
        message.take(1)
        message.take(8 if message.number(1) & 1 else 0)
        address, tree = message.offset(), message.offset()
        if address is not None and tree is not None:
            heap = hdf5_heap.Heap(self, address)
            for record in hdf5_heap.records(self, tree, hdf5_heap.LINK_NAMES):
                record.take(4)
                messages.read_link(group, heap.read(record))

    def _read_table(self, group: Group, message: Cursor) -> None:
        """Add the links of an old-style group, which are stored in nodes under a B-tree, with the names in a heap."""
        tree, heap = message.offset(), message.offset()
        if tree is None or heap is None:
            raise self.error(f"group {group.name} has no table")
        head = Cursor(self, self.once(heap))
        head.expect(b"HEAP")
        head.take(4)
        size, _, start = head.length(), head.length(), head.offset()
        names = Cursor(self, start or 0, (start or 0) + size)
        for _, address in self.leaves(tree, 0, self.length_size):
            node = Cursor(self, self.once(address))
            node.expect(b"SNOD")
            node.take(2)
            for _ in range(node.number(2)):
                at, target, cached = node.offset(), node.offset(), node.number(4)
                node.take(20)
                begin = names.end if at is None else names.at + at
                name = bytes(self.data[begin : min(begin + messages.MAX_NAME, names.end)]).split(b"\0")[0]
                messages.add(group, name, target if cached < 2 else None, self)

    def leaves(self, address: int, kind: int, key_size: int) -> Iterator[tuple[memoryview, int]]:
        """Yield the key and address of each entry in the leaves of a version 1 B-tree.

        Args:
            address: the address of the root node.
            kind: the type of the tree: 0 for groups, 1 for chunks.
            key_size: the size of a key in bytes.
        """
        waiting = [(address, _MAX_DEPTH)]
        while waiting:
            at, above = waiting.pop()
            node = Cursor(self, self.once(at))
            node.expect(b"TREE")
            found, level, count = node.number(1), node.number(1), node.number(2)
            if found != kind or level >= above:
                raise self.error(f"the node at byte {at} is not one of its tree")
            node.take(2 * self.offset_size)
            children = []
            for _ in range(count):
                key, child = node.take(key_size), node.offset()
                self.step()
                if child is None:
                    raise self.error(f"the node at byte {at} has a branch to nowhere")
                if level == 0:
                    yield key, child
                else:
                    children.append((child, level))
            waiting.extend(reversed(children))

"""The B-trees of HDF5 files, which list the members of a group or the chunks of a dataset.

Both are read as a whole, from the root on. So their keys, which serve to search, are not compared.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", section III.A.
"""

from __future__ import annotations

from collections.abc import Iterator

from reproduction.caffe.formats.hdf5_file.cursor import Cursor, FileBytes

GROUP_NODES, CHUNK_NODES = 0, 1  # node types of version 1
LINK_NAMES, CHUNKS, FILTERED_CHUNKS = 5, 10, 11  # tree types of version 2
_MAX_LEVEL_1, _MAX_LEVEL_2 = 32, 16
_NODE_BYTES = 10  # the signature, version, type and checksum of a version 2 node


def walk_version_1(file: FileBytes, address: int, node_type: int, key_size: int) -> Iterator[tuple[memoryview, int]]:
    """Yield the key and the child's address of each entry in the leaves of a version 1 B-tree (III.A.1).

    For a group, a child is a node with symbol table entries; for a dataset, it is a chunk.

    Args:
        file: the file.
        address: the address of the root node.
        node_type: the expected type of all nodes, ``GROUP_NODES`` or ``CHUNK_NODES``.
        key_size: the size of a key in bytes.

    Raises:
        CaffemodelError: If the tree is damaged, or of another type.
    """
    waiting = [(address, _MAX_LEVEL_1)]  # nodes to read, each with the level of its parent
    while waiting:
        at, parent_level = waiting.pop()
        node = file.open_block(at, b"TREE")
        found, level, count = node.number(1), node.number(1), node.number(2)
        # The level falls from the root to the leaves, at level 0. This also bounds the depth of a damaged tree.
        if found != node_type or level >= parent_level:
            raise file.error(f"the node at byte {at} does not belong to its tree")
        node.skip(2 * file.offset_size)  # the siblings
        children = []
        for _ in range(count):
            key, child = node.take(key_size), node.offset()
            file.count_item()
            if child is None:
                raise file.error(f"the node at byte {at} has a child without an address")
            if level == 0:
                yield key, child
            else:
                children.append((child, level))
        waiting.extend(reversed(children))


def walk_version_2(file: FileBytes, address: int, tree_type: int) -> Iterator[Cursor]:
    """Yield a cursor over each record of a version 2 B-tree (III.A.2), those of a node before those of its children.

    Args:
        file: the file.
        address: the address of the tree's header.
        tree_type: the expected type of the tree, such as ``LINK_NAMES``.

    Raises:
        CaffemodelError: If the tree is damaged, or of another type.
    """
    head = file.open_block(address, b"BTHD")
    head.skip(1)
    found, node_bytes, record_bytes, depth = head.number(1), head.number(4), head.number(2), head.number(2)
    head.skip(2)
    root, count = head.offset(), head.number(2)
    if root is None:
        return
    if found != tree_type or not record_bytes or depth > _MAX_LEVEL_2 or node_bytes <= _NODE_BYTES:
        raise file.error(f"the tree at byte {address} has a damaged header")
    # A node does not state how wide the counts next to its child pointers are: HDF5 uses the fewest bytes that hold the
    # most records that a child, or a child with all below it, can have. So these maxima are computed, from leaves up.
    most = [(node_bytes - _NODE_BYTES) // record_bytes]  # by level: records of a node with all nodes below it
    count_bytes = byte_width(most[0])
    pointer_bytes = [0]  # by level: address, count, and above level 1 the total count of a child
    for level in range(1, depth + 1):
        pointer_bytes.append(file.offset_size + count_bytes + (byte_width(most[-1]) if level > 1 else 0))
        own = (node_bytes - _NODE_BYTES - pointer_bytes[level]) // (record_bytes + pointer_bytes[level])
        most.append((own + 1) * most[-1] + own)
    waiting = [(root, count, depth)]
    while waiting:
        at, count, level = waiting.pop()
        node = file.open_block(at, b"BTIN" if level else b"BTLF")
        node.skip(2)
        for _ in range(count):
            file.count_item()
            node.skip(record_bytes)
            yield file.cursor(node.at - record_bytes, node.at)
        for _ in range(count + 1 if level else 0):
            child, child_count = node.offset(), node.number(count_bytes)
            node.skip(pointer_bytes[level] - file.offset_size - count_bytes)
            if child is None:
                raise file.error(f"the node at byte {at} has a child without an address")
            waiting.append((child, child_count, level - 1))


def byte_width(most: int) -> int:
    """Return the number of bytes that HDF5 uses to store numbers up to ``most``: the fewest that hold it."""
    return (most.bit_length() - 1) // 8 + 1 if most > 0 else 1

"""The values of an HDF5 dataset: a view of the file, or an array that is assembled from chunks.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", sections IV.A.2.i, IV.A.2.l and VII.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reproduction.caffe.formats.hdf5_file import heaps, trees
from reproduction.caffe.formats.hdf5_file.cursor import FileBytes
from reproduction.caffe.formats.hdf5_file.messages import HDF5Dataset
from reproduction.caffe.geometry import INT_MAX, MAX_AXES
from reproduction.caffe.typing import Array

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_MAX_FILTERS = 8
_RATIO, _SPARE = 16, 24 << 20  # an HDF5Data layer also takes memory for a batch
_OLD_TREE, _SINGLE, _IMPLICIT, _FIXED, _NEW_TREE = 0, 1, 2, 3, 5  # types of the index of chunks


class _Chunk(NamedTuple):
    """The index of a chunk's first value, the address and size of its bytes, and a bit for each skipped filter."""

    offset: tuple[int, ...]
    address: int
    size: int
    mask: int


def view_values(file: FileBytes, dataset: HDF5Dataset) -> Array | None:
    """Return the values of a dataset as a 1-D view of the file, or None if they are not stored in one piece.

    Raises:
        CaffemodelError: If the values exceed the file.
    """
    assert dataset.dtype is not None
    assert dataset.shape is not None
    size = math.prod(dataset.shape)
    if not size:
        return np.empty(0, dataset.dtype)
    if dataset.layout.kind != "contiguous" or dataset.filters:
        return None
    missing = dataset.layout.address + size * dataset.dtype.itemsize - len(file.data)
    if missing > 0:
        raise file.error(f"{dataset.name} runs past the end of the file by {missing} bytes")
    return np.ndarray((size,), dataset.dtype, file.data, dataset.layout.address)


def read_string(file: FileBytes, dataset: HDF5Dataset, longest: int) -> bytes | None:
    """Return the string of a dataset that consists of one variable-length string, which is stored in a global heap.

    Args:
        file: the file.
        dataset: the dataset.
        longest: the most bytes that the string may have.

    Returns:
        The string; None if it is longer, or the dataset has another layout or number of values.

    Raises:
        CaffemodelError: If the string is not at the address that the dataset states.
    """
    if dataset.layout.kind != "contiguous" or dataset.shape is None or math.prod(dataset.shape) != 1:
        return None
    entry = file.cursor(dataset.layout.address)
    size, address, index = entry.number(4), entry.offset(), entry.number(4)
    if size > longest or address is None:
        return None if size else b""
    return heaps.read_global_object(file, address, index, size)


def read_values(file: FileBytes, dataset: HDF5Dataset, dtype: npt.DTypeLike) -> Array:
    """Return a copy of the values of a dataset, in its shape. Values that were never written are the fill value.

    Chunks may be compressed by deflate and shuffled, as Caffe's HDF5 library writes them. Label maps compress well, so
    the array may take up to 16 times the file's size plus 24 MiB.

    Args:
        file: the file.
        dataset: a dataset of numbers in the file.
        dtype: the dtype of the result.

    Raises:
        CaffemodelError: If the storage is not supported, the values are damaged, or the array is too large.
    """
    assert dataset.dtype is not None
    assert dataset.shape is not None
    if len(dataset.shape) > MAX_AXES or max(dataset.shape, default=0) > INT_MAX:
        raise file.error(f"{dataset.name} has the shape {dataset.shape}")
    itemsize = max(dataset.dtype.itemsize, np.dtype(dtype).itemsize)
    found = view_values(file, dataset)
    if found is not None:
        file.claim(found.size * itemsize, _RATIO, _SPARE)
        return found.reshape(dataset.shape).astype(dtype)
    if dataset.layout.kind not in ("chunked", "none"):
        raise file.unsupported(f"values of {dataset.name} in another file or data set")
    fill: Any = 0
    if len(dataset.fill) == dataset.dtype.itemsize:
        fill = np.frombuffer(dataset.fill, dataset.dtype)[0]
    chunk = dataset.layout.chunk
    if dataset.layout.kind == "none" or not chunk:
        file.claim(math.prod(dataset.shape) * itemsize, _RATIO, _SPARE)
        return np.full(dataset.shape, fill, dtype)
    if len(chunk) != len(dataset.shape) or not all(chunk):
        raise file.error(f"{dataset.name} has chunks of another shape")
    # Chunks at the end of an axis reach past the array, so the size of all chunks is what the file must account for.
    file.claim(math.prod(_chunk_counts(dataset)) * math.prod(chunk) * itemsize, _RATIO, _SPARE)
    values = np.full(dataset.shape, fill, dtype)
    _copy_chunks(file, dataset, values)
    return values


def _copy_chunks(file: FileBytes, dataset: HDF5Dataset, values: Array) -> None:
    """Copy each chunk that was written to its place in ``values``."""
    copied = np.zeros(_chunk_counts(dataset), bool)
    for found in _list_chunks(file, dataset):
        steps = [divmod(at, part) for at, part in zip(found.offset, dataset.layout.chunk, strict=True)]
        place = tuple(step for step, _ in steps)
        if any(step >= count for step, count in zip(place, copied.shape, strict=True)):
            continue  # the dataset was made smaller after the chunk was written
        if copied[place] or any(rest for _, rest in steps):
            raise file.error(f"{dataset.name} has chunks that overlap")
        copied[place] = True
        content = _read_chunk(file, dataset, found)
        target = values[tuple(slice(at, at + part) for at, part in zip(found.offset, content.shape, strict=True))]
        target[...] = content[tuple(slice(length) for length in target.shape)]


def _chunk_counts(dataset: HDF5Dataset) -> list[int]:
    """Return the number of chunks along each axis."""
    return [-(-size // part) for size, part in zip(dataset.shape or (), dataset.layout.chunk, strict=True)]


def _list_chunks(file: FileBytes, dataset: HDF5Dataset) -> Iterator[_Chunk]:
    """Yield the chunks of a dataset by its index (VII), which may omit chunks that were never written."""
    assert dataset.dtype is not None
    layout, rank = dataset.layout, len(dataset.layout.chunk)
    full_size = math.prod(layout.chunk) * dataset.dtype.itemsize
    if layout.index == _OLD_TREE:
        for key, address in trees.walk_version_1(file, layout.address, trees.CHUNK_NODES, 8 + 8 * (rank + 1)):
            size, mask = np.frombuffer(key, "<u4", 2).tolist()
            yield _Chunk(tuple(np.frombuffer(key, "<u8", rank, 8).tolist()), address, size, mask)
        return
    if layout.index == _NEW_TREE:
        tree_type = trees.FILTERED_CHUNKS if dataset.filters else trees.CHUNKS
        for record in trees.walk_version_2(file, layout.address, tree_type):
            address = record.offset() or 0
            width = record.end - record.at - 8 * rank - 4  # of the size, which only filtered chunks have
            size, mask = (record.number(width), record.number(4)) if dataset.filters else (full_size, 0)
            yield _Chunk(tuple(record.number(8) * part for part in layout.chunk), address, size, mask)
        return
    # The other indexes list the chunks in the order of the array. (np.ndindex would store all indices of an axis.)
    counts = _chunk_counts(dataset)
    offsets = (
        tuple(int(step) * part for step, part in zip(np.unravel_index(i, counts), layout.chunk, strict=True))
        for i in range(math.prod(counts))
    )
    if layout.index == _SINGLE:
        size = full_size if layout.size is None else layout.size
        yield _Chunk(next(offsets), layout.address, size, layout.mask)
    elif layout.index == _IMPLICIT:
        for i, offset in enumerate(offsets):
            file.count_item()
            yield _Chunk(offset, layout.address + i * full_size, full_size, 0)
    elif layout.index == _FIXED:
        entries = _fixed_array(file, layout.address, math.prod(counts), full_size)
        for offset, entry in zip(offsets, entries, strict=False):  # none if nothing was written
            if entry is not None:
                yield _Chunk(offset, *entry)
    else:
        raise file.unsupported(f"{dataset.name} in chunks with an extensible index")


def _fixed_array(file: FileBytes, address: int, count: int, full_size: int) -> Iterator[tuple[int, int, int] | None]:
    """Yield the address, size and mask of each chunk in a fixed array (VII.C); None for one that was never written.

    An array of more than ``2**page_bits`` entries is divided into pages, each with a checksum. A bitmap states which
    pages were written; the others have undefined content.
    """
    head = file.open_block(address, b"FAHD")
    head.skip(1)
    is_filtered, width, page_bits = head.number(1), head.number(1), head.number(1)
    total, start = head.length(), head.offset()
    if start is None:
        return
    if total != count or width < file.offset_size or page_bits > 32:
        raise file.error(f"the array at byte {address} does not match its chunks")
    block = file.open_block(start, b"FADB")
    block.skip(2 + file.offset_size)
    page = 1 << page_bits
    is_paged = total > page
    written = bytes(block.take((-(-total // page) + 7) // 8)) if is_paged else b"\x80"
    block.skip(4 if is_paged else 0)
    for i in range(total):
        file.count_item()
        number, place = divmod(i, page) if is_paged else (0, i)
        present = written[number // 8] >> (7 - number % 8) & 1
        entry = file.cursor(block.at, block.at + width) if present else None
        if entry is None or (found := entry.offset()) is None:
            yield None
        elif is_filtered:
            yield found, entry.number(width - file.offset_size - 4), entry.number(4)
        else:
            yield found, full_size, 0
        block.skip(width if present or is_paged else 0)
        if is_paged and place == page - 1:
            block.skip(4)


def _read_chunk(file: FileBytes, dataset: HDF5Dataset, chunk: _Chunk) -> Array:
    """Return the values of one chunk, after its filters were reversed, the last one first (IV.A.2.l)."""
    assert dataset.dtype is not None
    full_size = math.prod(dataset.layout.chunk) * dataset.dtype.itemsize
    if len(dataset.filters) > _MAX_FILTERS:
        raise file.error(f"{dataset.name} has {len(dataset.filters)} filters")
    file.count_item()
    content: Any = file.cursor(chunk.address, chunk.address + chunk.size).take(chunk.size)
    for i, (identifier, parameters) in reversed(list(enumerate(dataset.filters))):
        if chunk.mask >> i & 1:
            continue
        if identifier == _DEFLATE:
            try:
                # The limit bounds the memory; it leaves room for a checksum after the values.
                content = zlib.decompressobj().decompress(content, full_size + 8)
            except zlib.error:
                raise file.error(f"a chunk of {dataset.name} is damaged") from None
        elif identifier == _SHUFFLE and parameters and 0 < parameters[0] <= full_size:
            # All first bytes of the values come first, then all second bytes, and so on; then the bytes left over.
            rows = len(content) // parameters[0]
            planes = np.frombuffer(content, np.uint8, rows * parameters[0]).reshape(parameters[0], rows)
            content = planes.T.tobytes() + bytes(content[rows * parameters[0] :])
        elif identifier == _FLETCHER32:
            content = content[:-4]  # a checksum, which is not verified
        else:
            raise file.unsupported(f"{dataset.name}, whose values passed filter {identifier},")
    if len(content) != full_size:
        raise file.error(f"a chunk of {dataset.name} has {len(content)} bytes, not {full_size}")
    return np.frombuffer(content, dataset.dtype).reshape(dataset.layout.chunk)

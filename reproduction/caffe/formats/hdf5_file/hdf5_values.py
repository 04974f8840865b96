"""The values of an HDF5 dataset: a view of the file, or an array that is assembled from chunks.

Source: The HDF Group, "HDF5 File Format Specification Version 3.0", sections III.A, IV.A.2.i and VII.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.formats.hdf5_file import hdf5_heap
from reproduction.caffe.formats.hdf5_file.hdf5_messages import Cursor, Dataset
from reproduction.caffe.formats.hdf5_file.hdf5_objects import File
from reproduction.caffe.geometry import INT_MAX, MAX_AXES
from reproduction.caffe.typing import Array

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_MAX_FILTERS = 8
_RATIO, _SPARE = 16, 24 << 20  # an HDF5Data layer also takes memory for a batch
_OLD_TREE, _SINGLE, _IMPLICIT, _FIXED, _NEW_TREE = 0, 1, 2, 3, 5  # types of the index of chunks


def view(file: File, dataset: Dataset) -> Array | None:
    """Return the values as a one-dimensional view of the file, or None if they are chunked or compressed.

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


def text(file: File, dataset: Dataset, longest: int) -> bytes | None:
    """Return the variable-length string of a dataset with one value.

    It is None if the dataset has another layout or number of values, or the string is longer than ``longest`` bytes.

    Raises:
        CaffemodelError: If the string is not at the address that the dataset states.
    """
    if dataset.layout.kind != "contiguous" or dataset.shape is None or math.prod(dataset.shape) != 1:
        return None
    entry = file.cursor(dataset.layout.address)
    size, address, number = entry.number(4), entry.offset(), entry.number(4)
    if size > longest or address is None:
        return None if size else b""
    heap = file.cursor(address)
    heap.expect(b"GCOL")
    heap.take(4)
    heap.end = min(heap.end, address + heap.length())
    while True:
        file.step()
        found = heap.number(2)
        heap.take(6)
        length = heap.length()
        if found == number:
            return bytes(heap.take(size))
        heap.take((length + 7) // 8 * 8)


def read(file: File, dataset: Dataset, dtype: npt.DTypeLike) -> Array:
    """Return a copy of the values as an array of their shape. Values that were never written are the fill value.

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
    chunk, itemsize = dataset.layout.chunk, max(dataset.dtype.itemsize, np.dtype(dtype).itemsize)
    found = view(file, dataset)
    if found is not None:
        file.claim(found.size * itemsize, _RATIO, _SPARE)
        return found.reshape(dataset.shape).astype(dtype)
    if dataset.layout.kind not in ("chunked", "none"):
        raise file.unknown(f"values of {dataset.name} in another file or data set")
    if dataset.layout.kind == "none" or not chunk:
        file.claim(math.prod(dataset.shape) * itemsize, _RATIO, _SPARE)
        return np.full(dataset.shape, _fill(dataset), dtype)
    if len(chunk) != len(dataset.shape) or not all(chunk):
        raise file.error(f"{dataset.name} has chunks of another shape")
    counts = tuple(-(-size // part) for size, part in zip(dataset.shape, chunk, strict=True))
    file.claim(math.prod(counts) * math.prod(chunk) * itemsize, _RATIO, _SPARE)
    values = np.full(dataset.shape, _fill(dataset), dtype)
    placed = np.zeros(counts, bool)
    for offset, address, size, mask in _chunks(file, dataset):
        index = tuple(at // part for at, part in zip(offset, chunk, strict=True))
        if all(at < count for at, count in zip(index, counts, strict=True)):
            if placed[index] or any(at % part for at, part in zip(offset, chunk, strict=True)):
                raise file.error(f"{dataset.name} has chunks that overlap")
            placed[index] = True
            found = _chunk(file, dataset, address, size, mask)
            where = tuple(slice(at, at + part) for at, part in zip(offset, chunk, strict=True))
            values[where] = found[tuple(slice(length) for length in values[where].shape)]
    return values


def _fill(dataset: Dataset) -> Any:
    assert dataset.dtype is not None
    usual = len(dataset.fill) != dataset.dtype.itemsize
    return 0 if usual else np.frombuffer(dataset.fill, dataset.dtype)[0]


def _chunks(file: File, dataset: Dataset) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Yield the index of the first value, address, stored bytes and mask of skipped filters of each chunk."""
    assert dataset.dtype is not None
    layout, rank = dataset.layout, len(dataset.layout.chunk)
    whole = math.prod(layout.chunk) * dataset.dtype.itemsize
    if layout.index == _OLD_TREE:
        for key, address in file.leaves(layout.address, 1, 8 + 8 * (rank + 1)):
            numbers = np.frombuffer(key, "<u8", rank, 8).tolist()
            size, mask = np.frombuffer(key, "<u4", 2).tolist()
            yield tuple(numbers), address, size, mask
        return
    counts = [-(-size // part) for size, part in zip(dataset.shape or (), layout.chunk, strict=True)]
    offsets = (
        tuple(int(place) * part for place, part in zip(np.unravel_index(i, counts), layout.chunk, strict=True))
        for i in range(math.prod(counts))  # itertools.product and np.ndindex would store all indices of an axis
    )
    if layout.index == _SINGLE:
        yield next(offsets), layout.address, whole if layout.size is None else layout.size, layout.mask
    elif layout.index == _IMPLICIT:
        for i, offset in enumerate(offsets):
            file.step()
            yield offset, layout.address + i * whole, whole, 0
    elif layout.index == _FIXED:
        for offset, entry in zip(offsets, _fixed_array(file, layout.address, math.prod(counts), whole), strict=False):
            if entry is not None:
                yield offset, *entry
    elif layout.index == _NEW_TREE:
        kind = hdf5_heap.FILTERED_CHUNKS if dataset.filters else hdf5_heap.CHUNKS
        for record in hdf5_heap.records(file, layout.address, kind):
            address = record.offset() or 0
            width = record.end - record.at - 8 * rank - 4
            size, mask = (record.number(width), record.number(4)) if dataset.filters else (whole, 0)
            yield tuple(record.number(8) * part for part in layout.chunk), address, size, mask
    else:
        raise file.unknown(f"{dataset.name} in chunks with an index that grows")


def _fixed_array(file: File, address: int, count: int, whole: int) -> Iterator[tuple[int, int, int] | None]:
    """Yield the address, stored bytes and mask of each chunk in a fixed array; None for one that was never written."""
    head = Cursor(file, file.once(address))
    head.expect(b"FAHD")
    head.take(1)
    filtered, width, page_bits, total, start = (
        head.number(1), head.number(1), head.number(1), head.length(), head.offset(),
    )  # fmt: skip
    if start is None:
        return
    if total != count or width < file.offset_size or page_bits > 32:
        raise file.error(f"the array at byte {address} is not that of its chunks")
    block = Cursor(file, file.once(start))
    block.expect(b"FADB")
    block.take(2 + file.offset_size)
    page = 1 << page_bits
    paged = total > page
    written = bytes(block.take((-(-total // page) + 7) // 8)) if paged else b"\x80"
    block.take(4 if paged else 0)
    for i in range(total):
        file.step()
        number, place = divmod(i, page) if paged else (0, i)
        present = written[number // 8] >> (7 - number % 8) & 1
        entry = Cursor(file, block.at, block.at + width) if present else None
        if entry is None or (found := entry.offset()) is None:
            yield None
        elif filtered:
            yield found, entry.number(width - file.offset_size - 4), entry.number(4)
        else:
            yield found, whole, 0
        block.take(width if present or paged else 0)
        if paged and place == page - 1:
            block.take(4)


def _chunk(file: File, dataset: Dataset, address: int, size: int, mask: int) -> Array:
    """Return the values of one chunk, after its filters were reversed."""
    assert dataset.dtype is not None
    whole = math.prod(dataset.layout.chunk) * dataset.dtype.itemsize
    if len(dataset.filters) > _MAX_FILTERS:
        raise file.error(f"{dataset.name} has {len(dataset.filters)} filters")
    file.step()
    content: Any = Cursor(file, address, address + size).take(size)
    for i, (number, values) in reversed(list(enumerate(dataset.filters))):
        if mask >> i & 1:
            continue
        if number == _DEFLATE:
            inflate = zlib.decompressobj()
            try:
                # The limit bounds the memory; it leaves room for a checksum after the values.
                content = inflate.decompress(content, whole + 8)
            except zlib.error:
                raise file.error(f"a chunk of {dataset.name} is damaged") from None
        elif number == _SHUFFLE and values and 0 < values[0] <= whole:
            rows = len(content) // values[0]
            mixed = np.frombuffer(content, np.uint8, rows * values[0]).reshape(values[0], rows)
            content = mixed.T.tobytes() + bytes(content[rows * values[0] :])
        elif number == _FLETCHER32:
            content = content[:-4]
        else:
            raise file.unknown(f"{dataset.name}, whose values passed filter {number},")
    if len(content) != whole:
        raise file.error(f"a chunk of {dataset.name} has {len(content)} bytes, not {whole}")
    return np.frombuffer(content, dataset.dtype).reshape(dataset.layout.chunk)

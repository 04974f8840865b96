"""Reuse buffers, so that the operating system does not have to allocate and clear new pages for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGN = 64  # bytes: a line of the caches


@dataclass(frozen=True, eq=False)
class _MemoryRange:
    """The values ``[start, stop)`` of a block, which is a tensor with one axis."""

    block: Tensor
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class BufferPool:
    """An allocator of tensors of one dtype on one device, which reuses the memory of tensors that are released."""

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.device = device
        self._free: list[_MemoryRange] = []
        self._in_use: dict[int, _MemoryRange] = {}

    def allocate(self, *shape: int) -> Tensor:
        """Return a contiguous tensor of the given shape, whose values are arbitrary."""
        count = math.prod(shape)
        found = self._find(-(-max(count, 1) * self.dtype.itemsize // _ALIGN) * _ALIGN // self.dtype.itemsize)
        tensor = found.block[found.start : found.start + count]
        self._in_use[tensor.data_ptr()] = found
        return tensor.view(shape)

    def allocate_image(self, batch: int, channels: int, height: int, width: int) -> Tensor:
        """Return a tensor ``(N, C, H, W)`` in channels-last memory format, whose values are arbitrary."""
        return self.allocate(batch, height, width, channels).permute(0, 3, 1, 2)

    def release(self, tensor: Tensor) -> None:
        """Return the memory of a tensor from ``allocate`` to the pool, where later tensors may use it."""
        freed = self._in_use.pop(tensor.data_ptr())
        for other in [other for other in self._free if other.block is freed.block]:
            if other.stop == freed.start or freed.stop == other.start:
                self._remove(other)
                freed = _MemoryRange(freed.block, min(freed.start, other.start), max(freed.stop, other.stop))
        self._free.append(freed)

    def clear(self) -> None:
        """Forget all memory, also that of tensors in use, so that torch can free it."""
        self._free.clear()
        self._in_use.clear()

    @property
    def size(self) -> int:
        """The number of values that fit into the pool's memory, free and in use."""
        return sum(found.size for found in (*self._free, *self._in_use.values()))

    def _find(self, count: int) -> _MemoryRange:
        """Allocate ``count`` values from the smallest free range that is large enough, or from a new block."""
        found = min((free for free in self._free if free.size >= count), key=lambda free: free.size, default=None)
        if found is None:
            unused = [free for free in self._free if free.size == len(free.block)]
            if unused:  # the new block replaces an unused one, so that total memory stays small
                self._remove(max(unused, key=lambda free: free.size))
            found = _MemoryRange(torch.empty(count, dtype=self.dtype, device=self.device), 0, count)
        else:
            self._remove(found)
        if found.size > count:
            self._free.append(_MemoryRange(found.block, found.start + count, found.stop))
        return _MemoryRange(found.block, found.start, found.start + count)

    def _remove(self, free: _MemoryRange) -> None:
        self._free = [other for other in self._free if other is not free]

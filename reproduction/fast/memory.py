"""Reuse buffers, so that the operating system does not have to allocate and clear new pages for every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGN = 64  # bytes: a line of the caches


@dataclass(frozen=True, eq=False)
class _Room:
    """A range of a block of memory.

    Attributes:
        block: The block, a tensor with one axis.
        start: Index of the first value.
        stop: Index after the last value.
    """

    block: Tensor
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Memory:
    """An allocator of tensors of one dtype on one device, which reuses memory that is returned with ``give``.

    Args:
        dtype: Dtype of the tensors.
        device: Device of the tensors.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.device = device
        self._free: list[_Room] = []
        self._lent: dict[int, _Room] = {}

    def take(self, *shape: int) -> Tensor:
        """Allocate a contiguous tensor with arbitrary values."""
        count = math.prod(shape)
        room = self._find(-(-max(count, 1) * self.dtype.itemsize // _ALIGN) * _ALIGN // self.dtype.itemsize)
        lent = room.block[room.start : room.start + count]
        self._lent[lent.data_ptr()] = room
        return lent.view(shape)

    def image(self, batch: int, channels: int, height: int, width: int) -> Tensor:
        """Allocate a tensor ``(N, C, H, W)`` in channels-last memory format, with arbitrary values."""
        return self.take(batch, height, width, channels).permute(0, 3, 1, 2)

    def give(self, tensor: Tensor) -> None:
        """Free a tensor from ``take`` or ``image`` for reuse, and merge it with adjacent free memory."""
        room = self._lent.pop(tensor.data_ptr())
        for other in [other for other in self._free if other.block is room.block]:
            if other.stop == room.start or room.stop == other.start:
                self._remove(other)
                room = _Room(room.block, min(room.start, other.start), max(room.stop, other.stop))
        self._free.append(room)

    def clear(self) -> None:
        """Drop all blocks, so that torch can free them."""
        self._free.clear()
        self._lent.clear()

    @property
    def held(self) -> int:
        """Number of values in all blocks, free and in use."""
        return sum(room.size for room in (*self._free, *self._lent.values()))

    def _find(self, count: int) -> _Room:
        """Allocate ``count`` values from the smallest free range that is large enough, or from a new block."""
        room = min((room for room in self._free if room.size >= count), key=lambda room: room.size, default=None)
        if room is None:
            empty = [room for room in self._free if room.size == len(room.block)]
            if empty:  # the new block replaces an unused one, so that total memory stays small
                self._remove(max(empty, key=lambda room: room.size))
            room = _Room(torch.empty(count, dtype=self.dtype, device=self.device), 0, count)
        else:
            self._remove(room)
        if room.size > count:
            self._free.append(_Room(room.block, room.start + count, room.stop))
        return _Room(room.block, room.start, room.start + count)

    def _remove(self, room: _Room) -> None:
        self._free = [other for other in self._free if other is not room]

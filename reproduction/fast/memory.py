"""Buffers that are used again, so that the system need not hand out and clear fresh pages at every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGN = 64  # bytes: a line of the caches


@dataclass(frozen=True, eq=False)
class _Room:
    """A part of a block.

    Attributes:
        block: the whole.
        start: the first value.
        stop: the first value that is not of the part.
    """

    block: Tensor
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


class Memory:
    """Blocks of memory of one type on one device, lent in parts; what is given back is lent again.

    Args:
        dtype: of all tensors.
        device: of all tensors.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.device = device
        self._free: list[_Room] = []
        self._lent: dict[int, _Room] = {}

    def take(self, *shape: int) -> Tensor:
        """Lend a contiguous tensor; its values are arbitrary."""
        count = math.prod(shape)
        room = self._find(-(-max(count, 1) * self.dtype.itemsize // _ALIGN) * _ALIGN // self.dtype.itemsize)
        lent = room.block[room.start : room.start + count]
        self._lent[lent.data_ptr()] = room
        return lent.view(shape)

    def image(self, batch: int, channels: int, height: int, width: int) -> Tensor:
        """Lend (N, C, H, W) with the channels of a pixel side by side."""
        return self.take(batch, height, width, channels).permute(0, 3, 1, 2)

    def give(self, tensor: Tensor) -> None:
        """Take back what ``take`` or ``image`` lent."""
        room = self._lent.pop(tensor.data_ptr())
        for other in [other for other in self._free if other.block is room.block]:
            if other.stop == room.start or room.stop == other.start:
                self._remove(other)
                room = _Room(room.block, min(room.start, other.start), max(room.stop, other.stop))
        self._free.append(room)

    def clear(self) -> None:
        """Hand everything back to the system."""
        self._free.clear()
        self._lent.clear()

    @property
    def held(self) -> int:
        """Values that there is memory for."""
        return sum(room.size for room in (*self._free, *self._lent.values()))

    def _find(self, count: int) -> _Room:
        """Cut so many values from the smallest room that has them, or from a new block."""
        room = min((room for room in self._free if room.size >= count), key=lambda room: room.size, default=None)
        if room is None:
            empty = [room for room in self._free if room.size == len(room.block)]
            if empty:  # one that is too small makes way
                self._remove(max(empty, key=lambda room: room.size))
            room = _Room(torch.empty(count, dtype=self.dtype, device=self.device), 0, count)
        else:
            self._remove(room)
        if room.size > count:
            self._free.append(_Room(room.block, room.start + count, room.stop))
        return _Room(room.block, room.start, room.start + count)

    def _remove(self, room: _Room) -> None:
        self._free = [other for other in self._free if other is not room]

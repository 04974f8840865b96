"""Buffers that are used again, so that the system need not hand out and clear fresh pages at every image."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Memory:
    """Blocks of memory of one type on one device; what is given back is lent again.

    Args:
        dtype: of all tensors.
        device: of all tensors.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.dtype = dtype
        self.device = device
        self._free: list[Tensor] = []
        self._lent: dict[int, Tensor] = {}

    def take(self, *shape: int) -> Tensor:
        """Lend a contiguous tensor; its values are arbitrary."""
        count = math.prod(shape)
        large = [block for block in self._free if block.numel() >= count]
        block = min(large, key=Tensor.numel) if large else None
        if block is None:
            if self._free:  # one that is too small makes room
                self._remove(max(self._free, key=Tensor.numel))
            block = torch.empty(max(count, 1), dtype=self.dtype, device=self.device)
        else:
            self._remove(block)
        self._lent[block.data_ptr()] = block
        return block[:count].view(shape)

    def image(self, batch: int, channels: int, height: int, width: int) -> Tensor:
        """Lend (N, C, H, W) with the channels of a pixel side by side."""
        return self.take(batch, height, width, channels).permute(0, 3, 1, 2)

    def give(self, tensor: Tensor) -> None:
        """Take back what ``take`` or ``image`` lent."""
        self._free.append(self._lent.pop(tensor.data_ptr()))

    def clear(self) -> None:
        """Hand everything back to the system."""
        self._free.clear()
        self._lent.clear()

    def _remove(self, block: Tensor) -> None:
        self._free = [other for other in self._free if other is not block]

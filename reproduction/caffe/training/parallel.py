"""Processes that train one net together: each runs its share of ``iter_size``, and gradients are added up.

Every process holds the whole net and makes the same updates. Sums are made in the order of the processes, so they are
the same at every run, and equal to those of one process but for rounding. Started by ``torchrun``, which tells each
process its place; gloo carries the numbers between CPUs, nccl between CUDA devices.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from reproduction.caffe import devices
from reproduction.caffe.errors import ReproductionError


class Ranks:
    """The processes, seen from one of them; by default there is only that one.

    Args:
        rank: the number of this process.
        size: how many there are.
        device: where the numbers are that they exchange.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None):
        self.rank, self.size = rank, size
        self.device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        """Whether this is the process whose samples come last."""
        return self.rank == self.size - 1

    def share(self, count: int, rank: int | None = None) -> range:
        """Give the numbers below ``count`` that fall to this process, or to another."""
        rank = self.rank if rank is None else rank
        return range(count * rank // self.size, count * (rank + 1) // self.size)

    def gather(self, mine: Sequence[float], count: int) -> list[float]:
        """Put together numbers for all of ``count``, of which each process has the first ones of its share.

        What a process lacks is 0.
        """
        if self.size == 1:
            return list(mine)
        longest = math.ceil(count / self.size)
        padded = torch.zeros(longest, dtype=torch.float64, device=self.device)
        padded[: len(mine)] = torch.tensor(mine, dtype=torch.float64)
        rows = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(rows, padded)
        return [value for rank, row in enumerate(rows) for value in row[: len(self.share(count, rank))].tolist()]

    def add_up(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum of those of all processes, added in their order."""
        if self.size == 1:
            return
        flat = tensor.reshape(-1)
        padded = flat.new_zeros(math.ceil(len(flat) / self.size) * self.size)
        padded[: len(flat)] = flat
        parts = torch.empty_like(padded)
        dist.all_to_all_single(parts, padded)  # everyone's values of the piece that this process adds up
        total, *others = parts.view(self.size, -1)
        for other in others:
            total.add_(other)
        dist.all_gather(list(padded.view(self.size, -1)), total)
        tensor.copy_(padded[: len(flat)].view(tensor.shape))

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, of which some may have none."""
        for p in parameters if self.size > 1 else ():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            self.add_up(p.grad)

    def greatest(self, value: int) -> int:
        """Give the greatest of the numbers of all processes."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, for as long as the block runs; without it there is one process.

    Args:
        device: cpu or cuda; with ``cuda`` each process takes the device of its place on the machine, in
            ``Ranks.device``.

    Raises:
        ReproductionError: the processes do not find each other, or there is no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(device=devices.use(device))
        return
    place = devices.use(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ReproductionError(
            f"the {size} processes do not find each other: {reason}", remedy="Start them with torchrun."
        ) from None
    try:
        yield Ranks(dist.get_rank(), size, place)
    finally:
        dist.destroy_process_group()

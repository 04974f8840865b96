"""Data-parallel training: each process runs its share of ``iter_size``, and gradients are summed over processes.

Every process has a copy of the whole net and makes the same updates. Sums are computed in the order of the ranks, so
that runs are reproducible and differ from a run with one process only by rounding. Start the processes with
``torchrun``, which sets their ranks. The backend is gloo on CPUs and nccl on CUDA devices.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from reproduction.caffe import devices
from reproduction.caffe.errors import ReproductionError

T = TypeVar("T")


class Ranks:
    """The group of processes that train one net together, as seen from one of them; by default a single process.

    Args:
        rank: The number of this process, from 0.
        size: Number of processes.
        device: Device of the tensors that the processes exchange; None is the CPU.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None):
        self.rank, self.size = rank, size
        self.device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        """Whether this process runs the last samples of each iteration."""
        return self.rank == self.size - 1

    def share(self, count: int) -> range:
        """Return the part of ``range(count)``, e.g. of the samples of an iteration, that this process computes.

        Args:
            count: The number of samples.
        """
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, mine: Sequence[float], count: int) -> list[float]:
        """Return the numbers of all processes, in order, e.g. the losses of all samples.

        Args:
            mine: This process's numbers: the first ones of its ``share(count)``, perhaps not all.
            count: The length of the result.

        Returns:
            ``count`` numbers; those that a process did not have are 0. A single process gets ``mine`` back.
        """
        if self.size == 1:
            return list(mine)
        return self.gather_objects([*mine, *[0.0] * (len(self.share(count)) - len(mine))])

    def gather_objects(self, mine: Sequence[T]) -> list[T]:
        """Return the objects of all processes in one list, in the order of the ranks.

        Args:
            mine: The objects of this process.
        """
        if self.size == 1:
            return list(mine)
        parts: list[Sequence[T]] = [()] * self.size
        dist.all_gather_object(parts, mine)
        return [value for part in parts for value in part]

    def all_reduce_sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes, in place; the terms are added in the order of the ranks."""
        if self.size == 1:
            return
        flat = tensor.reshape(-1)
        padded = flat.new_zeros(math.ceil(len(flat) / self.size) * self.size)
        padded[: len(flat)] = flat
        parts = torch.empty_like(padded)
        dist.all_to_all_single(parts, padded)  # each process sums one piece, for which it receives all values
        total, *others = parts.view(self.size, -1)
        for other in others:
            total.add_(other)
        dist.all_gather(list(padded.view(self.size, -1)), total)
        tensor.copy_(padded[: len(flat)].view(tensor.shape))

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradient of each parameter by its sum over all processes; a missing gradient counts as zeros."""
        for p in parameters if self.size > 1 else ():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            self.all_reduce_sum(p.grad)

    def all_reduce_max(self, value: int) -> int:
        """Return the greatest of the numbers that the processes pass."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace the tensors of all processes by those of the first process, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)


@contextlib.contextmanager
def join_processes(device: str = "cpu", timeout: timedelta | None = None) -> Iterator[Ranks]:
    """A context manager that joins the process group that ``torchrun`` started, until the block ends.

    Without ``torchrun`` the group has one process.

    Args:
        device: ``cpu`` or ``cuda``. With ``cuda``, each process uses the CUDA device of its local rank, which is
            ``Ranks.device``.
        timeout: how long a process waits for the others before it fails; None for torch's default, 10 or 30 minutes.

    Raises:
        ReproductionError: If the processes cannot connect to each other, or if there is no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(device=devices.select_device(device))
        return
    place = devices.select_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timeout)
    except (ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise ReproductionError(
            f"the {size} processes do not find each other: {reason}", remedy="Start them with torchrun."
        ) from None
    try:
        yield Ranks(dist.get_rank(), size, place)
    finally:
        dist.destroy_process_group()

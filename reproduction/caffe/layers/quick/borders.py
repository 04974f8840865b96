"""Computation of repeated rows and columns only once.

The published nets pad their input by 100 pixels of zeros. Rows of a blob whose windows contain neither pixels of the
image nor the outer edge are then equal, whatever the weights are; so are columns. A ``RepeatedBlob`` stores such a row
once, with the number of its copies. A layer with sliding windows expands it only to the length of its window. The
values are those of the full computation, and autograd sums gradients over all copies of a row.

Source: none; Caffe computes every place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.autograd.graph import saved_tensors_hooks

from reproduction.caffe.geometry import Shape, Window
from reproduction.caffe.layers.quick.normalize import NormalizedBlob

_WORTH = 0.9  # fraction of kept pixels above which the copies cost more than the full computation


@dataclass(frozen=True)
class RepeatedBlob:
    """A blob (N, C, H, W) in which adjacent equal rows and columns are stored once.

    Attributes:
        kept: The stored rows and columns, (N, C, h, w).
        counts: The number of copies of each stored row, and of each stored column.
    """

    kept: Tensor
    counts: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def shape(self) -> Shape:
        """The shape of the full blob, (N, C, H, W)."""
        return (*self.kept.shape[:2], *map(sum, self.counts))

    def expand(self) -> Tensor:
        """Return the full tensor, with all copies of each row and column."""
        return _expand(self.kept, [_find_runs(counts) for counts in self.counts])

    def detach(self) -> RepeatedBlob:
        """Return a ``RepeatedBlob`` of the same values that is detached from the autograd graph."""
        return replace(self, kept=self.kept.detach())


AnyBlob = Tensor | RepeatedBlob | NormalizedBlob


def as_repeated(x: Tensor) -> AnyBlob:
    """Return a 4-D tensor on the CPU as a ``RepeatedBlob`` in which each row and column has one copy.

    Its memory format is channels_last. Other tensors are returned unchanged.
    """
    # On a GPU, it is not known to be faster. During an export, sizes are symbols. An empty blob may have any number of
    # rows.
    if x.dim() != 4 or x.device.type != "cpu" or torch.compiler.is_compiling() or not x.numel():
        return x
    return RepeatedBlob(x.contiguous(memory_format=torch.channels_last), ((1,) * x.shape[2], (1,) * x.shape[3]))


def expand(x: AnyBlob) -> Tensor:
    """Return a blob as a full tensor; a tensor is returned unchanged."""
    return x if isinstance(x, Tensor) else x.expand()


def map_kept(x: AnyBlob, function: Callable[[Tensor], Tensor]) -> AnyBlob:
    """Apply an elementwise function to a blob; if it is a ``RepeatedBlob``, only to the stored rows and columns."""
    return replace(x, kept=function(x.kept)) if isinstance(x, RepeatedBlob) else function(expand(x))


def slide_windows(
    x: RepeatedBlob, windows: Sequence[Window], sizes: Sequence[int], operate: Callable[[Tensor, list[Window]], Tensor]
) -> AnyBlob:
    """Apply an operation with sliding windows, e.g. a convolution, and compute equal rows and columns only once.

    Args:
        x: The bottom.
        windows: The windows along height and width.
        sizes: Height and width of the full top.
        operate: The operation, a function of a bottom (N, C, H, W) and the windows. A pixel of its result must depend
            on nothing but the values in its window.

    Returns:
        The top; a full tensor if hardly any row or column repeats.
    """
    slidings = [_plan_sliding(*arguments) for arguments in zip(x.counts, windows, sizes, strict=True)]
    if math.prod(len(sliding.counts) for sliding in slidings) > _WORTH * math.prod(sizes):
        return operate(x.expand(), list(windows))
    # The bottom is expanded only as far as windows need it to differ, so the padding shrinks by whole strides, too: the
    # windows then start at the same pixels as in the full blob.
    shorter = [replace(window, pad=sliding.pad) for window, sliding in zip(windows, slidings, strict=True)]
    runs = [sliding.runs for sliding in slidings]
    expanded = _expand(x.kept, runs)
    with _save_compact(x.kept.detach(), expanded, runs):
        top = operate(expanded, shorter)
    return RepeatedBlob(top, (slidings[0].counts, slidings[1].counts))


def _save_compact(kept: Tensor, expanded: Tensor, runs: Sequence[RowRuns]) -> saved_tensors_hooks:
    """Save only the compact tensor for the backward pass and expand it there."""
    # Autograd would keep the expanded bottom of each convolution, several times the memory of the compact one, which is
    # kept anyway. The operation saves `expanded`, which is recognized by its memory and shape.
    there, shape = expanded.data_ptr(), expanded.shape

    def pack(x: Tensor) -> Tensor | None:
        return None if (x.data_ptr(), x.shape) == (there, shape) else x

    def unpack(x: Tensor | None) -> Tensor:
        return _expand(kept, runs) if x is None else x

    return saved_tensors_hooks(pack, unpack)


@dataclass(frozen=True)
class _RowRun:
    """A slice of rows and the slice that they become: as many rows, the copies of a single row, or the sum of all."""

    source: slice
    target: slice

    @property
    def is_sum(self) -> bool:
        """Whether several rows become one."""
        return bool(self.source.stop - self.source.start > self.target.stop - self.target.start)


RowRuns = tuple[_RowRun, ...]


def _find_runs(wanted: Sequence[int]) -> RowRuns:
    """Return the runs that expand row i to ``wanted[i]`` copies; adjacent rows with one copy form one run."""
    found: list[_RowRun] = []
    start = place = 0
    while start < len(wanted):
        stop = start + 1
        if wanted[start] == 1:
            while stop < len(wanted) and wanted[stop] == 1:
                stop += 1
        length = sum(wanted[start:stop])
        found.append(_RowRun(slice(start, stop), slice(place, place + length)))
        start, place = stop, place + length
    return tuple(found)


@dataclass(frozen=True)
class _Sliding:
    """How windows slide along one axis: the expansion, the padding, and the number of copies of each output."""

    runs: RowRuns
    pad: int
    counts: tuple[int, ...]


@lru_cache(maxsize=256)
def _plan_sliding(counts: tuple[int, ...], window: Window, size: int) -> _Sliding:
    """Shorten each run of equal rows, and the padding, by whole strides, such that only equal outputs are left out.

    A run that is at least ``extent + stride - 1`` long contains one whole window, wherever the first window starts.
    """
    least = window.extent + window.stride - 1

    def shortened(run: int) -> int:
        # Only whole strides may go: otherwise the windows behind the run would start at other pixels of the blob.
        return run if run <= least else least + (run - least) % window.stride

    pad, wanted = shortened(window.pad), [shortened(count) for count in counts]
    # All windows that lie inside one run are equal. The first is computed, and the copies of its output are counted.
    left_out = {}  # index of the first window inside the run: number of equal windows that are left out
    place = 0
    for run, kept in zip((window.pad, *counts, window.pad), (pad, *wanted, pad), strict=True):
        if run > kept:
            left_out[-(-place // window.stride)] = (run - kept) // window.stride
        place += kept
    found = [1] * (size - sum(left_out.values()))
    for place, count in left_out.items():
        found[place] += count
    return _Sliding(_find_runs(wanted), pad, tuple(found))


def _expand(x: Tensor, runs: Sequence[RowRuns]) -> Tensor:
    if all(run.source == run.target for axis in runs for run in axis):
        return x
    return _CopyRuns.apply(x, *runs)  # type: ignore[no-any-return, no-untyped-call]


class _CopyRuns(Function):
    """Copy runs of rows and columns to where they become others; the gradient is copied the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: RowRuns, columns: RowRuns) -> Tensor:
        ctx.back = [tuple(_RowRun(run.target, run.source) for run in runs) for runs in (rows, columns)]
        sizes = (*x.shape[:2], rows[-1].target.stop, columns[-1].target.stop)
        side_by_side = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if side_by_side else torch.contiguous_format
        found = torch.empty(sizes, dtype=x.dtype, device=x.device, memory_format=layout)
        for row in rows:
            for column in columns:
                part = x[:, :, row.source, column.source]
                axes = [axis for axis, run in ((2, row), (3, column)) if run.is_sum]
                found[:, :, row.target, column.target] = part.sum(axes, keepdim=True) if axes else part
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _CopyRuns.apply(gradients[0], *ctx.back), None, None  # type: ignore[no-untyped-call]

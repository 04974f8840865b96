"""Rows and columns that repeat, computed once.

The published nets pad their picture by 100 pixels of zeros. Between what the picture reaches and what the outer edge
reaches, each row of a blob is then the next one over again, whatever the weights: its windows see the same. So is each
column. ``Repeated`` keeps one of them, and how many there are; a layer that slides windows needs only as many as its
window is long. Nothing is approximated: values are those of every place, and gradients, which autograd adds up over
the places that a row stands for, are the gradients.

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

_WORTH = 0.9  # of the places; where more are kept, copying them costs more than computing the rest


@dataclass(frozen=True)
class Repeated:
    """A blob of images with rows and columns that stand for several.

    Attributes:
        kept: (N, C, h, w), each row and column once.
        counts: for each row and for each column that is kept, how many there are of it, side by side.
    """

    kept: Tensor
    counts: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def shape(self) -> Shape:
        """(N, C, H, W) of the whole."""
        return (*self.kept.shape[:2], *map(sum, self.counts))

    def whole(self) -> Tensor:
        """Lay everything out."""
        return _laid_out(self.kept, [_pieces(counts) for counts in self.counts])

    def detach(self) -> Repeated:
        """Cut it off from its gradient."""
        return replace(self, kept=self.kept.detach())


AnyBlob = Tensor | Repeated


def once(x: Tensor) -> AnyBlob:
    """Take a blob of images as one whose rows and columns may come to repeat, in the layout that is quick.

    Others stay as they are.
    """
    # On a GPU it is not known to pay; while a net is exported, sizes are symbols; an empty blob may have any number of
    # rows.
    if x.dim() != 4 or x.device.type != "cpu" or torch.compiler.is_compiling() or not x.numel():
        return x
    return Repeated(x.contiguous(memory_format=torch.channels_last), ((1,) * x.shape[2], (1,) * x.shape[3]))


def whole(x: AnyBlob) -> Tensor:
    """Give all of a blob."""
    return x.whole() if isinstance(x, Repeated) else x


def place_by_place(x: AnyBlob, function: Callable[[Tensor], Tensor]) -> AnyBlob:
    """Apply a function that treats each place by itself, and all alike."""
    return replace(x, kept=function(x.kept)) if isinstance(x, Repeated) else function(x)


def slide(
    x: Repeated, windows: Sequence[Window], sizes: Sequence[int], operate: Callable[[Tensor, list[Window]], Tensor]
) -> AnyBlob:
    """Slide windows over as little of a blob as shows them all that there is to see.

    Args:
        x: the bottom.
        windows: of the height and the width.
        sizes: height and width of the whole top.
        operate: from images and windows to the top, in which a place depends on what its window sees alone.

    Returns:
        The top; all of it where hardly anything repeats.
    """
    plans = [_plan(*arguments) for arguments in zip(x.counts, windows, sizes, strict=True)]
    if math.prod(len(plan.counts) for plan in plans) > _WORTH * math.prod(sizes):
        return operate(x.whole(), list(windows))
    shorter = [replace(window, pad=plan.pad) for window, plan in zip(windows, plans, strict=True)]
    pieces = [plan.pieces for plan in plans]
    laid = _laid_out(x.kept, pieces)
    with _kept_only(x.kept.detach(), laid, pieces):
        top = operate(laid, shorter)
    return Repeated(top, (plans[0].counts, plans[1].counts))


def _kept_only(kept: Tensor, laid: Tensor, pieces: Sequence[Pieces]) -> saved_tensors_hooks:
    """Let a backward lay out anew what is kept anyway, rather than hold both."""
    there, shape = laid.data_ptr(), laid.shape

    def pack(x: Tensor) -> Tensor | None:
        return None if (x.data_ptr(), x.shape) == (there, shape) else x

    def unpack(x: Tensor | None) -> Tensor:
        return _laid_out(kept, pieces) if x is None else x

    return saved_tensors_hooks(pack, unpack)


@dataclass(frozen=True)
class _Piece:
    """Neighbours: from the kept ones to those laid out. One that is laid out several times has a piece of its own."""

    kept: slice
    laid: slice
    repeats: bool


Pieces = tuple[_Piece, ...]


def _pieces(wanted: Sequence[int]) -> Pieces:
    """Lay out so many of each; neighbours that are laid out once go together."""
    found: list[_Piece] = []
    start = place = 0
    while start < len(wanted):
        stop = start + 1
        if wanted[start] == 1:
            while stop < len(wanted) and wanted[stop] == 1:
                stop += 1
        length = sum(wanted[start:stop])
        found.append(_Piece(slice(start, stop), slice(place, place + length), wanted[start] > 1))
        start, place = stop, place + length
    return tuple(found)


@dataclass(frozen=True)
class _Plan:
    """How windows slide along one axis: what is laid out, between which padding, and what each window stands for."""

    pieces: Pieces
    pad: int
    counts: tuple[int, ...]


@lru_cache(maxsize=256)
def _plan(counts: tuple[int, ...], window: Window, size: int) -> _Plan:
    """Shorten each run of what repeats, the padding too, by whole strides to what windows can tell from more."""
    least = window.extent + window.stride - 1

    def shortened(run: int) -> int:
        return run if run <= least else least + (run - least) % window.stride

    pad, wanted = shortened(window.pad), [shortened(count) for count in counts]
    left_out = {}  # by the first window within the run, which sees the same as those that are left out
    place = 0
    for run, kept in zip((window.pad, *counts, window.pad), (pad, *wanted, pad), strict=True):
        if run > kept:
            left_out[-(-place // window.stride)] = (run - kept) // window.stride
        place += kept
    found = [1] * (size - sum(left_out.values()))
    for place, count in left_out.items():
        found[place] += count
    return _Plan(_pieces(wanted), pad, tuple(found))


def _laid_out(x: Tensor, pieces: Sequence[Pieces]) -> Tensor:
    if not any(piece.repeats for axis in pieces for piece in axis):
        return x
    return _LayOut.apply(x, *pieces)  # type: ignore[no-any-return, no-untyped-call]


def _empty(like: Tensor, height: int, width: int) -> Tensor:
    """Make memory of the same layout."""
    side_by_side = like.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if side_by_side else torch.contiguous_format
    return torch.empty((*like.shape[:2], height, width), dtype=like.dtype, device=like.device, memory_format=layout)


class _LayOut(Function):
    """From what is kept to what is laid out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Pieces, columns: Pieces) -> Tensor:
        ctx.pieces = rows, columns
        laid = _empty(x, rows[-1].laid.stop, columns[-1].laid.stop)
        for row in rows:
            for column in columns:
                laid[:, :, row.laid, column.laid] = x[:, :, row.kept, column.kept]
        return laid

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Collect.apply(gradients[0], *ctx.pieces), None, None  # type: ignore[no-untyped-call]


class _Collect(Function):
    """From gradients of what is laid out to those of what is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Pieces, columns: Pieces) -> Tensor:
        ctx.pieces = rows, columns
        kept = _empty(x, rows[-1].kept.stop, columns[-1].kept.stop)
        for row in rows:
            for column in columns:
                part = x[:, :, row.laid, column.laid]
                axes = [axis for axis, piece in ((2, row), (3, column)) if piece.repeats]
                kept[:, :, row.kept, column.kept] = part.sum(axes, keepdim=True) if axes else part
        return kept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _LayOut.apply(gradients[0], *ctx.pieces), None, None  # type: ignore[no-untyped-call]

"""The arithmetic that the normalizing layers of several forks share: statistics of each channel, scale and shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


def per_channel(blob: Tensor, axes: int) -> Tensor:
    """Reshape a blob of one number for each channel so that it broadcasts against (N, C, ...) with ``axes`` axes."""
    return blob.reshape(-1, *(1,) * (axes - 2)) if axes > 1 else blob.reshape(1)


def channel_axes(x: Tensor) -> list[int]:
    """Return the axes over which the statistics of a channel are computed: all but axis 1."""
    return [axis for axis in range(x.dim()) if axis != 1]


@torch.no_grad()
def update_statistics(blobs: Sequence[Tensor], batch: Sequence[Tensor], kept: float) -> None:
    """Set each blob to ``kept * blob + (1 - kept) * statistics of the batch``, in place."""
    for blob, new in zip(blobs, batch, strict=True):
        blob.mul_(kept).add_(new.reshape(blob.shape), alpha=1 - kept)


def normalize(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse_deviation: Tensor) -> Tensor:
    """Return ``scale * (x - mean) * inverse_deviation + shift``, with the gradient for statistics of the batch.

    Args:
        x: The bottom, (N, C, ...).
        scale: The scale of each channel; this and the others broadcast against ``x``.
        shift: The shift.
        mean: The mean.
        inverse_deviation: One divided by the standard deviation.

    Returns:
        The top. Its gradient takes mean and deviation for those of ``x``, whatever their values are.
    """
    result: Tensor = _Normalize.apply(x, scale, shift, mean, inverse_deviation)  # type: ignore[no-untyped-call]
    return result


class _Normalize(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse_deviation: Tensor) -> Tensor:
        normalized = (x - mean).mul_(inverse_deviation)
        ctx.save_for_backward(normalized, scale, inverse_deviation)
        return torch.addcmul(shift, normalized, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalized, scale, inverse_deviation = ctx.saved_tensors
        axes = channel_axes(normalized)
        to_scale = (gradient * normalized).sum(axes, keepdim=True)
        to_shift = gradient.sum(axes, keepdim=True)
        count = normalized.numel() / normalized.shape[1]
        to_x = (gradient - (normalized * to_scale + to_shift) / count) * (scale * inverse_deviation)
        return to_x, to_scale.reshape(scale.shape), to_shift.reshape(scale.shape), None, None

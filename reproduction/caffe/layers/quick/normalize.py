"""Batch normalization of images on the CPU: BatchNorm and the Scale layer after it in one pass over the pixels.

Source: none; Caffe computes each of them in several passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.quick.convolve import has_channels_last


@dataclass(frozen=True)
class NormalizedBlob:
    """The top of BatchNorm, not computed yet, since a Scale layer that follows computes both layers in one pass.

    Attributes:
        x: The bottom of BatchNorm, (N, C, ...).
        mean: The mean of each channel, (C,).
        variance: The variance of each channel, (C,).
        eps: A small number that is added to the variance.
        of_batch: Whether mean and variance are those of ``x``; the gradient then flows through them, too.
    """

    x: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    of_batch: bool

    @property
    def shape(self) -> Shape:
        """The shape of the blob, (N, C, ...)."""
        return tuple(self.x.shape)

    def expand(self) -> Tensor:
        """Return the normalized values, (N, C, ...)."""
        return self.scale(None, None)

    def scale(self, factor: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return the normalized values, multiplied by a factor and with a bias added.

        Args:
            factor: The factor of each channel, (C,), or None for 1.
            bias: The bias of each channel, (C,), or None for 0.
        """
        return _Normalize.apply(self.x, factor, bias, self)  # type: ignore[no-any-return, no-untyped-call]

    def detach(self) -> NormalizedBlob:
        """Return a ``NormalizedBlob`` of the same values that is detached from the autograd graph."""
        return replace(self, x=self.x.detach())


def is_faster(x: Tensor) -> bool:
    """Return whether a ``NormalizedBlob`` of ``x`` saves time: on the CPU, in single or double precision."""
    is_exact = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return is_exact and x.numel() > 0 and not torch.compiler.is_compiling()


@torch.no_grad()
def compute_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance of each channel of ``x`` (N, C, ...), (C,) each.

    Rounding errors are those of sums in double precision.
    """
    if not has_channels_last(x):
        mean, variance = torch.batch_norm_update_stats(x.contiguous(), None, None, 0.0)
        return mean, variance
    # In channels_last format, torch adds all pixels one after the other in single precision, with errors of 1e-5.
    # Therefore each column of an image is a channel by itself here, and the columns are merged in double precision.
    count, channels, height, width = x.shape
    columns = x.permute(0, 2, 3, 1).reshape(count, height, 1, width * channels).permute(0, 3, 1, 2)
    found = torch.batch_norm_update_stats(columns, None, None, 0.0)
    means, variances = (each.view(width, channels).double() for each in found)
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    return mean.to(x.dtype), variance.to(x.dtype)


class _Normalize(Function):
    """The values of a ``NormalizedBlob``, times a factor, plus a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor | None, bias: Tensor | None, blob: NormalizedBlob) -> Tensor:
        ctx.save_for_backward(x, factor, blob.mean, blob.variance)
        ctx.eps, ctx.of_batch = blob.eps, blob.of_batch
        return torch.native_batch_norm(x, factor, bias, blob.mean, blob.variance, False, 0.0, blob.eps)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, mean, variance = ctx.saved_tensors
        # With another memory format than that of x, torch's operator is many times slower.
        layout = torch.channels_last if has_channels_last(x) else torch.contiguous_format
        gradient = gradients[0].contiguous(memory_format=layout)
        stored = (None, None) if ctx.of_batch else (mean, variance)
        found = torch.ops.aten.native_batch_norm_backward(
            gradient, x, factor, *stored, mean, (variance + ctx.eps).rsqrt(), ctx.of_batch, ctx.eps,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        return *found, None

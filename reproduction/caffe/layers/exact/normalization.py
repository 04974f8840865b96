"""Scale, Bias, BatchNorm and MVN with the results of Caffe's CPU build, bit for bit: sums in the order of its BLAS.

Source: BVLC/caffe@9b89154 src/caffe/layers/scale_layer.cpp L111-L215, bias_layer.cpp L72-L110,
batch_norm_layer.cpp L88-L236, mvn_layer.cpp L29-L140.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.layers.exact import blas
from reproduction.caffe.typing import Float32


def scale(
    x: Tensor, factor: Tensor | None, bias: Tensor | None, axis: int, totals: tuple[dict[int, Tensor], int]
) -> Tensor:
    """Multiply by a factor and add a bias, in float32 on the CPU.

    Args:
        x: The bottom, (A..., B..., C...).
        factor: The factor, (B...), or None. ``factor`` and ``bias`` must not both be None.
        bias: The bias, (B...), or None.
        axis: The first axis of B in ``x``.
        totals: Gradients of earlier backward passes, by index of the parameter (see ``Layer.totals``), and the index of
            the bias in them; that of the factor is 0.
    """
    spans = factor if factor is not None else bias
    assert spans is not None
    axis = axis % x.dim() if spans.dim() else 0
    sizes = (math.prod(x.shape[:axis]), spans.numel(), math.prod(x.shape[axis + spans.dim() :]))
    return _Scale.apply(x, factor, bias, sizes, totals)  # type: ignore[no-any-return, no-untyped-call]


class _Scale(Function):
    """The autograd function of ``scale``; ``sizes`` are the numbers of values of A, B and C."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factor: Tensor | None,
        bias: Tensor | None,
        sizes: tuple[int, int, int],
        totals: tuple[dict[int, Tensor], int],
    ) -> Tensor:
        ctx.save_for_backward(x, factor)
        ctx.sizes, ctx.totals, ctx.bias = sizes, totals, None if bias is None else bias.shape
        # A view of a temporary tensor must not be returned: a layer that follows may change the top in place.
        top = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        values, result = x.reshape(sizes), top.view(sizes)
        if factor is not None:
            values = torch.mul(values, factor.reshape(-1, 1), out=result)
        if bias is not None:
            torch.add(values, bias.reshape(-1, 1), out=result)
        return top

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, factor = ctx.saved_tensors
        top = gradient.reshape(ctx.sizes).contiguous()
        totals, number = ctx.totals
        found: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            back = top if factor is None else top * factor.reshape(-1, 1)
            found[0] = back.reshape(x.shape)
        if ctx.needs_input_grad[1]:
            found[1] = total = blas.take_total(totals if number else {}, 0, factor.shape)
            _add_products((top * x.reshape(ctx.sizes)).numpy(), total.reshape(-1).numpy())
        if ctx.needs_input_grad[2]:
            found[2] = total = blas.take_total(totals, number, ctx.bias)
            for rows in top.numpy():
                blas.row_sums(rows, total.reshape(-1).numpy())
        return (*found, None, None)


def _add_products(products: Float32, total: Float32) -> None:
    """Add the sums of ``products`` (A, B, C) over A and C to ``total`` (B,) in place."""
    outer, size, inner = products.shape
    rows = products.reshape(-1)
    if outer * size == 1:
        total += blas.vector_sum(rows)
        return
    if inner > 1:
        rows = np.zeros(outer * size, np.float32)
        blas.row_sums(products.reshape(outer * size, inner), rows)
    if outer == 1:
        total += rows
    elif size == 1:
        total += blas.vector_sum(rows)
    else:
        blas.column_sums(rows.reshape(outer, size), total)


def normalize(x: Tensor, eps: float, *, inside: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each channel to zero mean and unit variance, in float32 on the CPU.

    Args:
        x: The bottom, (N, C, S).
        eps: A small number that is added to the variance or to the standard deviation.
        inside: Whether to add ``eps`` to the variance, under the square root.

    Returns:
        The top, (N, C, S), and the means and variances of the channels, (C,) each.
    """
    return _Normalize.apply(x, eps, inside)  # type: ignore[no-any-return, no-untyped-call]


class _Normalize(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, inside: bool) -> tuple[Tensor, Tensor, Tensor]:
        values = x.numpy()
        share = 1 / (len(values) * values.shape[2])
        mean = _channel_sums(values, share)
        top = values - mean[:, None]
        variance = _channel_sums(top * top, share)
        # Caffe: the backward pass of MVN divides by the deviation of the forward pass, to which eps was added, and
        # ignores that eps is outside the square root (mvn_layer.cpp L82-L120).
        deviation = np.sqrt(variance + np.float32(eps)) if inside else np.sqrt(variance) + np.float32(eps)
        top /= deviation[:, None]
        ctx.top, ctx.deviation = top.copy(), deviation  # the next layer may overwrite the top
        found = torch.from_numpy(top), torch.from_numpy(mean), torch.from_numpy(variance)
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        values = gradient.contiguous().numpy()
        back = ctx.top * _channel_sums(ctx.top * values, 1)[:, None]
        back += _channel_sums(values, 1)[:, None]
        back *= np.float32(-1 / (len(values) * values.shape[2]))
        back += values
        back /= ctx.deviation[:, None]
        return torch.from_numpy(back), None, None


def _channel_sums(values: Float32, factor: float) -> Float32:
    """Return ``factor`` times the sum of each channel of ``values`` (N, C, S): over S first, then over N."""
    count, channels, size = values.shape
    rows, sums = np.zeros(count * channels, np.float32), np.zeros(channels, np.float32)
    blas.row_sums(values.reshape(-1, size), rows, factor)
    blas.column_sums(rows.reshape(count, channels), sums)
    return sums

"""Convolution and Deconvolution with the results of Caffe's CPU build: im2col, and sums in the order of its BLAS.

There are three matrix products, each for one image. ``_gather`` is the forward pass of Convolution and the gradient of
Deconvolution's bottom; ``_scatter`` is the forward pass of Deconvolution and the gradient of Convolution's bottom;
``_correlate`` is the gradient of the weights of both. Large products are computed in bands, to save memory, along an
axis that is not summed, so that the order of the sums does not change.

Source: BVLC/caffe@9b89154 src/caffe/layers/base_conv_layer.cpp L236-L315, conv_layer.cpp L25-L73,
deconv_layer.cpp L25-L75, src/caffe/util/im2col.cpp L19-L195.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.geometry import Window, unfold_arguments
from reproduction.caffe.layers.exact.blas import product, row_sums, take_total
from reproduction.caffe.typing import Float32

_VALUES = 1 << 23  # maximum number of values of a band


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    windows: Sequence[Window],
    group: int,
    totals: dict[int, Tensor],
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Compute a 2-D convolution or, with ``sizes``, a transposed one, in float32 on the CPU.

    Args:
        x: The bottom, (N, C, H, W).
        weight: The weights, (num_output, C / group, kernel_h, kernel_w), or (C, num_output / group, ...).
        bias: The bias, (num_output,), or None.
        windows: The windows along height and width.
        group: The number of groups of channels.
        totals: Gradients of earlier backward passes, by index of the parameter; see ``Layer.totals``.
        sizes: Height and width of the top of a transposed convolution; None for a convolution.

    Returns:
        The top, (N, num_output, h, w).
    """
    args = (x, weight, bias, tuple(windows), group, sizes and tuple(sizes), totals)
    return _Slide.apply(*args)  # type: ignore[no-any-return, no-untyped-call]


class _Slide(Function):
    """The autograd function of both; ``sizes`` are height and width of a Deconvolution's top, None for Convolution."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        windows: tuple[Window, ...],
        group: int,
        sizes: tuple[int, ...] | None,
        totals: dict[int, Tensor],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows, ctx.group, ctx.up, ctx.totals = windows, group, sizes is not None, totals
        rows = _rows(weight, group)
        tops = [_scatter(image, rows, windows, sizes) if sizes else _gather(image, rows, windows) for image in x]
        top = torch.stack(tops)
        return top if bias is None else top.add_(bias.reshape(-1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, gradient = _rows(weight, ctx.group), gradient.contiguous()
        found: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            back = [
                _gather(g, rows, ctx.windows) if ctx.up else _scatter(g, rows, ctx.windows, x.shape[2:])
                for g in gradient
            ]
            found[0] = torch.stack(back)
        if ctx.needs_input_grad[1]:
            found[1] = weights = take_total(ctx.totals, 0, weight.shape)
            total = _rows(weights, ctx.group)
            for image, g in zip(x, gradient, strict=True):
                _correlate(image, g, ctx.windows, total) if ctx.up else _correlate(g, image, ctx.windows, total)
        if ctx.needs_input_grad[2]:
            found[2] = sums = take_total(ctx.totals, 1, gradient.shape[1:2])
            for g in gradient:
                row_sums(g.flatten(1).numpy(), sums.numpy())
        return (*found, None, None, None, None)


def _rows(weight: Tensor, group: int) -> Float32:
    """Return a weight as an array (group, rows, K) that shares its memory."""
    found: Float32 = weight.detach().reshape(group, len(weight) // group, -1).numpy()
    return found


def _bands(count: int, each: int) -> Iterator[slice]:
    """Split ``count`` rows of ``each`` values into equal bands of about ``_VALUES`` values or less."""
    cuts = np.linspace(0, count, min(count, -(-count * each // _VALUES)) + 1).astype(int).tolist()
    return map(slice, cuts[:-1], cuts[1:])


def _pad(image: Tensor, windows: tuple[Window, ...]) -> Tensor:
    tall, wide = windows
    return F.pad(image, (wide.pad, wide.pad, tall.pad, tall.pad))


def _im2col(padded: Tensor, windows: tuple[Window, ...]) -> Float32:
    """Return the windows of an image (C, H, W) as columns, (C * taps, h * w)."""
    found: Float32 = F.unfold(padded[None], **{**unfold_arguments(windows), "padding": (0, 0)})[0].numpy()
    return found


def _gather(image: Tensor, rows: Float32, windows: tuple[Window, ...]) -> Tensor:
    """Multiply ``rows`` (group, M, K) by the windows of ``image`` (C, H, W), one band of output rows at a time."""
    group, count, depth = rows.shape
    padded = _pad(image, windows)
    height, width = (
        (size - window.extent) // window.stride + 1 for size, window in zip(padded.shape[1:], windows, strict=True)
    )
    top = np.empty((group, count, height, width), np.float32)
    tall = windows[0]
    for band in _bands(height, group * depth * width):
        seen = padded[:, band.start * tall.stride : (band.stop - 1) * tall.stride + tall.extent]
        columns = _im2col(seen, windows).reshape(group, depth, -1)
        for g in range(group):
            top[g, :, band] = product(rows[g], columns[g]).reshape(count, -1, width)
    return torch.from_numpy(top.reshape(-1, height, width))


def _scatter(image: Tensor, rows: Float32, windows: tuple[Window, ...], sizes: Sequence[int]) -> Tensor:
    """Multiply the transposed ``rows`` (group, K, M) by ``image`` (C, H, W) and sum the columns into the top."""
    group, _, width = rows.shape
    taps = windows[0].kernel * windows[1].kernel
    values = image.reshape(group, -1, image[0].numel()).numpy()
    top = torch.empty(group, width // taps, *sizes)
    for g in range(group):
        for band in _bands(width // taps, taps * values.shape[2]):
            columns = product(rows[g, :, band.start * taps : band.stop * taps].T, values[g])
            top[g, band] = F.fold(torch.from_numpy(columns)[None], tuple(sizes), **unfold_arguments(windows))[0]
    return top.flatten(0, 1)


def _correlate(top: Tensor, image: Tensor, windows: tuple[Window, ...], total: Float32) -> None:
    """Add the products of ``top`` (group * M, ...) and the windows of ``image`` to ``total`` (group, M, K) in place."""
    group, count, depth = total.shape
    taps = windows[0].kernel * windows[1].kernel
    values = top.reshape(group, count, -1).numpy()
    padded = _pad(image, windows)
    padded = padded.reshape(group, -1, *padded.shape[1:])
    for g in range(group):
        for band in _bands(depth // taps, taps * max(values.shape[1:])):
            columns = _im2col(padded[g, band], windows)
            product(values[g], columns.T, total[g, :, band.start * taps : band.stop * taps])

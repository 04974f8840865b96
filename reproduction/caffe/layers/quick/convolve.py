"""Fast 2-D convolution on the CPU: by torch, by im2col and a matrix product, or in training by Winograd's method.

Source: none; Caffe multiplies a matrix of windows for every convolution (base_conv_layer.cpp L236-L253), and torch
never does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional as F

from reproduction.caffe.geometry import Window, conv_size, unfold_arguments
from reproduction.caffe.layers.quick import winograd

_NARROW = 128  # number of channels up to which torch is not slower in channels_last format
_PART = 256  # output channels whose gradient is handed over at a time
_LARGE = 1 << 22  # number of weights from which on it is
_THIN = 32  # number of values in a window up to which im2col is cheap

#: A function that takes the gradient of a weight in parts: the first output channel of a part, and the part.
Take = Callable[[int, Tensor], object]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    windows: Sequence[Window],
    group: int,
    *,
    learning: bool = False,
    take: Take | None = None,
) -> Tensor:
    """Compute a 2-D convolution, on the CPU by the method that is faster for its shapes.

    If there are more output channels than output pixels, as in the convolutional form of a fully connected layer, torch
    would spend most of its time on reordering the weights. Then the windows are copied to a matrix instead, which is
    multiplied by the weights. The same holds for small windows, as on an image with three channels. Many channels are
    convolved with 3x3 kernels by Winograd's method if ``learning`` is set.

    Args:
        x: The bottom, (N, C, H, W).
        weight: The weights, (num_output, C / group, kernel_h, kernel_w).
        bias: The bias, (num_output,), or None.
        windows: The windows along height and width.
        group: The number of groups of channels.
        learning: Whether gradients are wanted, and rounding errors of 3e-6 of the largest value do not matter.
        take: A function that takes the gradient of a large weight in parts, so that it is never in memory as a whole;
            autograd gets no gradient then. None, or a function that is not called, if the gradient has to be whole.

    Returns:
        The top, (N, num_output, h, w), which shares no memory with ``x``. It is in channels_last format if ``x`` is,
        except on the CPU for more than ``_NARROW`` channels and fewer groups, where it may be contiguous.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():  # while compiling, sizes are symbols
        sizes = [conv_size(size, window) for size, window in zip(x.shape[2:], windows, strict=True)]
        # torch's convolution (oneDNN) reorders the weights at each call. With few output pixels, that takes longer than
        # the products: fc6 of VGG has 411 MB of weights and, for an image of 500 x 500, 16 x 16 pixels.
        excess = len(weight) / (len(x) * math.prod(sizes))
        # The products of large kernels take longer in training than such reordering, unless they are very few.
        outweighs = excess > (1 if _is_pointwise(windows) or not learning else 2)
        if group == 1 and (outweighs or weight[0].numel() <= _THIN):
            return _MatrixConvolution.apply(x, weight, bias, tuple(windows), sizes, take)  # type: ignore[no-any-return, no-untyped-call]
        if learning and group == 1 and _is_dense(windows) and winograd.is_faster(x, weight):
            return winograd.convolve(x, weight, bias, [window.pad for window in windows])
        # Wide convolutions, but not those of each channel, are slower in channels_last format. In training, the copies
        # of values and gradients between formats take longer than that, unless torch reorders many weights.
        is_wide = max(x.shape[1], len(weight)) > _NARROW and not group == x.shape[1] > 1
        if is_wide and (not learning or excess > 1):
            x = x.contiguous()
    stride, pad, dilation = ([getattr(window, name) for window in windows] for name in ("stride", "pad", "dilation"))
    return F.conv2d(x, weight, bias, stride, pad, dilation, group)


class _MatrixConvolution(Function):
    """A convolution as a product of two matrices, one of which has the windows as its rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        windows: tuple[Window, ...],
        sizes: list[int],
        take: Take | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows, ctx.take = windows, take
        side_by_side = has_channels_last(x)
        layout = torch.channels_last if side_by_side else torch.contiguous_format
        top = torch.empty((len(x), len(weight), *sizes), dtype=x.dtype, memory_format=layout)
        matrix = weight.flatten(1)
        # Each product is written to the memory of the top, so that neither format needs a transposed copy.
        for rows, image in zip(_window_rows(x, windows), top, strict=True):
            if side_by_side:
                torch.mm(rows, matrix.T, out=image.permute(1, 2, 0).view(-1, len(weight)))
            else:
                torch.mm(matrix, rows.T, out=image.view(len(weight), -1))
        return top if bias is None else top.add_(bias.reshape(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        pixels = _pixel_rows(gradients[0])
        found: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            found[0] = _sum_windows(pixels @ weight.flatten(1), x, ctx.windows)
        if ctx.needs_input_grad[2]:
            found[2] = pixels.sum((0, 1))
        if ctx.needs_input_grad[1]:
            rows = _window_rows(x, ctx.windows)
            if ctx.take is None or weight.numel() <= _LARGE or torch.is_grad_enabled():
                found[1] = _multiply(pixels, rows).reshape(weight.shape)
                return (*found, None, None, None)
            for first, part in enumerate(torch.split(pixels, _PART, 2)):
                ctx.take(first * _PART, _multiply(part, rows).view(-1, *weight.shape[1:]))
        return (*found, None, None, None)


def _multiply(pixels: Tensor, rows: Tensor) -> Tensor:
    """Return the gradient of the weights, ``(O, C * taps)``: the products of pixels and windows, summed over images."""
    products = [gradient.T @ windows for gradient, windows in zip(pixels, rows, strict=True)]
    return products[0] if len(products) == 1 else torch.stack(products).sum(0)


def has_channels_last(x: Tensor) -> bool:
    """Return whether a tensor has the memory format channels_last but is not also contiguous."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _pixel_rows(x: Tensor) -> Tensor:
    """Return (N, C, h, w) as (N, h * w, C), without a copy in channels_last format."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _is_pointwise(windows: Sequence[Window]) -> bool:
    return all((window.kernel, window.stride, window.pad) == (1, 1, 0) for window in windows)


def _is_dense(windows: Sequence[Window]) -> bool:
    return all((window.stride, window.dilation) == (1, 1) for window in windows)


def _window_rows(x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Return the windows of ``x`` (N, C, H, W) as rows, (N, h * w, C * taps)."""
    return _pixel_rows(x) if _is_pointwise(windows) else F.unfold(x, **unfold_arguments(windows)).mT


def _sum_windows(rows: Tensor, x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Sum the windows ``rows`` (N, h * w, C * taps) into images of the shape of ``x``."""
    if _is_pointwise(windows):
        return rows.reshape(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return F.fold(rows.mT, tuple(x.shape[2:]), **unfold_arguments(windows))

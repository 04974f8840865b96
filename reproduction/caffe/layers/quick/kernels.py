"""The quick way to convolve images on the CPU: the products are the same, in the order and the layout that suit them.

Source: none; Caffe multiplies a matrix of windows for every convolution (base_conv_layer.cpp L236-L253), and torch
never does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional as F

from reproduction.caffe.geometry import Window, conv_size

_NARROW = 128  # channels up to which torch is no slower with the channels of a place side by side
_THIN = 32  # values in a window up to which laying the windows out costs little


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Sequence[Window], group: int) -> Tensor:
    """Convolve (N, C, H, W), on the CPU in the way that is quickest for its shape; the result is memory of its own.

    Where the weights outweigh the images, as in a classifier made convolutional, torch would spend most of its time on
    bringing them into another order, there and back: there the windows are laid out instead, and multiplied. So are
    those of few values, as of a picture's three channels.

    Args:
        x: the bottom.
        weight: (num_output, C / group, kernel_h, kernel_w).
        bias: (num_output,), or None.
        windows: of the height and the width.
        group: how many groups the channels are in.

    Returns:
        (N, num_output, h, w), with the channels of a place side by side where they are so in ``x`` and are not many.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():  # whose sizes are symbols
        sizes = [conv_size(size, window) for size, window in zip(x.shape[2:], windows, strict=True)]
        outweighs = len(weight) > len(x) * math.prod(sizes)
        if group == 1 and (outweighs or weight[0].numel() <= _THIN):
            return _Product.apply(x, weight, bias, tuple(windows), sizes)  # type: ignore[no-any-return, no-untyped-call]
        if max(x.shape[1], len(weight)) > _NARROW:
            x = x.contiguous()
    stride, pad, dilation = ([getattr(window, name) for window in windows] for name in ("stride", "pad", "dilation"))
    return F.conv2d(x, weight, bias, stride, pad, dilation, group)


class _Product(Function):
    """A convolution as one product of two matrices, with the windows of the images as rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, windows: tuple[Window, ...], sizes: list[int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        side_by_side = has_channels_last(x)
        layout = torch.channels_last if side_by_side else torch.contiguous_format
        top = torch.empty((len(x), len(weight), *sizes), dtype=x.dtype, memory_format=layout)
        matrix = weight.flatten(1)
        for rows, image in zip(_rows(x, windows), top, strict=True):
            if side_by_side:
                torch.mm(rows, matrix.T, out=image.permute(1, 2, 0).view(-1, len(weight)))
            else:
                torch.mm(matrix, rows.T, out=image.view(len(weight), -1))
        return top if bias is None else top.add_(bias.reshape(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        places = _places(gradients[0])
        found: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            found[0] = _images(places @ weight.flatten(1), x, ctx.windows)
        if ctx.needs_input_grad[1]:
            products = [g.T @ rows for g, rows in zip(places, _rows(x, ctx.windows), strict=True)]
            found[1] = (products[0] if len(products) == 1 else torch.stack(products).sum(0)).reshape(weight.shape)
        if ctx.needs_input_grad[2]:
            found[2] = places.sum((0, 1))
        return (*found, None, None)


def has_channels_last(x: Tensor) -> bool:
    """Say whether the channels of a place lie side by side, and not a channel's places."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _places(x: Tensor) -> Tensor:
    """View (N, C, h, w) as (N, h * w, C), without a copy where the channels lie side by side."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _is_pointwise(windows: Sequence[Window]) -> bool:
    return all((window.kernel, window.stride, window.pad) == (1, 1, 0) for window in windows)


def _unfolding(windows: Sequence[Window]) -> dict[str, Any]:
    names = {"kernel_size": "kernel", "dilation": "dilation", "padding": "pad", "stride": "stride"}
    return {theirs: tuple(getattr(window, ours) for window in windows) for theirs, ours in names.items()}


def _rows(x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Lay the windows of (N, C, H, W) out as (N, places, C * taps)."""
    return _places(x) if _is_pointwise(windows) else F.unfold(x, **_unfolding(windows)).mT


def _images(rows: Tensor, x: Tensor, windows: Sequence[Window]) -> Tensor:
    """Add windows up, (N, places, C * taps), to images of the shape of ``x``."""
    if _is_pointwise(windows):
        return rows.reshape(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
    return F.fold(rows.mT, tuple(x.shape[2:]), **_unfolding(windows))

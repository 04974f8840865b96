"""Convolution as Caffe's CPU build computes it: im2col, and a matrix product that adds in its BLAS's order.

Single precision rounds after every addition, so another order gives other last digits. They are invisible, but a
unit within rounding of a kink (a ReLU at 0, a tie in a pool) may fall on the other side of it, and then a whole
gradient goes another way. In this order results are Caffe's bit for bit, on CPUs whose kernels add one product after
the other; ``adds_in_order`` says whether they do. It costs what Caffe costs, and runs on the CPU alone.

Source: BVLC/caffe@9b89154 src/caffe/layers/base_conv_layer.cpp L236-L266; OpenBLAS 0.3.21 driver/level3/level3.c, with
the block of 320 that it uses for single precision on x86-64 with AVX-512.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.geometry import Window

_BLOCK, _UNROLL = 320, 16
_COLUMNS = 1 << 23  # values of im2col held at a time

Matrix = npt.NDArray[np.float32]


def blocks(depth: int) -> Iterator[slice]:
    """Cut the ``depth`` products of a sum as OpenBLAS does; the blocks' sums are added up one after the other."""
    start = 0
    while start < depth:
        rest = depth - start
        if rest >= 2 * _BLOCK:
            size = _BLOCK
        elif rest > _BLOCK:
            size = -(-(rest // 2) // _UNROLL) * _UNROLL
        else:
            size = rest
        yield slice(start, start + size)
        start += size


def product(a: Matrix, b: Matrix) -> Matrix:
    """Multiply (M, K) by (K, N), adding in Caffe's order."""
    parts = (a[:, block] @ b[block] for block in blocks(a.shape[1]))
    total: Matrix = next(parts)
    for part in parts:
        total += part
    return total


def adds_in_order() -> bool:
    """Say whether numpy's matrix product adds one product after the other with one rounding each, as OpenBLAS's does.

    It does in numpy's own builds on x86-64 with AVX-512.
    """
    rng = np.random.RandomState(0)
    a, b = rng.randn(64, _BLOCK).astype(np.float32), rng.randn(_BLOCK, 512).astype(np.float32)
    total = np.zeros((64, 512), np.float32)
    for k in range(_BLOCK):
        total = (total + a[:, k, None].astype(np.float64) * b[k]).astype(np.float32)
    return bool(np.array_equal(total, a @ b))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Sequence[Window], group: int) -> Tensor:
    """Convolve (N, C, H, W) on the CPU in single precision; gradients are torch's.

    Args:
        x: the bottom.
        weight: (num_output, C / group, kernel_h, kernel_w).
        bias: (num_output,), or None.
        windows: of the height and the width.
        group: how many groups the channels are in.
    """
    return _Convolve.apply(x, weight, bias, tuple(windows), group)  # type: ignore[no-any-return, no-untyped-call]


class _Convolve(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, windows: tuple[Window, ...], group: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows, ctx.group, ctx.biases = windows, group, None if bias is None else [len(bias)]
        rows = weight.reshape(group, len(weight) // group, -1).numpy()
        top = torch.stack([_image(image, rows, windows) for image in x])
        return top if bias is None else top.add_(bias.reshape(-1, 1, 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, pad, dilation = zip(*((w.stride, w.pad, w.dilation) for w in ctx.windows), strict=True)
        wanted = list(ctx.needs_input_grad[:3])
        found = torch.ops.aten.convolution_backward(
            gradient, x, weight, ctx.biases, stride, pad, dilation, False, (0, 0), ctx.group, wanted
        )
        return (*found, None, None)


def _image(image: Tensor, rows: Matrix, windows: tuple[Window, ...]) -> Tensor:
    """Convolve one image (C, H, W), a band of output rows at a time; ``rows`` is the weight (group, O, K)."""
    tall, wide = windows
    padded = F.pad(image, (wide.pad, wide.pad, tall.pad, tall.pad))
    height, width = (
        (size - window.extent) // window.stride + 1 for size, window in zip(padded.shape[1:], windows, strict=True)
    )
    top = np.empty((rows.shape[0], rows.shape[1], height, width), np.float32)
    step = max(1, _COLUMNS // (rows.shape[0] * rows.shape[2] * width))
    for start in range(0, height, step):
        stop = min(start + step, height)
        band = padded[None, :, start * tall.stride : (stop - 1) * tall.stride + tall.extent]
        kernel, dilation, stride = zip(*((w.kernel, w.dilation, w.stride) for w in windows), strict=True)
        columns = F.unfold(band, kernel, dilation, 0, stride).numpy().reshape(rows.shape[0], rows.shape[2], -1)
        for g in range(rows.shape[0]):
            top[g, :, start:stop] = product(rows[g], columns[g]).reshape(-1, stop - start, width)
    return torch.from_numpy(top.reshape(-1, height, width))

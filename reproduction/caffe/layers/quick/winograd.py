"""Convolution with 3x3 kernels in training with fewer products: Winograd's minimal filtering.

An r x r kernel maps a tile of n x n inputs to m x m outputs, n = m + r - 1, with n^2 products per pair of channels
instead of (m r)^2: polynomials are multiplied by multiplying their values at n points. The choice of points determines
the rounding error. The points here were found by experiment; with the usual points 0, 1, -1, 2, -2 the error of a
layer is three times as large.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4; for the gradient of the
weights, the same matrices transposed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor
from torch.autograd.function import Function
from torch.nn import functional as F

from reproduction.caffe.typing import Float64, Floating

# Number n of inputs of a tile -> its finite points; the point at infinity is added to them.
_POINTS: dict[int, tuple[float, ...]] = {
    1: (),
    6: (0, 0.625, -0.625, 1.5, -1.5),
    8: (0, 1, -1, 2, -2, 0.5, -0.5),
    9: (0.25, -0.25, 0.6875, -0.6875, 1.125, -1.125, 2.125, -2.125),
}
_STEP, _TAPS = 4, 3  # a tile of the training convolution has 4 x 4 outputs
_SIZE = _STEP + _TAPS - 1  # and depends on 6 x 6 inputs
_TILES = 384  # tiles at a time: few enough for the CPU's caches, many enough that reading the weights takes little time
_WIDE = 128  # channels of bottom and top from which on the products take longer than the transforms
_MANY = 1024  # pixels from which on they take longer than the transform of the weights


@dataclass(frozen=True)
class WinogradMatrices:
    """The three matrices of F(m, r), which computes m outputs of a filter with r taps by n = m + r - 1 products.

    For a filter g with r taps and an input d with n values, ``output @ ((kernel @ g) * (input @ d))`` has the m values
    of the filtered input.

    Attributes:
        output: ``(m, n)``.
        kernel: ``(n, r)``.
        input: ``(n, n)``.
    """

    output: Float64
    kernel: Float64
    input: Float64

    @classmethod
    def compute(cls, outputs: int, taps: int, points: Sequence[float] | None = None) -> WinogradMatrices:
        """Compute the matrices of F(m, r) by the Cook-Toom method.

        Args:
            outputs: m, the number of outputs.
            taps: r, the number of taps of the filter.
            points: The n - 1 finite points; None for those with the smallest error in single precision.
        """
        size = outputs + taps - 1
        points = points or _POINTS[size]
        output, kernel, inner = np.zeros((outputs, size)), np.zeros((size, taps)), np.zeros((size, size))
        for j, point in enumerate(points):
            others = [other for other in points if other != point]
            output[:, j] = [point**i for i in range(outputs)]
            kernel[j] = np.array([point**i for i in range(taps)]) / math.prod(point - other for other in others)
            inner[j, :-1] = polynomial.polyfromroots(others)
        output[-1, -1] = kernel[-1, -1] = 1
        inner[-1] = polynomial.polyfromroots(points)
        return cls(output, kernel, inner)


_MATRICES = WinogradMatrices.compute(_STEP, _TAPS)


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Return whether ``convolve`` takes less time than torch: 3x3 kernels, many channels, and many pixels."""
    # In half precision, the rounding errors of the transforms would be too large.
    is_exact = x.dtype in (torch.float32, torch.float64)
    is_large = min(weight.shape[:2]) >= _WIDE and len(x) * math.prod(x.shape[2:]) >= _MANY
    return is_exact and is_large and weight.shape[2:] == (_TAPS, _TAPS)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, pads: Sequence[int]) -> Tensor:
    """Convolve with stride 1, with a quarter of the products in the forward pass and in both gradients.

    Errors are a few times those of torch: about 3e-6 of the largest value.

    Args:
        x: The bottom, (N, C, H, W).
        weight: The weights, (O, C, 3, 3).
        bias: The bias, (O,), or None.
        pads: The padding above and below, and that to the left and right.

    Returns:
        The top, (N, O, H + 2 pad - 2, W + 2 pad - 2), in channels_last format.
    """
    return _WinogradFunction.apply(x, weight, bias, tuple(pads))  # type: ignore[no-any-return, no-untyped-call]


class _WinogradFunction(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pads: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.pads = pads
        return _correlate(x, weight, bias, pads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (gradient,), pads = ctx.saved_tensors, gradients, ctx.pads
        if torch.is_grad_enabled():  # the gradients will be differentiated, which torch's operator can be
            where = ([len(weight)], [1, 1], pads, [1, 1], False, [0, 0], 1, ctx.needs_input_grad[:3])
            return (*torch.ops.aten.convolution_backward(gradient, x, weight, *where), None)
        found: list[Tensor | None] = [None] * 4
        if ctx.needs_input_grad[0]:
            flipped = weight.flip(2, 3).transpose(0, 1)
            found[0] = _correlate(gradient, flipped, None, [_TAPS - 1 - pad for pad in pads])
        if ctx.needs_input_grad[1]:
            found[1] = _sum_weight_gradient(x, gradient, pads)
        if ctx.needs_input_grad[2]:
            found[2] = gradient.sum((0, 2, 3))
        return tuple(found)


def _correlate(x: Tensor, weight: Tensor, bias: Tensor | None, pads: Sequence[int]) -> Tensor:
    sizes = [size + 2 * pad - _TAPS + 1 for size, pad in zip(x.shape[2:], pads, strict=True)]
    top = torch.empty((len(x), len(weight), *sizes), dtype=x.dtype, memory_format=torch.channels_last)
    kernels = _kernel_transform(x.dtype) @ weight.reshape(-1, _TAPS**2).T
    kernels = kernels.view(_SIZE**2, *weight.shape[:2]).transpose(1, 2)
    inputs, outputs = (_as_tensor(matrix, x.dtype) for matrix in (_MATRICES.input, _MATRICES.output))
    for image, result in zip(x.permute(0, 2, 3, 1), top.permute(0, 2, 3, 1), strict=True):
        for first, rows, columns in _bands(sizes):
            band = _cut(image, first * _STEP - pads[0], rows, columns, pads[1], _SIZE)
            y = torch.bmm(_transform(band, inputs), kernels)
            y = torch.bmm(outputs.expand(_SIZE, -1, -1), y.view(_SIZE, _SIZE, -1))
            y = outputs @ y.view(_SIZE, -1)
            y = y.view(-1, len(weight))
            y = y if bias is None else y.add_(bias)
            _store(y.view(_STEP, _STEP, rows, columns, -1), result[first * _STEP : (first + rows) * _STEP])
    return top


def _sum_weight_gradient(x: Tensor, gradient: Tensor, pads: Sequence[int]) -> Tensor:
    """Return the gradient of the weights, (O, C, 3, 3): of the products of tiles, the sum over all tiles."""
    total = x.new_zeros(_SIZE**2, gradient.shape[1], x.shape[1])
    inputs, outputs = (_as_tensor(matrix, x.dtype) for matrix in (_MATRICES.input, _MATRICES.output.T))
    for image, result in zip(x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), strict=True):
        for first, rows, columns in _bands(gradient.shape[2:]):
            bottom = _cut(image, first * _STEP - pads[0], rows, columns, pads[1], _SIZE)
            top = _cut(result, first * _STEP, rows, columns, 0, _STEP)
            torch.baddbmm(total, _transform(top, outputs).mT, _transform(bottom, inputs), out=total)
    taps = _kernel_transform(x.dtype).T @ total.view(_SIZE**2, -1)
    return taps.T.reshape(*total.shape[1:], _TAPS, _TAPS)


def _as_tensor(matrix: Floating, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype)


def _kernel_transform(dtype: torch.dtype) -> Tensor:
    return _as_tensor(np.kron(_MATRICES.kernel, _MATRICES.kernel), dtype)


def _bands(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield the first row of tiles, and the numbers of rows and columns of tiles, to compute at a time."""
    height, width = (-(-size // _STEP) for size in sizes)
    count = -(-height // max(1, round(height * width / _TILES)))  # bands of about equal height
    for first in range(0, height, count):
        yield first, min(count, height - first), width


def _cut(image: Tensor, top: int, rows: int, columns: int, left: int, size: int) -> Tensor:
    """Return what tiles of ``size`` x ``size`` pixels cover, with zeros outside of the image ``(H, W, C)``.

    Args:
        image: The image.
        top: The first row.
        rows: The number of rows of tiles.
        columns: The number of columns of tiles.
        left: The number of columns of zeros to the left of the image.
        size: Height and width of a tile, pixels.
    """
    bottom, width = top + (rows - 1) * _STEP + size, (columns - 1) * _STEP + size
    kept = image[max(top, 0) : bottom]
    above = max(-top, 0)
    sides = (0, 0, left, width - left - image.shape[1], above, bottom - top - above - len(kept))
    return F.pad(kept, sides).contiguous()


def _transform(band: Tensor, matrix: Tensor) -> Tensor:
    """Return the tiles of a band ``(h, w, C)``, transformed along both axes by a matrix, as ``(n * n, tiles, C)``."""
    n, size = matrix.shape
    (height, width, channels), line = band.shape, band.stride(0)
    rows, columns = ((side - size) // _STEP + 1 for side in (height, width))
    # Rows first, for whole lines of pixels at once: tiles that overlap within a line share this work.
    lines = band.as_strided((rows, size, line), (_STEP * line, line, 1))
    lines = torch.bmm(matrix.expand(rows, -1, -1), lines)
    shape, strides = (n, size, rows, columns, channels), (line, channels, n * line, _STEP * channels, 1)
    windows = lines.as_strided(shape, strides).reshape(n, size, -1)
    return torch.bmm(matrix.expand(n, -1, -1), windows).view(n * n, rows * columns, channels)


def _store(tiles: Tensor, out: Tensor) -> None:
    """Copy tiles ``(m, m, rows, columns, O)`` to ``out``, ``(H, W, O)``, without what is past its end."""
    tiles = tiles.permute(2, 0, 3, 1, 4)
    for rows, down in _divide(out.shape[0]):
        for columns, across in _divide(out.shape[1]):
            below, beside = (slice(side.start // _STEP, -(-side.stop // _STEP)) for side in (rows, columns))
            part = tiles[below, :down, beside, :across]
            out[rows, columns].view(part.shape).copy_(part)


def _divide(size: int) -> Iterator[tuple[slice, int]]:
    """Yield the pixels of the whole tiles of an axis, and those of an incomplete last one, with the size of a tile."""
    whole = size // _STEP * _STEP
    if whole:
        yield slice(0, whole), _STEP
    if whole < size:
        yield slice(whole, size), size - whole

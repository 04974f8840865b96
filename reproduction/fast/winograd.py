"""Convolutions with fewer products: Winograd's minimal filtering, as a few large matrix products.

An r x r kernel maps a tile of n x n inputs to m x m outputs, n = m + r - 1, with n^2 products per pair of channels
instead of (m r)^2: polynomials are multiplied by multiplying their values at n points. The choice of points determines
the rounding error. The points here were found by experiment; with the usual points 0, 1, -1, 2, -2 the error of a
layer is three times as large. The matrices for n = 6, which ``bf16`` uses, are exact in bfloat16's eight bits.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor

from reproduction.caffe.typing import Float64
from reproduction.fast.memory import Memory

# Number n of inputs of a tile -> its finite points; the point at infinity is added to them.
_POINTS: dict[int, tuple[float, ...]] = {
    1: (),
    6: (0, 0.625, -0.625, 1.5, -1.5),
    8: (0, 1, -1, 2, -2, 0.5, -0.5),
    9: (0.25, -0.25, 0.6875, -0.6875, 1.125, -1.125, 2.125, -2.125),
}
_OUTPUTS = 512  # output channels computed at a time
_BLOCK_BYTES = 2 << 20  # size of the transformed inputs of a block, so that the CPU's caches hold them
_ENOUGH = 384  # tiles per block for which the time to read the weights is always small


@dataclass(frozen=True)
class Form:
    """The three matrices of F(m, r): ``output @ ((kernel @ g) * (input @ d))`` is the filter g applied to d.

    Here g has r taps, d has n values, and the result has m values.

    Attributes:
        output: ``(m, n)``.
        kernel: ``(n, r)``.
        input: ``(n, n)``.
    """

    output: Float64
    kernel: Float64
    input: Float64

    @classmethod
    def of(cls, outputs: int, taps: int) -> Form:
        """Compute the matrices of F(outputs, taps) by the Cook-Toom method."""
        size = outputs + taps - 1
        points = _POINTS[size]
        output, kernel, inner = np.zeros((outputs, size)), np.zeros((size, taps)), np.zeros((size, size))
        for j, point in enumerate(points):
            others = [other for other in points if other != point]
            output[:, j] = [point**i for i in range(outputs)]
            kernel[j] = np.array([point**i for i in range(taps)]) / math.prod(point - other for other in others)
            inner[j, :-1] = polynomial.polyfromroots(others)
        output[-1, -1] = kernel[-1, -1] = 1
        inner[-1] = polynomial.polyfromroots(points)
        return cls(output, kernel, inner)


class Winograd:
    """A convolution with a square kernel and stride 1, with an optional ReLU; the weights are transformed once.

    With tiles of one output along the columns, only the rows are transformed; the r taps of a row and all channels are
    the inner dimension of one matrix product. This saves fewer products, but the r^2 weights become n r instead of n^2,
    and the rounding error is smaller. It is used for large kernels.

    Args:
        weight: ``(O, C, r, r)``.
        bias: ``(O,)``, or None.
        outputs: m, the outputs of a tile along rows and columns.
        relu: Whether to apply a ReLU.
        dtype: Dtype of the products.

    Attributes:
        size: n, the inputs of a tile along rows and columns (1 along columns that are not transformed).
        depth: Inner dimension of the matrix products: C, or C * r if only the rows are transformed.
        weight: The transformed weights, in one axis; ``slices`` returns views ``(n * n, outputs, depth)`` of it.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, outputs: tuple[int, int], *, relu: bool, dtype: torch.dtype
    ):
        self.outputs, self.taps, self.relu = outputs, weight.shape[-1], relu
        self.num_output, self.channels = weight.shape[:2]
        self.depth = self.channels * (self.taps if outputs[1] == 1 else 1)
        forms = [Form.of(m, self.taps if m > 1 else 1) for m in outputs]
        self.size = len(forms[0].input), len(forms[1].input)
        self._to_products = [torch.from_numpy(form.input).to(dtype) for form in forms]
        self._from_products = [torch.from_numpy(form.output).to(dtype) for form in forms]
        # The extra column of ones adds the bias in the inverse transform.
        self._from_products[0] = torch.cat([self._from_products[0], torch.ones(outputs[0], 1, dtype=dtype)], 1)
        self._bias = (torch.zeros(self.num_output) if bias is None else bias.detach()).to(dtype)
        self.weight = torch.empty(math.prod(self.size) * self.num_output * self.depth, dtype=dtype)
        transform = torch.from_numpy(np.kron(forms[0].kernel, forms[1].kernel))
        for outputs_of_slice, made in self.slices():
            taken = torch.split(weight.detach()[outputs_of_slice], 8), torch.split(made, 8, dim=1)
            for part, place in zip(*taken, strict=True):
                taps = part.permute(0, 2, 3, 1).double()  # 8 outputs at a time, to limit the memory in double precision
                place.copy_((transform @ taps.reshape(len(part), transform.shape[1], -1)).transpose(0, 1))

    def slices(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield each slice of the output channels, and its transformed weights ``(n * n, outputs, depth)``."""
        each = math.prod(self.size) * self.depth
        for first in range(0, self.num_output, _OUTPUTS):
            last = min(first + _OUTPUTS, self.num_output)
            yield slice(first, last), self.weight[first * each : last * each].view(-1, last - first, self.depth)

    def slack(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many extra rows and columns whole tiles read for an output of ``rows`` x ``columns`` pixels."""
        return -rows % self.outputs[0], -columns % self.outputs[1]

    def __call__(self, x: Tensor, out: Tensor, memory: Memory) -> None:
        """Convolve ``x`` into ``out``.

        Args:
            x: ``(N, C, h, w)``, with h = H + r - 1 + slack and w = W + r - 1 + slack; preferably channels-last.
            out: ``(N, O, H, W)``, with contiguous channels and any strides between pixels.
            memory: Allocator of temporary buffers, of the dtype of the products.
        """
        x = x.permute(0, 2, 3, 1)
        if x.stride()[2:] != (self.channels, 1):  # uncompiled layers may return another memory format
            x = x.contiguous()
        (m, _), wide = self.outputs, -(-out.shape[3] // self.outputs[1])
        high = -(-out.shape[2] // m)
        rows = min(high, self.rows(out.shape[3]))
        buffers = _Buffers(self, rows * wide, memory)
        for image, top in zip(x, out.permute(0, 2, 3, 1), strict=True):
            for first in range(0, high, rows):
                count = min(rows, high - first)
                _Block(self, count, wide, buffers).run(image[first * m :], top[first * m : (first + count) * m])
        buffers.give_back(memory)

    def rows(self, pixels: int) -> int:
        """Return how many rows of tiles to process at a time.

        The block should fit into the CPU's caches, but be large enough that reading the weights takes little time.

        Args:
            pixels: Width of the output.
        """
        fitting = _BLOCK_BYTES // (math.prod(self.size) * self.depth * self.weight.element_size())
        return max(1, max(fitting, min(self.depth * 3 // 4, _ENOUGH)) // -(-pixels // self.outputs[1]))


class _Buffers:
    """Temporary memory of a block; each buffer holds several values one after the other.

    Attributes:
        inputs: The inputs transformed along rows; then the inputs transformed along both axes.
        products: The windows between these two transforms; then the products; then the outputs.
        halfway: The products transformed along columns, and the bias.
    """

    def __init__(self, layer: Winograd, tiles: int, memory: Memory):
        (n, wide), columns = layer.size, layer.outputs[1]
        count = min(layer.num_output, _OUTPUTS)
        self.products = memory.take(tiles * n * wide * max(layer.depth, count))
        self.inputs = memory.take(tiles * n * wide * layer.depth)
        self.halfway = memory.take(tiles * (n + 1) * columns * count)

    def give_back(self, memory: Memory) -> None:
        for buffer in vars(self).values():
            memory.give(buffer)


class _Block:
    """Some rows of tiles of one image."""

    def __init__(self, layer: Winograd, high: int, wide: int, buffers: _Buffers):
        self.layer, self.high, self.wide, self.tiles, self.buffers = layer, high, wide, high * wide, buffers

    def run(self, x: Tensor, top: Tensor) -> None:
        """Convolve ``x``, ``(h, w, C)``, into ``top``, ``(H, W, O)``."""
        inputs = self._transform(x)
        for outputs, weight in self.layer.slices():
            self._multiply(inputs, weight, self.layer._bias[outputs], top[:, :, outputs])

    def _transform(self, x: Tensor) -> Tensor:
        """Return the transformed tiles ``(n * n, tiles, depth)`` of ``x``, ``(h, w, C)``."""
        layer, buffers = self.layer, self.buffers
        (rows, columns), (tall, broad), (m, step) = layer._to_products, layer.size, layer.outputs
        line = (self.wide * step + layer.taps - 1) * layer.channels
        # Rows first, for whole lines of pixels at once: tiles that overlap within a line share this work.
        made = _part(buffers.inputs, self.high, tall, line)
        lines = x.as_strided(made.shape, (m * x.stride(0), x.stride(0), 1))
        torch.bmm(rows.expand(self.high, -1, -1), lines, out=made)
        # The channels of a pixel and, if only the rows are transformed, of the r - 1 pixels after it are adjacent in
        # memory, so that `depth` consecutive values are one column of the matrix product.
        shape = (tall, broad, self.high, self.wide, layer.depth)
        windows = made.as_strided(shape, (line, layer.channels, tall * line, step * layer.channels, 1))
        spread = _part(buffers.products, *shape).copy_(windows).view(tall, broad, -1)
        torch.bmm(columns.expand(tall, -1, -1), spread, out=_part(buffers.inputs, *spread.shape))
        return _part(buffers.inputs, tall * broad, self.tiles, layer.depth)

    def _multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor, top: Tensor) -> None:
        """Multiply transformed inputs and weights, transform the products back and store them in ``top``."""
        layer, buffers, count = self.layer, self.buffers, weight.shape[1]
        (rows, columns), (tall, broad), (m, step) = layer._from_products, layer.size, layer.outputs
        halfway = _part(buffers.halfway, tall + 1, step, self.tiles * count)
        halfway[-1].view(-1, count).copy_(bias)
        products = _part(buffers.products, tall, broad, self.tiles * count)
        torch.bmm(inputs, weight.transpose(1, 2), out=products.view(-1, self.tiles, count))
        torch.bmm(columns.expand(tall, -1, -1), products, out=halfway[:-1])
        y = torch.mm(rows, halfway.view(tall + 1, -1), out=_part(buffers.products, m, step * self.tiles * count))
        self._store(y.view(m, step, self.high, self.wide, count), top)

    def _store(self, y: Tensor, top: Tensor) -> None:
        """Copy tiles ``(m, m, tile rows, tile columns, O)`` to ``top``, ``(H, W, O)``; drop outputs past the end."""
        tiles = y.permute(2, 0, 3, 1, 4)
        for rows, tile_rows in _parts(top.shape[0], y.shape[0]):
            for columns, tile_columns in _parts(top.shape[1], y.shape[1]):
                part = top[rows, columns]
                high, wide = tile_rows.stop - tile_rows.start, tile_columns.stop - tile_columns.start
                row, column, _ = part.stride()
                tall, broad = part.shape[0] // high, part.shape[1] // wide
                place = part.as_strided(
                    (high, tall, wide, broad, part.shape[2]), (tall * row, row, broad * column, column, 1)
                )
                source = tiles[tile_rows, :tall, tile_columns, :broad]
                if self.layer.relu:
                    torch.clamp_min(source, 0, out=place)
                else:
                    place.copy_(source)


def _part(buffer: Tensor, *shape: int) -> Tensor:
    """Return the first values of a buffer as a view of the given shape."""
    return buffer[: math.prod(shape)].view(shape)


def _parts(pixels: int, tile: int) -> list[tuple[slice, slice]]:
    """Divide an axis into whole tiles and the rest; return the slices of pixels and of tiles."""
    full, rest = divmod(pixels, tile)
    found = [(slice(0, full * tile), slice(0, full))] if full else []
    return found + ([(slice(full * tile, pixels), slice(full, full + 1))] if rest else [])

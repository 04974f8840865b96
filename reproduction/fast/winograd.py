"""Convolutions with fewer products: Winograd's minimal filtering, as a few large products of matrices.

A tile of n x n inputs becomes m x m outputs of an r x r kernel, n = m + r - 1, by n^2 products for each pair of
channels instead of (m r)^2: polynomials are multiplied by their values at n points. Which points decides what is lost
to rounding. Those here were found by trying: with the customary 0, 1, -1, 2, -2 the error of a layer is three times
as great.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numpy.polynomial import polynomial
from torch import Tensor

from reproduction.fast.memory import Memory

Matrix = npt.NDArray[np.float64]

# By the number of inputs of a tile: the finite points; infinity is always one more.
_POINTS: dict[int, tuple[float, ...]] = {
    6: (0, 0.625, -0.625, 1.5, -1.5),
    8: (0, 1, -1, 2, -2, 0.5, -0.5),
}
# Those whose matrices bfloat16 holds exactly.
_COARSE_POINTS: dict[int, tuple[float, ...]] = {6: (0, 1, -1, 0.5, -2)}
_OUTPUTS = 512  # channels made at a time
_BLOCK_BYTES = 2 << 20  # of transformed inputs: what the caches hold


@dataclass(frozen=True)
class Form:
    """The three matrices of F(m, r): ``output @ ((kernel @ g) * (input @ d))`` are m values of the filter g over d.

    Attributes:
        output: (m, n).
        kernel: (n, r).
        input: (n, n).
    """

    output: Matrix
    kernel: Matrix
    input: Matrix

    @classmethod
    def of(cls, outputs: int, taps: int, dtype: torch.dtype = torch.float32) -> Form:
        """Work out the matrices after Cook and Toom, with the best points for products of a type."""
        size = outputs + taps - 1
        points = (_COARSE_POINTS if dtype is torch.bfloat16 else _POINTS)[size]
        output, kernel, input = np.zeros((outputs, size)), np.zeros((size, taps)), np.zeros((size, size))
        for j, point in enumerate(points):
            others = [other for other in points if other != point]
            output[:, j] = [point**i for i in range(outputs)]
            kernel[j] = np.array([point**i for i in range(taps)]) / math.prod(point - other for other in others)
            input[j, :-1] = polynomial.polyfromroots(others)
        output[-1, -1] = kernel[-1, -1] = 1
        input[-1] = polynomial.polyfromroots(points)
        return cls(output, kernel, input)


class Winograd:
    """A convolution of square kernels, stride 1, with or without a ReLU; the kernels are transformed once.

    Args:
        weight: (O, C, r, r).
        bias: (O,) or None.
        outputs: m, pixels of a tile along each axis.
        relu: whether to cut off what is below 0.
        dtype: of the products.

    Attributes:
        weight: transformed, (n * n, C, O), n pixels being those that a tile reads along each axis.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, outputs: int, *, relu: bool, dtype: torch.dtype):
        self.outputs, self.taps, self.relu = outputs, weight.shape[-1], relu
        self.channels, self.num_output = weight.shape[1], weight.shape[0]
        form = Form.of(outputs, self.taps, dtype)
        both = {name: torch.from_numpy(np.kron(m, m)) for name, m in vars(form).items()}
        self.size = len(form.input)
        self._input = both["input"].to(dtype)
        # One column more than there are products: the bias is added on the way back.
        self._output = torch.cat([both["output"], torch.ones(outputs**2, 1)], 1).to(dtype)
        self._bias = (torch.zeros(self.num_output) if bias is None else bias.detach()).to(dtype)
        self.weight = torch.empty(self.size**2, self.channels, self.num_output, dtype=dtype)
        for first in range(0, self.num_output, 8):  # in parts, for the memory of double precision
            part = weight.detach()[first : first + 8].flatten(2).permute(2, 1, 0)
            made = both["kernel"] @ part.double().flatten(1)
            self.weight[:, :, first : first + 8] = made.view(self.size**2, self.channels, -1)

    def slack(self, pixels: int) -> int:
        """Give the pixels that whole tiles read past what these outputs need."""
        return -pixels % self.outputs

    def __call__(self, x: Tensor, out: Tensor, memory: Memory) -> None:
        """Convolve.

        Args:
            x: (N, C, h, w), channels side by side; h and w are those of the outputs, and r - 1 and ``slack`` more.
            out: (N, O, H, W), channels side by side, any strides between pixels.
            memory: of the type of the products.
        """
        n, m = self.size, self.outputs
        high, wide = (-(-pixels // m) for pixels in out.shape[2:])
        rows = min(high, self.rows(out.shape[3]))
        tiles = rows * wide
        # What is spread is not read after its transform: the products take its place.
        spread, outputs = n * n * self.channels, min(self.num_output, _OUTPUTS)
        counts = max(spread, (n * n + 1) * outputs), spread, m * m * outputs
        buffers = [memory.take(tiles * count) for count in counts]
        for image, top in zip(x.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1), strict=True):
            for first in range(0, high, rows):
                count = min(rows, high - first)
                block = _Block(self, count, wide, *buffers)
                block.run(image[first * m :], top[first * m : (first + count) * m])
        for buffer in buffers:
            memory.give(buffer)

    def rows(self, pixels: int) -> int:
        """Count the rows of tiles to take at a time: what the caches hold, but enough to be worth reading the weights.

        Args:
            pixels: of a row of the outputs.
        """
        fitting = _BLOCK_BYTES // (self.size**2 * self.channels * self.weight.element_size())
        return max(1, max(fitting, self.channels * 3 // 4) // -(-pixels // self.outputs))


class _Block:
    """Some rows of tiles of one image."""

    def __init__(self, layer: Winograd, high: int, wide: int, products: Tensor, v: Tensor, y: Tensor):
        self.layer, self.high, self.wide, self.tiles = layer, high, wide, high * wide
        count = layer.size**2 * self.tiles * layer.channels
        self.spread, self.products, self.v, self.y = products[:count], products, v[:count], y

    def run(self, x: Tensor, top: Tensor) -> None:
        """Convolve (h, w, C) to (H, W, O)."""
        layer = self.layer
        n, m, shape = layer.size, layer.outputs, (self.high, self.wide)
        row, column, _ = x.stride()
        windows = x.as_strided((n, n, *shape, layer.channels), (row, column, m * row, m * column, 1))
        self.spread.view(windows.shape).copy_(windows)
        torch.mm(layer._input, self.spread.view(n * n, -1), out=self.v.view(n * n, -1))
        for first in range(0, layer.num_output, _OUTPUTS):
            self._multiply(slice(first, min(first + _OUTPUTS, layer.num_output)), top)

    def _multiply(self, outputs: slice, top: Tensor) -> None:
        """Make some of the outputs."""
        layer, count = self.layer, outputs.stop - outputs.start
        n2, m = layer.size**2, layer.outputs
        products = self.products[: (n2 + 1) * self.tiles * count].view(n2 + 1, self.tiles, count)
        torch.bmm(self.v.view(n2, self.tiles, layer.channels), layer.weight[:, :, outputs], out=products[:-1])
        products[-1] = layer._bias[outputs]
        y = self.y[: m * m * self.tiles * count]
        torch.mm(layer._output, products.view(n2 + 1, -1), out=y.view(m * m, -1))
        self._store(y.view(m, m, self.high, self.wide, count), top[:, :, outputs])

    def _store(self, y: Tensor, top: Tensor) -> None:
        """Put tiles (m, m, tile rows, tile columns, O) in their places; what lies past the end is dropped."""
        m = self.layer.outputs
        tiles = y.permute(2, 0, 3, 1, 4)
        for rows, tile_rows in _parts(top.shape[0], m):
            for columns, tile_columns in _parts(top.shape[1], m):
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


def _parts(pixels: int, tile: int) -> list[tuple[slice, slice]]:
    """Divide an axis into whole tiles and what is left: pixels, and the tiles that they come from."""
    full, rest = divmod(pixels, tile)
    found = [(slice(0, full * tile), slice(0, full))] if full else []
    return found + ([(slice(full * tile, pixels), slice(full, full + 1))] if rest else [])

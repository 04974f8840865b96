"""Convolutions with fewer products: Winograd's minimal filtering, as a few large matrix products.

``WinogradMatrices`` explains it. In single precision, tiles are transformed along one axis after the other. In
bfloat16, whose products take less time than passes over memory, they are transformed along both axes at once, by one
product with the Kronecker product of both matrices.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.layers.quick.winograd import WinogradMatrices
from reproduction.fast.buffers import BufferPool
from reproduction.fast.kernels import ConvolutionKernel, check_converted

_OUTPUTS = 512  # output channels computed at a time
_BLOCK_BYTES = 6 << 20  # size of the transformed inputs of a block, so that the CPU's caches hold them
_ENOUGH_TILES = 384  # tiles per block for which the time to read the weights is always small

# The finite points for n = 6 in bfloat16, found by experiment: with those for single precision, the error of a net is
# twice as large, since bfloat16 has too few bits for the products of two matrices.
_COARSE_POINTS = (0, 0.75, -0.75, 1.5, -1.5)


class WinogradConvolution(ConvolutionKernel):
    """A convolution by Winograd's method, with a square kernel and stride 1, and an optional ReLU.

    The outputs are computed in tiles of m x m pixels; the weights are transformed once. With tiles of m x 1 pixels,
    only the rows are transformed; the r taps of a row and all channels are the inner dimension of one matrix product.
    This saves fewer products, but the r^2 weights become n r instead of n^2, and the rounding error is smaller. It is
    used for large kernels.

    Args:
        weight: ``(O, C, r, r)``.
        bias: ``(O,)``, or None.
        outputs: The rows and columns of a tile of outputs, (m, m) or (m, 1).
        relu: Whether to apply a ReLU.
        dtype: Dtype of the products.
        stored: The transformed weights, as in the attribute ``weight``; None to transform them.

    Raises:
        NetError: If ``stored`` has another size or dtype.

    Attributes:
        size: n, the inputs of a tile along rows and columns (1 along columns that are not transformed).
        at_once: Whether a tile is transformed along both axes by one product.
        weight_first: Whether the weight is the left matrix of the products, ``(n * n, outputs, depth)`` in memory.
        depth: Inner dimension of the matrix products: C, or C * r if only the rows are transformed.
        weight: The transformed weights, in one axis; ``slices`` returns views ``(n * n, depth, outputs)`` of it.
    """

    needs_out = True

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        outputs: tuple[int, int],
        *,
        relu: bool,
        dtype: torch.dtype,
        stored: Tensor | None = None,
    ):
        self.outputs, self.taps, self.relu = outputs, weight.shape[-1], relu
        self.num_output, self.channels = weight.shape[:2]
        self.depth = self.channels * (self.taps if outputs[1] == 1 else 1)
        self.at_once = dtype is torch.bfloat16
        points = _COARSE_POINTS if self.at_once and outputs[0] + self.taps == 7 else None
        axes = [(m, self.taps, points) if m > 1 else (1, 1) for m in outputs]
        matrices = [WinogradMatrices.compute(*axis) for axis in axes]
        self.size = len(matrices[0].input), len(matrices[1].input)
        # oneDNN copies the right matrix in another order, which takes long if it is larger than the caches.
        self.weight_first = self.at_once and outputs[1] == 1
        self._slice = self.num_output if self.weight_first else _OUTPUTS
        inputs, results = ([getattr(each, name) for each in matrices] for name in ("input", "output"))
        if self.at_once:
            inputs, results = [np.kron(*inputs)], [np.kron(*results)]
        # The extra column of ones adds the bias in the inverse transform.
        results[0] = np.pad(results[0], ((0, 0), (0, 1)), constant_values=1)
        self._input_transforms, self._output_transforms = (
            [torch.from_numpy(each).to(dtype) for each in found] for found in (inputs, results)
        )
        self._bias = (torch.zeros(self.num_output) if bias is None else bias.detach()).to(dtype)
        size = math.prod(self.size) * self.num_output * self.depth
        if stored is not None:
            self.weight = check_converted(stored, size, dtype)
            return
        self.weight = torch.empty(size, dtype=dtype)
        transform = torch.from_numpy(np.kron(matrices[0].kernel, matrices[1].kernel))
        for channels, transformed in self.slices():
            # 32 outputs at a time, to limit the memory in double precision
            parts = torch.split(weight.detach()[channels], 32), torch.split(transformed, 32, dim=2)
            for kernel, result in zip(*parts, strict=True):
                taps = kernel.permute(0, 2, 3, 1).double()
                result.copy_((transform @ taps.reshape(len(kernel), transform.shape[1], -1)).permute(1, 2, 0))

    def slices(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield pairs: a slice of the output channels, and its transformed weights ``(n * n, depth, outputs)``."""
        each = math.prod(self.size) * self.depth
        for first in range(0, self.num_output, self._slice):
            last = min(first + self._slice, self.num_output)
            part = self.weight[first * each : last * each]
            if self.weight_first:
                yield slice(first, last), part.view(-1, last - first, self.depth).transpose(1, 2)
            else:
                yield slice(first, last), part.view(-1, self.depth, last - first)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Convolve the bottom into ``out``, and return ``out``.

        Args:
            bottoms: One tensor ``(N, C, h, w)``, preferably channels-last, with h = H + r - 1 and w = W + r - 1, and
                rows and columns that complete the last tiles.
            out: ``(N, O, H, W)``, with contiguous channels and any strides between pixels.
            buffers: Allocator of temporary buffers, of the dtype of the products.
        """
        assert out is not None
        x = bottoms[0].permute(0, 2, 3, 1)
        if x.stride()[2:] != (self.channels, 1):  # uncompiled layers may return another memory format
            x = x.contiguous()
        m = self.outputs[0]
        tile_rows, tile_columns = (-(-size // m) for size, m in zip(out.shape[2:], self.outputs, strict=True))
        at_a_time = min(tile_rows, self._rows_at_a_time(tile_columns))
        block = _Block(self, at_a_time, tile_columns, buffers)
        for image, top in zip(x, out.permute(0, 2, 3, 1), strict=True):
            for first in range(0, tile_rows, at_a_time):
                block.rows = min(at_a_time, tile_rows - first)
                block.convolve(image[first * m :], top[first * m : (first + block.rows) * m])
        block.release(buffers)
        return (out,)

    def _rows_at_a_time(self, tile_columns: int) -> int:
        """Return how many rows of tiles to process at a time.

        The temporary memory should fit into the CPU's caches, but be large enough that reading the weights takes little
        time.
        """
        # In bfloat16, reading the weights takes more of the time.
        size = _BLOCK_BYTES * (2 if self.at_once else 1)
        fitting = size // (math.prod(self.size) * self.depth * self.weight.element_size())
        return max(1, max(fitting, min(self.depth * 3 // 4, _ENOUGH_TILES)) // tile_columns)


class _Block:
    """Some rows of tiles of one image, and the temporary memory that they need.

    Each buffer holds several values one after the other.

    Attributes:
        rows: The number of rows of tiles, at most as many as there is memory for.
        inputs: The inputs transformed along rows; then the inputs transformed along both axes.
        products: The windows that are transformed along columns, or at once; then the products, and the bias if it is
            added to them; then the outputs, unless tiles are transformed at once.
        halfway: The products transformed along columns, and the bias; or the outputs of tiles transformed at once.
    """

    def __init__(self, layer: WinogradConvolution, rows: int, columns: int, buffers: BufferPool):
        self.layer, self.rows, self.columns = layer, rows, columns
        (n, n_columns), outputs = layer.size, layer.outputs[1]
        channels = min(layer.num_output, layer._slice)
        values = n * n_columns * max(layer.depth, channels) + channels * layer.at_once
        self.products = buffers.allocate(self.tiles * values)
        self.inputs = buffers.allocate(self.tiles * n * n_columns * layer.depth)
        self.halfway = buffers.allocate(self.tiles * (n + 1) * outputs * channels)

    def release(self, buffers: BufferPool) -> None:
        for buffer in (self.products, self.inputs, self.halfway):
            buffers.release(buffer)

    @property
    def tiles(self) -> int:
        return self.rows * self.columns

    def convolve(self, x: Tensor, top: Tensor) -> None:
        """Convolve ``x``, ``(h, w, C)``, into ``top``, ``(H, W, O)``."""
        inputs = self._transform_inputs(x)
        for outputs, weight in self.layer.slices():
            self._multiply(inputs, weight, self.layer._bias[outputs], top[:, :, outputs])

    def _transform_inputs(self, x: Tensor) -> Tensor:
        """Return the transformed tiles ``(n * n, tiles, depth)`` of ``x``, ``(h, w, C)``."""
        layer = self.layer
        (*rows, columns), (n, n_columns), (m, step) = layer._input_transforms, layer.size, layer.outputs
        line = (self.columns * step + layer.taps - 1) * layer.channels
        row, after = x.stride(0), m * x.stride(0)  # from a row of pixels to the next, and from a row of tiles
        if rows:
            # Rows first, for whole lines of pixels at once: tiles that overlap within a line share this work.
            transformed = _view(self.inputs, self.rows, n, line)
            lines = x.as_strided(transformed.shape, (after, row, 1))
            torch.bmm(rows[0].expand(self.rows, -1, -1), lines, out=transformed)
            x, row, after = transformed, line, n * line
        # The channels of a pixel and, if only the rows are transformed, of the r - 1 pixels after it are adjacent in
        # memory, so that `depth` consecutive values are one column of the matrix product.
        shape = (n, n_columns, self.rows, self.columns, layer.depth)
        windows = x.as_strided(shape, (row, layer.channels, after, step * layer.channels, 1))
        copied = _view(self.products, *shape).copy_(windows).view(-1, len(columns), self.tiles * layer.depth)
        torch.bmm(columns.expand(len(copied), -1, -1), copied, out=_view(self.inputs, *copied.shape))
        return _view(self.inputs, n * n_columns, self.tiles, layer.depth)

    def _multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor, top: Tensor) -> None:
        """Multiply transformed inputs and weights, transform the products back and store them in ``top``."""
        layer, channels, (m, step) = self.layer, weight.shape[2], self.layer.outputs
        rows, *columns = layer._output_transforms
        products = _view(self.products, len(weight), self.tiles * channels)
        order = (channels, self.tiles) if layer.weight_first else (self.tiles, channels)
        if layer.weight_first:
            weight, inputs, bias = inputs.transpose(1, 2), weight.transpose(1, 2), bias[:, None]
        torch.bmm(inputs, weight, out=products.view(-1, *order))
        factors, results = (self.halfway, self.products) if columns else (self.products, self.halfway)
        factors = _view(factors, rows.shape[1], self.tiles * channels * (step if columns else 1))
        if columns:
            products = products.view(layer.size[0], layer.size[1], -1)
            torch.bmm(
                columns[0].expand(len(products), -1, -1), products, out=factors[:-1].view(len(products), step, -1)
            )
        factors[-1].view(-1, *order).copy_(bias)
        y = torch.mm(rows, factors, out=_view(results, len(rows), factors.shape[1]))
        if layer.weight_first:
            y = y.view(-1, *order).transpose(1, 2).contiguous()
        self._store(y.view(m, step, self.rows, self.columns, channels), top)

    def _store(self, y: Tensor, top: Tensor) -> None:
        """Copy tiles ``(m, m, tile rows, tile columns, O)`` to ``top``, ``(H, W, O)``; drop outputs past the end."""
        tiles = y.permute(2, 0, 3, 1, 4)
        for rows, tile_rows in _divide_axis(top.shape[0], y.shape[0]):
            for columns, tile_columns in _divide_axis(top.shape[1], y.shape[1]):
                part = top[rows, columns]
                down, across = tile_rows.stop - tile_rows.start, tile_columns.stop - tile_columns.start
                height, width = part.shape[0] // down, part.shape[1] // across  # of a tile, less at the end
                row, column, _ = part.stride()
                # The same pixels as (tile row, row in the tile, tile column, column in the tile, channel).
                target = part.as_strided(
                    (down, height, across, width, part.shape[2]), (height * row, row, width * column, column, 1)
                )
                source = tiles[tile_rows, :height, tile_columns, :width]
                if self.layer.relu:
                    torch.clamp_min(source, 0, out=target)
                else:
                    target.copy_(source)


def _view(buffer: Tensor, *shape: int) -> Tensor:
    """Return the first values of a buffer as a view of the given shape."""
    return buffer[: math.prod(shape)].view(shape)


def _divide_axis(pixels: int, tile: int) -> list[tuple[slice, slice]]:
    """Divide an axis into whole tiles and the rest; return the slices of pixels and of tiles."""
    full, rest = divmod(pixels, tile)
    parts = [(slice(0, full * tile), slice(0, full))] if full else []
    return parts + ([(slice(full * tile, pixels), slice(full, full + 1))] if rest else [])

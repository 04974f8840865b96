"""Convolutions: which kernel computes a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import and_, or_

import torch
from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.fast.kernels import (
    LARGE_TOP,
    ConvolutionKernel,
    Kernel,
    MatrixConvolution,
    TorchConvolution,
    check_converted,
)
from reproduction.fast.onednn_graph import is_available
from reproduction.fast.ops import Op, WindowOp, channel_factors, describe_folded
from reproduction.fast.regions import Region
from reproduction.fast.winograd import WinogradConvolution

# For each precision: kernel size -> outputs of a Winograd tile along rows and columns. Other kernels use no tiles.
_TILES: dict[str, dict[int, tuple[int, int]]] = {
    "exact": {3: (4, 4), 6: (3, 1), 7: (3, 1)},
    "winograd": {3: (4, 4), 5: (4, 4), 6: (3, 1), 7: (2, 2)},
    "tf32": {},
    "bf16": {3: (4, 4), 6: (3, 1), 7: (2, 1)},
}
# For each precision: the least number of channels for which Winograd's method is faster.
_LEAST_CHANNELS = {"exact": 32, "winograd": 32, "tf32": 0, "bf16": 256}

# Number of weights from which on a second copy is not worth its memory. If Winograd's method does not apply to them,
# the net's own weights are used without reordering.
LARGE = 4 << 20

# Estimates of the time of Winograd's method relative to that of the direct kernel: a constant, what transforming takes
# for each channel, and the time to read a transformed weight, in products. With few pixels, reading the weights takes
# most of the time, and Winograd's method has more weights. Measured with AVX-512 and AVX2, relative to oneDNN:
# 0.7 and 0.6 for 64 channels, 0.35 for 512 channels at 63 x 63 pixels, 0.9 and 0.8 at 14 x 14.
_WINOGRAD_TIME, TRANSFORM_TIME = 0.33, 28
READ_TIME = 24

# The largest such estimate for which Winograd's method is used: it needs a bottom with padding, and so a copy.
_WINOGRAD_GAIN = 0.78


@dataclass(eq=False, kw_only=True)
class ConvolutionOp(WindowOp):
    """A convolution, with the layers that were folded into it.

    It uses Winograd's method where that applies and is faster. Each kernel converts the weights when it is first used.

    Attributes:
        bottoms: The blob that is convolved and, if a sum was folded, the one that is added.
        group: The number of groups of channels.
        precision: One of ``PRECISIONS``.
        folded: The ops that were folded into this one, in order: affine ones, a sum, a ReLU; see ``folding.fold``.
        converted: Weights in the form of the kernels, by name, to which this op adds those that it converts.
        key: The first part of the names there: the top of the last layer that was folded into the weights.
        only_kernel: The kernel to use for all regions, since the net's weights were freed by ``compile(discard=True)``;
            None if they were not.
        tile: How many rows and columns of outputs Winograd's method computes at a time, such as (4, 4); None if it does
            not apply to this layer.
        is_large: Whether the weights are so large that a converted copy costs much memory.
    """

    group: int
    precision: str
    folded: tuple[Op, ...] = ()
    converted: dict[str, Tensor] = field(default_factory=dict)
    key: str = ""
    only_kernel: ConvolutionKernel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.key = self.key or self.tops[0]
        self._extended: dict[str, ConvolutionOp] = {}
        weight, (rows, columns) = self.layer.blobs[0], self.windows
        single, cpu = weight.dtype is torch.float32, weight.device.type == "cpu"
        self.products_per_pixel = weight.numel()
        self._dtype = torch.bfloat16 if self.precision == "bf16" and single else weight.dtype
        square = rows == columns and rows.stride == rows.dilation == self.group == 1
        wide = min(weight.shape[:2]) >= _LEAST_CHANNELS[self.precision]
        may_tile = square and wide and single and cpu and len(self.bottoms) == 1
        self.tile = _TILES[self.precision].get(rows.kernel) if may_tile else None
        self.writes_to_buffer = self.tile is not None
        self.is_large = weight.numel() >= LARGE
        self._as_matrix = self.is_large and self.group == 1 and cpu and not self.sums
        self._is_prepared = cpu and single and not self.is_large and is_available()

    @property
    def relu(self) -> bool:
        """Whether a ReLU is applied at the end."""
        return bool(self.folded) and _form(self.folded[-1]).is_relu

    @property
    def sums(self) -> bool:
        """Whether the second bottom is added."""
        return len(self.bottoms) > 1

    @property
    def has_own_weights(self) -> bool:
        """Whether no layer was folded into the weights, which are then the net's own."""
        return not any(_form(op).is_affine for op in self.folded)

    def extend(self, follower: Op) -> ConvolutionOp:
        """Return this op with one more op folded into it; the same op for the same follower."""
        if follower.tops[0] not in self._extended:
            added = [name for name in follower.bottoms if name != self.tops[0]]
            key = follower.tops[0] if _form(follower).is_affine else self.key
            self._extended[follower.tops[0]] = replace(
                self, bottoms=(*self.bottoms, *added), tops=follower.tops, folded=(*self.folded, follower), key=key
            )
        return self._extended[follower.tops[0]]

    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight ``(O, C / group, kernel_h, kernel_w)`` and the bias ``(O,)`` or None, with affine layers.

        Without such layers, they are the net's own.
        """
        weight, *biases = (blob.detach() for blob in self.layer.blobs)
        bias = biases[0] if biases else None
        affine = [op.layer for op in self.folded if _form(op).is_affine]
        if not affine:
            return weight, bias
        factor, offset = channel_factors(affine, len(weight), weight.device)
        if bias is not None:
            offset = offset + factor * bias
        return weight * factor.to(weight.dtype)[:, None, None, None], offset.to(weight.dtype)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shape of the top, which depends on that of the convolved bottom."""
        return super().top_shapes(bottoms[:1])

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the region of the top that the image influences, in the convolved bottom or in the added one."""
        return reduce(or_, bottoms[1:], super().reached(bottoms[:1], top))

    def uniform(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return a region of the top whose pixels are all equal."""
        return reduce(and_, bottoms[1:], super().uniform(bottoms[:1], top))

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels of the bottoms that are read; the padding is not read by a kernel that adds it itself."""
        read = top.read_by(self.windows)
        if top == Region.from_shape(self.top_shapes(bottoms)[0]) and not self._needs_padding(top):
            read &= Region.from_shape(bottoms[0])
        return [read, *[top] * (len(bottoms) - 1)]

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that is the fastest for the region ``top`` of the top.

        Args:
            bottoms: The regions of the bottoms; if that of the first one has no padding, the kernel adds it.
            top: The region of the top to compute.
        """
        if self.only_kernel is not None:
            return self.only_kernel
        if self._uses_winograd(top):
            return self._winograd
        if not self._is_prepared or self._as_matrix:
            return self._direct
        rows, columns = (b.start - a.start for a, b in zip(top.read_by(self.windows), bottoms[0], strict=True))
        assert isinstance(self._direct, TorchConvolution)
        return self._direct.with_padding((rows, columns), needs_out=self._has_large_top(top))

    def overread(self, top: Region) -> tuple[int, int]:
        """Return how many more rows and columns of the bottom are read than the region ``top`` of the top depends on.

        Winograd's method computes whole tiles of outputs, the last of which may extend beyond the region.
        """
        rows, columns = self.tile if self.tile and self._uses_winograd(top) else (1, 1)
        return -top.rows.size % rows, -top.columns.size % columns

    def describe(self, computed: Region) -> str:
        """Return in words how a region of the top is computed, such as "Winograd F(4x4, 3x3) with ReLU"."""
        text = "oneDNN" if self._is_prepared else "as torch does it"
        if self._as_matrix:
            text = "one product, with the weights of the net"
        if self.tile and self._uses_winograd(computed):
            kernel = self.windows[0].kernel
            text = f"Winograd F({self.tile[0]}x{self.tile[1]}, {kernel}x{kernel})"
        return describe_folded(text, self.folded)

    def _needs_padding(self, top: Region) -> bool:
        """Return whether the kernel for a region needs a bottom that includes the padding."""
        uses_buffer = self._uses_winograd(top) or self._has_large_top(top)
        return self.only_kernel is not None or uses_buffer or not self._is_prepared

    def _has_large_top(self, top: Region) -> bool:
        """Return whether to write this region of the top into a reused buffer, even if it has to be copied there."""
        size = top.pixels * len(self.layer.blobs[0]) * self._dtype.itemsize
        return size >= LARGE_TOP and self._is_prepared and not self.sums

    def _uses_winograd(self, computed: Region) -> bool:
        if self.only_kernel is not None:
            return isinstance(self.only_kernel, WinogradConvolution)
        return self.tile is not None and self._winograd_time(computed) < (_WINOGRAD_GAIN if self._is_prepared else 1)

    def _winograd_time(self, computed: Region) -> float:
        """Estimate the time of Winograd's method relative to that of the direct kernel."""
        assert self.tile is not None
        rows, columns = self.windows
        size = [outputs + rows.kernel - 1 if outputs > 1 else 1 for outputs in self.tile]
        weights = math.prod(size) * (rows.kernel if self.tile[1] == 1 else 1)
        products = rows.kernel * columns.kernel * computed.pixels
        transforms = TRANSFORM_TIME / min(self.layer.blobs[0].shape[:2])
        return _WINOGRAD_TIME + transforms + READ_TIME * weights / max(1, products)

    @cached_property
    def _winograd(self) -> ConvolutionKernel:
        assert self.tile is not None
        name = f"{self.key}:winograd{self.tile[0]}x{self.tile[1]}"
        kernel = WinogradConvolution(
            *self.weight_and_bias(),
            self.tile,
            relu=self.relu,
            dtype=self._dtype,
            stored=self.converted.get(name),
        )
        self.converted[name] = kernel.weight
        return kernel

    @cached_property
    def _direct(self) -> ConvolutionKernel:
        weight, bias = self.weight_and_bias()
        if self._as_matrix:
            weight = self._convert_dtype(weight)
            return MatrixConvolution(weight, bias, self.windows, relu=self.relu, dtype=self._dtype)
        if not self._is_prepared and self._dtype is not torch.float64:  # oneDNN Graph reorders weights itself
            weight = weight.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return TorchConvolution(weight, bias, self.windows, self.group, relu=self.relu, dtype=self._dtype)

    def _convert_dtype(self, weight: Tensor) -> Tensor:
        """Return the weight in the dtype of the products; a copy is stored in ``converted``."""
        name = f"{self.key}:matrix"
        if name in self.converted:
            return check_converted(self.converted[name], weight.numel(), self._dtype).view(weight.shape)
        made = weight.to(self._dtype).contiguous()
        if made.data_ptr() != weight.data_ptr():
            self.converted[name] = made.flatten()
        return made


def _form(op: Op) -> PointwiseForm:
    assert isinstance(op.form, PointwiseForm)
    return op.form

"""Convolutions: which kernel computes a region, and when it is certain to be faster than the layer's own forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from reproduction.fast.kernels import ConvolutionKernel, LayerForward, MatrixConvolution, TorchConvolution
from reproduction.fast.ops import Op, WindowOp
from reproduction.fast.regions import Region
from reproduction.fast.winograd import WinogradConvolution

# For each precision: kernel size -> outputs of a Winograd tile along rows and columns. Other kernels use no tiles.
_TILES: dict[str, dict[int, tuple[int, int]]] = {
    "exact": {3: (4, 4), 6: (3, 1), 7: (3, 1)},
    "winograd": {3: (4, 4), 5: (4, 4), 6: (3, 1), 7: (2, 2)},
    "tf32": {},
    "bf16": {3: (4, 4)},
}
# For each precision: the least number of channels for which Winograd's method is faster.
_LEAST_CHANNELS = {"exact": 32, "winograd": 32, "tf32": 0, "bf16": 256}

# Number of weights from which on a second copy is not worth its memory. If Winograd's method does not apply to them,
# the net's own weights are used without reordering.
LARGE = 4 << 20

# Time to read one weight from memory, in products, for estimates. With few pixels, reading the weights takes most of
# the time, and Winograd's method has more weights. Measured with AVX-512 and 512 channels: Winograd's method is a third
# slower at 7 x 7 pixels, equal at 14 x 14, and a third faster at 28 x 28.
READ_TIME = 60

# Largest fraction of the top for which computing only a part is faster, in spite of the copies that it needs.
_LARGEST_FRACTION = 0.9

# Time of a product in Winograd's method relative to one in the layer, for estimates; a little more than measured.
_WINOGRAD_TIME = 0.6


@dataclass(eq=False, kw_only=True)
class ConvolutionOp(WindowOp):
    """A convolution, computed by a kernel that may be faster than the layer's own forward.

    It uses Winograd's method where that applies and is faster.
    Each kernel converts the weights when it is first used.

    Attributes:
        group: The number of groups of channels.
        precision: One of ``PRECISIONS``.
        relu: Whether a ReLU follows, which the kernel then applies.
        only_kernel: The kernel to use for all regions, since the net's weights were freed by ``compile(discard=True)``;
            None if they were not.
        tile: How many rows and columns of outputs Winograd's method computes at a time, such as (4, 4); None if it does
            not apply to this layer.
        is_large: Whether the weights are so large that a converted copy costs much memory.
    """

    group: int
    precision: str
    relu: bool
    only_kernel: ConvolutionKernel | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        weight, (rows, columns) = self.layer.blobs[0], self.windows
        single, cpu = weight.dtype is torch.float32, weight.device.type == "cpu"
        self.products_per_pixel = self.layer_cost = weight.numel()
        self._dtype = torch.bfloat16 if self.precision == "bf16" and single else weight.dtype
        square = rows == columns and rows.stride == rows.dilation == self.group == 1
        wide = min(weight.shape[:2]) >= _LEAST_CHANNELS[self.precision]
        self.tile = _TILES[self.precision].get(rows.kernel) if square and wide and single and cpu else None
        self.writes_to_buffer = self.tile is not None
        self.is_large = weight.numel() >= LARGE
        self._as_matrix = self.is_large and self.group == 1 and self._dtype is weight.dtype and cpu
        self._always = not cpu or self._dtype is not weight.dtype  # the layer does not compute in bfloat16

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> ConvolutionKernel:
        """Return the kernel that is the fastest for the region ``top`` of the top; ``bottoms`` is not used."""
        if self.only_kernel is not None:
            return self.only_kernel
        return self._winograd if self._uses_winograd(top) else self._direct

    def overread(self, top: Region) -> tuple[int, int]:
        """Return how many more rows and columns of the bottom are read than the region ``top`` of the top depends on.

        Winograd's method computes whole tiles of outputs, the last of which may extend beyond the region.
        """
        rows, columns = self.tile if self.tile and self._uses_winograd(top) else (1, 1)
        return -top.rows.size % rows, -top.columns.size % columns

    def is_faster(self, computed: Region, top: Region) -> bool:
        """Return whether a kernel computes a region of the top faster than the layer computes the complete top.

        It is also True where the layer cannot be used, because its weights were freed or it does not support the dtype;
        and always on a GPU.

        Args:
            computed: The region of the top that is computed.
            top: The region of all its pixels.
        """
        small = computed.pixels <= _LARGEST_FRACTION * top.pixels
        return self._always or self.only_kernel is not None or small or self._uses_winograd(computed)

    def relative_time(self, computed: Region) -> float:
        """Return the estimated time per pixel of this region of the top, as a fraction of the layer's own."""
        return self._winograd_time(computed) if self._uses_winograd(computed) else 1.0

    def describe(self, computed: Region) -> str:
        """Return in words how a region of the top is computed, such as "Winograd F(4x4, 3x3) with ReLU"."""
        text = "one product, with the weights of the net" if self._as_matrix else "as torch does it"
        if self.tile and self._uses_winograd(computed):
            kernel = self.windows[0].kernel
            text = f"Winograd F({self.tile[0]}x{self.tile[1]}, {kernel}x{kernel})"
        return text + (" with ReLU" if self.relu else "")

    def uncompiled(self) -> Op:
        """Return an op that runs the layer's own forward, and then the ReLU that this op includes, if any."""
        return WindowOp(
            self.name, self.layer, self.bottoms, self.tops, "as it is" + (" with ReLU" if self.relu else ""),
            products_per_pixel=self.products_per_pixel, layer_cost=self.layer_cost, windows=self.windows,
            kernel=LayerForward(self.layer, relu=self.relu), computes_regions=False,
        )  # fmt: skip

    def _uses_winograd(self, computed: Region) -> bool:
        if self.only_kernel is not None:
            return isinstance(self.only_kernel, WinogradConvolution)
        return self.tile is not None and self._winograd_time(computed) < 1

    def _winograd_time(self, computed: Region) -> float:
        """Estimate the time of Winograd's method relative to that of the layer."""
        assert self.tile is not None
        rows, columns = self.windows
        size = [outputs + rows.kernel - 1 if outputs > 1 else 1 for outputs in self.tile]
        weights = math.prod(size) * (rows.kernel if self.tile[1] == 1 else 1)
        taps = rows.kernel * columns.kernel
        products = taps * computed.pixels
        return (_WINOGRAD_TIME * products + READ_TIME * weights) / max(1, products + READ_TIME * taps)

    @cached_property
    def _winograd(self) -> ConvolutionKernel:
        assert self.tile is not None
        return WinogradConvolution(*self._weight_and_bias, self.tile, relu=self.relu, dtype=self._dtype)

    @cached_property
    def _direct(self) -> ConvolutionKernel:
        weight, bias = self._weight_and_bias
        if self._as_matrix:
            return MatrixConvolution(weight, bias, self.windows, relu=self.relu)
        return TorchConvolution(weight, bias, self.windows, self.group, relu=self.relu, dtype=self._dtype)

    @property
    def _weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        weight, *bias = self.layer.blobs
        return weight, bias[0] if bias else None

"""Choose the kernel of a convolution, and estimate when it is certain to be faster than the layer's own forward."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.compiled_forms import ConvolutionForm
from reproduction.fast.kernels import MatrixConvolution, TorchConvolution
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

ConvolutionKernel = WinogradConvolution | MatrixConvolution | TorchConvolution


class ConvolutionKernels:
    """The kernels that a convolution can use in one precision; each converts the weights when it is first used.

    Args:
        layer: The layer, whose blobs are the weights and the bias.
        form: The convolution that it computes.
        precision: One of ``PRECISIONS``.
        relu: Whether a ReLU follows, which the kernel then applies.

    Attributes:
        tile: Outputs of a Winograd tile along rows and columns; None if Winograd's method is not used.
        is_large: Whether the weights are so large that a second copy matters.
        only: The only kernel that may be used, after ``discard`` has freed the weights; otherwise None.
    """

    def __init__(self, layer: Layer, form: ConvolutionForm, precision: str, *, relu: bool):
        self._layer, self._form, self.relu = layer, form, relu
        weight, (rows, columns) = layer.blobs[0], form.windows
        single, cpu = weight.dtype is torch.float32, weight.device.type == "cpu"
        self._dtype = torch.bfloat16 if precision == "bf16" and single else weight.dtype
        square = rows == columns and rows.stride == rows.dilation == form.group == 1
        wide = min(weight.shape[:2]) >= _LEAST_CHANNELS[precision]
        self.tile = _TILES[precision].get(rows.kernel) if square and wide and single and cpu else None
        self.is_large = weight.numel() >= LARGE
        self._as_matrix = self.is_large and form.group == 1 and self._dtype is weight.dtype and cpu
        self._always = not cpu or self._dtype is not weight.dtype  # the layer does not compute in bfloat16
        self._taps = rows.kernel * columns.kernel
        self.only: ConvolutionKernel | None = None

    def choose(self, computed: Region) -> ConvolutionKernel:
        """Return the kernel for a region of the top."""
        if self.only is not None:
            return self.only
        return self._winograd if self.uses_winograd(computed) else self._direct

    def describe(self, computed: Region) -> str:
        """Return a description of the kernel for a region of the top."""
        text = "one product, with the weights of the net" if self._as_matrix else "as torch does it"
        if self.tile and self.uses_winograd(computed):
            kernel = self._form.windows[0].kernel
            text = f"Winograd F({self.tile[0]}x{self.tile[1]}, {kernel}x{kernel})"
        return text + (" with ReLU" if self.relu else "")

    def uses_winograd(self, computed: Region) -> bool:
        """Return whether a region of the top is computed by Winograd's method."""
        if self.only is not None:
            return isinstance(self.only, WinogradConvolution)
        return self.tile is not None and self._winograd_time(computed) < 1

    def overread(self, computed: Region) -> tuple[int, int]:
        """Return how many more rows and columns the kernel reads, because Winograd's tiles may reach past the end."""
        rows, columns = self.tile if self.tile and self.uses_winograd(computed) else (1, 1)
        return -computed.rows.size % rows, -computed.columns.size % columns

    def is_faster(self, computed: Region, top: Region) -> bool:
        """Return whether computing a region of the top is faster than the layer, or the layer cannot compute it."""
        small = computed.pixels <= _LARGEST_FRACTION * top.pixels
        return self._always or self.only is not None or small or self.uses_winograd(computed)

    def relative_time(self, computed: Region) -> float:
        """Estimate the time of the kernel relative to that of the layer, for the same region of the top."""
        return self._winograd_time(computed) if self.uses_winograd(computed) else 1.0

    def _winograd_time(self, computed: Region) -> float:
        assert self.tile is not None
        kernel = self._form.windows[0].kernel
        size = [outputs + kernel - 1 if outputs > 1 else 1 for outputs in self.tile]
        weights = math.prod(size) * (kernel if self.tile[1] == 1 else 1)
        products = self._taps * computed.pixels
        return (_WINOGRAD_TIME * products + READ_TIME * weights) / max(1, products + READ_TIME * self._taps)

    @cached_property
    def _winograd(self) -> WinogradConvolution:
        assert self.tile is not None
        weight, bias = self._weight_and_bias
        return WinogradConvolution(weight, bias, self.tile, relu=self.relu, dtype=self._dtype)

    @cached_property
    def _direct(self) -> MatrixConvolution | TorchConvolution:
        weight, bias = self._weight_and_bias
        if self._as_matrix:
            return MatrixConvolution(weight, bias, self._form.windows, relu=self.relu)
        return TorchConvolution(
            weight, bias, self._form.windows, self._form.group, relu=self.relu, dtype=self._dtype
        )  # fmt: skip

    @property
    def _weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        weight, *bias = self._layer.blobs
        return weight, bias[0] if bias else None

"""Choose the form of a convolution's weights, and estimate when it is certain to be faster than the layer's forward."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from reproduction.caffe.layers.convolution import Convolution
from reproduction.fast import kernels
from reproduction.fast.regions import Region
from reproduction.fast.winograd import Winograd

# For each precision: kernel size -> outputs of a Winograd tile along rows and columns. Other kernels use no tiles.
TILES: dict[str, dict[int, tuple[int, int]]] = {
    "exact": {3: (4, 4), 6: (3, 1), 7: (3, 1)},
    "winograd": {3: (4, 4), 5: (4, 4), 6: (3, 1), 7: (2, 2)},
    "tf32": {},
    "bf16": {3: (4, 4)},
}
# For each precision: the least number of channels for which Winograd's method is faster.
_CHANNELS = {"exact": 32, "winograd": 32, "tf32": 0, "bf16": 256}

# Number of weights from which on a second copy is not worth its memory. If Winograd's method does not apply to them,
# the net's own weights are used without reordering.
HEAVY = 4 << 20

# Time to read one weight from memory, in products, for estimates. With few pixels, reading the weights takes most of
# the time, and Winograd's method has more weights. Measured with AVX-512 and 512 channels: Winograd's method is a third
# slower at 7 x 7 pixels, equal at 14 x 14, and a third faster at 28 x 28.
READ = 60

# Largest fraction of the top for which computing only a part is faster, in spite of the copies that it needs.
_PART = 0.9

# Time of a product in Winograd's method relative to one in the layer, for estimates; a little more than measured.
_WINOGRAD_TIME = 0.6

Convolved = kernels.Minimal | kernels.Product | kernels.Direct


class Form:
    """The kernels of a convolution in one precision; each converts the weights when it is first used.

    Args:
        layer: A convolution of blobs ``(N, C, H, W)``.
        precision: One of ``PRECISIONS``.
        relu: Whether a ReLU follows, which the kernel then applies.

    Attributes:
        tile: Outputs of a Winograd tile along rows and columns; None if Winograd's method is not used.
        heavy: Whether the weights are so large that a second copy matters.
        only: The only kernel that may be used, after ``discard`` has freed the weights; otherwise None.
    """

    def __init__(self, layer: Convolution, precision: str, *, relu: bool):
        self._layer, self.relu = layer, relu
        weight, (rows, columns) = layer.blobs[0], layer.windows
        single, cpu = weight.dtype is torch.float32, weight.device.type == "cpu"
        self._dtype = torch.bfloat16 if precision == "bf16" and single else weight.dtype
        square = rows == columns and rows.stride == rows.dilation == layer.group == 1
        wide = min(weight.shape[:2]) >= _CHANNELS[precision]
        self.tile = TILES[precision].get(rows.kernel) if square and wide and single and cpu else None
        self.heavy = weight.numel() >= HEAVY
        self._product = self.heavy and layer.group == 1 and self._dtype is weight.dtype and cpu
        self._always = not cpu or self._dtype is not weight.dtype  # the layer does not compute in bfloat16
        self._taps = rows.kernel * columns.kernel
        self.only: Convolved | None = None

    def kernel(self, made: Region) -> Convolved:
        """Return the kernel for a part of the top."""
        if self.only is not None:
            return self.only
        return self._winograd if self.uses_winograd(made) else self._direct

    def how(self, made: Region) -> str:
        """Return a description of the kernel for a part of the top."""
        how = "one product, with the weights of the net" if self._product else "as torch does it"
        if self.tile and self.uses_winograd(made):
            kernel = self._layer.windows[0].kernel
            how = f"Winograd F({self.tile[0]}x{self.tile[1]}, {kernel}x{kernel})"
        return how + (" with ReLU" if self.relu else "")

    def uses_winograd(self, made: Region) -> bool:
        """Return whether a part of the top is computed by Winograd's method."""
        if self.only is not None:
            return isinstance(self.only, kernels.Minimal)
        return self.tile is not None and self._winograd_time(made) < 1

    def slack(self, made: Region) -> tuple[int, int]:
        """Return how many extra rows and columns the kernel reads, because Winograd's tiles reach past the end."""
        rows, columns = self.tile if self.tile and self.uses_winograd(made) else (1, 1)
        return -made[0].size % rows, -made[1].size % columns

    def pays(self, made: Region, top: Region) -> bool:
        """Return whether the kernel is faster than the layer's forward.

        Args:
            made: The part of the top to compute.
            top: The whole top.
        """
        part = _pixels(made) <= _PART * _pixels(top)
        return self._always or self.only is not None or part or self.uses_winograd(made)

    def time(self, made: Region) -> float:
        """Estimate the time of the kernel relative to the layer's forward, for the same part of the top."""
        return self._winograd_time(made) if self.uses_winograd(made) else 1.0

    def _winograd_time(self, made: Region) -> float:
        assert self.tile is not None
        size = [outputs + self._layer.windows[0].kernel - 1 if outputs > 1 else 1 for outputs in self.tile]
        weights = math.prod(size) * (self._layer.windows[0].kernel if self.tile[1] == 1 else 1)
        products = self._taps * _pixels(made)
        return (_WINOGRAD_TIME * products + READ * weights) / max(1, products + READ * self._taps)

    @cached_property
    def _winograd(self) -> kernels.Minimal:
        assert self.tile is not None
        weight, bias = self._blobs
        return kernels.Minimal(Winograd(weight, bias, self.tile, relu=self.relu, dtype=self._dtype))

    @cached_property
    def _direct(self) -> kernels.Product | kernels.Direct:
        weight, bias = self._blobs
        if self._product:
            return kernels.Product(weight, bias, self._layer.windows, relu=self.relu)
        return kernels.Direct(
            weight, bias, self._layer.windows, self._layer.group, relu=self.relu, dtype=self._dtype
        )  # fmt: skip

    @property
    def _blobs(self) -> tuple[Tensor, Tensor | None]:
        weight, *rest = self._layer.blobs
        return weight, rest[0] if rest else None


def _pixels(region: Region) -> int:
    return region[0].size * region[1].size

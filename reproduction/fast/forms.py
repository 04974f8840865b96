"""Which form the weights of a convolution take, and when that form is sure to be quicker than the layer's own way."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from reproduction.caffe.layers.convolution import Convolution
from reproduction.fast import kernels
from reproduction.fast.regions import Region
from reproduction.fast.winograd import Winograd

# For each precision: kernel -> outputs of Winograd's tiles along rows and columns, and the channels from which on it
# pays.
TILES: dict[str, dict[int, tuple[int, int]]] = {
    "exact": {3: (4, 4), 6: (3, 1), 7: (3, 1)},
    "winograd": {3: (4, 4), 5: (4, 4), 6: (3, 1), 7: (2, 2)},
    "tf32": {},
    "bf16": {3: (4, 4)},
}
_CHANNELS = {"exact": 32, "winograd": 32, "tf32": 0, "bf16": 256}

# Weights that are multiplied as they lie where Winograd's method does nothing for them: another order alone costs more
# memory than it saves time.
HEAVY = 4 << 20

# Products in whose time one weight is read from memory, for estimates: few pixels wait for the weights, of which
# Winograd's method has more. Measured with AVX-512: with 512 channels it loses a third at 7 x 7 pixels, nothing at
# 14 x 14, and wins a third at 28 x 28.
READ = 60

# The part of the top up to which computing only that part pays for what it costs to cut and to frame it.
_PART = 0.9

# The time of Winograd's products against that of the layer's, for estimates: rather more than measured.
_WINOGRAD_TIME = 0.6

Convolved = kernels.Minimal | kernels.Product | kernels.Direct


class Form:
    """The forms of a convolution's weights in one precision; a kernel, which holds one, is made when first used.

    Args:
        layer: with two spatial axes after the channels, of which there is one axis before.
        precision: one of ``PRECISIONS``.
        relu: whether a ReLU follows.

    Attributes:
        tile: outputs of a tile along the rows and the columns; None without Winograd's method.
        heavy: whether a second form of the weights matters.
        only: the one kernel, once the net has given up its weights.
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
        self._always = not cpu or self._dtype is not weight.dtype  # asked for; the layer would not do that
        self._taps = rows.kernel * columns.kernel
        self.only: Convolved | None = None

    def kernel(self, made: Region) -> Convolved:
        """Return the kernel for a part of the top."""
        if self.only is not None:
            return self.only
        return self._winograd if self.uses_winograd(made) else self._direct

    def how(self, made: Region) -> str:
        """Return how the kernel for a part of the top computes, in words."""
        how = "one product, with the weights of the net" if self._product else "as torch does it"
        if self.tile and self.uses_winograd(made):
            kernel = self._layer.windows[0].kernel
            how = f"Winograd F({self.tile[0]}x{self.tile[1]}, {kernel}x{kernel})"
        return how + (" with ReLU" if self.relu else "")

    def uses_winograd(self, made: Region) -> bool:
        """Return whether Winograd's method is taken for a part of the top."""
        if self.only is not None:
            return isinstance(self.only, kernels.Minimal)
        return self.tile is not None and self._winograd_time(made) < 1

    def slack(self, made: Region) -> tuple[int, int]:
        """Return how many rows and columns past what it needs the kernel reads: Winograd's tiles reach past the end."""
        rows, columns = self.tile if self.tile and self.uses_winograd(made) else (1, 1)
        return -made[0].size % rows, -made[1].size % columns

    def pays(self, made: Region, top: Region) -> bool:
        """Return whether a kernel is quicker than the layer.

        Args:
            made: the part of the top that is asked for.
            top: the whole of it.
        """
        part = _pixels(made) <= _PART * _pixels(top)
        return self._always or self.only is not None or part or self.uses_winograd(made)

    def time(self, made: Region) -> float:
        """Estimate the time of the kernel against that of the layer, for one part."""
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

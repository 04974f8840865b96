"""Ways to compute a layer over a part of its blob; the padding is in the part already, so that no kernel pads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window
from reproduction.caffe.graph import place
from reproduction.caffe.layers.base import Layer
from reproduction.fast.memory import Memory
from reproduction.fast.regions import Region
from reproduction.fast.winograd import Winograd


class Kernel(Protocol):
    """Computes the part of the tops that a plan asks for."""

    @property
    def fills(self) -> bool:
        """Whether ``out`` must be given."""

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Compute the tops; the first one into ``out``, (N, C, H, W) with channels side by side, if it is given."""


def _into(result: Tensor, out: Tensor | None) -> Tensor:
    return result if out is None else out.copy_(result)


class Plain:
    """The layer's own forward."""

    fills = False

    def __init__(self, layer: Layer):
        self.layer = layer

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Compute the tops."""
        try:
            tops: tuple[Tensor, ...] = self.layer(*bottoms)
        except NetError as error:
            raise error.at(place(self.layer.spec)) from error.__cause__
        return tops if out is None else (_into(tops[0], out), *tops[1:])


class Same:
    """Hand the bottom on, as dropout does in testing, and Crop whose cut is the part that was asked for."""

    fills = False

    def __init__(self, tops: int = 1):
        self.tops = tops

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Give the bottom for each top."""
        return (_into(bottoms[0], out),) * self.tops


class Minimal:
    """Convolution by ``Winograd``."""

    fills = True

    def __init__(self, winograd: Winograd):
        self.winograd = winograd

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve."""
        assert out is not None
        self.winograd(bottoms[0], out, memory)
        return (out,)


class Direct:
    """Convolution as torch does it, with a ReLU; on the CPU the weights are laid out once, where torch can.

    Args:
        weight: (O, C / group, kernel_h, kernel_w).
        bias: (O,) or None.
        windows: of the rows and the columns; their padding is not looked at.
        group: of the channels.
        relu: whether to cut off what is below 0.
        dtype: of the products.
    """

    fills = False

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        windows: Sequence[Window],
        group: int,
        *,
        relu: bool,
        dtype: torch.dtype,
    ):
        self.stride = [window.stride for window in windows]
        self.dilation = [window.dilation for window in windows]
        self.group, self.relu, self.dtype = group, relu, dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.weight = weight.detach().to(dtype)
        self.packed = weight.device.type == "cpu" and dtype is not torch.float64 and packs()
        if self.packed:
            sizes = [1, weight.shape[1] * group, *(64 + window.extent for window in windows)]
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, [0, 0], self.stride, self.dilation, group, sizes
            )
        else:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve."""
        x = bottoms[0].to(self.dtype)
        if self.packed:
            relu = "relu" if self.relu else "none"
            y = torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, [0, 0], self.stride, self.dilation, self.group, relu, [], ""
            )
        else:
            y = F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.group)
            y = F.relu(y, inplace=True) if self.relu else y
        return (_into(y.to(bottoms[0].dtype), out),)


def packs() -> bool:
    """Say whether this torch has what its own compiler packs weights with; these calls are not promised to stay."""
    found = torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")  # type: ignore[no-untyped-call]
    return found and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_convolution_weight", "_convolution_pointwise")
    )


class MaxPool:
    """Maxima of windows without padding; the last ones may reach past the end."""

    fills = False

    def __init__(self, windows: Sequence[Window]):
        self.kernel, self.stride = ([getattr(window, name) for window in windows] for name in ("kernel", "stride"))

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Pool."""
        return (_into(F.max_pool2d(bottoms[0], self.kernel, self.stride, ceil_mode=True), out),)


class Upsample:
    """A deconvolution of each channel by itself with the same separable kernel: a matrix for each axis.

    Args:
        taps: the kernel's factors, for the rows and the columns.
        windows: of the rows and the columns.
        bottom: the part that is read.
        top: the part that is asked for.
        bias: (C,) or None.
    """

    fills = False

    def __init__(
        self, taps: Sequence[Tensor], windows: Sequence[Window], bottom: Region, top: Region, bias: Tensor | None
    ):
        self.rows, self.columns = (
            _spread(tap, window, low.start, low.size, high.start, high.size)
            for tap, window, low, high in zip(taps, windows, bottom, top, strict=True)
        )
        self.bias = None if bias is None else bias.detach()[:, None, None]

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Upsample."""
        y = self.rows @ bottoms[0].to(self.rows.dtype).contiguous() @ self.columns.T
        return (_into(y if self.bias is None else y.add_(self.bias), out),)


def _spread(taps: Tensor, window: Window, bottom: int, low: int, top: int, high: int) -> Tensor:
    """Give (high, low): what each pixel of the bottom adds to each of the top."""
    pixels = torch.arange(high, device=taps.device)[:, None] + top
    tap = pixels + window.pad - (torch.arange(low, device=taps.device) + bottom) * window.stride
    index = tap // window.dilation
    hit = (tap % window.dilation == 0) & (index >= 0) & (index < window.kernel)
    return torch.where(hit, taps[index.clamp(0, window.kernel - 1)], 0)


def separable(weight: Tensor, group: int) -> tuple[Tensor, Tensor] | None:
    """Factor the kernel of a deconvolution, if it treats every channel by itself and all alike.

    Args:
        weight: (C, O / group, kernel_h, kernel_w).
        group: of the channels.

    Returns:
        Factors (kernel_h,) and (kernel_w,) whose products are the kernel, to rounding; None if there are none.
    """
    weight = weight.detach()
    channels, outputs = weight.shape[0], weight.shape[1] * group
    if channels != outputs or group not in (1, channels):
        return None
    own = weight[:, 0] if group == channels else weight.diagonal().permute(2, 0, 1)
    kernel = own[0]
    if int(weight.count_nonzero()) != int(own.count_nonzero()) or not (own == kernel).all():
        return None
    place = int(kernel.abs().argmax())
    peak = kernel.flatten()[place]
    if not peak.isfinite() or peak == 0:
        return None
    rows, columns = kernel[:, place % kernel.shape[1]], kernel[place // kernel.shape[1]] / peak
    off = (rows[:, None] * columns - kernel).abs().max()
    return (rows, columns) if off <= torch.finfo(kernel.dtype).eps * peak.abs() else None

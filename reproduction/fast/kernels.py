"""Ways to compute a layer over a part of its blob; the padding is in the part already, so that no kernel pads."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.graph import place
from reproduction.fast.memory import Memory
from reproduction.fast.regions import Region
from reproduction.fast.winograd import Winograd

_SLICE = 256  # outputs that a product has at the least
_WINDOWS = 8 << 20  # values of windows laid out at a time
_BAND = 2 << 20  # values computed at a time, where they are copied to their place


class Kernel(Protocol):
    """Computes the part of the tops that a plan asks for."""

    @property
    def fills(self) -> bool:
        """Whether ``out`` must be given."""

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Compute the tops; the first one into ``out``, (N, C, H, W) with channels side by side, if it is given."""


def _into(result: Tensor, out: Tensor | None) -> Tensor:
    return result if out is None else out.copy_(result)


def _by_bands(x: Tensor, out: Tensor, rows: Window, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute some rows at a time, so that the caches hold what is copied to its place, and memory stays small."""
    count = max(1, _BAND // (len(out) * out.shape[1] * out.shape[3]))
    for first in range(0, out.shape[2], count):
        part = out[:, :, first : first + count]
        start = first * rows.stride
        part.copy_(compute(x[:, :, start : start + (part.shape[2] - 1) * rows.stride + rows.extent]))
    return out


class Plain:
    """The layer's own forward, in the precision of the net.

    Args:
        layer: what computes.
        relu: whether to cut off what is below 0 in the first top, which is memory of its own.
    """

    fills = False

    def __init__(self, layer: Layer, *, relu: bool = False):
        self.layer, self.relu = layer, relu

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Compute the tops."""
        try:
            tops: tuple[Tensor, ...] = self.layer(*bottoms)
        except NetError as error:
            raise error.at(place(self.layer.spec)) from error.__cause__
        if self.relu:
            F.relu(tops[0], inplace=True)
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
        self.weight = winograd.weight

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve."""
        assert out is not None
        self.winograd(bottoms[0], out, memory)
        return (out,)


class Direct:
    """Convolution as torch does it, with a ReLU; the channels of a pixel lie side by side, in the weights, too.

    The weights are not packed for torch's library: that chooses its way by the size of the images, and weights that
    were packed for another size made convolutions up to twenty times slower.

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
        self.rows = windows[0]
        self.group, self.relu, self.dtype = group, relu, dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve."""
        x = bottoms[0].to(self.dtype)
        if out is None:
            return (self._convolve(x).to(bottoms[0].dtype),)
        return (_by_bands(x, out, self.rows, self._convolve),)

    def _convolve(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.group)
        return F.relu(y, inplace=True) if self.relu else y


class Product:
    """Convolution as a product of matrices, with a ReLU: the weights as they lie in the net, the windows laid out.

    For weights that no cache holds and that Winograd's method does nothing for, as of a classifier made convolutional.
    Any other order of them would be a second copy; here nothing is copied but the windows, and these are few.

    Args:
        weight: (O, C, kernel_h, kernel_w).
        bias: (O,) or None.
        windows: of the rows and the columns; their padding is not looked at.
        relu: whether to cut off what is below 0.
    """

    fills = False

    def __init__(self, weight: Tensor, bias: Tensor | None, windows: Sequence[Window], *, relu: bool):
        self.windows, self.relu = tuple(windows), relu
        self.bias = None if bias is None else bias.detach()[:, None]
        matrix = weight.detach().flatten(1)
        # One product for each slice of the outputs: threads that share these, and no product, wait less.
        slices = max(count for count in range(1, max(1, len(matrix) // _SLICE) + 1) if len(matrix) % count == 0)
        self.weight = matrix.view(slices, -1, matrix.shape[1])

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve."""
        x, (slices, each, depth) = bottoms[0], self.weight.shape
        high, wide = (
            (size - window.extent) // window.stride + 1 for size, window in zip(x.shape[2:], self.windows, strict=True)
        )
        top = x.new_empty(len(x), slices * each, high, wide)
        rows = max(1, _WINDOWS // (depth * wide))
        for image, whole in zip(x, top, strict=True):
            for first in range(0, high, rows):
                part = whole[:, first : first + rows]
                seen = self._lay_out(image, first, part.shape[1])
                made = torch.bmm(self.weight, seen.expand(slices, -1, -1)).view(slices * each, -1)
                part.copy_(self._finish(made).view(part.shape))
        return (_into(top, out),)

    def _lay_out(self, image: Tensor, first: int, rows: int) -> Tensor:
        """Give the windows of some rows of outputs, (C * kernel_h * kernel_w, rows * columns)."""
        tall, wide = self.windows
        seen = image[:, first * tall.stride : (first + rows - 1) * tall.stride + tall.extent]
        if all((window.kernel, window.stride) == (1, 1) for window in self.windows):
            return seen.flatten(1)
        kernel, dilation, stride = ((getattr(tall, n), getattr(wide, n)) for n in ("kernel", "dilation", "stride"))
        return F.unfold(seen[None], kernel, dilation, 0, stride)[0]

    def _finish(self, made: Tensor) -> Tensor:
        made = made if self.bias is None else made.add_(self.bias)
        return made.clamp_min_(0) if self.relu else made


def _convolves_bf16() -> bool:
    """Return whether torch convolves bfloat16 without converting it; False where torch does not tell."""
    found = torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")  # type: ignore[no-untyped-call]
    if not found or not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def multiplies_bf16() -> bool:
    """Say whether this CPU multiplies bfloat16 itself; torch computes with it on others, too, but slower than without.

    Where torch does not tell, it does not.
    """
    if not _convolves_bf16():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True  # what torch calls supported is then the processor's own
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in asked if hasattr(torch.cpu, name))


class MaxPool:
    """Maxima of windows without padding; the last ones may reach past the end."""

    fills = False

    def __init__(self, windows: Sequence[Window]):
        self.kernel, self.stride = ([getattr(window, name) for window in windows] for name in ("kernel", "stride"))
        self.windows = tuple(windows)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Pool."""
        return (self._pool(bottoms[0]) if out is None else _by_bands(bottoms[0], out, self.windows[0], self._pool),)

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, ceil_mode=True)


class Pooled:
    """Convolution by ``Winograd``, and maxima of what it makes while the caches hold it; it is never there whole.

    Args:
        convolution: what is pooled.
        pooling: windows side by side, that begin where what is convolved begins.
        rows: pixels of a column of what is convolved.
        columns: pixels of a row of it.
    """

    fills = True

    def __init__(self, convolution: Minimal, pooling: MaxPool, rows: int, columns: int):
        self.winograd, self.pooling, self.size = convolution.winograd, pooling, (rows, columns)
        self.stride = pooling.windows[0].stride

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve and pool."""
        assert out is not None
        (high, wide), x, made = self.size, bottoms[0], self.winograd
        # Whole rows of tiles and of windows: as many as are convolved at a time anyway, or as the caches hold.
        least = math.lcm(made.outputs[0], self.stride)
        rows = max(made.rows(wide) * made.outputs[0], _BAND // (len(x) * made.num_output * wide))
        each = max(least, rows // least * least)
        for first in range(0, high, each):
            count = min(each, high - first)
            band = memory.image(len(x), made.num_output, count, wide)
            made(x[:, :, first : first + count + made.taps - 1 + made.slack(count, wide)[0]], band, memory)
            pooled = self.pooling([band], None, memory)[0]
            out[:, :, first // self.stride :][:, :, : pooled.shape[2]].copy_(pooled)
            memory.give(band)
        return (out,)


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
        # The columns first: the larger product is then one of each channel, which torch does quicker than one of all.
        y = self.rows @ (bottoms[0].to(self.rows.dtype).contiguous() @ self.columns.T)
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

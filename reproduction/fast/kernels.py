"""Kernels that compute a part of a layer's tops; they never pad, since their bottoms already contain the padding."""

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
from reproduction.caffe.net.graph import layer_place
from reproduction.fast.memory import Memory
from reproduction.fast.regions import Region
from reproduction.fast.winograd import Winograd

_SLICE = 256  # least number of output channels per matrix product
_WINDOWS = 8 << 20  # values that im2col produces at a time
_BAND = 2 << 20  # values computed at a time, if they are then copied to a buffer


class Kernel(Protocol):
    """A function that computes the part of a layer's tops that a plan needs."""

    @property
    def fills(self) -> bool:
        """Whether ``out`` is required."""

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Compute and return the tops.

        Args:
            bottoms: The parts of the bottoms that the tops depend on, padding included.
            out: Tensor ``(N, C, H, W)`` in channels-last format that receives the first top, or None.
            memory: Allocator of temporary buffers.
        """


def _into(result: Tensor, out: Tensor | None) -> Tensor:
    return result if out is None else out.copy_(result)


def _by_bands(x: Tensor, out: Tensor, rows: Window, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute ``out`` in bands of rows, so that each band is still in the CPU's caches when it is copied to ``out``."""
    count = max(1, _BAND // (len(out) * out.shape[1] * out.shape[3]))
    for first in range(0, out.shape[2], count):
        part = out[:, :, first : first + count]
        start = first * rows.stride
        part.copy_(compute(x[:, :, start : start + (part.shape[2] - 1) * rows.stride + rows.extent]))
    return out


class Plain:
    """The layer's own forward, in the net's dtype.

    Args:
        layer: The layer.
        relu: Apply a ReLU to the first top, in place; the top must not share memory with a bottom.
    """

    fills = False

    def __init__(self, layer: Layer, *, relu: bool = False):
        self.layer, self.relu = layer, relu

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Run the layer.

        Raises:
            NetError: If the layer raises an error; the layer's name, type and line are added to it.
        """
        try:
            tops: tuple[Tensor, ...] = self.layer(*bottoms)
        except NetError as error:
            raise error.at(layer_place(self.layer.layer_param)) from error.__cause__
        if self.relu:
            F.relu(tops[0], inplace=True)
        return tops if out is None else (_into(tops[0], out), *tops[1:])


class Same:
    """Return the bottom for each top, as for a Crop, whose bottom is already cut to the requested part."""

    fills = False

    def __init__(self, tops: int = 1):
        self.tops = tops

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Return the bottom for each top."""
        return (_into(bottoms[0], out),) * self.tops


class Minimal:
    """Convolution by Winograd's minimal filtering; see ``Winograd``."""

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
    """Convolution by ``F.conv2d`` in channels-last format, with an optional ReLU.

    The weights are not prepacked for oneDNN, which chooses its algorithm by the size of the images: with weights that
    were packed for another size, convolutions were up to twenty times slower.

    Args:
        weight: ``(O, C / group, kernel_h, kernel_w)``.
        bias: ``(O,)``, or None.
        windows: The windows along rows and columns; their padding is ignored.
        group: Number of groups of channels.
        relu: Whether to apply a ReLU.
        dtype: Dtype of the products.
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
    """Convolution by im2col and a matrix product with the net's own weights, with an optional ReLU.

    It is for weights that do not fit into the CPU's caches and that Winograd's method does not apply to, such as those
    of a classifier made convolutional. The weights are not copied; only the windows are, of which there are few.

    Args:
        weight: ``(O, C, kernel_h, kernel_w)``.
        bias: ``(O,)``, or None.
        windows: The windows along rows and columns; their padding is ignored.
        relu: Whether to apply a ReLU.
    """

    fills = False

    def __init__(self, weight: Tensor, bias: Tensor | None, windows: Sequence[Window], *, relu: bool):
        self.windows, self.relu = tuple(windows), relu
        self.bias = None if bias is None else bias.detach()[:, None]
        matrix = weight.detach().flatten(1)
        # One product per slice of the outputs: threads that compute separate products wait less than threads that
        # share one product.
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
        """Return im2col of some rows of outputs, ``(C * kernel_h * kernel_w, rows * columns)``."""
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
    """Return whether torch convolves bfloat16 without converting it; False if torch cannot report it."""
    found = torch.backends.mkldnn.is_available() and hasattr(torch.ops, "mkldnn")  # type: ignore[no-untyped-call]
    if not found or not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def multiplies_bf16() -> bool:
    """Return whether this CPU has instructions that multiply bfloat16; False if torch cannot report it.

    On other CPUs torch supports bfloat16, too, but it is slower there than single precision.
    """
    if not _convolves_bf16():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True  # on other architectures torch reports support only for CPUs with such instructions
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name)() for name in asked if hasattr(torch.cpu, name))


class MaxPool:
    """Max pooling without padding; the last windows may reach past the end (``ceil_mode``)."""

    fills = False

    def __init__(self, windows: Sequence[Window]):
        self.kernel, self.stride = ([getattr(window, name) for window in windows] for name in ("kernel", "stride"))
        self.windows = tuple(windows)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Pool the bottom."""
        return (self._pool(bottoms[0]) if out is None else _by_bands(bottoms[0], out, self.windows[0], self._pool),)

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, ceil_mode=True)


class Pooled:
    """Convolution by ``Winograd`` followed by max pooling, in bands that fit into the CPU's caches.

    The result of the convolution is never stored as a whole.

    Args:
        convolution: The convolution.
        pooling: Max pooling with adjacent windows, the first of which starts at the first output of the convolution.
        rows: Height of the convolution's output.
        columns: Width of the convolution's output.
    """

    fills = True

    def __init__(self, convolution: Minimal, pooling: MaxPool, rows: int, columns: int):
        self.winograd, self.pooling, self.size = convolution.winograd, pooling, (rows, columns)
        self.stride = pooling.windows[0].stride

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, memory: Memory) -> tuple[Tensor, ...]:
        """Convolve and pool."""
        assert out is not None
        (high, wide), x, made = self.size, bottoms[0], self.winograd
        # A band has whole rows of tiles and of windows: as many as the convolution processes at a time, or as fit into
        # the caches, whichever is more.
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
    """Depthwise deconvolution with one separable kernel for all channels, as two matrix products, one per axis.

    Args:
        taps: The factors of the kernel along rows and columns.
        windows: The windows along rows and columns.
        bottom: The part of the bottom that is read.
        top: The part of the top to compute.
        bias: ``(C,)``, or None.
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
        """Upsample the bottom."""
        # Columns first: the larger product is then batched by channel, which is faster in torch than one product.
        y = self.rows @ (bottoms[0].to(self.rows.dtype).contiguous() @ self.columns.T)
        return (_into(y if self.bias is None else y.add_(self.bias), out),)


def _spread(taps: Tensor, window: Window, bottom: int, low: int, top: int, high: int) -> Tensor:
    """Return a matrix ``(high, low)``: the weight with which each pixel of the bottom is added to each of the top.

    Args:
        taps: The factor of the kernel along this axis.
        window: The window along this axis.
        bottom: The first pixel of the bottom.
        low: Number of pixels of the bottom.
        top: The first pixel of the top.
        high: Number of pixels of the top.
    """
    pixels = torch.arange(high, device=taps.device)[:, None] + top
    tap = pixels + window.pad - (torch.arange(low, device=taps.device) + bottom) * window.stride
    index = tap // window.dilation
    hit = (tap % window.dilation == 0) & (index >= 0) & (index < window.kernel)
    return torch.where(hit, taps[index.clamp(0, window.kernel - 1)], 0)


def separable(weight: Tensor, group: int) -> tuple[Tensor, Tensor] | None:
    """Factor the kernel of a depthwise deconvolution, if it is separable and equal for all channels.

    Args:
        weight: ``(C, O / group, kernel_h, kernel_w)``.
        group: Number of groups of channels.

    Returns:
        Factors ``(kernel_h,)`` and ``(kernel_w,)`` whose outer product equals the kernel up to rounding, or None if
        there are no such factors.
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

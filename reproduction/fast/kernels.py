"""Kernels compute a region of a layer's top; they add no padding, since the bottoms that they receive include it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window, pool_sizes
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.compiled_forms import LRNForm
from reproduction.fast.buffers import BufferPool
from reproduction.fast.onednn_graph import OneDnnFunction
from reproduction.fast.regions import Region, Slices, Windows

Read = tuple[str, Slices | None]  # the name of a blob, and the slices of its stored pixels to read; None for all

_LEAST_OUTPUTS = 256  # least number of output channels per matrix product
_IM2COL_VALUES = 8 << 20  # values that im2col produces at a time
LARGE_TOP = 32 << 20  # bytes; the C library gives freed memory of this size back to the operating system
BAND_VALUES = 2 << 20  # values computed at a time, if they are then copied to a buffer


class Kernel:
    """A function that computes a region of a layer's top, or complete tops, from the pixels that it depends on.

    Attributes:
        needs_out: Whether the kernel can only write into a tensor that is passed as ``out``.
        is_recordable: Whether the kernel, without ``out``, consists of torch's operators with fixed arguments, so that
            oneDNN can prepare it together with others.
        may_return_views: Whether the tops may share memory with the bottoms.
    """

    needs_out: bool = False
    is_recordable: bool = False
    may_return_views: bool = False

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Compute and return the tops.

        Args:
            bottoms: The regions of the bottoms that the tops depend on, padding included.
            out: Tensor ``(N, C, H, W)`` in channels-last format to write the first top to, or None to allocate one.
            buffers: Allocator of temporary buffers.
        """
        raise NotImplementedError(type(self).__name__)


def write(result: Tensor, out: Tensor | None) -> Tensor:
    """Return ``result``, copied to ``out`` unless that is None."""
    return result if out is None else out.copy_(result)


def compute_in_bands(x: Tensor, out: Tensor, rows: Window, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute ``out`` in bands of rows, so that each band is still in the CPU's caches when it is copied to ``out``.

    All bands have the same number of rows, for kernels that prepare for a size; the last one may overlap with another.
    """
    height = out.shape[2]
    bands = -(-height * len(out) * out.shape[1] * out.shape[3] // BAND_VALUES)
    count = max(1, -(-height // max(1, bands)))
    for band in range(0, height, count):
        first = min(band, height - count)
        start = first * rows.stride
        read = x[:, :, start : start + (count - 1) * rows.stride + rows.extent]
        out[:, :, first : first + count].copy_(compute(read))
    return out


class LayerForward(Kernel):
    """A kernel that runs the layer's own forward on the bottoms that it receives, in the net's dtype.

    Args:
        layer: The layer.
        is_recordable: Whether the layer's forward consists of torch's operators with fixed arguments.
    """

    may_return_views = True

    def __init__(self, layer: Layer, *, is_recordable: bool = False):
        self.layer, self.is_recordable = layer, is_recordable

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Run the layer and return its tops, the first of them in ``out`` unless that is None.

        Raises:
            NetError: If the layer raises an error; the layer's name, type and line are added to it.
        """
        try:
            tops: tuple[Tensor, ...] = self.layer(*bottoms)
        except NetError as error:
            raise error.at(self.layer.layer_param.place) from error.__cause__
        return tops if out is None else (write(tops[0], out), *tops[1:])


class PassThrough(Kernel):
    """A kernel that returns its bottom, as for a Crop layer whose bottom is already cut to the region of the top."""

    may_return_views = True

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the bottom, copied to ``out`` unless that is None."""
        return (write(bottoms[0], out),)


class Concatenation(Kernel):
    """Concatenate the channels of the bottoms."""

    needs_out, is_recordable = True, True

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the bottoms one after the other, in ``out`` unless that is None."""
        return (torch.cat([*bottoms], 1, out=out),)


class Affine(Kernel):
    """``factor * x + offset`` for each channel, with an optional ReLU.

    Args:
        factor: ``(C,)``.
        offset: ``(C,)``.
        relu: Whether to apply a ReLU.
    """

    is_recordable = True

    def __init__(self, factor: Tensor, offset: Tensor, *, relu: bool):
        self.factor, self.offset, self.relu = factor[:, None, None], offset[:, None, None], relu

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the top, in ``out`` unless that is None."""
        top = bottoms[0].to(self.factor.dtype) * self.factor + self.offset
        return (write(F.relu(top) if self.relu else top, out),)


class ChannelNormalization(Kernel):
    """LRN across channels: each value divided by a power of a sum of squares over neighboring channels.

    The sums are a product with a matrix of ones and zeros, in which the channels of a pixel are adjacent in memory.

    Args:
        form: The parameters of the layer.
    """

    def __init__(self, form: LRNForm):
        self.form = form
        self.band: Tensor | None = None

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the normalized bottom, in ``out`` unless that is None."""
        form, x = self.form, bottoms[0].permute(0, 2, 3, 1)
        values = x.reshape(-1, x.shape[3])
        if self.band is None or self.band.dtype != values.dtype:  # a bottom in a buffer may be bfloat16
            ones = values.new_full((x.shape[3],) * 2, form.alpha / form.size)
            self.band = ones.triu(-(form.size // 2)).tril(form.size // 2)
        scale = torch.addmm(values.new_tensor(form.k), values * values, self.band)
        # Exponents of 0.75 are usual, and a root is several times as fast as a power.
        power = scale.sqrt().mul_(scale).rsqrt_() if form.beta == 0.75 else scale.pow_(-form.beta)
        return (write(power.mul_(values).view(x.shape).permute(0, 3, 1, 2), out),)


class RecordedKernels(Kernel):
    """Several kernels, one after the other, as one function that oneDNN computes.

    Args:
        parts: For each kernel, what it reads and the names of its tops.
        reads: What is read of other blobs.
        tops: Names of the blobs to return.
    """

    def __init__(
        self, parts: Sequence[tuple[Kernel, Sequence[Read], Sequence[str]]], reads: Sequence[Read], tops: Sequence[str]
    ):
        self.parts, self.reads, self.tops = parts, reads, tops
        self.may_return_views = any(kernel.may_return_views for kernel, _, _ in parts)
        self._function = OneDnnFunction(self._compute)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the tops, the first one in ``out`` unless that is None."""
        self._buffers = buffers
        first, *others = self._function(*bottoms)
        return (write(first, out), *others)

    def _compute(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Tensor] = {}
        for kernel, reads, tops in self.parts:
            parts = [
                _part(values[read[0]], read[1]) if read[0] in values else bottoms[self.reads.index(read)]
                for read in reads
            ]
            values.update(zip(tops, kernel(parts, None, self._buffers), strict=True))
        return tuple(values[top] for top in self.tops)


def _part(value: Tensor, slices: Slices | None) -> Tensor:
    """Return the pixels of a blob that slices select; all if they are None or select all."""
    if slices is None or all(part == slice(0, size) for part, size in zip(slices, value.shape[2:], strict=True)):
        return value
    return value[..., slices[0], slices[1]]


class ConvolutionKernel(Kernel):
    """A convolution with an optional ReLU; the base class of the kernels that compute convolutions in different ways.

    Attributes:
        weight: The weight in the form that the kernel uses.
    """

    weight: Tensor


def check_converted(values: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return converted weights of a saved compiled net, in one axis.

    Raises:
        NetError: If they have another size or dtype.
    """
    if (values.numel(), values.dtype) != (size, dtype):
        got, want = (f"{count} of {kind}" for count, kind in ((values.numel(), values.dtype), (size, dtype)))
        raise NetError("the file's converted weights do not fit the layer", got=got, want=want)
    return values.flatten()


class TorchConvolution(ConvolutionKernel):
    """Convolution by ``F.conv2d`` in channels-last format, with products of the given dtype.

    Args:
        weight: ``(O, C / group, kernel_h, kernel_w)``.
        bias: ``(O,)``, or None.
        windows: The window along rows and the one along columns: kernel size, stride and dilation.
        group: Number of groups of channels.
        relu: Whether to apply a ReLU.
        dtype: Dtype of the products.
    """

    is_recordable = True

    def __init__(
        self, weight: Tensor, bias: Tensor | None, windows: Windows, group: int, *, relu: bool, dtype: torch.dtype
    ):
        self.stride = [window.stride for window in windows]
        self.dilation = [window.dilation for window in windows]
        self.rows = windows[0]
        self.padding = [0, 0]
        self.group, self.relu, self.dtype = group, relu, dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.weight = weight.detach().to(dtype)
        self._convolve = OneDnnFunction(self._compute, after=0)

    def with_padding(self, padding: Sequence[int], *, needs_out: bool) -> TorchConvolution:
        """Return a kernel with the same weights that pads the bottom by zeros.

        Args:
            padding: The padding above and below, and that to the left and right.
            needs_out: Whether it only writes into a tensor that is passed as ``out``, in bands of rows.
        """
        other = copy.copy(self)
        other.padding, other.needs_out, other.is_recordable = [*padding], needs_out, not needs_out
        other._convolve = OneDnnFunction(other._compute, after=0)
        return other

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the convolution of the bottom, plus the second bottom if any, in ``out`` unless it is None."""
        x, *added = (bottom.to(self.dtype) for bottom in bottoms)
        if out is not None and not added and not any(self.padding):
            return (compute_in_bands(x, out, self.rows, lambda band: self._convolve(band)[0]),)
        (top,) = self._compute(x, *added)
        return (top.to(bottoms[0].dtype) if out is None else out.copy_(top),)

    def _compute(self, x: Tensor, added: Tensor | None = None) -> tuple[Tensor]:
        if self.dtype is torch.float64:  # which torch multiplies in the order of NCHW
            x = x.contiguous()
        elif x.stride(1) != 1:
            x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.group)
        y = y if added is None else y + added
        return (F.relu(y) if self.relu else y,)


class MatrixConvolution(ConvolutionKernel):
    """Convolution by im2col and a matrix product with the net's own weights, for one group of channels.

    It is for weights that do not fit into the CPU's caches and that Winograd's method does not apply to, such as those
    of a classifier made convolutional. The weights are not copied, unless the products have another dtype; only the
    windows are, of which there are few.

    Args:
        weight: ``(O, C, kernel_h, kernel_w)``.
        bias: ``(O,)``, or None.
        windows: The window along rows and the one along columns: kernel size, stride and dilation.
        relu: Whether to apply a ReLU.
        dtype: Dtype of the products.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, windows: Windows, *, relu: bool, dtype: torch.dtype):
        self.windows, self.relu, self.dtype = windows, relu, dtype
        self.bias = None if bias is None else bias.detach().to(dtype)[:, None]
        matrix = weight.detach().to(dtype).flatten(1)
        # One product per slice of the outputs: threads that compute separate products wait less than threads that
        # share one product. oneDNN, which multiplies bfloat16, shares one well.
        most = max(1, len(matrix) // _LEAST_OUTPUTS) if dtype is not torch.bfloat16 else 1
        slices = max(count for count in range(1, most + 1) if len(matrix) % count == 0)
        self.weight = matrix.view(slices, -1, matrix.shape[1])

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the convolution of the bottom, in ``out`` unless that is None."""
        x, (slices, outputs, depth) = bottoms[0].to(self.dtype), self.weight.shape
        height, width = (
            (size - window.extent) // window.stride + 1 for size, window in zip(x.shape[2:], self.windows, strict=True)
        )
        top = x.new_empty(len(x), slices * outputs, height, width)
        rows = max(1, _IM2COL_VALUES // (depth * width))
        for image, result in zip(x, top, strict=True):
            for first in range(0, height, rows):
                part = result[:, first : first + rows]
                columns = self._im2col(image, first, part.shape[1])
                y = torch.bmm(self.weight, columns.expand(slices, -1, -1)).view(slices * outputs, -1)
                y = y if self.bias is None else y.add_(self.bias)
                part.copy_((y.clamp_min_(0) if self.relu else y).view(part.shape))
        return (write(top, out),)

    def _im2col(self, image: Tensor, first: int, rows: int) -> Tensor:
        """Return im2col of some rows of outputs, ``(C * kernel_h * kernel_w, rows * columns)``."""
        vertical, horizontal = self.windows
        read = image[:, first * vertical.stride : (first + rows - 1) * vertical.stride + vertical.extent]
        if all((window.kernel, window.stride) == (1, 1) for window in self.windows):
            return read.flatten(1)
        kernel, dilation, stride = (
            (getattr(vertical, name), getattr(horizontal, name)) for name in ("kernel", "dilation", "stride")
        )
        return F.unfold(read[None], kernel, dilation, 0, stride)[0]


class MaxPool(Kernel):
    """Max pooling; the last windows may reach past the end (``ceil_mode``).

    Args:
        windows: The window along rows and the one along columns: kernel size and stride.
        bottom: The region of the bottom that the kernel receives, without padding.
        top: The region of the top to compute.
    """

    is_recordable = True

    def __init__(self, windows: Windows, bottom: Region, top: Region):
        self.kernel, self.stride = ([getattr(window, name) for window in windows] for name in ("kernel", "stride"))
        self.windows = windows
        sides = list(zip(bottom, top.read_by(windows), windows, strict=True))
        # Padding that torch can add itself: alike on both sides, and at most half a window.
        self.padding = [window.pad for window in windows]
        alike = all(side.start - read.start == window.pad <= window.kernel // 2 for side, read, window in sides)
        sizes = pool_sizes([side.size for side in bottom], windows) if alike and any(self.padding) else ()
        self.frame: list[int] = []
        if sizes != tuple(side.size for side in top):
            self.padding = [0, 0]
            for side, read, window in reversed(sides):
                self.frame += (side.start - read.start, max(0, read.stop - side.stop) if window.pad else 0)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the maxima of the windows of the bottom, in ``out`` unless that is None."""
        x = bottoms[0]
        if out is None and not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)  # oneDNN's pooling of a part of a blob is very slow
        if any(self.padding):
            return (write(F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=True), out),)
        if any(self.frame):
            x = F.pad(x, self.frame, value=-math.inf)
        return (self.pool(x) if out is None else compute_in_bands(x, out, self.windows[0], self.pool),)

    def pool(self, x: Tensor) -> Tensor:
        """Return the maxima of the windows of ``x``, which contains the padding, in a new tensor."""
        return F.max_pool2d(x, self.kernel, self.stride, ceil_mode=True)

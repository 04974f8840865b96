"""Kernels compute a region of a layer's top; they add no padding, since the bottoms that they receive include it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window, pool_sizes
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.compiled_forms import LRNForm
from reproduction.caffe.net.graph import layer_place
from reproduction.fast.buffers import BufferPool
from reproduction.fast.regions import PixelRange, Region, Windows

_LEAST_OUTPUTS = 256  # least number of output channels per matrix product
_IM2COL_VALUES = 8 << 20  # values that im2col produces at a time
LARGE_TOP = 32 << 20  # bytes; the C library gives freed memory of this size back to the operating system
BAND_VALUES = 2 << 20  # values computed at a time, if they are then copied to a buffer


class Kernel:
    """A function that computes a region of a layer's top, or complete tops, from the pixels that it depends on.

    Attributes:
        needs_out: Whether the kernel can only write into a tensor that is passed as ``out``.
    """

    needs_out: bool = False

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
    """

    def __init__(self, layer: Layer):
        self.layer = layer

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Run the layer and return its tops, the first of them in ``out`` unless that is None.

        Raises:
            NetError: If the layer raises an error; the layer's name, type and line are added to it.
        """
        try:
            tops: tuple[Tensor, ...] = self.layer(*bottoms)
        except NetError as error:
            raise error.at(layer_place(self.layer.layer_param)) from error.__cause__
        return tops if out is None else (write(tops[0], out), *tops[1:])


class PassThrough(Kernel):
    """A kernel that returns its bottom, as for a Crop layer whose bottom is already cut to the region of the top."""

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the bottom, copied to ``out`` unless that is None."""
        return (write(bottoms[0], out),)


class Concatenation(Kernel):
    """Concatenate the channels of the bottoms, of which some may be stored in the top already."""

    needs_out = True

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the bottoms one after the other, in ``out`` unless that is None."""
        if out is None:
            return (torch.cat([*bottoms], 1),)
        for bottom, part in zip(bottoms, out.split_with_sizes([bottom.shape[1] for bottom in bottoms], 1), strict=True):
            if bottom.data_ptr() != part.data_ptr():
                part.copy_(bottom)
        return (out,)


class Affine(Kernel):
    """``factor * x + offset`` for each channel, with an optional ReLU.

    Args:
        factor: ``(C,)``.
        offset: ``(C,)``.
        relu: Whether to apply a ReLU.
    """

    def __init__(self, factor: Tensor, offset: Tensor, *, relu: bool):
        self.factor, self.offset, self.relu = factor[:, None, None], offset[:, None, None], relu

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the top, in ``out`` unless that is None."""
        top = torch.addcmul(self.offset, bottoms[0].to(self.factor.dtype), self.factor, out=out)
        return (top.relu_() if self.relu else top,)


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

    def __init__(
        self, weight: Tensor, bias: Tensor | None, windows: Windows, group: int, *, relu: bool, dtype: torch.dtype
    ):
        self.stride = [window.stride for window in windows]
        self.dilation = [window.dilation for window in windows]
        self.rows = windows[0]
        self.group, self.relu, self.dtype = group, relu, dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.weight = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the convolution of the bottom, plus the second bottom if any, in ``out`` unless it is None."""
        x, *added = (bottom.to(self.dtype) for bottom in bottoms)
        if out is not None and not added:
            return (compute_in_bands(x, out, self.rows, self._convolve),)
        top = self._convolve(x, *added)
        return (top.to(bottoms[0].dtype) if out is None else out.copy_(top),)

    def _convolve(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.group)
        if added is not None:
            y += added
        return F.relu(y, inplace=True) if self.relu else y


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
        if any(self.padding):
            return (write(F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=True), out),)
        if any(self.frame):
            x = F.pad(x, self.frame, value=-math.inf)
        return (self.pool(x) if out is None else compute_in_bands(x, out, self.windows[0], self.pool),)

    def pool(self, x: Tensor) -> Tensor:
        """Return the maxima of the windows of ``x``, which contains the padding, in a new tensor."""
        return F.max_pool2d(x, self.kernel, self.stride, ceil_mode=True)


class Upsampling(Kernel):
    """A deconvolution that upsamples each channel by the same separable kernel, as two matrix products, one per axis.

    Args:
        factors: The factors of the kernel, ``(kernel_h,)`` and ``(kernel_w,)``, of which it is the outer product.
        windows: The window along rows and the one along columns: kernel size, stride, pad and dilation.
        bottom: The region of the bottom that the kernel receives.
        top: The region of the top to compute.
        bias: ``(C,)``, or None.
    """

    def __init__(
        self, factors: tuple[Tensor, Tensor], windows: Windows, bottom: Region, top: Region, bias: Tensor | None
    ):
        self.rows, self.columns = map(upsampling_matrix, factors, windows, bottom, top)
        self.bias = None if bias is None else bias.detach()[:, None, None]

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the upsampled bottom, in ``out`` unless that is None."""
        # Columns first: the larger product is then batched by channel, which is faster in torch than one product.
        y = self.rows @ (bottoms[0].to(self.rows.dtype).contiguous() @ self.columns.T)
        return (write(y if self.bias is None else y.add_(self.bias), out),)


def upsampling_matrix(factor: Tensor, window: Window, bottom: PixelRange, top: PixelRange) -> Tensor:
    """Return, along one axis, the weights with which each pixel of the bottom (column) is added to each of the top."""
    outputs = torch.arange(top.size, device=factor.device)[:, None] + top.start
    inputs = torch.arange(bottom.size, device=factor.device) + bottom.start
    offset = outputs + window.pad - inputs * window.stride
    tap = offset // window.dilation
    is_hit = (offset % window.dilation == 0) & (tap >= 0) & (tap < window.kernel)
    return torch.where(is_hit, factor[tap.clamp(0, window.kernel - 1)], 0)


def factor_kernel(weight: Tensor, group: int) -> tuple[Tensor, Tensor] | None:
    """Return two vectors whose outer product is the kernel of a depthwise deconvolution, such as a bilinear one.

    Args:
        weight: ``(C, O / group, kernel_h, kernel_w)``.
        group: Number of groups of channels.

    Returns:
        ``(kernel_h,)`` and ``(kernel_w,)``, whose outer product equals the kernel up to rounding. None if there are no
        such vectors, if the kernel differs between channels, or if a top channel depends on several bottom channels.
    """
    weight = weight.detach()
    channels, outputs = weight.shape[0], weight.shape[1] * group
    if channels != outputs or group not in (1, channels):
        return None
    per_channel = weight[:, 0] if group == channels else weight.diagonal().permute(2, 0, 1)
    kernel = per_channel[0]
    if int(weight.count_nonzero()) != int(per_channel.count_nonzero()) or not (per_channel == kernel).all():
        return None
    row, column = divmod(int(kernel.abs().argmax()), kernel.shape[1])
    peak = kernel[row, column]
    if not peak.isfinite() or peak == 0:
        return None
    rows, columns = kernel[:, column], kernel[row] / peak
    error = (rows[:, None] * columns - kernel).abs().max()
    return (rows, columns) if error <= torch.finfo(kernel.dtype).eps * peak.abs() else None

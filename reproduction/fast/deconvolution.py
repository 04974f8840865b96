"""Deconvolutions: two products of matrices where the kernel is separable, torch's operator otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.geometry import Window
from reproduction.fast.buffers import BufferPool
from reproduction.fast.kernels import Kernel, write
from reproduction.fast.regions import PixelRange, Region, Windows


class TorchDeconvolution(Kernel):
    """Deconvolution by ``F.conv_transpose2d`` in channels-last format, in the dtype of the weight.

    Args:
        weight: ``(C, O / group, kernel_h, kernel_w)``.
        bias: ``(O,)``, or None.
        windows: The window along rows and the one along columns: kernel size, stride, pad and dilation.
        group: Number of groups of channels.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, windows: Windows, group: int):
        stride, pad, dilation = (
            [getattr(window, name) for window in windows] for name in ("stride", "pad", "dilation")
        )
        self.weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self.options = (None if bias is None else bias.detach(), stride, pad, 0, group, dilation)

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the deconvolution of the bottom, in ``out`` unless that is None."""
        x = bottoms[0].to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        return (write(F.conv_transpose2d(x, self.weight, *self.options), out),)


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

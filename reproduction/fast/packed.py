"""Convolutions by oneDNN with packed weights, or for single pixels by a matrix product."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from reproduction.fast.buffers import BufferPool
from reproduction.fast.kernels import Kernel, compute_in_bands, write
from reproduction.fast.regions import POINT, Windows

_PACKED_SIZES = 2  # sizes of the bottom for which packed weights are kept


class PackedWeights:
    """The weights of a convolution in the order in memory that oneDNN prefers for the size of the bottom.

    The order depends on the size: with weights that were packed for another one, convolutions are up to twenty times
    slower. Weights for the last two sizes are kept.

    Args:
        load: A function that returns the weights ``(O, C / group, kernel_h, kernel_w)`` and the bias ``(O,)`` or None.
        windows: The window along rows and the one along columns: kernel size, stride and dilation.
        group: Number of groups of channels.
        dtype: Dtype of the products.

    Attributes:
        is_pointwise: Whether the convolution is one product of matrices, as each output depends on one pixel.

    Source: torch 2.11 to 2.13, ``torch._inductor.fx_passes.mkldnn_fusion``, which calls the same operators.
    """

    def __init__(
        self, load: Callable[[], tuple[Tensor, Tensor | None]], windows: Windows, group: int, dtype: torch.dtype
    ):
        self.dtype = dtype
        self.rows = windows[0]
        self.stride = [window.stride for window in windows]
        self.dilation = [window.dilation for window in windows]
        self.group = group
        self.is_pointwise = tuple(windows) == POINT and group == 1 and dtype is torch.float32
        self._load = load
        self._packed: OrderedDict[tuple[int, ...], tuple[Tensor, Tensor | None]] = OrderedDict()

    @cached_property
    def matrices(self) -> tuple[Tensor, Tensor]:
        """The weights of single pixels, ``(C, O)``, and the bias ``(O,)``."""
        weight, bias = self._load()
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return weight.detach().flatten(1).T.contiguous(), bias.detach()

    def pack(self, shape: Sequence[int], padding: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return the packed weights, and the bias or None.

        Args:
            shape: The shape of the bottom, ``(N, C, H, W)``.
            padding: The padding above and below, and that to the left and right.
        """
        key = (*shape, *padding)
        if key in self._packed:
            self._packed.move_to_end(key)
        else:
            self._packed[key] = self._pack(shape, padding)
            if len(self._packed) > _PACKED_SIZES:
                self._packed.popitem(last=False)
        return self._packed[key]

    def _pack(self, shape: Sequence[int], padding: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        weight, bias = self._load()
        args = (list(padding), self.stride, self.dilation, self.group, list(shape))
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight.detach().to(self.dtype), *args)
        return packed, None if bias is None else bias.detach().to(self.dtype)


def can_pack_weights() -> bool:
    """Return whether torch has oneDNN's convolutions with packed weights."""
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops, "mkldnn") and all(hasattr(torch.ops.mkldnn, name) for name in names)


class PackedConvolution(Kernel):
    """Convolution by oneDNN with packed weights, which adds a second bottom and applies a ReLU in the same pass.

    Args:
        weights: The packed weights.
        padding: The padding above and below, and that to the left and right, which the bottom does not include.
        relu: Whether to apply a ReLU.
        needs_out: Whether to write only into a tensor that is passed as ``out``: in bands of rows, without padding.
    """

    def __init__(self, weights: PackedWeights, padding: tuple[int, int], *, relu: bool, needs_out: bool = False):
        self.weights, self.padding, self.relu = weights, list(padding), "relu" if relu else "none"
        self.needs_out = needs_out

    def __call__(self, bottoms: Sequence[Tensor], out: Tensor | None, buffers: BufferPool) -> tuple[Tensor, ...]:
        """Return the convolution of the bottom, plus the second bottom if any, in ``out`` unless it is None."""
        single = out is not None and len(bottoms) == 1 and self.weights.is_pointwise and not self.needs_out
        if out is not None and single and (y := _as_matrix(out)) is not None:
            # oneDNN's operator cannot write into a part of a larger top; the product of matrices can.
            weight, bias = self.weights.matrices
            torch.addmm(bias, bottoms[0].permute(0, 2, 3, 1).flatten(0, 2), weight, out=y)
            if self.relu == "relu":
                y.clamp_min_(0)
            return (out,)
        if out is not None and len(bottoms) == 1 and not any(self.padding):
            return (compute_in_bands(bottoms[0], out, self.weights.rows, self._convolve),)
        return (write(self._convolve(*bottoms), out),)

    def _convolve(self, *bottoms: Tensor) -> Tensor:
        found, operators = self.weights, torch.ops.mkldnn
        x, *added = (b.to(found.dtype).contiguous(memory_format=torch.channels_last) for b in bottoms)
        weight, bias = found.pack(x.shape, self.padding)
        where = (self.padding, found.stride, found.dilation, found.group)
        if added:
            relu = None if self.relu == "none" else self.relu
            top = operators._convolution_pointwise.binary(x, *added, weight, bias, *where, "add", 1.0, relu, [], None)
        else:
            top = operators._convolution_pointwise.default(x, weight, bias, *where, self.relu, [], "")
        return top  # type: ignore[no-any-return]


def _as_matrix(x: Tensor) -> Tensor | None:
    """Return a view ``(N * H * W, C)``; None if pixels are not at equal distances in memory, as inside of a border."""
    pixels = x.permute(0, 2, 3, 1)
    images, rows, columns, channels = pixels.stride()
    height, width = pixels.shape[1:3]
    is_even = channels == 1 and rows == width * columns and (len(x) == 1 or images == height * rows)
    return pixels.flatten(0, 2) if is_even else None

"""The layers Pooling and SPP (spatial pyramid pooling)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import CoordMap, Shape, Window, conv_map, pool_sizes, pool_windows
from reproduction.caffe.layers import pooling_onnx
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive
from reproduction.caffe.layers.compiled_forms import MaxPoolingForm
from reproduction.caffe.layers.neuron import uniform
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.quick.borders import AnyBlob, RepeatedBlob, slide_windows
from reproduction.caffe.schema import LayerParameter, PoolMethod, RoundMode

# The initial value of Caffe's maximum in single and in double precision: -FLT_MAX.
_LEAST = -torch.finfo(torch.float32).max


def _torch_agrees(x: Tensor, windows: Sequence[Window], counts: Sequence[int]) -> bool:
    """Return whether torch accepts these windows and computes the same number of them."""
    return all(
        2 * window.pad <= window.kernel and (count - 1) * window.stride - window.pad < size
        for size, window, count in zip(x.shape[2:], windows, counts, strict=True)
    )


def _prepare(
    x: Tensor, windows: Sequence[Window], rounding: RoundMode
) -> tuple[Sequence[int], list[Window], list[int], list[int], list[int]]:
    """Return the size of the top, the windows, and their kernels, strides and paddings, each along height and width.

    Strides beyond the input are reduced: a window past the end is empty, however far away it starts.
    """
    found = []
    for size, window in zip(x.shape[2:], windows, strict=True):
        least = 2 * window.pad + window.kernel + 1
        far = window.stride > least  # usual windows do not need `size`, a symbol during an export
        found.append(replace(window, stride=min(window.stride, size + least)) if far else window)
    kernel, stride, pad = ([getattr(window, name) for window in found] for name in ("kernel", "stride", "pad"))
    return pool_sizes(x.shape[2:], windows, rounding), found, kernel, stride, pad


def _pad_to_windows(x: Tensor, windows: Sequence[Window], counts: Sequence[int], value: float) -> Tensor:
    """Pad with ``value``, or crop at the end, so that the last window ends where the result ends."""
    # torch then computes exactly `counts` windows without padding or rounding of its size, in the cases in which it
    # would refuse the padding or drop a window. F.pad crops where a side is negative.
    sides: list[int] = []
    for size, window, count in reversed(list(zip(x.shape[2:], windows, counts, strict=True))):
        sides += [window.pad, (count - 1) * window.stride + window.kernel - window.pad - size]
    return F.pad(x, sides, value=value)


def max_pool(x: Tensor, windows: Sequence[Window], rounding: RoundMode = RoundMode.CEIL) -> tuple[Tensor, Tensor]:
    """Return the maximum of each window and its position.

    Args:
        x: The bottom, (N, C, H, W).
        windows: The windows along height and width.
        rounding: Whether the size of the top is rounded up or down.

    Returns:
        The maxima, (N, C, h, w), and their positions ``row * W + column`` within the channel, int64 and of the same
        shape. Among equal values, the position is the first in row-major order. For an empty window, the maximum is
        -FLT_MAX and the position is -1.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cpp L153-L200.
    """
    counts, windows, kernel, stride, pad = _prepare(x, windows, rounding)
    if _torch_agrees(x, windows, counts):
        ceil = rounding is RoundMode.CEIL
        return F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, return_indices=True)
    # Caffe: the padding may be as large as the kernel minus one, and without padding a window may start past the end
    # (pooling_layer.cpp L74, L107). torch allows padding up to half the kernel and drops windows past the end.
    padded = _pad_to_windows(x, windows, counts, _LEAST)
    top, position = F.max_pool2d(padded, kernel, stride, return_indices=True)
    row, column = position // padded.shape[3] - pad[0], position % padded.shape[3] - pad[1]
    inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
    # Upstream bug, fixed: Caffe's CPU code adds the gradient of an empty max pooling window at index -1, before the
    # start of the channel (pooling_layer.cpp L272). Here it is dropped, as in Caffe's GPU code.
    return top, torch.where(inside, row * x.shape[3] + column, -1)


def average_pool(x: Tensor, windows: Sequence[Window], rounding: RoundMode = RoundMode.CEIL) -> Tensor:
    """Return the average of each window, (N, C, h, w): its sum divided by its area within the padded input.

    The arguments are those of ``max_pool``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cpp L201-L233.
    """
    counts, windows, kernel, stride, pad = _prepare(x, windows, rounding)
    if _torch_agrees(x, windows, counts):
        return F.avg_pool2d(x, kernel, stride, pad, ceil_mode=rounding is RoundMode.CEIL)
    sums = F.avg_pool2d(_pad_to_windows(x, windows, counts, 0.0), kernel, stride, divisor_override=1)
    sides = []
    for size, window, count in zip(x.shape[2:], windows, counts, strict=True):
        start = torch.arange(count, dtype=x.dtype, device=x.device) * window.stride - window.pad
        # Caffe: an average pooling window that starts past the end has an area of zero or less, so that its average is
        # 0/0 or -0 (pooling_layer.cpp L214). torch drops such a window.
        sides.append((start + window.kernel).clamp(max=size + window.pad) - start)
    return sums / (sides[0][:, None] * sides[1])


def stochastic_pool(
    x: Tensor, windows: Sequence[Window], rounding: RoundMode, training: bool, generator: torch.Generator | None
) -> Tensor:
    """Return a random element of each window in training, and a weighted average of its elements in testing.

    The probability of an element, and its weight in the average, is its share in the sum of the window. The gradient
    goes to the sampled element in training and to all elements in testing.

    Args:
        x: The bottom, (N, C, H, W), without negative values.
        windows: The windows along height and width, without padding.
        rounding: Whether the size of the top is rounded up or down.
        training: Whether to sample.
        generator: The random number generator; None for torch's default generator.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cu L82-L154; Caffe cannot do it on the CPU.
    """
    counts, windows, kernel, stride, _ = _prepare(x, windows, rounding)
    columns = F.unfold(_pad_to_windows(x, windows, counts, 0.0), tuple(kernel), stride=tuple(stride))
    values = columns.reshape(*x.shape[:2], -1, *counts)
    total = values.sum(2)
    if not training:
        # Upstream bug, fixed: the backward pass of stochastic pooling in testing uses the positions that were sampled
        # last in training (pooling_layer.cu L300). Here the gradient is that of the weighted average.
        return torch.where(total > 0, (values * values).sum(2) / torch.where(total > 0, total, 1), 0)
    with torch.no_grad():
        reached = values.cumsum(2)
        threshold = uniform(total, generator) * reached[:, :, -1]
        sampled = (reached >= threshold.unsqueeze(2)).byte().argmax(2, keepdim=True)
    return values.gather(2, sampled).squeeze(2)


def _pool_values(
    x: Tensor,
    method: PoolMethod,
    windows: Sequence[Window],
    rounding: RoundMode,
    training: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """Pool by the given method and return the values only."""
    if method is PoolMethod.MAX:
        return max_pool(x, windows, rounding)[0]
    if method is PoolMethod.AVE:
        return average_pool(x, windows, rounding)
    return stochastic_pool(x, windows, rounding, training, generator)


def _check_bottom(bottom: Shape) -> None:
    if len(bottom) != 4:
        raise NetError("the bottom must have 4 axes (N, C, H, W)", got=bottom)


def _check_padding(method: PoolMethod, windows: Sequence[Window]) -> None:
    if method is PoolMethod.STOCHASTIC and any(window.pad for window in windows):
        raise NetError("STOCHASTIC pooling takes no padding", got=tuple(window.pad for window in windows))


@register
class Pooling(Layer):
    """Pooling: the maximum, the average or a random element of each window.

    Shapes:
        bottom: (N, C, H, W).
        top: (N, C, h, w), the sizes of ``geometry.pool_sizes``. They are rounded up, unless ``round_mode: FLOOR``.
            If there is padding, a last window that would start in it is dropped.
        second top: (N, C, h, w), for MAX only: the position ``row * W + column`` of each maximum, as a float.

    Raises:
        NetError: If Caffe refuses the kernel, stride or padding, or they do not fit the bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/pooling_layer.cpp L14-L320, pooling_layer.cu L82-L154.
    """

    reads = frozenset(
        f"pooling_param.{name}"
        for name in ("pool", "kernel_size", "stride", "pad", "kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h",
                     "pad_w", "global_pooling", "round_mode")
    )  # fmt: skip
    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    top_is_free = True

    @classmethod
    def sliding_windows(cls, layer_param: LayerParameter) -> list[Window]:
        """Return the windows along height and width, or one window, which holds for all axes, if both are equal."""
        high, wide = pool_windows(layer_param.pooling_param, 1, 1)
        return [high] if high == wide else [high, wide]

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the map from coordinates of the bottom to those of the top; None for global pooling."""
        return None if layer_param.pooling_param.global_pooling else conv_map(cls.sliding_windows(layer_param))

    def compiled_form(self, bottoms: list[Shape]) -> MaxPoolingForm | None:
        """Return a ``MaxPoolingForm`` for max pooling with one top, whose size is rounded up; otherwise None."""
        param = self.layer_param.pooling_param
        is_max = self.method is PoolMethod.MAX and param.round_mode is RoundMode.CEIL and len(self.layer_param.top) == 1
        rows, columns = self._windows(1, 1)
        return MaxPoolingForm((rows, columns)) if is_max and not param.global_pooling else None

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the pooling method; check the windows and the number of tops."""
        self.method = self.layer_param.pooling_param.pool
        if self.method is not PoolMethod.MAX and len(self.layer_param.top) > 1:
            raise NetError("only MAX pooling has a second top", got=self.method.name)
        self.shapes(bottoms)

    def _windows(self, height: int, width: int) -> list[Window]:
        return pool_windows(self.layer_param.pooling_param, height, width)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        _check_bottom(bottoms[0])
        windows = self._windows(*bottoms[0][2:])
        _check_padding(self.method, windows)
        sizes = pool_sizes(bottoms[0][2:], windows, self.layer_param.pooling_param.round_mode)
        return [(*bottoms[0][:2], *sizes)] * len(self.layer_param.top)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        (x,) = bottoms
        windows, rounding = self._windows(*x.shape[2:]), self.layer_param.pooling_param.round_mode
        if len(self.layer_param.top) > 1:
            top, position = max_pool(x, windows, rounding)
            return top, position.to(x.dtype)
        return (_pool_values(x, self.method, windows, rounding, self.training, self.generator),)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Pool only the stored rows and columns of a bottom that stores equal ones once (``RepeatedBlob``).

        Return None if full tensors are needed: for other bottoms, other methods than MAX, or a second top.
        """
        (x,) = bottoms
        if not isinstance(x, RepeatedBlob) or self.method is not PoolMethod.MAX or len(self.layer_param.top) > 1:
            return None
        rounding, windows = self.layer_param.pooling_param.round_mode, self._windows(*x.shape[2:])
        sizes = pool_sizes(x.shape[2:], windows, rounding)
        return (slide_windows(x, windows, sizes, lambda kept, windows: max_pool(kept, windows, rounding)[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add MaxPool, AveragePool or their global forms; see ``pooling_onnx``."""
        param, (bottom,), maximum = self.layer_param.pooling_param, bottoms, self.method is PoolMethod.MAX
        if param.global_pooling and self.method is PoolMethod.AVE:
            return [onnx.node("GlobalAveragePool", bottom)]
        if param.global_pooling and maximum and len(self.layer_param.top) == 1:
            return [onnx.node("GlobalMaxPool", bottom)]
        windows = self._windows(*(onnx.fix_sizes() if param.global_pooling else (1, 1)))
        if len(self.layer_param.top) > 1:
            return pooling_onnx.add_max_pool_with_positions(onnx, bottom, windows, param.round_mode)
        return [pooling_onnx.add_pool(onnx, bottom, self.method, windows, param.round_mode)]


@register
class SPP(Layer):
    """Spatial pyramid pooling: pool over grids of 1 x 1, 2 x 2, 4 x 4 ... bins and concatenate the results.

    Shapes:
        bottom: (N, C, H, W).
        top: (N, C * bins of all levels), level by level; (N, C, 1, 1) if the pyramid has one level.

    Raises:
        NetError: If the bottom is too small for the pyramid.

    Source: BVLC/caffe@9b89154 src/caffe/layers/spp_layer.cpp L16-L223.
    """

    reads = frozenset({"spp_param.pyramid_height", "spp_param.pool"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the pooling method and the height of the pyramid, and check them."""
        self.height, self.method = self.layer_param.spp_param.pyramid_height, self.layer_param.spp_param.pool
        check_positive(self.layer_param.spp_param, "pyramid_height")
        self.shapes(bottoms)

    def _levels(self, sizes: Shape) -> list[list[Window]]:
        """Return the windows of each level. They cover the bottom, with the same padding on both sides."""
        levels = []
        for level in range(self.height):
            windows = []
            for size in sizes:
                kernel = -(-size // 2**level)
                pad = (kernel * 2**level - size + 1) // 2
                if pad >= kernel:
                    raise NetError(
                        "the pyramid is too high for the bottom",
                        got=f"pyramid_height {self.height} over {sizes[0]} x {sizes[1]} pixels",
                        want=f"at most {level}",
                    )
                windows.append(Window(kernel, kernel, pad))
            _check_padding(self.method, windows)
            levels.append(windows)
        return levels

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        _check_bottom(bottoms[0])
        images, channels, *sizes = bottoms[0]
        if min(sizes) < 1:
            raise NetError("the bottom has no pixels", got=bottoms[0])
        bins = [pool_sizes(sizes, windows) for windows in self._levels(tuple(sizes))]
        # Caffe: the output of SPP with one level is not flattened, since it is that of a Pooling layer (spp_layer.cpp
        # L88).
        if len(bins) == 1:
            return [(images, channels, *bins[0])]
        return [(images, channels * sum(map(math.prod, bins)))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        (x,) = bottoms
        levels = [
            _pool_values(x, self.method, windows, RoundMode.CEIL, self.training, self.generator)
            for windows in self._levels(tuple(x.shape[2:]))
        ]
        return (levels[0],) if self.height == 1 else (torch.cat([level.flatten(1) for level in levels], 1),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators of a pooling for each level, Flatten and Concat; they are right for one size only."""
        tops = []
        for level, windows in enumerate(self._levels(onnx.fix_sizes())):
            step = "" if self.height == 1 else f"level{level}"
            tops.append(pooling_onnx.add_pool(onnx, bottoms[0], self.method, windows, RoundMode.CEIL, step))
        if self.height == 1:
            return tops
        return [onnx.node("Concat", *(onnx.node("Flatten", top, step="flat", axis=1) for top in tops), axis=1)]

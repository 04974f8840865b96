"""Convolution, Deconvolution and Pooling of Synopsys Caffe: padding of each side, and averages without the padding."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape, Window, pool_sizes
from reproduction.caffe.layers import convolution, pooling
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.onnx_graph import OnnxLayer, window_attributes
from reproduction.caffe.layers.quick.borders import AnyBlob
from reproduction.caffe.schema import ConvolutionParameter, LayerParameter, PoolingParameter, PoolMethod, RoundMode
from reproduction.caffe.schema.field import Field, int32, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Array

_SIDES = ("pad_l", "pad_r", "pad_t", "pad_b")
CONVOLUTION_SIDES: dict[str, Field[int]] = {
    name: ConvolutionParameter.add_field(name, int32(number), SYNOPSYS) for number, name in enumerate(_SIDES, 26)
}
POOLING_SIDES: dict[str, Field[int]] = {
    name: PoolingParameter.add_field(name, uint32(number), SYNOPSYS) for number, name in enumerate(_SIDES, 16)
}
CONVOLUTION_SIDES["pad_type"] = ConvolutionParameter.add_field("pad_type", uint32(19), SYNOPSYS)
POOLING_SIDES["pad_type"] = PoolingParameter.add_field("pad_type", uint32(13), SYNOPSYS)


class OtherPoolMethod(enum.IntEnum):
    """The pooling method that only Synopsys Caffe has, under two names: averages that leave out the padding."""

    AVE_EXC_PAD = 3
    AVE_TF = 3


PoolingParameter.fields["pool"].fork_enums += (OtherPoolMethod,)


class Sides(NamedTuple):
    """The padding in pixels of the left, right, top and bottom side."""

    left: int
    right: int
    top: int
    bottom: int


def same_sides(sizes: Sequence[int], windows: Sequence[Window]) -> Sides:
    """Return the padding of ``pad_type: 1``, for tops of ``ceil(size / stride)``; an odd pixel is added at the end.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/pooling_layer.cpp L285-L301.
    """
    (top, bottom), (left, right) = (
        (more // 2, more - more // 2)
        for size, window in zip(sizes, windows, strict=True)
        for more in [max(window.extent - (size % window.stride or window.stride), 0)]
    )
    return Sides(left, right, top, bottom)


def _add(shape: Shape, sides: Sides, sign: int = 1) -> Shape:
    *outer, height, width = shape
    return (*outer, height + sign * (sides.top + sides.bottom), width + sign * (sides.left + sides.right))


class _Padded(Layer):
    """What the three layers add to BVLC's: a padding of each side. It stands before BVLC's class among the bases.

    Attributes:
        field: The name of the layer's message.
        side_fields: The fields of Synopsys Caffe in this message.
        sides: The padding of each side, or None if it is ``pad`` on all sides.
    """

    field: ClassVar[str] = "convolution_param"
    side_fields: ClassVar[dict[str, Field[int]]] = CONVOLUTION_SIDES
    sides: Sides | None

    @classmethod
    def sliding_windows(cls, layer_param: LayerParameter) -> list[Window]:
        """Return the windows, with the padding at the top and at the left, which coordinates depend on."""
        windows = super().sliding_windows(layer_param)
        rows_and_columns = windows * 2 if len(windows) == 1 else windows
        sides = cls.read_sides(layer_param, rows_and_columns)
        if sides is None:
            return windows
        rows, columns = rows_and_columns
        return [replace(rows, pad=sides.top), replace(columns, pad=sides.left)]

    @classmethod
    def read_sides(cls, layer_param: LayerParameter, windows: Sequence[Window]) -> Sides | None:
        """Return the padding of each side, or None if it is ``pad`` on all sides; SAME's depends on the size.

        Args:
            layer_param: The layer.
            windows: The windows along height and width.

        Raises:
            NetError: If padding is set in several ways, or ``pad_type`` is neither 0 nor 1.

        Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/base_conv_layer.cpp
        L119-L168, pooling_layer.cpp L75-L127.
        """
        param: Message = getattr(layer_param, cls.field)
        sides = Sides(*(cls.side_fields[name].get(param) for name in _SIDES))
        same = cls.side_fields["pad_type"].get(param)
        if same not in (0, 1):
            raise NetError("unknown pad_type", got=same, want="0 or 1")
        if not any(sides) and not same:
            return None
        given = [name for name in ("pad", "pad_h", "pad_w") if param.has(name)]
        if given or (any(sides) and same):
            names = ", ".join([*given, *(["pad_type"] if same else [])])
            raise NetError("padding is set in several ways", got=f"{names} and {', '.join(_SIDES)}", want="one of them")
        if len(windows) != 2:
            raise NetError("pad_l, pad_r, pad_t, pad_b and pad_type need two spatial axes", got=len(windows))
        return sides

    def find_sides(self, shape: Shape, windows: Sequence[Window]) -> Sides:
        """Return the padding for a bottom of this shape, (..., H, W)."""
        assert self.sides is not None
        return self.sides if any(self.sides) else same_sides(shape[-2:], windows)

    def is_plain(self) -> bool:
        """Return whether the layer computes what BVLC's does."""
        return self.sides is None

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Return None unless the layer computes what BVLC's does: full tensors are needed."""
        return super().repeat(*bottoms) if self.is_plain() else None

    def compiled_form(self, bottoms: list[Shape]) -> Any:
        """Return None unless the layer computes what BVLC's does."""
        return super().compiled_form(bottoms) if self.is_plain() else None


def _add_convolution(
    onnx: OnnxLayer, layer: convolution.Convolution | convolution.Deconvolution, sides: Sides, bottoms: Sequence[str]
) -> list[str]:
    attributes = window_attributes(layer.windows) | {"dilations": [window.dilation for window in layer.windows]}
    attributes |= {"group": layer.group, "pads": [sides.top, sides.left, sides.bottom, sides.right]}
    blobs = onnx.blobs()
    return [onnx.node(layer.onnx_operator, bottom, *blobs, top=i, **attributes) for i, bottom in enumerate(bottoms)]


@register
class Convolution(_Padded, convolution.Convolution):
    """Convolution with a different padding on each side, or with that of TensorFlow's SAME.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/conv_layer.cpp L10-L50.
    """

    dialect = SYNOPSYS
    reads = convolution.Convolution.reads | {f"convolution_param.{name}" for name in CONVOLUTION_SIDES}

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the padding, and create the weights."""
        super().setup(bottoms)
        self.sides = self.read_sides(self.layer_param, self.windows)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops, from the padded bottoms."""
        if self.sides is None:
            return super().shapes(bottoms)
        return super().shapes([_add(bottom, self.find_sides(bottom, self.windows)) for bottom in bottoms])

    def _compute_top(self, x: Tensor, sizes: Shape) -> Tensor:
        if self.sides is not None:
            x = F.pad(x, self.find_sides(tuple(x.shape), self.windows))
        return super()._compute_top(x, sizes)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add Conv with a padding for each side; that of SAME is right for one size only."""
        if self.sides is None:
            return super().to_onnx(onnx, *bottoms)
        sides = self.sides if any(self.sides) else same_sides(onnx.fix_sizes(), self.windows)
        return _add_convolution(onnx, self, sides, bottoms)


@register
class Deconvolution(_Padded, convolution.Deconvolution):
    """Deconvolution that removes a different number of pixels on each side.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/deconv_layer.cpp L8-L40.
    """

    dialect = SYNOPSYS
    reads = convolution.Deconvolution.reads | {f"convolution_param.{name}" for name in _SIDES}

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the padding, and create the weights."""
        super().setup(bottoms)
        self.sides = self.read_sides(self.layer_param, self.windows)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops, less the pixels that are removed."""
        tops = super().shapes(bottoms)
        return tops if self.sides is None else [_add(top, self.sides, -1) for top in tops]

    def _compute_top(self, x: Tensor, sizes: Shape) -> Tensor:
        if self.sides is None:
            return super()._compute_top(x, sizes)
        return F.pad(super()._compute_top(x, _add(sizes, self.sides)), [-side for side in self.sides])

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add ConvTranspose with a padding for each side."""
        if self.sides is None:
            return super().to_onnx(onnx, *bottoms)
        return _add_convolution(onnx, self, self.sides, bottoms)


@register
class Pooling(_Padded, pooling.Pooling):
    """Pooling with a different padding on each side, that of TensorFlow's SAME, or averages without the padding.

    ``AVE`` divides by the area of the window within the padded bottom, ``AVE_EXC_PAD`` (or ``AVE_TF``) by that within
    the bottom.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/pooling_layer.cpp L60-L490.
    """

    dialect = SYNOPSYS
    reads = pooling.Pooling.reads | {
        "pooling_param.pool.AVE_EXC_PAD",
        *(f"pooling_param.{name}" for name in POOLING_SIDES),
    }
    field = "pooling_param"
    side_fields = POOLING_SIDES

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the padding and the pooling method, and check them."""
        self.sides = self.read_sides(self.layer_param, self._windows(1, 1))
        self.excludes_padding = self.layer_param.pooling_param.pool.name == OtherPoolMethod.AVE_EXC_PAD.name
        super().setup(bottoms)

    def _places(self, shape: Shape) -> tuple[Sides, tuple[int, ...]]:
        """Return the padding and the number of windows along height and width, for a bottom (N, C, H, W)."""
        windows = self._windows(*shape[2:])
        if self.sides is None:
            counts = pool_sizes(shape[2:], windows, self.layer_param.pooling_param.round_mode)
            return Sides(windows[1].pad, windows[1].pad, windows[0].pad, windows[0].pad), counts
        sides = self.find_sides(shape, windows)
        if not any(self.sides):
            return sides, tuple(-(-size // window.stride) for size, window in zip(shape[2:], windows, strict=True))
        counts = pool_sizes(_add(shape, sides)[2:], windows, self.layer_param.pooling_param.round_mode)
        limits = (shape[2] + sides.top, shape[3] + sides.left)  # a window must start within the bottom
        return sides, tuple(
            count - ((count - 1) * window.stride >= limit)
            for count, window, limit in zip(counts, windows, limits, strict=True)
        )

    def _place_windows(self, shape: Shape) -> tuple[Sides, tuple[int, ...], list[Window], list[int]]:
        """Return the padding, the number of windows and the windows without it, and what is added after each axis.

        The padded bottom is cut where the last window ends, or extended to there.
        """
        sides, counts = self._places(shape)
        windows = [replace(window, pad=0) for window in self._windows(*shape[2:])]
        ends = [
            (count - 1) * window.stride + window.kernel - first - size
            for count, window, first, size in zip(counts, windows, (sides.top, sides.left), shape[2:], strict=True)
        ]
        return sides, counts, windows, ends

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops."""
        found = super().shapes(bottoms)
        return found if self.is_plain() else [(*top[:2], *self._places(bottoms[0])[1]) for top in found]

    def is_plain(self) -> bool:
        """Return whether padding and method are BVLC's."""
        return super().is_plain() and not self.excludes_padding

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Pad the bottom and pool it."""
        if self.is_plain():
            return super().forward(*bottoms)
        (x,) = bottoms
        sides, counts, windows, ends = self._place_windows(tuple(x.shape))
        borders = (sides.left, ends[1], sides.top, ends[0])
        if self.method is PoolMethod.MAX:
            top, position = pooling.max_pool(F.pad(x, borders, value=pooling._LEAST), windows, RoundMode.FLOOR)
            width = x.shape[3] + borders[0] + borders[1]
            row, column = position // width - sides.top, position % width - sides.left
            return (top, (row * x.shape[3] + column).to(x.dtype))[: len(self.layer_param.top)]
        if self.method is PoolMethod.STOCHASTIC:
            raise NetError("STOCHASTIC pooling takes no padding", got=sides)
        kernel, stride = [window.kernel for window in windows], [window.stride for window in windows]
        sums = F.avg_pool2d(F.pad(x, borders), kernel, stride, divisor_override=1)
        return (sums / x.new_tensor(self._areas(tuple(x.shape), sides, counts, windows)),)

    def _areas(self, shape: Shape, sides: Sides, counts: Sequence[int], windows: Sequence[Window]) -> Array:
        """Return the area by which the sum of each window is divided, (h, w)."""
        lengths = []
        axes = zip(shape[2:], counts, windows, (sides.top, sides.left), (sides.bottom, sides.right), strict=True)
        for size, count, window, first, last in axes:
            start = np.arange(count) * window.stride - first
            end = np.minimum(start + window.kernel, size + last)
            if self.excludes_padding:
                start, end = np.maximum(start, 0), np.minimum(end, size)
            lengths.append(end - start)
        return np.outer(*lengths)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add Pad and MaxPool, or Pad, AveragePool and Mul; they are right for one size only."""
        if self.is_plain():
            return super().to_onnx(onnx, *bottoms)
        if len(self.layer_param.top) > 1:
            raise NetError("positions with a padding of each side cannot be written as ONNX")
        shape = (1, 1, *onnx.fix_sizes())
        sides, counts, windows, ends = self._place_windows(shape)
        fill = onnx.number(pooling._LEAST if self.method is PoolMethod.MAX else 0.0, "fill")
        pads = onnx.constant(np.array([0, 0, sides.top, sides.left, 0, 0, *ends]), "pads")
        padded = onnx.node("Pad", bottoms[0], pads, fill, step="padded")
        attributes = {**window_attributes(windows), "pads": [0] * 4}
        if self.method is PoolMethod.MAX:
            return [onnx.node("MaxPool", padded, **attributes)]
        mean = onnx.node("AveragePool", padded, step="mean", **attributes)
        areas = self._areas(shape, sides, counts, windows)
        share = (windows[0].kernel * windows[1].kernel / areas).astype(np.float32)
        return [onnx.node("Mul", mean, onnx.constant(share, "share"))]

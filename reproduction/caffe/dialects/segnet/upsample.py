"""The layer Upsample of SegNet and ENet, which writes each value to the place of a maximum of an earlier pooling."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.dialects.segnet import ENET, SEGNET
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import CoordMap, Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, nested, uint32
from reproduction.caffe.schema.message import Message


class UpsampleParameter(Message):
    """Parameters of Upsample layers: the size of the top, or factors from which it follows."""

    scale = uint32(1, 2)
    scale_h = uint32(2)
    scale_w = uint32(3)
    pad_out_h = boolean(4, False)
    pad_out_w = boolean(5, False)
    upsample_h = uint32(6)
    upsample_w = uint32(7)


UPSAMPLE = LayerParameter.add_field("upsample_param", nested(137, UpsampleParameter), SEGNET)
LayerParameter.add_field("upsample_param", nested(147, UpsampleParameter), ENET)
LayerParameter.add_field("upsample_param", nested(177, UpsampleParameter), SYNOPSYS)


@register
class Upsample(Layer):
    """Write each value to the place that the mask gives; all other places are 0.

    The mask is the second top of a max pooling: the place ``row * W + column`` in the channel. If several values have
    the same place, the last one is written. The size of the top is ``upsample_h`` x ``upsample_w`` if both are set.
    Otherwise it is that of the bottom times ``scale``, or times ``scale_h`` and ``scale_w``; ``pad_out_h`` and
    ``pad_out_w`` remove the last row or column, for a pooled map of odd size.

    Shapes:
        bottom 0  (N, C, h, w)
        bottom 1  (N, C, h, w)  the mask; it has no gradient
        top       (N, C, H, W)

    Raises:
        NetError: If the fields do not fit together, the bottoms differ in shape, or a place lies outside the top.

    Source: alexgkendall/caffe-segnet@344c113 src/caffe/layers/upsample_layer.cpp L14-L148.
    """

    dialect = SEGNET
    reads = frozenset(f"upsample_param.{name}" for name in UpsampleParameter.fields)
    bottoms = (2, 2)
    differentiable = (0,)
    located_bottoms = 1
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the fields."""
        param = UPSAMPLE.get(self.layer_param)
        self._size = (param.upsample_h, param.upsample_w)
        self._given = param.has("upsample_h") and param.has("upsample_w")
        if self._given:
            if min(self._size) < 2:
                raise NetError("upsample_h and upsample_w must be greater than 1", got=self._size)
            return
        sides = param.has("scale_h"), param.has("scale_w")
        if any(sides) and (param.has("scale") or not all(sides)):
            raise NetError(
                "scale is set twice, or for one axis only",
                want="upsample_h and upsample_w, scale, or scale_h and scale_w",
            )
        self._scale = _factors(param)
        if min(self._scale) < 2:
            raise NetError("the factors must be greater than 1", got=self._scale)
        self._cut = (param.pad_out_h, param.pad_out_w)
        for cut, scale in zip(self._cut, self._scale, strict=True):
            if cut and scale != 2:
                raise NetError("pad_out_h and pad_out_w are for a factor of 2", got=scale)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        first, mask = bottoms
        if len(first) != 4 or mask != first:
            raise NetError("data and mask must have the same four axes (N, C, H, W)", got=f"{first} and {mask}")
        # Upstream bug, fixed: the fork keeps the size that it computed for the first image (upsample_layer.cpp
        # L66-L69). Here it follows the bottom, unless upsample_h and upsample_w are set.
        size = self._size if self._given else self._scaled(first[2:])
        return [(*first[:2], *size)]

    def _scaled(self, sizes: Shape) -> tuple[int, int]:
        height, width = (size * scale - cut for size, scale, cut in zip(sizes, self._scale, self._cut, strict=True))
        return height, width

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        x, mask = bottoms
        ((images, channels, height, width),) = self.shapes([tuple(x.shape), tuple(mask.shape)])
        places = mask.detach().long().flatten(2)
        if not torch.compiler.is_exporting() and places.numel():
            low, high = (int(bound) for bound in places.aminmax())
            if low < 0 or high >= height * width:
                raise NetError(
                    f"place {low if low < 0 else high} of the mask lies outside the top",
                    want=f"0..{height * width - 1}",
                    remedy="The size of the top must be that of the bottom of the pooling that made the mask.",
                )
        top: Tensor = _WriteTo.apply(x.flatten(2), places, height * width)  # type: ignore[no-untyped-call]
        return (top.view(images, channels, height, width),)

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the inverse of the map of a pooling with windows of the factors, or None without factors."""
        param = UPSAMPLE.get(layer_param)
        if param.has("upsample_h") and param.has("upsample_w"):
            return None
        scales = tuple(map(Fraction, _factors(param)))
        return CoordMap(2, scales, tuple((scale - 1) / 2 for scale in scales))

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add ScatterElements on zeros; which value stays if several have the same place is not defined in ONNX."""
        x, mask = bottoms
        front, rest = onnx.node("Shape", x, end=2, step="front"), onnx.constant([-1], "rest")
        if self._given:
            size = onnx.constant(self._size, "size")
        else:
            size = onnx.node("Shape", x, start=2, step="old_size")
            size = onnx.node("Mul", size, onnx.constant(self._scale, "scale"), step="scaled")
            size = onnx.node("Sub", size, onnx.constant(np.array(self._cut, np.int64), "cut"), step="size")
        rows = onnx.node("Concat", front, rest, axis=0, step="rows")
        values = onnx.node("Reshape", x, rows, step="values")
        places = onnx.cast(onnx.node("Reshape", mask, rows, step="mask"), np.int64, "places")
        count = onnx.node("ReduceProd", size, step="count")
        zeros = onnx.node("ConstantOfShape", onnx.node("Concat", front, count, axis=0, step="wanted"), step="zeros")
        written = onnx.node("ScatterElements", zeros, places, values, axis=2, step="written")
        return [onnx.node("Reshape", written, onnx.node("Concat", front, size, axis=0, step="sizes"))]


def _factors(param: UpsampleParameter) -> tuple[int, int]:
    """Return the factors of height and width."""
    return (param.scale_h, param.scale_w) if param.has("scale_h") else (param.scale, param.scale)


class _WriteTo(Function):
    """Write values to places along the last axis of zeros; the last of several values with one place stays."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(places)
        number = torch.arange(values.shape[2], device=values.device).expand(places.shape)
        last = places.new_full((*values.shape[:2], count), -1).scatter_reduce_(2, places, number, "amax")
        return values.gather(2, last.clamp(min=0)).masked_fill_(last < 0, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # Upstream bug, kept: each value gets the gradient of its place, also those that another value has overwritten
        # (upsample_layer.cpp L122-L131).
        (places,) = ctx.saved_tensors
        return gradient.gather(2, places), None, None

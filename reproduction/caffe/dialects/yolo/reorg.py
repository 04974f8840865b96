"""The layer Reorg, which moves pixels to channels or back in the order of darknet."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.yolo import YOLO
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, nested, uint32
from reproduction.caffe.schema.message import Message


class ReorgParameter(Message):
    """The fields of Reorg layers: the factor between the sizes, and whether channels become pixels."""

    stride = uint32(1)
    reverse = boolean(2)


REORG = LayerParameter.add_field("reorg_param", nested(149, ReorgParameter), YOLO)


@register
class Reorg(Layer):
    """Move ``stride * stride`` pixels to as many channels, or back with ``reverse``.

    The order is darknet's, not that of space-to-depth operators: the bottom's values are read as an image of fewer
    channels and more pixels than it has, and the top's as one of more channels and fewer pixels than are written. With
    stride s, the pixel of an image of (C / s^2, H * s, W * s) at row ``h * s + i`` and column ``w * s + j`` of channel
    c is at row h and column w of channel ``(i * s + j) * C / s^2 + c`` of an image of (C, H, W).

    Shapes:
        bottom  (N, C, H, W), where C is a multiple of stride^2
        top     (N, C * stride^2, H / stride, W / stride); with ``reverse`` (N, C / stride^2, H * stride, W * stride)

    Raises:
        NetError: If ``stride`` is missing, the sizes are not multiples of it, or the layer works in place.

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/reorg_layer.cpp L7-L45, include/caffe/layers/reorg_layer.hpp
    L85-L108.
    """

    dialect = YOLO
    reads = frozenset({"reorg_param.stride", "reorg_param.reverse"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings."""
        if not REORG.get(self.layer_param).stride:
            raise NetError("stride must be set and positive")
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        stride, reverse = REORG.get(self.layer_param).stride, REORG.get(self.layer_param).reverse
        if len(bottoms[0]) != 4:
            raise NetError("the bottom must be images", got=bottoms[0], want="(N, C, H, W)")
        images, channels, height, width = bottoms[0]
        if channels % stride**2:
            raise NetError(
                "the channels must be a multiple of stride^2", got=channels, want=f"a multiple of {stride**2}"
            )
        if reverse:
            return [(images, channels // stride**2, height * stride, width * stride)]
        if height % stride or width % stride:
            raise NetError("height and width must be multiples of stride", got=(height, width), want=stride)
        return [(images, channels * stride**2, height // stride, width // stride)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the bottom's values in the new order."""
        # Upstream bug, fixed: the gradient of Reorg is read from a buffer that is never written (reorg_layer.cpp
        # L42-L43). Here it is the gradient of the top, in the old order.
        x, (split, order) = bottoms[0], self._reordering(tuple(bottoms[0].shape))
        return (x.reshape(split).permute(order).reshape(self.shapes([tuple(x.shape)])[0]),)

    def _reordering(self, bottom: Shape) -> tuple[Shape, tuple[int, ...]]:
        """Return the shape into which the bottom is split, and the order of its axes in the top."""
        stride = REORG.get(self.layer_param).stride
        images, channels, height, width = bottom
        if REORG.get(self.layer_param).reverse:
            return (images, stride, stride, channels // stride**2, height, width), (0, 3, 4, 1, 5, 2)
        return (images, channels // stride**2, height, stride, width, stride), (0, 3, 5, 1, 2, 4)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add Reshape, Transpose and Reshape, for images of the size for which the net was built."""
        onnx.fix_sizes()
        (split, order), (top,) = self._reordering(onnx.shapes[0]), self.shapes(onnx.shapes[:1])
        parts = onnx.node("Reshape", *bottoms, onnx.constant([-1, *split[1:]], "split"), step="parts")
        moved = onnx.node("Transpose", parts, step="moved", perm=order)
        return [onnx.node("Reshape", moved, onnx.constant([-1, *top[1:]], "shape"))]

"""The layers Upsample and UpsampleDarknet, which repeat pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.dialects.yolo import YOLO
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import int32, nested
from reproduction.caffe.schema.message import Message


class UpsampleParameter(Message):
    """The field of Upsample layers of one bottom: how often pixels are repeated along each axis."""

    scale = int32(1, 1)


class UpsampleDarknetParameter(Message):
    """The field of UpsampleDarknet layers: how often pixels are repeated along each axis."""

    stride = int32(1, 1)


UPSAMPLE = LayerParameter.add_field("upsample_param", nested(150, UpsampleParameter), YOLO)
UPSAMPLE_DARKNET = LayerParameter.add_field("upsample_darknet_param", nested(209, UpsampleDarknetParameter), SYNOPSYS)


class _Repeat(Layer):
    """The base class of layers that repeat each pixel ``times`` times along rows and columns."""

    message: Callable[[Message], Any]  # returns the layer's message
    factor: ClassVar[str]  # the name of the only field of the message

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the number of repetitions."""
        self.times: int = getattr(self.message(self.layer_param), self.factor)
        if self.times < 1:
            raise NetError(f"{self.factor} must be positive", got=self.times)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        if len(bottoms[0]) != 4:
            raise NetError("the bottom must be images", got=bottoms[0], want="(N, C, H, W)")
        images, channels, height, width = bottoms[0]
        return [(images, channels, height * self.times, width * self.times)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Repeat the pixels; the gradient of a pixel is the sum of the gradients of its copies."""
        return (bottoms[0].repeat_interleave(self.times, 2).repeat_interleave(self.times, 3),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Resize, which repeats pixels if the scale is a whole number."""
        scales = onnx.constant(np.array([1, 1, self.times, self.times], np.float32), "scales")
        pixels: dict[str, Any] = {
            "mode": "nearest",
            "nearest_mode": "floor",
            "coordinate_transformation_mode": "asymmetric",
        }
        return [onnx.node("Resize", *bottoms, "", scales, **pixels)]


@register
class Upsample(_Repeat):
    """Repeat each pixel ``scale`` times along rows and columns, as nearest-neighbour interpolation.

    Layers of this type with two bottoms are those of SegNet, which undo a max pooling.

    Shapes:
        bottom  (N, C, H, W)
        top     (N, C, H * scale, W * scale)

    Raises:
        NetError: If ``scale`` is not positive or the bottom has another number of axes.

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/upsample_layer.cpp L7-L76.
    """

    dialect = YOLO
    reads = frozenset({"upsample_param.scale"})
    message = staticmethod(UPSAMPLE.get)
    factor = "scale"


@register
class UpsampleDarknet(_Repeat):
    """Repeat each pixel ``stride`` times along rows and columns, as nearest-neighbour interpolation.

    Shapes:
        bottom  (N, C, H, W)
        top     (N, C, H * stride, W * stride)

    Raises:
        NetError: If ``stride`` is not positive or the bottom has another number of axes.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/upsample_darknet_layer.cpp L7.
    """

    dialect = SYNOPSYS
    reads = frozenset({"upsample_darknet_param.stride"})
    message = staticmethod(UPSAMPLE_DARKNET.get)
    factor = "stride"

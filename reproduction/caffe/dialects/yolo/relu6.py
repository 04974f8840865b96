"""The layer ReLU6, a rectifier that is cut off at 6."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.yolo import YOLO
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import neuron
from reproduction.caffe.layers.base import Keeps, Rereads, register
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter, ReLUParameter
from reproduction.caffe.schema.field import nested

RELU6 = LayerParameter.add_field("relu6_param", nested(211, ReLUParameter), YOLO)


@register
class ReLU6(neuron.ReLU):
    """The rectifier up to 6: ``min(max(x, 0) + negative_slope * min(x, 0), 6)``.

    The slope is ``negative_slope`` at 0, and 0 at 6. The layer reads ``relu6_param``, not ``relu_param``.

    Shapes:
        bottom  any shape
        top     the same

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/relu6_layer.cpp L9-L37.
    """

    dialect = YOLO
    reads = frozenset({"relu6_param.negative_slope"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``positive``, which is True if no value of the top can be negative: without a negative slope."""
        self.negative_slope = RELU6.get(self.layer_param).negative_slope
        self.positive = self.negative_slope == 0

    def rereads(self) -> Rereads:
        """Return ``Rereads.BOTTOM``: the derivative depends on which values of the bottom are between 0 and 6."""
        return Rereads.BOTTOM

    def keeps(self) -> Keeps:
        """Return ``Keeps.SIGN``, or nothing if ``negative_slope`` is below 0, which changes signs."""
        return Keeps.SIGN if self.negative_slope >= 0 else Keeps.NOTHING

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top, in the memory of the bottom if ``inplace`` is set and there is no negative slope."""
        if self.negative_slope == 0:
            return (F.hardtanh(bottoms[0], 0.0, 6.0, inplace=self.inplace),)
        return super(neuron.ReLU, self).forward(*bottoms)

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm:
        """Return a ``PointwiseForm``."""
        return PointwiseForm()

    def value(self, x: Tensor) -> Tensor:
        """Return the top for the bottom ``x`` if there is a negative slope."""
        return F.leaky_relu(x, self.negative_slope).clamp(max=6)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the derivative at each value of the bottom ``x``."""
        return torch.where(x > 0, 1.0, self.negative_slope) * (x < 6)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Clip, or LeakyRelu and Min if there is a negative slope."""
        if not self.negative_slope:
            return [onnx.node("Clip", *bottoms, onnx.number(0, "low"), onnx.number(6, "high"))]
        rectified = onnx.node("LeakyRelu", *bottoms, step="rectified", alpha=self.negative_slope)
        return [onnx.node("Min", rectified, onnx.number(6, "high"))]

"""Dropout of Fast R-CNN's Caffe, which may scale in testing instead of training."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn import FASTER_RCNN
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import neuron
from reproduction.caffe.layers.base import Keeps, register
from reproduction.caffe.layers.compiled_forms import CompiledForm, PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import DropoutParameter
from reproduction.caffe.schema.field import boolean

SCALE_TRAIN = DropoutParameter.add_field("scale_train", boolean(2, True), FASTER_RCNN)


@register
class Dropout(neuron.Dropout):
    """Dropout; with ``scale_train: false`` the top is not scaled in training, but by ``1 - dropout_ratio`` in testing.

    Source: rbgirshick/caffe-fast-rcnn@4115385 src/caffe/layers/dropout_layer.cpp L12-L76.
    """

    dialect = FASTER_RCNN
    reads = neuron.Dropout.reads | {"dropout_param.scale_train"}

    def setup(self, bottoms: list[Shape]) -> None:
        """Read where the top is scaled, and check ``dropout_ratio``."""
        super().setup(bottoms)
        self.share = 1 - self.layer_param.dropout_param.dropout_ratio
        self.scales_in_testing = not SCALE_TRAIN.get(self.layer_param.dropout_param)

    def keeps(self) -> Keeps:
        """Return ``Keeps.SIGN``, or all values where BVLC's layer keeps them."""
        return Keeps.SIGN if self.scales_in_testing else super().keeps()

    def compiled_form(self, bottoms: list[Shape]) -> CompiledForm | None:
        """Return a ``PointwiseForm`` if the top is scaled in testing."""
        return PointwiseForm() if self.scales_in_testing else super().compiled_form(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Drop elements in training, and scale the top where the net asks for it."""
        tops = super().forward(*bottoms)
        return (tops[0] * self.share,) if self.scales_in_testing else tops

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add Mul if the top is scaled in testing, otherwise nothing."""
        if not self.scales_in_testing:
            return super().to_onnx(onnx, *bottoms)
        return [onnx.node("Mul", *bottoms, onnx.number(self.share, "share"))]

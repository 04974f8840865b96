"""The layer ReLU6, a rectifier that is cut off at 6."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.synopsys import relu
from reproduction.caffe.dialects.yolo import YOLO
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import LayerParameter, ReLUParameter
from reproduction.caffe.schema.field import nested

RELU6 = LayerParameter.add_field("relu6_param", nested(211, ReLUParameter), YOLO)


@register
class ReLU6(relu.ReLU):
    """The rectifier up to 6: ``min(max(x, 0) + negative_slope * min(x, 0), 6)``.

    The slope is ``negative_slope`` at 0, and 0 at 6. The layer reads ``relu6_param``, not ``relu_param``.

    Shapes:
        bottom  any shape
        top     the same

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/relu6_layer.cpp L9-L37.
    """

    dialect = YOLO
    reads = frozenset({"relu6_param.negative_slope"})
    can_overwrite = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Set the limits."""
        self.set_limits(RELU6.get(self.layer_param).negative_slope, None, 6.0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top, in the memory of the bottom if ``inplace`` is set and there is no negative slope."""
        if self.negative_slope == 0:
            return (F.hardtanh(bottoms[0], 0.0, 6.0, inplace=self.inplace),)
        return super().forward(*bottoms)

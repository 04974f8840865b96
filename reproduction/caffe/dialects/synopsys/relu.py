"""ReLU of Synopsys Caffe, with limits of the top."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import neuron
from reproduction.caffe.layers.base import Keeps, Rereads, register
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.neuron import Pointwise
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import ReLUParameter
from reproduction.caffe.schema.field import boolean, single

RELU6 = ReLUParameter.add_field("relu6", boolean(3), SYNOPSYS)
MAXIMUM = ReLUParameter.add_field("maximum", single(6), SYNOPSYS)
MINIMUM = ReLUParameter.add_field("minimum", single(7), SYNOPSYS)


@register
class ReLU(neuron.ReLU):
    """A rectifier whose top is at most 6 (``relu6``), at most ``maximum`` and at least ``minimum``, unless these are 0.

    The gradient is 0 where the bottom, not the top, is beyond a limit.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/relu_layer.cpp L43-L127.
    """

    dialect = SYNOPSYS
    reads = neuron.ReLU.reads | {"relu_param.relu6", "relu_param.maximum", "relu_param.minimum"}
    can_overwrite = False
    rereads = Rereads.BOTTOM  # the limits are compared with the bottom

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the limits."""
        param = self.layer_param.relu_param
        maximum = MAXIMUM.get(param)
        limits = [*([6.0] if RELU6.get(param) else []), *([maximum] if maximum > 0 else [])]
        self.set_limits(param.negative_slope, MINIMUM.get(param) or None, min(limits, default=None))

    def set_limits(self, negative_slope: float, least: float | None, most: float | None) -> None:
        """Set the slope for negative values and the limits of the top, None for no limit."""
        self.negative_slope, self.least, self.most = negative_slope, least, most
        self.positive = negative_slope == 0 and (least or 0) >= 0

    def keeps(self) -> Keeps:
        """Return ``Keeps.SIGN`` if no limit changes signs."""
        return Keeps.SIGN if self.negative_slope >= 0 and self.least is None else Keeps.NOTHING

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm:
        """Return a ``PointwiseForm``."""
        return PointwiseForm()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        return Pointwise.forward(self, *bottoms)

    def value(self, x: Tensor) -> Tensor:
        """Return the top for the bottom ``x``."""
        y = F.leaky_relu(x, self.negative_slope)
        y = y if self.most is None else y.clamp(max=self.most)
        return y if self.least is None else y.clamp(min=self.least)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the derivative at each value of the bottom."""
        slope = torch.where(x > 0, 1.0, self.negative_slope)
        if self.most is not None:
            slope = slope * (x < self.most)
        return slope if self.least is None else slope * (x > self.least)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Clip, after LeakyRelu if there is a negative slope."""
        (x,), least = bottoms, self.least
        if self.negative_slope:
            x = onnx.node("LeakyRelu", x, step="rectified", alpha=self.negative_slope)
        else:
            least = max(least or 0, 0)
        limits = (("least", least), ("most", self.most))
        return [onnx.node("Clip", x, *("" if limit is None else onnx.number(limit, name) for name, limit in limits))]

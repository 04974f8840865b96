"""The activation functions HardSwish and SeLU of Synopsys Caffe."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.layers.base import Keeps, Rereads, register
from reproduction.caffe.layers.neuron import Neuron, Pointwise
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import nested, single
from reproduction.caffe.schema.message import Message


class SeLUParameter(Message):
    """The fields of SeLU layers: the slope of positive values, and how far below 0 the top is at most."""

    alpha = single(2, 1.67326324)


# A field named ``lambda`` cannot be declared as an attribute.
LAMBDA = SeLUParameter.add_field("lambda", single(1, 1.050700987))
SELU = LayerParameter.add_field("selu_param", nested(232, SeLUParameter), SYNOPSYS)


@register
class HardSwish(Neuron):
    """The hard swish function of each value, ``x * min(max(x + 3, 0), 6) / 6``, computed in double precision.

    The fork has no backward pass, so that a net with this layer cannot be trained in it. Here the gradient is the
    derivative.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/hard_swish_layer.cpp L8-L21.
    """

    dialect = SYNOPSYS

    def rereads(self) -> Rereads:
        """Return ``Rereads.BOTTOM``: the derivative is computed from the bottom."""
        return Rereads.BOTTOM

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the function in double precision."""
        x = bottoms[0].double()
        return ((x * (x + 3).clamp(0, 6) / 6).to(bottoms[0].dtype),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator HardSwish."""
        return [onnx.node("HardSwish", *bottoms)]


@register
class SeLU(Pointwise):
    """The scaled exponential linear unit: ``lambda * x`` if ``x > 0``, else ``lambda * alpha * (exp(x) - 1)``.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/selu_layer.cpp L8-L41.
    """

    dialect = SYNOPSYS
    reads: ClassVar[frozenset[str]] = frozenset({"selu_param.lambda", "selu_param.alpha"})
    reads_bottom = True

    @property
    def _factors(self) -> tuple[float, float]:
        param = SELU.get(self.layer_param)
        return LAMBDA.get(param), param.alpha

    def keeps(self) -> Keeps:
        """Return ``Keeps.SIGN`` for factors above 0."""
        return Keeps.SIGN if min(self._factors) > 0 else Keeps.NOTHING

    def value(self, x: Tensor) -> Tensor:
        """Return the top for the bottom ``x``."""
        factor, alpha = self._factors
        return torch.where(x > 0, factor * x, factor * alpha * (x.clamp(max=0).exp() - 1))

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the derivative at ``x``."""
        factor, alpha = self._factors
        return torch.where(x > 0, factor, factor * alpha * x.clamp(max=0).exp())

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Selu."""
        factor, alpha = self._factors
        return [onnx.node("Selu", *bottoms, gamma=factor, alpha=alpha)]

"""The layers HardSwish, SeLU and SeLUDropout of Synopsys Caffe."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Keeps, Rereads, register
from reproduction.caffe.layers.compiled_forms import IdentityForm
from reproduction.caffe.layers.neuron import Neuron, Pointwise, uniform
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import nested, single
from reproduction.caffe.schema.message import Message


class SeLUParameter(Message):
    """The fields of SeLU layers: the slope of positive values, and how far below 0 the top is at most."""

    alpha = single(2, 1.67326324)


class SeLUDropoutParameter(Message):
    """The fields of SeLUDropout layers: the probability to be dropped, and the value before scaling of what is."""

    dropout_ratio = single(1, 0.1)
    alpha = single(2, -1.75809934)


# A field named ``lambda`` cannot be declared as an attribute.
LAMBDA = SeLUParameter.add_field("lambda", single(1, 1.050700987))
SELU = LayerParameter.add_field("selu_param", nested(232, SeLUParameter), SYNOPSYS)
SELU_DROPOUT = LayerParameter.add_field("selu_dropout_param", nested(233, SeLUDropoutParameter), SYNOPSYS)


@register
class HardSwish(Neuron):
    """The hard swish function of each value, ``x * min(max(x + 3, 0), 6) / 6``, computed in double precision.

    The fork has no backward pass, so that a net with this layer cannot be trained in it. Here the gradient is the
    derivative.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/hard_swish_layer.cpp L8-L21.
    """

    dialect = SYNOPSYS
    rereads = Rereads.BOTTOM

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
    rereads = Rereads.BOTTOM

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


@register
class SeLUDropout(Neuron):
    """Dropout for nets with SeLU: in training, replace values, and scale and shift all so that mean and variance stay.

    With the probability ``dropout_ratio``, a value becomes ``alpha``. Then ``a x + b`` is computed with
    ``a = (q (1 + alpha^2 (1 - q)))^(-1/2)`` and ``b = -a (1 - q) alpha``, where ``q = 1 - dropout_ratio``. In testing,
    the layer returns its bottom.

    Raises:
        NetError: If ``dropout_ratio`` is not in [0, 1).

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/selu_dropout_layer.cpp L10-L69.
    """

    dialect = SYNOPSYS
    reads: ClassVar[frozenset[str]] = frozenset({"selu_dropout_param.dropout_ratio", "selu_dropout_param.alpha"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the probability."""
        ratio = SELU_DROPOUT.get(self.layer_param).dropout_ratio
        if not 0 <= ratio < 1:
            raise NetError("dropout_ratio must be at least 0 and below 1", got=ratio)

    def compiled_form(self, bottoms: list[Shape]) -> IdentityForm:
        """Return an ``IdentityForm``: in testing, the top equals the bottom."""
        return IdentityForm()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Drop values in training; in testing, return the bottom."""
        if not self.training:
            return bottoms
        param = SELU_DROPOUT.get(self.layer_param)
        kept = 1 - param.dropout_ratio
        factor = (kept * (1 + param.alpha**2 * (1 - kept))) ** -0.5
        keep = uniform(bottoms[0], self.generator) >= param.dropout_ratio
        return (factor * torch.where(keep, bottoms[0], param.alpha) - factor * (1 - kept) * param.alpha,)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add nothing and return the bottom, which the top equals in testing."""
        return list(bottoms)

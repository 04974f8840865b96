"""Activation functions, and Dropout; ``Pointwise`` is the base class of all elementwise functions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Keeps, Layer, Rereads, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.compiled_forms import CompiledForm, IdentityForm, PointwiseForm
from reproduction.caffe.layers.custom_gradient import with_gradient
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.quick.borders import AnyBlob, map_kept
from reproduction.caffe.schema import FillerParameter


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return uniform random numbers from [0, 1).

    Caffe's random numbers have the same distribution, but other values.

    Args:
        like: A tensor that has the shape, dtype and device of the result.
        generator: The random number generator, on whose device the numbers are drawn; None for torch's default
            generator.
    """
    device = generator.device if generator else like.device
    return torch.rand(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def _exp(x: Tensor) -> Tensor:
    """Return the correctly rounded exponential, as glibc does; Caffe adds or subtracts 1, which magnifies errors."""
    return x.double().exp().to(x.dtype)


class Neuron(Layer):
    """The base class of layers whose top has the shape of the bottom."""

    keeps_coordinates = True

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return list(bottoms)

    def compiled_form(self, bottoms: list[Shape]) -> CompiledForm | None:
        """Return a ``PointwiseForm``: each pixel depends only on the same pixel of the bottom."""
        return PointwiseForm()


class Pointwise(Neuron):
    """The base class of elementwise functions, whose derivative is that of Caffe's code.

    A subclass defines ``value`` and ``slope``.

    Attributes:
        reads_bottom: Whether Caffe computes the derivative from the bottom. If the layer works in place, it then reads
            the top instead, which has overwritten the bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/neuron_layer.cpp L7-L11.
    """

    reads_bottom: ClassVar[bool] = False
    rereads = Rereads.TOP

    def value(self, x: Tensor) -> Tensor:
        """Return the top for the bottom ``x``."""
        raise NotImplementedError(type(self).__name__)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the derivative of the function at each value.

        Args:
            x: The bottom; it holds the values of the top if ``reads_bottom`` is set and the layer works in place.
            y: The top.
        """
        raise NotImplementedError(type(self).__name__)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top by ``value``; the backward pass multiplies the gradient by ``slope``."""
        # Upstream bug, kept: in place, the slopes of BNLL, of Clip, and of ELU and ReLU with a negative coefficient are
        # computed at the top instead of the bottom (bnll_layer.cpp L28, clip_layer.cpp L28).
        lost = self.reads_bottom and self.layer_param.top[0] == self.layer_param.bottom[0]
        top = with_gradient(bottoms[0], self.value, lambda diff, x, y: diff * self.slope(x, y), overwritten=lost)
        return (top,)


@register
class ReLU(Pointwise):
    """The rectifier: ``max(x, 0) + negative_slope * min(x, 0)``; at 0 the slope is ``negative_slope``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/relu_layer.cpp L9-L36.
    """

    reads = frozenset({"relu_param.negative_slope"})
    reads_bottom = True
    can_overwrite = True
    rereads = Rereads.SIGN  # the derivative depends on which values are above 0

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``positive``, which is True if no value of the top can be negative: without a negative slope."""
        self.positive = self.layer_param.relu_param.negative_slope == 0

    def keeps(self) -> Keeps:
        """Return ``SIGN | POSITIVE``; only ``POSITIVE`` if ``negative_slope`` is below 0, which changes signs."""
        return Keeps.SIGN | Keeps.POSITIVE if self.layer_param.relu_param.negative_slope >= 0 else Keeps.POSITIVE

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm:
        """Return a ``PointwiseForm``; ``is_relu`` is True if there is no negative slope."""
        return PointwiseForm(is_relu=self.layer_param.relu_param.negative_slope == 0)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top, in the memory of the bottom if ``inplace`` is set and there is no negative slope."""
        if self.layer_param.relu_param.negative_slope == 0:
            return (F.relu(bottoms[0], inplace=self.inplace),)
        return super().forward(*bottoms)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...]:
        """Compute the top; of a bottom that stores equal rows and columns once, only the stored ones are computed."""
        return (map_kept(bottoms[0], lambda x: self.forward(x)[0]),)

    def value(self, x: Tensor) -> Tensor:
        """Return the top for the bottom ``x`` if there is a negative slope."""
        return F.leaky_relu(x, self.layer_param.relu_param.negative_slope)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, self.layer_param.relu_param.negative_slope)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Relu, or LeakyRelu if there is a negative slope."""
        slope = self.layer_param.relu_param.negative_slope
        return [onnx.node("LeakyRelu", *bottoms, alpha=slope) if slope else onnx.node("Relu", *bottoms)]


@register
class PReLU(Neuron):
    """A rectifier, ``max(x, 0) + slope * min(x, 0)``, with a learned slope for each channel, or one for all channels.

    Shapes:
        bottom and top: (N, C, H, W), (N, C, H) or (N, C).
        weight: (C,), or () with ``channel_shared``; 0.25 by default.

    Raises:
        NetError: If the bottom has fewer than 2 or more than 4 axes, or the wrong number of channels.

    Source: BVLC/caffe@9b89154 src/caffe/layers/prelu_layer.cpp L12-L131.
    """

    reads = frozenset({"prelu_param.filler", "prelu_param.channel_shared"})

    def keeps(self) -> Keeps:
        """Return ``Keeps.POSITIVE``: the slope is learned and may change the sign of negative values."""
        return Keeps.POSITIVE

    def setup(self, bottoms: list[Shape]) -> None:
        param, channels = self.layer_param.prelu_param, self._channels(bottoms[0])
        filler = param.filler if param.has("filler") else FillerParameter(type="constant", value=0.25)
        self.add_blob(() if param.channel_shared else (channels,), filler)
        if (
            self.layer_param.top[:1] != self.layer_param.bottom[:1]
        ):  # in place, Caffe's layer makes a copy of the bottom
            self.rereads = Rereads.BOTTOM

    def _channels(self, bottom: Shape) -> int:
        if len(bottom) < 2:
            raise NetError("the bottom must have at least 2 axes (N, C, ...)", got=bottom)
        return legacy_shape(bottom)[1]

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        (weight,), channels = self.blobs, self._channels(bottoms[0])
        if weight.dim() and len(weight) != channels:
            raise NetError("the bottom's channels do not fit the slopes", got=channels, want=len(weight))
        return list(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; the derivative at 0 is the slope of negative values."""
        return (F.prelu(bottoms[0], self.blobs[0].reshape(-1)),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator PRelu."""
        (slopes,) = onnx.arrays().values()
        return [onnx.node("PRelu", *bottoms, onnx.constant(slopes.reshape(-1, *[1] * (onnx.axes - 2)), "slopes"))]


@register
class ELU(Pointwise):
    """The exponential linear unit: ``x`` if ``x > 0``, else ``alpha * (exp(x) - 1)``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/elu_layer.cpp L9-L37.
    """

    reads = frozenset({"elu_param.alpha"})
    reads_bottom = True
    rereads = Rereads.SIGN | Rereads.TOP  # the derivative depends on the sign and, if negative, on the top

    def keeps(self) -> Keeps:
        """Return ``SIGN | POSITIVE``; only ``POSITIVE`` if ``alpha`` is below 0, which changes signs."""
        return Keeps.SIGN | Keeps.POSITIVE if self.layer_param.elu_param.alpha >= 0 else Keeps.POSITIVE

    def value(self, x: Tensor) -> Tensor:
        # Caffe: ELU computes exp(x) - 1 with two roundings (elu_layer.cpp L17). torch uses expm1, which is accurate for
        # small x.
        return x.clamp(min=0) + self.layer_param.elu_param.alpha * (_exp(x.clamp(max=0)) - 1)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, self.layer_param.elu_param.alpha + y)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Elu."""
        return [onnx.node("Elu", *bottoms, alpha=self.layer_param.elu_param.alpha)]


def _sigmoid(x: Tensor) -> Tensor:
    # Caffe: the sigmoid is computed as 0.5 * tanh(0.5 * x) + 0.5 in double precision, which is exactly 0 for large
    # negative inputs (sigmoid_layer.cpp L10). torch returns small positive numbers.
    return (0.5 * torch.tanh(0.5 * x.double()) + 0.5).to(x.dtype)


@register
class Sigmoid(Pointwise):
    """The sigmoid function of each value, ``1 / (1 + exp(-x))``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/sigmoid_layer.cpp L8-L38.
    """

    positive = True

    def value(self, x: Tensor) -> Tensor:
        return _sigmoid(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return y * (1 - y)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Sigmoid."""
        return [onnx.node("Sigmoid", *bottoms)]


@register
class Swish(Pointwise):
    """The swish function of each value, ``x / (1 + exp(-beta * x))``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/swish_layer.cpp L10-L59.
    """

    reads = frozenset({"swish_param.beta"})

    def keeps(self) -> Keeps:
        """Return ``Keeps.SIGN``: each value has the sign of the bottom's."""
        return Keeps.SIGN

    def value(self, x: Tensor) -> Tensor:
        return x * _sigmoid(self.layer_param.swish_param.beta * x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        beta = self.layer_param.swish_param.beta
        return beta * y + _sigmoid(beta * x) * (1 - beta * y)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Mul, Sigmoid and Mul."""
        scaled = onnx.node("Mul", *bottoms, onnx.number(self.layer_param.swish_param.beta, "beta"), step="scaled")
        return [onnx.node("Mul", *bottoms, onnx.node("Sigmoid", scaled, step="sigmoid"))]


@register
class TanH(Pointwise):
    """The hyperbolic tangent of each value.

    Source: BVLC/caffe@9b89154 src/caffe/layers/tanh_layer.cpp L10-L36.
    """

    def keeps(self) -> Keeps:
        """Return ``Keeps.SIGN``: each value has the sign of the bottom's."""
        return Keeps.SIGN

    def value(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return 1 - y * y

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Tanh."""
        return [onnx.node("Tanh", *bottoms)]


@register
class BNLL(Pointwise):
    """The binomial normal log likelihood of each value, ``log(1 + exp(x))``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/bnll_layer.cpp L8-L38.
    """

    positive = True
    reads_bottom = True
    rereads = Rereads.BOTTOM

    def value(self, x: Tensor) -> Tensor:
        # Caffe: BNLL computes the exponential in single and the logarithm in double precision; the result is exactly 0
        # for large negative inputs (bnll_layer.cpp L17). torch's log1p returns small positive numbers.
        return (x.clamp(min=0) + torch.log(1 + _exp(-x.abs()).double())).to(x.dtype)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        exp = _exp(x.clamp(max=50))
        return exp / (exp + 1)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Softplus."""
        return [onnx.node("Softplus", *bottoms)]


@register
class Dropout(Neuron):
    """Dropout: in training, set elements to 0 with probability ``dropout_ratio`` and scale the others up.

    The scale is ``1 / (1 - dropout_ratio)``. In testing, the layer returns its bottom.

    Raises:
        NetError: If ``dropout_ratio`` is not in [0, 1).

    Source: BVLC/caffe@9b89154 src/caffe/layers/dropout_layer.cpp L43-L97.
    """

    reads = frozenset({"dropout_param.dropout_ratio"})

    def keeps(self) -> Keeps:
        """Return ``Keeps.VALUES`` if no element is set to 0; otherwise ``Keeps.SIGN``, that of the other elements."""
        return Keeps.SIGN if self.samples and self.layer_param.dropout_param.dropout_ratio else Keeps.VALUES

    @property
    def samples(self) -> bool:
        """Whether elements are set to 0, which is so in training."""
        return self.training

    def setup(self, bottoms: list[Shape]) -> None:
        ratio = self.layer_param.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            raise NetError("dropout_ratio must be at least 0 and below 1", got=ratio)

    def compiled_form(self, bottoms: list[Shape]) -> CompiledForm | None:
        """Return an ``IdentityForm``: in testing, the top equals the bottom."""
        return IdentityForm()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if not self.samples:
            return bottoms
        ratio = self.layer_param.dropout_param.dropout_ratio
        keep = uniform(bottoms[0], self.generator) >= ratio
        return (bottoms[0] * keep.to(bottoms[0].dtype).mul_(1 / (1 - ratio)),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add nothing and return the bottom, which the top equals in testing."""
        return list(bottoms)

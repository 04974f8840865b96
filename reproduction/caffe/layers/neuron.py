"""Layers that treat each element by itself: activations, thresholds, dropout."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.checks import legacy_shape
from reproduction.caffe.layers.memory import Keeps, Rereads
from reproduction.caffe.layers.quick.borders import AnyBlob, place_by_place
from reproduction.caffe.schema import FillerParameter


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw a number from [0, 1) for each element of ``like``, on the generator's device if there is one.

    The numbers are torch's, not Caffe's: only their distribution is the same.
    """
    device = generator.device if generator else like.device
    return torch.rand(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def _exp(x: Tensor) -> Tensor:
    """Round the exponential correctly, as glibc does: Caffe takes 1 from it, or adds 1 to it, next."""
    return x.double().exp().to(x.dtype)


class _Neuron(Layer):
    """A layer whose top has the shape of its bottom."""

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        return list(bottoms)


class Pointwise(_Neuron):
    """A function of one number, with the derivative that Caffe's code computes.

    Attributes:
        reads_bottom: whether Caffe's backward code reads the bottom; in place, the top has overwritten it by then.

    Source: BVLC/caffe@9b89154 src/caffe/layers/neuron_layer.cpp L7-L11.
    """

    reads_bottom: ClassVar[bool] = False

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        raise NotImplementedError(type(self).__name__)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative of the top ``y`` at ``x``."""
        raise NotImplementedError(type(self).__name__)

    def rereads(self) -> Rereads:
        """Return the bottom if it is read, else the top."""
        return Rereads.BOTTOM if self.reads_bottom else Rereads.TOP

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (_Apply.apply(bottoms[0], self),)  # type: ignore[no-untyped-call]


class _Apply(torch.autograd.Function):
    """The value of a Pointwise layer, and its slope for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Pointwise) -> Tensor:
        y = layer.value(x)
        # Upstream bug, kept: in place, the slopes of ELU and ReLU with a negative coefficient, BNLL and Clip are
        # those at the top (bnll_layer.cpp L28, clip_layer.cpp L28).
        overwritten = layer.reads_bottom and layer.spec.top[0] == layer.spec.bottom[0]
        ctx.save_for_backward(y if overwritten else x, y)
        ctx.layer = layer
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.layer.slope(*ctx.saved_tensors), None


class ReLU(Pointwise):
    """``max(x, 0) + negative_slope * min(x, 0)``; at 0 the slope is ``negative_slope``.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/relu_layer.cpp L9-L36.
    """

    reads = frozenset({"relu_param.negative_slope"})
    reads_bottom = True
    can_overwrite = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Find whether the top is below 0 anywhere."""
        self.positive = self.spec.relu_param.negative_slope == 0

    def rereads(self) -> Rereads:
        """Return the sign, on which the slope depends."""
        return Rereads.SIGN

    def keeps(self) -> Keeps:
        """Return signs and positive values, unless negative values become positive."""
        return Keeps.SIGN | Keeps.POSITIVE if self.spec.relu_param.negative_slope >= 0 else Keeps.POSITIVE

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top, in the memory of the bottom where the net allows it."""
        if self.spec.relu_param.negative_slope == 0:
            return (F.relu(bottoms[0], inplace=self.inplace),)
        return super().forward(*bottoms)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...]:
        """Compute the top, place by place."""
        return (place_by_place(bottoms[0], lambda x: self.forward(x)[0]),)

    def value(self, x: Tensor) -> Tensor:
        """Compute the top of a leaky ReLU."""
        return F.leaky_relu(x, self.spec.relu_param.negative_slope)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        return torch.where(x > 0, 1.0, self.spec.relu_param.negative_slope)


class PReLU(_Neuron):
    """``max(x, 0) + slope * min(x, 0)`` with a learned slope, of each channel or of all.

    Shapes:
        bottom and top: (N, C, H, W); H and W may be missing.
        weight: (C,), or () with ``channel_shared``; filled with 0.25 unless a filler is given.

    Raises:
        NetError: the bottom has no channels, or others than the weight.

    Source: BVLC/caffe@9b89154 src/caffe/layers/prelu_layer.cpp L12-L131.
    """

    reads = frozenset({"prelu_param.filler", "prelu_param.channel_shared"})

    def rereads(self) -> Rereads:
        """Return the bottom; in place, Caffe's layer keeps a copy of it."""
        return Rereads.NOTHING if self.spec.top[0] == self.spec.bottom[0] else Rereads.BOTTOM

    def keeps(self) -> Keeps:
        """Return positive values; what becomes of others is learned."""
        return Keeps.POSITIVE

    def setup(self, bottoms: list[Shape]) -> None:
        """Make the slopes."""
        param, channels = self.spec.prelu_param, self._channels(bottoms[0])
        filler = param.filler if param.has("filler") else FillerParameter(type="constant", value=0.25)
        self.add_blob(() if param.channel_shared else (channels,), filler)

    def _channels(self, bottom: Shape) -> int:
        if len(bottom) < 2:
            raise NetError("the bottom must have at least 2 axes (N, C, ...)", got=bottom)
        return legacy_shape(bottom)[1]

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        (weight,), channels = self.blobs, self._channels(bottoms[0])
        if weight.dim() and len(weight) != channels:
            raise NetError("the bottom's channels do not fit the slopes", got=channels, want=len(weight))
        return list(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; at 0 the gradient takes the slope."""
        return (F.prelu(bottoms[0], self.blobs[0].reshape(-1)),)


class ELU(Pointwise):
    """``x`` above 0, else ``alpha * (exp(x) - 1)``.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/elu_layer.cpp L9-L37.
    """

    reads = frozenset({"elu_param.alpha"})
    reads_bottom = True

    def rereads(self) -> Rereads:
        """Return both: the sign of the bottom, and the top."""
        return Rereads.SIGN | Rereads.TOP

    def keeps(self) -> Keeps:
        """Return signs and positive values."""
        return Keeps.SIGN | Keeps.POSITIVE if self.spec.elu_param.alpha >= 0 else Keeps.POSITIVE

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        # Caffe: exp(x) - 1 is computed with two roundings (elu_layer.cpp L17). torch's expm1 keeps the digits of a
        # small x.
        return x.clamp(min=0) + self.spec.elu_param.alpha * (_exp(x.clamp(max=0)) - 1)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        return torch.where(x > 0, 1.0, self.spec.elu_param.alpha + y)


def _sigmoid(x: Tensor) -> Tensor:
    # Caffe: the sigmoid is computed from tanh in double precision, so that it is exactly 0 for large negative inputs
    # (sigmoid_layer.cpp L10).
    return (0.5 * torch.tanh(0.5 * x.double()) + 0.5).to(x.dtype)


class Sigmoid(Pointwise):
    """``1 / (1 + exp(-x))``.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/sigmoid_layer.cpp L8-L38.
    """

    positive = True

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        return _sigmoid(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        return y * (1 - y)


class Swish(Pointwise):
    """``x / (1 + exp(-beta * x))``.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/swish_layer.cpp L10-L59.
    """

    reads = frozenset({"swish_param.beta"})

    def keeps(self) -> Keeps:
        """Return signs."""
        return Keeps.SIGN

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        return x * _sigmoid(self.spec.swish_param.beta * x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        beta = self.spec.swish_param.beta
        return beta * y + _sigmoid(beta * x) * (1 - beta * y)


class TanH(Pointwise):
    """The hyperbolic tangent.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/tanh_layer.cpp L10-L36.
    """

    def keeps(self) -> Keeps:
        """Return signs."""
        return Keeps.SIGN

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        return torch.tanh(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        return 1 - y * y


class AbsVal(Pointwise):
    """The absolute value; at 0 the slope is 0.

    Shapes:
        bottom and top: any; not in place.

    Raises:
        NetError: the top is the bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/absval_layer.cpp L9-L35.
    """

    positive = True

    def rereads(self) -> Rereads:
        """Return the bottom."""
        return Rereads.BOTTOM

    def setup(self, bottoms: list[Shape]) -> None:
        """Refuse to work in place."""
        if self.spec.top[0] == self.spec.bottom[0]:
            raise NetError("a top must not be the bottom", got=repr(self.spec.bottom[0]))

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        return x.abs()

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        return x.sign()


class BNLL(Pointwise):
    """``log(1 + exp(x))``, the binomial normal log likelihood.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/bnll_layer.cpp L8-L38.
    """

    positive = True
    reads_bottom = True

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        # Caffe: the exponential is in single and the logarithm in double precision, so that the output is exactly 0 for
        # large negative inputs (bnll_layer.cpp L17). torch's log1p keeps these digits.
        return (x.clamp(min=0) + torch.log(1 + _exp(-x.abs()).double())).to(x.dtype)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        exp = _exp(x.clamp(max=50))
        return exp / (exp + 1)


class Clip(Pointwise):
    """``x`` held between ``min`` and ``max``; the gradient passes at both ends.

    Shapes:
        bottom and top: any.

    Raises:
        NetError: an end is missing.

    Source: BVLC/caffe@9b89154 src/caffe/layers/clip_layer.cpp L8-L41.
    """

    reads = frozenset({"clip_param.min", "clip_param.max"})
    reads_bottom = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that both ends are given."""
        for name in ("min", "max"):
            if not self.spec.clip_param.has(name):
                raise NetError(f"clip_param.{name} is missing", want="both min and max")

    def value(self, x: Tensor) -> Tensor:
        """Compute the top."""
        # Caffe: if min is greater than max, the result is min (clip_layer.cpp L19). In torch it is max.
        return x.clamp(max=self.spec.clip_param.max).clamp(min=self.spec.clip_param.min)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the derivative."""
        return ((x >= self.spec.clip_param.min) & (x <= self.spec.clip_param.max)).to(x.dtype)


class Threshold(_Neuron):
    """1 above ``threshold``, else 0; there is no gradient.

    Shapes:
        bottom and top: any.

    Source: BVLC/caffe@9b89154 src/caffe/layers/threshold_layer.cpp L8-L23.
    """

    reads = frozenset({"threshold_param.threshold"})
    differentiable: ClassVar[tuple[int, ...] | None] = ()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        return ((bottoms[0] > self.spec.threshold_param.threshold).to(bottoms[0].dtype),)


class Dropout(_Neuron):
    """In training, set elements to 0 with probability ``dropout_ratio`` and scale the others up; else do nothing.

    Shapes:
        bottom and top: any. The top is the bottom itself when nothing is done.

    Raises:
        NetError: the ratio is not in [0, 1).

    Source: BVLC/caffe@9b89154 src/caffe/layers/dropout_layer.cpp L43-L97.
    """

    reads = frozenset({"dropout_param.dropout_ratio"})

    def keeps(self) -> Keeps:
        """Return all values where nothing is dropped; else their signs, where a gradient passes."""
        return Keeps.SIGN if self.training and self.spec.dropout_param.dropout_ratio else Keeps.VALUES

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the ratio."""
        ratio = self.spec.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            raise NetError("dropout_ratio must be at least 0 and below 1", got=ratio)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Drop."""
        if not self.training:
            return bottoms
        ratio = self.spec.dropout_param.dropout_ratio
        keep = uniform(bottoms[0], self.generator) >= ratio
        return (bottoms[0] * keep.to(bottoms[0].dtype).mul_(1 / (1 - ratio)),)


LAYERS: tuple[type[Layer], ...] = (
    AbsVal, BNLL, Clip, Dropout, ELU, PReLU, ReLU, Sigmoid, Swish, TanH, Threshold,
)  # fmt: skip

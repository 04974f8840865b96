"""SphereFace: faces differ by angles, with a margin between the classes in training."""

from __future__ import annotations

import enum
import math
from typing import Any

from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import check_positive, class_index
from reproduction.caffe.schema import FillerParameter, LayerParameter, add_dialect
from reproduction.caffe.schema.field import choice, int32, nested, single, uint32
from reproduction.caffe.schema.message import Message

SPHEREFACE = add_dialect("sphereface", "SphereFace", "wy1iu/sphereface@f20b130", 2017)


class MarginType(enum.IntEnum):
    """By what the angle to the true class is multiplied: 1, 2, 3 or 4."""

    SINGLE = 0
    DOUBLE = 1
    TRIPLE = 2
    QUADRUPLE = 3


class MarginInnerProductParameter(Message):
    """The fields of MarginInnerProduct layers: those of InnerProduct, the margin, and how it grows in training."""

    num_output = uint32(1)
    type = choice(2, MarginType, MarginType.SINGLE)
    weight_filler = nested(3, FillerParameter)
    axis = int32(4, 1)
    base = single(5, 1.0)
    gamma = single(6)
    power = single(7, 1.0)
    iteration = int32(8)
    lambda_min = single(9)


MARGIN = LayerParameter.add_field("margin_inner_product_param", nested(147, MarginInnerProductParameter), SPHEREFACE)


@register
class MarginInnerProduct(Layer):
    """An inner product with weights of unit length, in which the angle to the true class is multiplied by m, 1 to 4.

    The score of a class is ``|x| cos(t)``, where t is the angle between x and the weights. For the true class and m
    above 1 (DOUBLE, TRIPLE, QUADRUPLE) it is ``(|x| psi(t) + lambda |x| cos(t)) / (1 + lambda)``, where psi is
    ``cos(m t)``, continued so that it falls from t = 0 to pi. lambda falls with the number n of forward passes:
    ``max(base (1 + gamma n)^-power, lambda_min)``; n starts at ``iteration``.

    Each forward pass normalizes the stored weights.

    Shapes:
        features  (..., axes with K values in all)
        labels    as many integers 0..N-1 as there are features
        top 0     (..., N)   N = num_output
        top 1     (1,)       optional: lambda

    Blobs:
        weight  (N, K)

    Raises:
        NetError: If ``num_output`` is 0, the bottoms do not fit, or a label is out of range.

    Source: wy1iu/sphereface@f20b130 tools/caffe-sphereface/src/caffe/layers/margin_inner_product_layer.cpp L12-L404.
    """

    dialect = SPHEREFACE
    reads = frozenset(f"margin_inner_product_param.{name}" for name in MarginInnerProductParameter.fields)
    bottoms = (2, 2)
    tops = (1, 2)
    differentiable = (0,)
    changes_blobs = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the weights."""
        param = MARGIN.get(self.layer_param)
        check_positive(param, "num_output")
        self._inputs = math.prod(bottoms[0][canonical_axis(param.axis, len(bottoms[0])) :])
        self.add_blob((param.num_output, self._inputs), param.weight_filler)
        self.passes = param.iteration

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the scores and, for a second top, ``(1,)``."""
        param, (features, labels) = MARGIN.get(self.layer_param), bottoms
        axis = canonical_axis(param.axis, len(features))
        if math.prod(features[axis:]) != self._inputs:
            raise NetError("the bottom does not fit the weights", got=features, want=f"{self._inputs} values each")
        if math.prod(labels) != math.prod(features[:axis]):
            raise NetError("there must be one label for each instance", got=labels, want=features[:axis])
        return [(*features[:axis], param.num_output), (1,)][: len(self.layer_param.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Normalize the weights, and compute the tops."""
        param = MARGIN.get(self.layer_param)
        self.passes += 1
        weight = self.blobs[0]
        weight.data /= weight.data.norm(dim=1, keepdim=True)
        share = max(param.base * (1 + param.gamma * self.passes) ** -param.power, param.lambda_min)
        axis = canonical_axis(param.axis, bottoms[0].dim())
        x = bottoms[0].reshape(-1, self._inputs)
        labels, _ = class_index(bottoms[1].reshape(-1, 1), param.num_output)
        scores: Tensor = _Margin.apply(x, weight, labels, int(param.type) + 1, share)  # type: ignore[no-untyped-call]
        tops = scores.reshape(*bottoms[0].shape[:axis], -1), x.new_full((1,), share)
        return tops[: len(self.layer_param.top)]


def _multiply_angle(cos: Tensor, times: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return psi of the angle with this cosine, and the factors of w and of -x / |x| in the gradient of ``|x| psi``."""
    first = cos.sign()
    if times == 2:
        return 2 * first * cos**2 - 1, 4 * first * cos, 2 * first * cos**2 + 1
    if times == 3:
        sign = (cos.abs() - 0.5).sign()
        shift = first * (1 + sign) - 2
        return sign * (4 * cos**3 - 3 * cos) + shift, sign * (12 * cos**2 - 3), 8 * sign * cos**3 - shift
    sign = first * (2 * cos**2 - 1).sign()
    shift = 2 * first + sign - 3
    return (
        sign * (8 * cos**4 - 8 * cos**2 + 1) + shift,
        sign * (32 * cos**3 - 16 * cos),
        sign * (24 * cos**4 - 8 * cos**2 - 1) - shift,
    )


class _Margin(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, labels: Tensor, times: int, share: float) -> Tensor:
        scores = F.linear(x, weight)
        ctx.save_for_backward(x, weight.detach().clone(), labels, scores)
        ctx.times, ctx.share = times, share
        if times == 1:
            return scores.clone()
        length = x.norm(dim=1, keepdim=True)
        true = scores.gather(1, labels)
        psi, _, _ = _multiply_angle(true / length, times)
        return scores.scatter(1, labels, (length * psi + share * true) / (1 + share))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, labels, scores = ctx.saved_tensors
        # Upstream bug, kept: the gradient of the weights is that of a plain inner product, without the margin and the
        # normalization (margin_inner_product_layer.cpp L275-L279).
        to_weight = gradient.mT @ x
        to_x = gradient @ weight
        if ctx.times > 1:
            # Upstream bug, kept: the two terms of the true class's gradient are divided by the length of their factors
            # (L305-L316).
            length = x.norm(dim=1, keepdim=True)
            _, along, back = _multiply_angle(scores.gather(1, labels) / length, ctx.times)
            back = -back / length
            scale = gradient.gather(1, labels) / (1 + ctx.share) / (along**2 + back**2).sqrt()
            true = weight[labels.flatten()]
            to_x += scale * (along * true + back * x) - gradient.gather(1, labels) / (1 + ctx.share) * true
        return to_x, to_weight, None, None, None

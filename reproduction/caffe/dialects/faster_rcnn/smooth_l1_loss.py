"""The layer SmoothL1Loss of Fast R-CNN, and what those of other forks have in common with it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.dialects.faster_rcnn import FASTER_RCNN
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.loss import LossLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import nested, single
from reproduction.caffe.schema.message import Message


class SmoothL1LossParameter(Message):
    """The field of SmoothL1Loss layers: 1 / sigma^2 is the difference at which the loss turns linear."""

    sigma = single(1, 1.0)


SMOOTH_L1_LOSS = LayerParameter.add_field("smooth_l1_loss_param", nested(8266712, SmoothL1LossParameter), FASTER_RCNN)


def smooth_l1(difference: Tensor, sigma: float = 1.0) -> Tensor:
    """Return ``0.5 (sigma d)^2`` where ``|d| < 1 / sigma^2``, else ``|d| - 0.5 / sigma^2``, for each difference d."""
    square = float(torch.tensor(sigma).square())
    limit = 1 / square if square else math.inf
    size = difference.abs()
    return torch.where(size < limit, 0.5 * square * difference.square(), size - 0.5 * limit)


def replace_value(x: Tensor, value: Tensor) -> Tensor:
    """Return ``value``, of the shape of ``x``, with the gradient of ``x``: that of the result is passed on as it is."""
    return _Replaced.apply(x, value.detach())  # type: ignore[no-any-return, no-untyped-call]


class _Replaced(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class SmoothL1Base(LossLayer):
    """The base class: predictions and targets, which receive a gradient, and weights of the same shape.

    Shapes:
        bottoms  (N, C, H, W), all of the same shape
        top 0    ()
    """

    differentiable: ClassVar[tuple[int, ...] | None] = (0, 1)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return ``()`` for the loss.

        Raises:
            NetError: If the bottoms differ in shape.
        """
        tops = super().shapes(bottoms)
        for index, bottom in enumerate(bottoms):
            if legacy_shape(bottom) != legacy_shape(bottoms[0]):
                raise NetError(f"bottom {index} differs in shape from bottom 0", got=bottom, want=bottoms[0])
        return tops

    def compute_losses(self, bottoms: tuple[Tensor, ...], sigma: float = 1.0, *, in_gradient: bool = True) -> Tensor:
        """Return the loss of each value: ``w_out f(w_in (a - b))``; the weights, if there are any, have no gradient.

        Args:
            bottoms: a and b, and then, if given, the inside weights w_in and the outside weights w_out.
            sigma: See ``smooth_l1``.
            in_gradient: Whether the gradient is multiplied by the inside weights, too.
        """
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        if len(bottoms) > 2:
            weights = bottoms[2].detach().reshape(difference.shape)
            product = difference * weights
            difference = product if in_gradient else replace_value(difference, product)
        losses = smooth_l1(difference, sigma)
        return losses * bottoms[3].detach().reshape(losses.shape) if len(bottoms) == 4 else losses


@register
class SmoothL1Loss(SmoothL1Base):
    """The smooth L1 loss of two blobs: ``sum of w_out f(w_in (a - b)) / N``.

    ``f(d) = 0.5 (sigma d)^2`` where ``|d| < 1 / sigma^2``, else ``|d| - 0.5 / sigma^2``. The loss weight is 0 unless
    ``loss_weight`` is set, since the fork's setup leaves out the base class's.

    Shapes:
        a, b         (N, C, H, W)
        w_in, w_out  (N, C, H, W)   optional: the inside and outside weights, of which there are both or none
        top          ()

    Raises:
        NetError: If there are three bottoms, or they differ in shape.

    Source: rbgirshick/caffe-fast-rcnn@4115385 src/caffe/layers/smooth_L1_loss_layer.cpp L12-L49,
    smooth_L1_loss_layer.cu L12-L113.
    """

    dialect = FASTER_RCNN
    reads = frozenset({"smooth_l1_loss_param.sigma"})
    bottoms = (2, 4)
    is_loss = False

    @classmethod
    def is_typical(cls, layer_param: LayerParameter) -> bool:
        """Return whether there are inside and outside weights, or ``sigma`` is set."""
        return len(layer_param.bottom) == 4 or SMOOTH_L1_LOSS.get(layer_param).has("sigma")

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that there are both inside and outside weights, or none."""
        if len(bottoms) == 3:
            raise NetError("there must be both inside and outside weights, or none", got="3 bottoms", want="2 or 4")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss; the weights have no gradient."""
        losses = self.compute_losses(bottoms, SMOOTH_L1_LOSS.get(self.layer_param).sigma)
        return (losses.sum() / bottoms[0].shape[0],)

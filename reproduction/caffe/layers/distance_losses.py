"""The losses EuclideanLoss, HingeLoss and ContrastiveLoss."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.bottom_checks import class_index, legacy_shape
from reproduction.caffe.layers.custom_gradient import with_gradient
from reproduction.caffe.layers.loss import LossLayer
from reproduction.caffe.schema import HingeNorm


@register
class EuclideanLoss(LossLayer):
    """Half the squared distance of two blobs, averaged over the batch: ``sum (a - b)^2 / (2 N)``.

    Both bottoms receive a gradient.

    Shapes:
        a    (N, ...)
        b    (N, ...)   the same number of values
        top  ()

    Source: BVLC/caffe@9b89154 src/caffe/layers/euclidean_loss_layer.cpp L8-L51.
    """

    differentiable = None

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        tops = super().shapes(bottoms)
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise NetError("both bottoms must have as many values", got=bottoms[1], want=f"as many as in {bottoms[0]}")
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        return (difference.square().sum() / bottoms[0].shape[0] / 2,)


@register
class HingeLoss(LossLayer):
    """The one-versus-all hinge loss: ``sum max(0, 1 - y x)^p / N``.

    x are the scores; y is 1 for the true class and -1 for the others; p is 1 for norm L1 and 2 for L2.

    Shapes:
        scores  (N, ...)                     K values each
        labels  (N,), (N, 1), (N, 1, 1) ...  integers 0..K-1
        top     ()

    Raises:
        NetError: If a label is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/hinge_loss_layer.cpp L9-L77.
    """

    reads = frozenset({"hinge_loss_param.norm"})

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        tops = super().shapes(bottoms)
        if math.prod(bottoms[1][1:]) != 1:
            raise NetError("there must be one label for each instance", got=bottoms[1], want=f"({bottoms[1][0]},)")
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores = bottoms[0].flatten(1) if bottoms[0].dim() > 1 else bottoms[0][:, None]
        index, _ = class_index(bottoms[1].reshape(-1, 1), scores.shape[1])
        sign = torch.ones_like(scores).scatter_(1, index, -1)
        margin = F.relu(1 + sign * scores)
        if self.layer_param.hinge_loss_param.norm is HingeNorm.L2:
            margin = margin.square()
        return (margin.sum() / scores.shape[0],)


@register
class ContrastiveLoss(LossLayer):
    """The contrastive loss of pairs: small for similar pairs that are close and for others that are far apart.

    ``loss = sum_n (y d^2 + (1 - y) max(margin - d, 0)^2) / (2 N)``, where d is the Euclidean distance of the pair and y
    is 1 for similar pairs and 0 for others. With ``legacy_version``, the second term is ``max(margin - d^2, 0)``.

    Shapes:
        a     (N, C) or (N, C, 1, 1)
        b     (N, C) or (N, C, 1, 1)
        y     (N,), (N, 1), (N, 1, 1) ...   0 for dissimilar, any other integer for similar
        top   ()

    Source: BVLC/caffe@9b89154 src/caffe/layers/contrastive_loss_layer.cpp L10-L118.
    """

    reads = frozenset({"contrastive_loss_param.margin", "contrastive_loss_param.legacy_version"})
    bottoms = (3, 3)
    differentiable = (0, 1)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        tops = super().shapes(bottoms)
        first = legacy_shape(bottoms[0])
        if first[2:] != (1, 1) or legacy_shape(bottoms[1]) != first:
            raise NetError(
                "the pairs must be vectors of one length", got=f"{bottoms[0]} and {bottoms[1]}", want="(N, C)"
            )
        if legacy_shape(bottoms[2]) != (first[0], 1, 1, 1):
            raise NetError("there must be one label for each pair", got=bottoms[2], want=first[:1])
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        a, b = (bottom.flatten(1) if bottom.dim() > 1 else bottom[:, None] for bottom in bottoms[:2])
        similar = bottoms[2].detach().reshape(-1, 1).long() != 0
        param, difference = self.layer_param.contrastive_loss_param, a - b
        squared = difference.detach().square().sum(1, keepdim=True)
        short = param.margin - (squared if param.legacy_version else squared.sqrt())
        apart = short.clamp(min=0) if param.legacy_version else short.clamp(min=0).square()

        # Caffe: the gradient of ContrastiveLoss is divided by the distance plus 1e-4, so that it is finite at distance
        # 0 (contrastive_loss_layer.cpp L93-L95). Autograd would return NaN there.
        def gradient(diff: Tensor, difference: Tensor, _: Tensor) -> Tensor:
            slope = -torch.ones_like(short) if param.legacy_version else -short / (squared.sqrt() + 1e-4)
            slope = torch.where(similar, 1.0, torch.where(short > 0, slope, 0.0))
            return 2 * diff * slope * difference

        losses = with_gradient(difference, lambda _: torch.where(similar, squared, apart), gradient)
        return (losses.sum() / a.shape[0] / 2,)

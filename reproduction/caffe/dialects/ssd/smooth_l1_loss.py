"""SmoothL1Loss of SSD, without parameters."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.smooth_l1_loss import smooth_l1
from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.loss import LossLayer


@register
class SmoothL1Loss(LossLayer):
    """The smooth L1 distance of two blobs, averaged over the batch: ``sum f(a - b) / N``.

    ``f(d)`` is ``d^2 / 2`` where ``|d| < 1``, and ``|d| - 1/2`` elsewhere. Both bottoms receive a gradient.

    Shapes:
        a    (N, ...)
        b    (N, ...)   the same sizes, apart from axes of size 1 at the end
        top  ()

    Raises:
        NetError: If the sizes differ.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/smooth_L1_loss_layer.cpp L14-L98.
    """

    dialect = SSD
    differentiable = None

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check that the sizes agree, and return the shape of the loss, ``[()]``."""
        tops = super().shapes(bottoms)
        first, second = map(legacy_shape, bottoms)
        if first != second:
            raise NetError("both bottoms must have the same sizes", got=bottoms[1], want=bottoms[0])
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss."""
        difference = bottoms[0] - bottoms[1].reshape(bottoms[0].shape)
        return (smooth_l1(difference).sum() / bottoms[0].shape[0],)

"""SmoothL1Loss of SSD, without parameters."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.smooth_l1_loss import SmoothL1Base
from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.layers.base import register


@register
class SmoothL1Loss(SmoothL1Base):
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

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss."""
        return (self.compute_losses(bottoms).sum() / bottoms[0].shape[0],)

"""The layer L1Loss of NVIDIA's fork."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.nvidia import NVIDIA
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.distance_losses import EuclideanLoss


@register
class L1Loss(EuclideanLoss):
    """The sum of the absolute differences of two blobs, averaged over the batch: ``sum |a - b| / N``.

    Both bottoms receive a gradient, which is 0 where they are equal. No field of ``l1_loss_param`` is read.

    Shapes:
        a    (N, ...)
        b    (N, ...)   the same number of values
        top  ()

    Source: NVIDIA/caffe@87a2554 src/caffe/layers/l1_loss_layer.cpp L11-L54.
    """

    dialect = NVIDIA

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss."""
        return ((bottoms[0] - bottoms[1].reshape(bottoms[0].shape)).abs().sum() / bottoms[0].shape[0],)

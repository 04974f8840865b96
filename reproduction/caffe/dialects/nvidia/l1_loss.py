"""The layer L1Loss of NVIDIA's fork."""

from __future__ import annotations

import math

from torch import Tensor

from reproduction.caffe.dialects.nvidia import NVIDIA
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.loss import LossLayer


@register
class L1Loss(LossLayer):
    """The sum of the absolute differences of two blobs, averaged over the batch: ``sum |a - b| / N``.

    Both bottoms receive a gradient, which is 0 where they are equal. No field of ``l1_loss_param`` is read.

    Shapes:
        a    (N, ...)
        b    (N, ...)   the same number of values
        top  ()

    Source: NVIDIA/caffe@87a2554 src/caffe/layers/l1_loss_layer.cpp L11-L54.
    """

    dialect = NVIDIA
    differentiable = None

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check that both bottoms have as many values, and return ``[()]``."""
        tops = super().shapes(bottoms)
        if math.prod(bottoms[0][1:]) != math.prod(bottoms[1][1:]):
            raise NetError("both bottoms must have as many values", got=bottoms[1], want=f"as many as in {bottoms[0]}")
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss."""
        return ((bottoms[0] - bottoms[1].reshape(bottoms[0].shape)).abs().sum() / bottoms[0].shape[0],)

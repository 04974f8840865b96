"""The layer SoftmaxWithLoss of SegNet and ENet, with a weight for each class."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduction.caffe.dialects.segnet import SEGNET
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import cross_entropy_losses
from reproduction.caffe.layers.base import canonical_axis, register
from reproduction.caffe.schema import LossParameter
from reproduction.caffe.schema.field import boolean, singles

IS_WEIGHTED = LossParameter.add_field("weight_by_label_freqs", boolean(3, False), SEGNET)
WEIGHTS = LossParameter.add_field("class_weighting", singles(4), SEGNET)


@register
class SoftmaxWithLoss(cross_entropy_losses.SoftmaxWithLoss):
    """The cross-entropy of softmax scores and integer labels, where each label has the weight of its class.

    With ``weight_by_label_freqs``, the loss and the gradient of each label are multiplied by its element of
    ``class_weighting``. The divisor does not change: it is the number of valid labels, or that of images with
    ``normalize: false``. Everything else is as in BVLC's layer of this name.

    Shapes:
        scores  (N, K, ...)
        labels  any shape      one integer 0..K-1 or ``ignore_label`` for each position of the scores
        top 0   ()
        top 1   (N, K, ...)    optional: the probabilities; they have no gradient

    Raises:
        NetError: If a label is out of range, or there is not one weight for each class.

    Source: alexgkendall/caffe-segnet@344c113 src/caffe/layers/softmax_loss_layer.cpp L14-L157.
    """

    dialect = SEGNET
    reads = cross_entropy_losses.SoftmaxWithLoss.reads | {
        "loss_param.weight_by_label_freqs",
        "loss_param.class_weighting",
    }

    def setup(self, bottoms: list[Shape]) -> None:
        """Store the weights of the classes."""
        super().setup(bottoms)
        param, scores = self.layer_param.loss_param, bottoms[0]
        self._weighted = IS_WEIGHTED.get(param)
        if not self._weighted:
            return
        weights = WEIGHTS.get(param)
        classes = scores[canonical_axis(self.layer_param.softmax_param.axis, len(scores))]
        if len(weights) != classes:
            raise NetError("class_weighting must be given for each class", got=len(weights), want=classes)
        # Upstream bug, fixed: if all labels are ignored, the fork divides by 0, and the loss is NaN
        # (softmax_loss_layer.cpp L101). Here it is 0, as in BVLC's layer.
        self.register_buffer("class_weights", torch.tensor(weights), persistent=False)

    def label_weights(self, index: Tensor) -> Tensor | None:
        """Return the weight of each label; None without ``weight_by_label_freqs``."""
        return self.get_buffer("class_weights")[index] if self._weighted else None

"""The layers SmoothL1LossOHEM and SoftmaxWithLossOHEM of Microsoft Caffe, for online hard example mining (OHEM).

It has R-FCN's other layers as well, under other numbers in binary files.
"""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.roi_pooling import ROIPoolingParameter
from reproduction.caffe.dialects.faster_rcnn.smooth_l1_loss import SmoothL1LossParameter
from reproduction.caffe.dialects.microsoft import MICROSOFT
from reproduction.caffe.dialects.rfcn.box_annotator import BoxAnnotatorOHEMParameter
from reproduction.caffe.dialects.rfcn.psroi_pooling import PSROIPoolingParameter
from reproduction.caffe.dialects.rfcn.smooth_l1_loss import SmoothL1Loss, has_fixed_divisor
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import canonical_axis, register
from reproduction.caffe.layers.bottom_checks import class_index
from reproduction.caffe.layers.cross_entropy_losses import FLT_MIN, SoftmaxWithLoss
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import nested

LayerParameter.add_field("roi_pooling_param", nested(147, ROIPoolingParameter), MICROSOFT)
LayerParameter.add_field("smooth_l1_loss_param", nested(148, SmoothL1LossParameter), MICROSOFT)
LayerParameter.add_field("psroi_pooling_param", nested(149, PSROIPoolingParameter), MICROSOFT)
LayerParameter.add_field("box_annotator_ohem_param", nested(150, BoxAnnotatorOHEMParameter), MICROSOFT)


@register
class SmoothL1LossOHEM(SmoothL1Loss):
    """The SmoothL1Loss of R-FCN, under another name.

    Source: Microsoft/caffe@ed05614 src/caffe/layers/smooth_L1_loss_ohem_layer.cpp L16-L89,
    smooth_L1_loss_ohem_layer.cu L17-L145.
    """

    dialect = MICROSOFT


@register
class SoftmaxWithLossOHEM(SoftmaxWithLoss):
    """SoftmaxWithLoss, whose third top has the loss of each instance, for mining of hard examples.

    Shapes:
        scores  (..., K, ...)   K classes on ``axis``
        labels  any shape       one integer 0..K-1 or ``ignore_label`` for each position of the scores
        top 0   ()
        top 1   (..., K, ...)   optional: the probabilities; they have no gradient
        top 2   that of the labels, optional: the loss of each instance, 0 for an ignored one; it has no gradient

    Raises:
        NetError: If a label is out of range, or ``normalization`` is PRE_FIXED, which the fork refuses here.

    Source: Microsoft/caffe@ed05614 src/caffe/layers/softmax_loss_ohem_layer.cpp L10-L93,
    softmax_loss_ohem_layer.cu L10-L133.
    """

    dialect = MICROSOFT
    reads = SoftmaxWithLoss.reads | {"loss_param.normalization.PRE_FIXED"}  # which is refused with its own reason
    tops = (1, 3)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the normalization."""
        super().setup(bottoms)
        if has_fixed_divisor(self.layer_param.loss_param):
            raise NetError("this layer cannot be normalized by PRE_FIXED", remedy="Use VALID, FULL or BATCH_SIZE.")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops: ``()``, that of the scores, and that of the labels."""
        tops = super().shapes(bottoms)
        return [*tops, bottoms[1]] if len(self.layer_param.top) == 3 else tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops; only the first has a gradient."""
        tops = super().forward(*bottoms)
        if len(self.layer_param.top) < 3:
            return tops
        param, probabilities = self.layer_param.loss_param, tops[1].detach()
        axis = canonical_axis(self.layer_param.softmax_param.axis, probabilities.dim())
        ignore = param.ignore_label if param.has("ignore_label") else None
        before, after = probabilities.shape[:axis], probabilities.shape[axis + 1 :]
        labels = bottoms[1].detach().reshape(*before, 1, *after)
        index, ignored = class_index(labels, probabilities.shape[axis], ignore)
        losses = -probabilities.gather(axis, index).clamp(min=FLT_MIN).log()
        if ignored is not None:
            losses.masked_fill_(ignored, 0)
        return (*tops, losses.reshape(bottoms[1].shape))

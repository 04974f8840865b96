"""The layer SmoothL1Loss of Synopsys Caffe, which computes that of SSD or of Fast R-CNN."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.smooth_l1_loss import SmoothL1Base, replace_value
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, nested, single
from reproduction.caffe.schema.message import Message


class SynopsysSmoothL1LossParameter(Message):
    """The fields of SmoothL1Loss layers: that of Fast R-CNN, and whether the losses' absolute values are added."""

    sigma = single(1, 1.0)
    abssum = boolean(3, True)


SMOOTH_L1_LOSS = LayerParameter.add_field(
    "smooth_l1_loss_param", nested(8266712, SynopsysSmoothL1LossParameter), SYNOPSYS
)


@register
class SmoothL1Loss(SmoothL1Base):
    """The smooth L1 loss of two blobs: ``sum of w_out f(w_in (a - b)) / N``.

    ``f(d) = 0.5 (sigma d)^2`` where ``|d| < 1 / sigma^2``, else ``|d| - 0.5 / sigma^2``. With ``abssum``, the default,
    absolute values are added, which matters for negative weights. The loss weight is 1 by default.

    Shapes:
        a, b         (N, C, H, W)
        w_in, w_out  (N, C, H, W)   optional: the inside and outside weights
        top          ()

    Raises:
        NetError: If the bottoms differ in shape.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/smooth_L1_loss_layer.cpp L16,
    L60-L148.
    """

    dialect = SYNOPSYS
    reads = frozenset({"smooth_l1_loss_param.sigma", "smooth_l1_loss_param.abssum"})
    bottoms = (2, 4)

    @classmethod
    def is_typical(cls, layer_param: LayerParameter) -> bool:
        """Return whether ``abssum`` is set."""
        return SMOOTH_L1_LOSS.get(layer_param).has("abssum")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss; the weights have no gradient."""
        param = SMOOTH_L1_LOSS.get(self.layer_param)
        # Upstream bug, kept: with abssum, the gradient is not multiplied by the inside weights
        # (smooth_L1_loss_layer.cpp L130-L137).
        losses = self.compute_losses(bottoms, param.sigma, in_gradient=not param.abssum)
        total = losses.sum()
        if param.abssum:  # the gradient of the sum of absolute values is that of the plain sum
            total = replace_value(total, losses.abs().sum())
        return (total / bottoms[0].shape[0],)

"""The layer SmoothL1Loss of R-FCN, which gives the loss of each instance."""

from __future__ import annotations

import enum
from typing import ClassVar

from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.smooth_l1_loss import SmoothL1Base
from reproduction.caffe.dialects.rfcn import RFCN
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.cross_entropy_losses import normalization
from reproduction.caffe.schema import LayerParameter, LossParameter, NormalizationMode
from reproduction.caffe.schema.field import single


class FixedNormalization(enum.IntEnum):
    """The further value of ``normalization``: a divisor that is given.

    In binary files its number is that of BVLC's NONE, as which it is read.
    """

    PRE_FIXED = 3


LossParameter.fields["normalization"].fork_enums += (FixedNormalization,)
PRE_FIXED_NORMALIZER = LossParameter.add_field("pre_fixed_normalizer", single(4, 1.0), RFCN)


def has_fixed_divisor(param: LossParameter) -> bool:
    """Return whether ``normalization`` is PRE_FIXED."""
    mode: object = param.normalization
    return isinstance(mode, FixedNormalization)


@register
class SmoothL1Loss(SmoothL1Base):
    """The smooth L1 loss of two blobs, whose second top has the loss of each instance, to find hard examples.

    ``loss = sum of f(w (a - b)) / divisor`` with ``f(d) = 0.5 d^2`` where ``|d| < 1``, else ``|d| - 0.5``. The divisor
    is N H W (``normalization: VALID``, the default, or FULL), N (BATCH_SIZE, or ``normalize: false``),
    ``pre_fixed_normalizer`` (PRE_FIXED) or 1 (NONE), and at least 1. The loss weight is 0 unless ``loss_weight`` is
    set, since the fork's setup leaves out the base class's.

    Shapes:
        a, b   (N, C, H, W)
        w      (N, C, H, W)   optional
        top 0  ()
        top 1  (N, 1, H, W)   optional: the loss of each instance; it has no gradient

    Raises:
        NetError: If the bottoms differ in shape.

    Source: daijifeng001/caffe-rfcn@543f8f6 src/caffe/layers/smooth_L1_loss_layer.cpp L17-L89,
    smooth_L1_loss_layer.cu L19-L127.
    """

    dialect = RFCN
    reads = frozenset(
        f"loss_param.{name}"
        for name in ("normalization", "normalization.PRE_FIXED", "normalize", "pre_fixed_normalizer")
    )
    bottoms: ClassVar[tuple[int, int | None]] = (2, 3)
    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    is_loss = False

    @classmethod
    def is_typical(cls, layer_param: LayerParameter) -> bool:
        """Return whether there are weights or a second top, or the normalization is set."""
        return len(layer_param.bottom) == 3 or len(layer_param.top) == 2 or layer_param.has("loss_param")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return ``()`` for the loss and, for a second top, (N, 1, H, W)."""
        num, _, height, width = legacy_shape(bottoms[0])
        return [*super().shapes(bottoms), (num, 1, height, width)][: len(self.layer_param.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        # Upstream bug, kept: the gradient is not multiplied by the weights (smooth_L1_loss_layer.cu L104-L126). With
        # weights of 0 and 1, it is that of the loss where the weight is 1.
        losses = self.compute_losses(bottoms, in_gradient=False).reshape(legacy_shape(tuple(bottoms[0].shape)))
        each = losses.detach().sum(1, keepdim=True)
        return (losses.sum() / self._divisor(losses), each)[: len(self.layer_param.top)]

    def _divisor(self, losses: Tensor) -> float:
        param, (num, _, height, width) = self.layer_param.loss_param, losses.shape
        if has_fixed_divisor(param):
            return max(1.0, PRE_FIXED_NORMALIZER.get(param))
        divisors = {NormalizationMode.BATCH_SIZE: num, NormalizationMode.NONE: 1}
        return float(max(1, divisors.get(normalization(param, NormalizationMode.VALID), num * height * width)))

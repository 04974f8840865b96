"""The layer SegAccuracy of DeepLab and PSPNet: pixel accuracy, mean accuracy and mean IU of score maps."""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from reproduction.caffe.dialects.pspnet import PSPNET
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, choice, integers, nested
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32


class AccuracyMetric(enum.IntEnum):
    """A metric; the layer computes all of them, whichever is chosen."""

    PixelAccuracy = 0
    ClassAccuracy = 1
    PixelIOU = 2


class SegAccuracyParameter(Message):
    """Parameters of SegAccuracy layers: labels that do not count, and whether each pass counts from 0."""

    metric = choice(1, AccuracyMetric)
    ignore_label = integers(2, INT32)
    reset = boolean(3, True)


SEG_ACCURACY = LayerParameter.add_field("seg_accuracy_param", nested(144, SegAccuracyParameter), PSPNET)
LayerParameter.add_field("seg_accuracy_param", nested(164, SegAccuracyParameter), SYNOPSYS)


@register
class SegAccuracy(Layer):
    """Pixel accuracy, mean accuracy and mean IU of the class with the greatest score at each pixel. No gradient.

    The mean accuracy is that of the classes with labels. The mean IU is that of all classes; a class that has no
    labels and is never predicted counts as 1. Among equal scores, the last class is predicted. With ``reset: false``,
    the counts of all forward passes are added up. ``metric`` is not used.

    Shapes:
        scores  (N, K, H, W)
        labels  (N, 1, H, W)  classes 0..K-1, or one of ``ignore_label``
        top     (1, 1, 1, 3)

    Raises:
        NetError: If the bottoms do not fit, or a label is out of range and not ignored.

    Source: hszhao/PSPNet@798bdc9 src/caffe/layers/seg_accuracy_layer.cpp L15-L109, src/caffe/util/confusion_matrix.cpp
    L260-L320.
    """

    dialect = PSPNET
    reads = frozenset(f"seg_accuracy_param.{name}" for name in SegAccuracyParameter.fields)
    bottoms = (2, 2)
    differentiable = ()

    def setup(self, bottoms: list[Shape]) -> None:
        """Clear the confusion matrix."""
        classes = legacy_shape(bottoms[0])[1]
        self.register_buffer("confusion", torch.zeros(classes, classes, dtype=torch.int64), persistent=False)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check the bottoms, and return the shape of the three numbers."""
        (images, classes, height, width), labels = (legacy_shape(bottom) for bottom in bottoms)
        if labels != (images, 1, height, width):
            raise NetError("there must be one label for each pixel", got=bottoms[1], want=(images, 1, height, width))
        if classes != len(self.get_buffer("confusion")):
            raise NetError("the number of classes has changed", got=classes, want=len(self.get_buffer("confusion")))
        return [(1, 1, 1, 3)]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Count the pixels, and compute the metrics."""
        param, (scores, labels) = SEG_ACCURACY.get(self.layer_param), bottoms
        self.shapes([tuple(bottom.shape) for bottom in bottoms])
        classes, counts = scores.shape[1], self.get_buffer("confusion")
        truth = labels.reshape(-1).long()
        # Caffe: among equal scores, SegAccuracy predicts the last class, since it sorts pairs of score and class
        # (seg_accuracy_layer.cpp L72-L74). torch.argmax returns the first.
        predicted = (classes - 1 - scores.flip(1).argmax(1)).reshape(-1)
        counted = ~torch.isin(truth, torch.tensor(param.ignore_label, dtype=torch.int64, device=truth.device))
        truth, predicted = truth[counted], predicted[counted]
        odd = truth[(truth < 0) | (truth >= classes)]
        if len(odd):
            want = f"0..{classes - 1}, or ignore_label {param.ignore_label}"
            raise NetError(f"label {int(odd[0])} is out of range", got=f"{len(odd)} such", want=want)
        if param.reset:
            counts.zero_()
        counts += torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)
        return (self._metrics(counts.double()).to(scores.dtype).view(1, 1, 1, 3),)

    @staticmethod
    def _metrics(counts: Tensor) -> Tensor:
        hits, labeled = counts.diag(), counts.sum(1)
        union = labeled + counts.sum(0) - hits
        present = labeled > 0
        accuracy = hits.sum() / counts.sum().clamp(min=1)
        recall = (hits / labeled.clamp(min=1)).sum() / present.sum().clamp(min=1)
        return torch.stack([accuracy, recall, torch.where(union == 0, 1, hits / union.clamp(min=1)).mean()])

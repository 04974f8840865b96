"""The classification losses: softmax, infogain, multinomial logistic and sigmoid cross-entropy.

Each has an autograd function with Caffe's gradient, which is not always the derivative of the loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import canonical_axis, register
from reproduction.caffe.layers.bottom_checks import check_label_count, class_index, legacy_shape
from reproduction.caffe.layers.custom_gradient import with_gradient
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.loss import LossLayer
from reproduction.caffe.schema import LossParameter, NormalizationMode

FLT_MIN = float(torch.finfo(torch.float32).tiny)  # the smallest normal float; Caffe uses it for doubles, too
LOG_THRESHOLD = 1e-20  # Source: BVLC/caffe@9b89154 include/caffe/layers/loss_layer.hpp L12


def _ignored_label(param: LossParameter) -> int | None:
    return param.ignore_label if param.has("ignore_label") else None


def normalization(param: LossParameter, default: NormalizationMode) -> NormalizationMode:
    """Return how a loss is divided: by ``normalization`` if it is set, else by the older field ``normalize``.

    Args:
        param: The settings of the loss. ``normalize: true`` is VALID and ``normalize: false`` is BATCH_SIZE.
        default: The mode if neither field is set.
    """
    if param.has("normalization"):
        return param.normalization
    if param.has("normalize"):
        return NormalizationMode.VALID if param.normalize else NormalizationMode.BATCH_SIZE
    return default


def _compute_divisor(mode: NormalizationMode, batch: int, total: int, ignored: Tensor | None) -> float:
    """Return the divisor of a loss, at least 1, so that the loss of a batch without valid labels is 0.

    Args:
        mode: The normalization mode.
        batch: The number of instances.
        total: The number of labels, including ignored ones.
        ignored: A bool tensor, True where a label is ignored; None if there is no ``ignore_label``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/softmax_loss_layer.cpp L61-L89.
    """
    if mode is NormalizationMode.VALID and ignored is not None:
        total -= int(ignored.sum())
    count = {NormalizationMode.BATCH_SIZE: batch, NormalizationMode.NONE: 1}.get(mode, total)
    return float(max(count, 1))


class _Labels:
    """Labels in the shape of the scores, with size 1 on the class axis.

    Attributes:
        axis: The class axis.
        index: The labels, int64; 0 for ignored ones.
        ignored: A bool tensor, True where a label is ignored; None if there is no ``ignore_label``.
        divisor: The divisor of the loss.
        weights: The weight of each label, of the shape of ``index``; None if all are 1.
    """

    weights: Tensor | None = None

    def __init__(self, scores: Tensor, labels: Tensor, axis: int, param: LossParameter):
        self.axis = canonical_axis(axis, scores.dim())
        before, after = scores.shape[: self.axis], scores.shape[self.axis + 1 :]
        self.index, self.ignored = class_index(
            labels.reshape(*before, 1, *after), scores.shape[self.axis], _ignored_label(param)
        )
        mode = normalization(param, NormalizationMode.VALID)
        self.divisor = _compute_divisor(mode, before.numel(), self.index.numel(), self.ignored)


def sum_in_order(losses: Tensor) -> Tensor:
    """Return the sum of ``losses``, on the CPU added one after the other in their dtype as in Caffe's loop.

    For the losses of all pixels of an image in single precision, this sum differs from torch's by about one part in
    10,000. On a GPU, it is torch's sum.
    """
    if losses.device.type != "cpu" or not losses.numel():
        return losses.sum()
    # Caffe: SoftmaxWithLoss adds the losses of all pixels one after the other in single precision
    # (softmax_loss_layer.cpp L107). torch adds them in blocks, with smaller rounding errors.
    total = np.add.accumulate(losses.detach().contiguous().view(-1).numpy())[-1]
    return losses.new_tensor(float(total))


@register
class SoftmaxWithLoss(LossLayer):
    """The cross-entropy of softmax scores and integer labels, summed and normalized.

    ``loss = sum over labels of -log(max(p_label, FLT_MIN)) / divisor``. The gradient of the scores is
    ``(p_k - [k = label]) * loss_weight / divisor``; it is 0 where the label is ignored. The divisor is the number of
    valid labels (VALID, the default), of all labels (FULL), of instances (BATCH_SIZE; also ``normalize: false``), or
    1 (NONE). BATCH_SIZE counts the axes before the class axis.

    Shapes:
        scores  (..., K, ...)   K classes on ``axis``
        labels  any shape       one integer 0..K-1 or ``ignore_label`` for each position of the scores
        top 0   ()
        top 1   (..., K, ...)   optional: the probabilities; they have no gradient

    Raises:
        NetError: If a label is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/softmax_loss_layer.cpp L9-L160.
    """

    reads = frozenset(
        {"softmax_param.axis", "loss_param.ignore_label", "loss_param.normalize", "loss_param.normalization"}
    )
    tops = (1, 2)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops: ``()`` for the loss and, if there is a second top, the shape of the scores."""
        super().shapes(bottoms)
        scores, labels = bottoms
        check_label_count(scores, labels, canonical_axis(self.layer_param.softmax_param.axis, len(scores)))
        return [(), scores][: len(self.layer_param.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores, labels = bottoms
        places = _Labels(scores, labels, self.layer_param.softmax_param.axis, self.layer_param.loss_param)
        places.weights = self.label_weights(places.index)
        # Upstream bug, fixed: Caffe declares a second top of SoftmaxWithLoss, but no number of loss weights is valid
        # with it: the inner Softmax layer has one top and receives the same loss weights (softmax_loss_layer.cpp
        # L13-L19). Here the second top works.
        in_order = blas.applies_to(self.in_blas_order, scores)
        tops: tuple[Tensor, ...] = _SoftmaxLoss.apply(scores, places, in_order)  # type: ignore[no-untyped-call]
        return tops[: len(self.layer_param.top)]

    def label_weights(self, index: Tensor) -> Tensor | None:
        """Return the weight of each label's loss, given the labels as int64; None, the default, if all are 1."""
        return None


class _SoftmaxLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, places: _Labels, in_blas_order: bool) -> tuple[Tensor, Tensor]:
        prob = blas.softmax(scores, places.axis) if in_blas_order else scores.softmax(places.axis)
        picked = prob.gather(places.axis, places.index)
        # Caffe: SoftmaxWithLoss clamps probabilities to at least FLT_MIN in the loss but not in the gradient
        # (softmax_loss_layer.cpp L107, L128-L146). torch's cross_entropy does not clamp.
        losses = picked.clamp(min=FLT_MIN).log_().neg_()
        if places.weights is not None:
            losses.mul_(places.weights)
        if places.ignored is not None:
            losses.masked_fill_(places.ignored, 0)
        ctx.places = places
        ctx.save_for_backward(prob, picked)
        ctx.mark_non_differentiable(prob)
        return sum_in_order(losses) / places.divisor, prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        prob, picked = ctx.saved_tensors
        places: _Labels = ctx.places
        weight = gradient / places.divisor
        scores = (prob * weight).scatter_(places.axis, places.index, (picked - 1) * weight)
        if places.weights is not None:
            scores.mul_(places.weights)
        if places.ignored is not None:
            scores.masked_fill_(places.ignored, 0)
        return scores, None, None


@register
class InfogainLoss(LossLayer):
    """A softmax loss with a matrix H of weights for each pair of label and class.

    ``loss = sum over labels and classes k of -H[label, k] * log(max(p_k, 1e-20)) / divisor``. The gradient of the
    scores is ``(p_k * sum_j H[label, j] - H[label, k]) * loss_weight / divisor``. The divisor is that of
    SoftmaxWithLoss. With the identity as H, the loss is that of SoftmaxWithLoss as well, except for the limit 1e-20.

    Shapes:
        scores  (..., K, ...)   K classes on ``axis``
        labels  any shape       one integer 0..K-1 or ``ignore_label`` for each position of the scores
        H       K * K values    the third bottom, or the ``source`` file (.binaryproto)
        top 0   ()
        top 1   (..., K, ...)   optional: the probabilities; they have no gradient

    Raises:
        NetError: If a label is out of range, H is missing, or H does not have K * K values.

    Source: BVLC/caffe@9b89154 src/caffe/layers/infogain_loss_layer.cpp L11-L231.
    """

    reads = frozenset(
        {
            "infogain_loss_param.source",
            "infogain_loss_param.axis",
            "loss_param.ignore_label",
            "loss_param.normalization",
        }
    )
    refuses = frozenset({"loss_param.normalize"})
    bottoms = (2, 3)
    tops = (1, 2)

    def setup(self, bottoms: list[Shape]) -> None:
        """Load the matrix H from the file ``source``, unless it is the third bottom."""
        param = self.layer_param.infogain_loss_param
        if len(bottoms) == 2:
            if not param.has("source"):
                raise NetError("the infogain matrix is missing", want="infogain_loss_param.source or a third bottom")
            from reproduction.caffe.formats import blobs

            self.register_buffer("matrix", torch.from_numpy(blobs.load_mean(param.source).copy()), persistent=False)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops: ``()`` for the loss and, if there is a second top, the shape of the scores."""
        super().shapes(bottoms)
        scores, labels = bottoms[:2]
        axis = canonical_axis(self.layer_param.infogain_loss_param.axis, len(scores))
        check_label_count(scores, labels, axis)
        matrix = bottoms[2] if len(bottoms) == 3 else tuple(self.get_buffer("matrix").shape)
        if torch.Size(matrix).numel() != scores[axis] ** 2:
            raise NetError("the infogain matrix must be classes by classes", got=matrix, want=(scores[axis],) * 2)
        return [(), scores][: len(self.layer_param.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores, labels, *matrix = bottoms
        places = _Labels(scores, labels, self.layer_param.infogain_loss_param.axis, self.layer_param.loss_param)
        table = (matrix[0].detach() if matrix else self.get_buffer("matrix")).reshape(-1, scores.shape[places.axis])
        rows = table.to(scores.dtype)[places.index.squeeze(places.axis)].movedim(-1, places.axis)
        tops: tuple[Tensor, ...] = _InfogainLoss.apply(scores, rows, places)  # type: ignore[no-untyped-call]
        return tops[: len(self.layer_param.top)]


class _InfogainLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, rows: Tensor, places: _Labels) -> tuple[Tensor, Tensor]:
        prob = scores.softmax(places.axis)
        losses = (prob.clamp(min=LOG_THRESHOLD).log_() * rows).neg_()
        if places.ignored is not None:
            losses.masked_fill_(places.ignored, 0)
        ctx.places = places
        ctx.save_for_backward(prob, rows)
        ctx.mark_non_differentiable(prob)
        return losses.sum() / places.divisor, prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        prob, rows = ctx.saved_tensors
        places: _Labels = ctx.places
        scores = (prob * rows.sum(places.axis, keepdim=True) - rows) * (gradient / places.divisor)
        if places.ignored is not None:
            scores.masked_fill_(places.ignored, 0)
        return scores, None, None


@register
class MultinomialLogisticLoss(LossLayer):
    """The cross-entropy of probabilities and integer labels, averaged over the batch.

    ``loss = sum_n -log(max(p_n[label_n], 1e-20)) / N``. The bottom holds probabilities, e.g. those of a Softmax layer.

    Shapes:
        probabilities  (N, ...)   K values each
        labels         (N,), (N, 1), (N, 1, 1) ...   integers 0..K-1
        top            ()

    Raises:
        NetError: If a label is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/multinomial_logistic_loss_layer.cpp L10-L60.
    """

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        tops = super().shapes(bottoms)
        if legacy_shape(bottoms[1])[1:] != (1, 1, 1):
            raise NetError("there must be one label for each instance", got=bottoms[1], want=f"({bottoms[1][0]},)")
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        prob = bottoms[0].flatten(1) if bottoms[0].dim() > 1 else bottoms[0][:, None]
        index, _ = class_index(bottoms[1].reshape(-1, 1), prob.shape[1])
        # Caffe: for a probability below 1e-20, the gradient of MultinomialLogisticLoss is that at 1e-20
        # (multinomial_logistic_loss_layer.cpp L48-L53). The gradient of torch.clamp is 0 there.
        logs = with_gradient(
            prob.gather(1, index),
            lambda picked: picked.clamp(min=LOG_THRESHOLD).log(),
            lambda diff, picked, _: diff / picked.clamp(min=LOG_THRESHOLD),
        )
        return (-logs.sum() / prob.shape[0],)


@register
class SigmoidCrossEntropyLoss(LossLayer):
    """The binary cross-entropy of sigmoid scores and targets, summed and normalized.

    With the sigmoid s, ``loss = sum of -(t log s(x) + (1 - t) log(1 - s(x))) / divisor``; the gradient of the scores is
    ``(s(x) - t) * loss_weight / divisor``. The divisor is the number of instances (BATCH_SIZE, the default), or that of
    another mode as in SoftmaxWithLoss.

    Shapes:
        scores   (N, ...)
        targets  (N, ...)   as many values, in [0, 1]; a target whose integer part is ``ignore_label`` is ignored
        top      ()

    Source: BVLC/caffe@9b89154 src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp L9-L131.
    """

    reads = frozenset({"loss_param.ignore_label", "loss_param.normalize", "loss_param.normalization"})

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        tops = super().shapes(bottoms)
        if torch.Size(bottoms[0]).numel() != torch.Size(bottoms[1]).numel():
            raise NetError(
                "there must be one target for each score", got=bottoms[1], want=f"as many as in {bottoms[0]}"
            )
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        scores, targets = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        param = self.layer_param.loss_param
        ignore = _ignored_label(param)
        ignored = None if ignore is None else targets.long() == ignore
        # Caffe: by default, SigmoidCrossEntropyLoss is divided by the batch size, but SoftmaxWithLoss by the number of
        # valid labels (sigmoid_cross_entropy_loss_layer.cpp L25-L33). torch averages over all elements.
        mode = normalization(param, NormalizationMode.BATCH_SIZE)
        divisor = _compute_divisor(mode, scores.shape[0], scores.numel(), ignored)
        # Caffe: SigmoidCrossEntropyLoss rounds 1 + exp(-|x|) before the logarithm (sigmoid_cross_entropy_loss_layer.cpp
        # L93-L94). torch uses log1p.
        losses = with_gradient(
            scores,
            lambda x: x.clamp(min=0) - x * targets + (1 + x.abs().neg_().exp_()).log_(),
            lambda diff, x, _: diff * (x.sigmoid() - targets),
        )
        if ignored is not None:
            losses = losses.masked_fill(ignored, 0)
        return (losses.sum() / divisor,)

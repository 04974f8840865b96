"""The losses of classification: how improbable a net finds the true labels.

Each is one autograd function with Caffe's own gradient, which is not always the derivative of the forward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, canonical_axis
from reproduction.caffe.layers.checks import check_batch, check_label_count, class_index, legacy_shape
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.schema import LossParameter, NormalizationMode

FLT_MIN = float(torch.finfo(torch.float32).tiny)  # the least normal float, also for doubles
LOG_THRESHOLD = 1e-20  # Source: BVLC/caffe@9b89154 include/caffe/layers/loss_layer.hpp L12


def _ignored_label(param: LossParameter) -> int | None:
    return param.ignore_label if param.has("ignore_label") else None


def normalization(param: LossParameter, default: NormalizationMode) -> NormalizationMode:
    """Read what a loss is divided by: ``normalization``, else the old ``normalize``, else the default."""
    if param.has("normalization"):
        return param.normalization
    if param.has("normalize"):
        return NormalizationMode.VALID if param.normalize else NormalizationMode.BATCH_SIZE
    return default


def _divisor(mode: NormalizationMode, batch: int, total: int, ignored: Tensor | None) -> float:
    """Count what a loss is divided by; at least 1, so that a batch without labels gives zero.

    Source: BVLC/caffe@9b89154 src/caffe/layers/softmax_loss_layer.cpp L61-L89.
    """
    if mode is NormalizationMode.VALID and ignored is not None:
        total -= int(ignored.sum())
    count = {NormalizationMode.BATCH_SIZE: batch, NormalizationMode.NONE: 1}.get(mode, total)
    return float(max(count, 1))


class _Places:
    """The labels of a blob of scores, each at its place with the class axis cut to length 1.

    Attributes:
        axis: the class axis.
        index: the labels, int64, 0 where ignored.
        ignored: where they are ignored; None when no label can be.
        divisor: what the loss is divided by.
    """

    def __init__(self, scores: Tensor, labels: Tensor, axis: int, param: LossParameter):
        self.axis = canonical_axis(axis, scores.dim())
        before, after = scores.shape[: self.axis], scores.shape[self.axis + 1 :]
        self.index, self.ignored = class_index(
            labels.reshape(*before, 1, *after), scores.shape[self.axis], _ignored_label(param)
        )
        mode = normalization(param, NormalizationMode.VALID)
        self.divisor = _divisor(mode, before.numel(), self.index.numel(), self.ignored)


def sum_in_order(losses: Tensor) -> Tensor:
    """Add numbers one after the other in their own precision, as Caffe's loop over the places does.

    Over the pixels of an image that differs from torch's sum by 1e-4 of it in single precision. On a GPU the order is
    torch's.
    """
    if losses.device.type != "cpu" or not losses.numel():
        return losses.sum()
    # Caffe: the losses are added one after the other in single precision (softmax_loss_layer.cpp L107). torch adds them
    # in blocks.
    total = np.add.accumulate(losses.detach().contiguous().view(-1).numpy())[-1]
    return losses.new_tensor(float(total))


class SoftmaxWithLoss(Layer):
    """Minus the log of the true label's softmax probability, summed and normalised.

    ``loss = sum over places of -log(max(p_label, FLT_MIN)) / divisor``; the gradient of the scores is
    ``(p - [k = label]) * loss_weight / divisor``, 0 where the label is ignored. The divisor is the number of labels
    that count (VALID, the default), of places (FULL), of instances (BATCH_SIZE; also ``normalize: false``) or 1 (NONE).

    Shapes:
        scores  (..., K, ...)   K classes on ``axis``
        labels  any shape       one integer 0..K-1, or ``ignore_label``, for each place of the scores
        top 0   ()
        top 1   (..., K, ...)   optional: the probabilities, without a gradient

    Raises:
        NetError: a label is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/softmax_loss_layer.cpp L9-L160.
    """

    reads = frozenset(
        {"softmax_param.axis", "loss_param.ignore_label", "loss_param.normalize", "loss_param.normalization"}
    )
    bottoms = (2, 2)
    tops = (1, 2)
    is_loss = True
    differentiable = (0,)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give a scalar and, for a second top, the scores' shape."""
        check_batch(bottoms)
        scores, labels = bottoms
        check_label_count(scores, labels, canonical_axis(self.spec.softmax_param.axis, len(scores)))
        return [(), scores][: len(self.spec.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        scores, labels = bottoms
        places = _Places(scores, labels, self.spec.softmax_param.axis, self.spec.loss_param)
        # Upstream bug, fixed: Caffe declares the second top, but refuses every number of loss weights with it, since
        # its inner Softmax layer, with one top, is given the same (softmax_loss_layer.cpp L13-L19).
        in_order = blas.serves(self.in_blas_order, scores)
        tops: tuple[Tensor, ...] = _SoftmaxLoss.apply(scores, places, in_order)  # type: ignore[no-untyped-call]
        return tops[: len(self.spec.top)]


class _SoftmaxLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, places: _Places, in_blas_order: bool) -> tuple[Tensor, Tensor]:
        prob = blas.softmax(scores, places.axis) if in_blas_order else scores.softmax(places.axis)
        picked = prob.gather(places.axis, places.index)
        # Caffe: probabilities below FLT_MIN count as FLT_MIN in the loss, while the gradient is that of the softmax
        # without this limit (softmax_loss_layer.cpp L107, L128-L146). torch's cross_entropy has no such limit.
        losses = picked.clamp(min=FLT_MIN).log_().neg_()
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
        places: _Places = ctx.places
        weight = gradient / places.divisor
        scores = (prob * weight).scatter_(places.axis, places.index, (picked - 1) * weight)
        if places.ignored is not None:
            scores.masked_fill_(places.ignored, 0)
        return scores, None, None


class InfogainLoss(Layer):
    """A softmax loss in which the matrix H says how much each class counts for each label.

    ``loss = sum over places and classes k of -H[label, k] * log(max(p_k, 1e-20)) / divisor``; the gradient of the
    scores is ``(p_k * sum_j H[label, j] - H[label, k]) * loss_weight / divisor``. The identity gives SoftmaxWithLoss.

    Shapes:
        scores  (..., K, ...)   K classes on ``axis``
        labels  any shape       one integer 0..K-1, or ``ignore_label``, for each place of the scores
        H       K * K values    the third bottom, or the ``source`` file (.binaryproto)
        top 0   ()
        top 1   (..., K, ...)   optional: the probabilities, without a gradient

    Raises:
        NetError: a label is out of range, or there is no H.

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
    is_loss = True
    differentiable = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        """Read H from its file where it is not a bottom."""
        param = self.spec.infogain_loss_param
        if len(bottoms) == 2:
            if not param.has("source"):
                raise NetError("the infogain matrix is missing", want="infogain_loss_param.source or a third bottom")
            from reproduction.caffe.formats import blobs

            self.register_buffer("matrix", torch.from_numpy(blobs.load_mean(param.source).copy()), persistent=False)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give a scalar and, for a second top, the scores' shape."""
        check_batch(bottoms)
        scores, labels = bottoms[:2]
        axis = canonical_axis(self.spec.infogain_loss_param.axis, len(scores))
        check_label_count(scores, labels, axis)
        matrix = bottoms[2] if len(bottoms) == 3 else tuple(self.get_buffer("matrix").shape)
        if torch.Size(matrix).numel() != scores[axis] ** 2:
            raise NetError("the infogain matrix must be classes by classes", got=matrix, want=(scores[axis],) * 2)
        return [(), scores][: len(self.spec.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        scores, labels, *matrix = bottoms
        places = _Places(scores, labels, self.spec.infogain_loss_param.axis, self.spec.loss_param)
        table = (matrix[0].detach() if matrix else self.get_buffer("matrix")).reshape(-1, scores.shape[places.axis])
        rows = table.to(scores.dtype)[places.index.squeeze(places.axis)].movedim(-1, places.axis)
        tops: tuple[Tensor, ...] = _InfogainLoss.apply(scores, rows, places)  # type: ignore[no-untyped-call]
        return tops[: len(self.spec.top)]


class _InfogainLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, rows: Tensor, places: _Places) -> tuple[Tensor, Tensor]:
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
        places: _Places = ctx.places
        scores = (prob * rows.sum(places.axis, keepdim=True) - rows) * (gradient / places.divisor)
        if places.ignored is not None:
            scores.masked_fill_(places.ignored, 0)
        return scores, None, None


class MultinomialLogisticLoss(Layer):
    """Minus the mean log of the true label's probability, for bottoms that are probabilities already.

    ``loss = sum_n -log(max(p_n[label_n], 1e-20)) / N``

    Shapes:
        probabilities  (N, ...)   K values each
        labels         (N,), (N, 1), (N, 1, 1) ...   integers 0..K-1
        top            ()

    Raises:
        NetError: a label is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/multinomial_logistic_loss_layer.cpp L10-L60.
    """

    bottoms = (2, 2)
    is_loss = True
    differentiable = (0,)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give a scalar."""
        check_batch(bottoms)
        if legacy_shape(bottoms[1])[1:] != (1, 1, 1):
            raise NetError("there must be one label for each instance", got=bottoms[1], want=f"({bottoms[1][0]},)")
        return [()]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        prob = bottoms[0].flatten(1) if bottoms[0].dim() > 1 else bottoms[0][:, None]
        index, _ = class_index(bottoms[1].reshape(-1, 1), prob.shape[1])
        logs: Tensor = _ThresholdLog.apply(prob.gather(1, index))  # type: ignore[no-untyped-call]
        return (-logs.sum() / prob.shape[0],)


class _ThresholdLog(Function):
    """The log of a value or of LOG_THRESHOLD, whichever is greater."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clamp(min=LOG_THRESHOLD)
        ctx.save_for_backward(value)
        return value.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Caffe: below the threshold the gradient is the one at the threshold (multinomial_logistic_loss_layer.cpp
        # L48-L53). torch.clamp has a gradient of 0 there.
        (value,) = ctx.saved_tensors
        return gradient / value  # type: ignore[no-any-return]


class SigmoidCrossEntropyLoss(Layer):
    """The cross-entropy of sigmoids of scores and targets, summed and normalised.

    ``loss = sum of -(t log s(x) + (1 - t) log(1 - s(x))) / divisor``; the gradient is ``(s(x) - t) / divisor``. The
    divisor is the number of instances (BATCH_SIZE, the default), or as for SoftmaxWithLoss.

    Shapes:
        scores   (N, ...)
        targets  (N, ...)   as many, in [0, 1]; those whose integer part is ``ignore_label`` do not count
        top      ()

    Source: BVLC/caffe@9b89154 src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp L9-L131.
    """

    reads = frozenset({"loss_param.ignore_label", "loss_param.normalize", "loss_param.normalization"})
    bottoms = (2, 2)
    is_loss = True
    differentiable = (0,)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Give a scalar."""
        check_batch(bottoms)
        if torch.Size(bottoms[0]).numel() != torch.Size(bottoms[1]).numel():
            raise NetError(
                "there must be one target for each score", got=bottoms[1], want=f"as many as in {bottoms[0]}"
            )
        return [()]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        scores, targets = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        param = self.spec.loss_param
        ignore = _ignored_label(param)
        ignored = None if ignore is None else targets.long() == ignore
        # Caffe: the loss is divided by the batch size by default, while SoftmaxWithLoss divides by the number of valid
        # labels (sigmoid_cross_entropy_loss_layer.cpp L25-L33).
        mode = normalization(param, NormalizationMode.BATCH_SIZE)
        divisor = _divisor(mode, scores.shape[0], scores.numel(), ignored)
        losses: Tensor = _SigmoidLoss.apply(scores, targets)  # type: ignore[no-untyped-call]
        if ignored is not None:
            losses = losses.masked_fill(ignored, 0)
        return (losses.sum() / divisor,)


class _SigmoidLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(scores, targets)
        # Caffe: 1 + exp(-|x|) is rounded before the logarithm (sigmoid_cross_entropy_loss_layer.cpp L93-L94). torch
        # uses log1p.
        return scores.clamp(min=0) - scores * targets + (1 + scores.abs().neg_().exp_()).log_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        scores, targets = ctx.saved_tensors
        return gradient * (scores.sigmoid() - targets), None


LAYERS = (SoftmaxWithLoss, InfogainLoss, MultinomialLogisticLoss, SigmoidCrossEntropyLoss)

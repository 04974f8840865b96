"""The layer MultiBoxLoss, the loss of SSD."""

from __future__ import annotations

import enum
import math

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.smooth_l1_loss import replace_value
from reproduction.caffe.dialects.ssd import SSD, boxes, multibox_matching
from reproduction.caffe.dialects.ssd.messages import CodeType, NonMaximumSuppressionParameter, list_foreground
from reproduction.caffe.dialects.ssd.multibox_matching import Match
from reproduction.caffe.dialects.ssd.smooth_l1_loss import SmoothL1Loss
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.cross_entropy_losses import (
    FLT_MIN,
    SigmoidCrossEntropyLoss,
    SoftmaxWithLoss,
    normalization,
)
from reproduction.caffe.layers.distance_losses import EuclideanLoss
from reproduction.caffe.layers.loss import LossLayer
from reproduction.caffe.schema import LayerParameter, LossParameter, NormalizationMode
from reproduction.caffe.schema.field import boolean, choice, int32, nested, single, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32, Int64


class LocLossType(enum.IntEnum):
    """The loss of the locations: half the squared difference, or smooth L1."""

    L2 = 0
    SMOOTH_L1 = 1


class ConfLossType(enum.IntEnum):
    """The loss of the scores: softmax over the classes, or a sigmoid for each class."""

    SOFTMAX = 0
    LOGISTIC = 1


class MatchType(enum.IntEnum):
    """Which prior boxes get a true box: only the best for each true box, or all that overlap one enough."""

    BIPARTITE = 0
    PER_PREDICTION = 1


class MiningType(enum.IntEnum):
    """Which prior boxes count: all; the positive and the worst negative ones; or the worst of all."""

    NONE = 0
    MAX_NEGATIVE = 1
    HARD_EXAMPLE = 2


class MultiBoxLossParameter(Message):
    """The fields of MultiBoxLoss layers: the two losses, how boxes are matched, and which examples are chosen."""

    loc_loss_type = choice(1, LocLossType, LocLossType.SMOOTH_L1)
    conf_loss_type = choice(2, ConfLossType)
    loc_weight = single(3, 1.0)
    num_classes = uint32(4)
    share_location = boolean(5, True)
    match_type = choice(6, MatchType, MatchType.PER_PREDICTION)
    overlap_threshold = single(7, 0.5)
    use_prior_for_matching = boolean(8, True)
    background_label_id = uint32(9)
    use_difficult_gt = boolean(10, True)
    do_neg_mining = boolean(11)
    neg_pos_ratio = single(12, 3.0)
    neg_overlap = single(13, 0.5)
    code_type = choice(14, CodeType, CodeType.CORNER)
    encode_variance_in_target = boolean(16)
    map_object_to_agnostic = boolean(17)
    ignore_cross_boundary_bbox = boolean(18)
    bp_inside = boolean(19)
    mining_type = choice(20, MiningType, MiningType.MAX_NEGATIVE)
    nms_param = nested(21, NonMaximumSuppressionParameter)
    sample_size = int32(22, 64)
    use_prior_for_nms = boolean(23)


MULTIBOX_LOSS = LayerParameter.add_field("multibox_loss_param", nested(201, MultiBoxLossParameter), SSD)


@register
class MultiBoxLoss(LossLayer):
    """The loss of SSD: that of the locations of matched prior boxes, and that of the scores of chosen prior boxes.

    ``loss = (loc_weight * sum of location losses + sum of score losses) / divisor``. The divisor is the number of
    matched prior boxes (VALID, the default), of all prior boxes of the batch (FULL), of images (BATCH_SIZE; also
    ``normalize: false``), or 1 (NONE), and at least 1.

    Each true box is matched with the prior box that it overlaps most. With PER_PREDICTION, prior boxes that overlap a
    true box by ``overlap_threshold`` are matched as well. MAX_NEGATIVE chooses the matched prior boxes and, in each
    image, up to ``neg_pos_ratio`` times as many others, those of the greatest score loss that overlap no true box by
    ``neg_overlap``. HARD_EXAMPLE chooses the ``sample_size`` prior boxes of the greatest loss. Part of the loss is left
    out if ``propagate_down`` of its bottom is false. Locations and scores receive a gradient.

    Shapes:
        bottom 0  (N, P * L * 4)        the predicted locations, P boxes with L = 1 or, without ``share_location``, L =
                  ``num_classes`` locations each
        bottom 1  (N, P * num_classes)  the scores, not normalized
        bottom 2  (1, 2, P * 4)         the prior boxes and variances
        bottom 3  (1, 1, M, 8)          the true boxes: image, label, instance, xmin, ymin, xmax, ymax, difficult; rows
                  with image -1 are ignored
        top       ()

    Raises:
        NetError: If ``num_classes`` is missing, settings exclude each other, the bottoms do not fit each other, or a
            label is out of range.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/multibox_loss_layer.cpp L11-L364, src/caffe/util/bbox_util.cpp.
    """

    dialect = SSD
    reads = frozenset(
        {"loss_param.normalization", "loss_param.normalize"}
        | {f"multibox_loss_param.{name}" for name in MultiBoxLossParameter.fields}
    )
    bottoms = (4, 4)
    differentiable = (0, 1)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings, and create the layers of the two losses."""
        param = MULTIBOX_LOSS.get(self.layer_param)
        background, classes = param.background_label_id, param.num_classes
        is_mining = param.mining_type is not MiningType.NONE
        if classes < 1:
            raise NetError("num_classes must be set and positive", got=classes)
        if param.has("do_neg_mining") and param.do_neg_mining != is_mining:
            raise NetError("do_neg_mining and mining_type disagree", remedy="Remove do_neg_mining.")
        if is_mining and not param.share_location:
            raise NetError("mining needs share_location", got=f"mining_type {param.mining_type.name}", want="NONE")
        if param.mining_type is MiningType.HARD_EXAMPLE and param.sample_size < 1:
            raise NetError("sample_size must be positive", got=param.sample_size)
        if background >= classes and (param.conf_loss_type is ConfLossType.SOFTMAX or is_mining):
            raise NetError("background_label_id is out of range", got=background, want=f"0..{classes - 1}")
        if param.map_object_to_agnostic and classes != 2:
            raise NetError("map_object_to_agnostic needs two classes", got=classes)
        if param.conf_loss_type is ConfLossType.SOFTMAX:
            self.conf_loss: LossLayer = _inner(SoftmaxWithLoss, (1, classes), (1,))
        else:
            self.conf_loss = _inner(SigmoidCrossEntropyLoss, (1, 1, classes), (1, 1, classes))
        loc_loss = EuclideanLoss if param.loc_loss_type is LocLossType.L2 else SmoothL1Loss
        self.loc_loss = _inner(loc_loss, (1, 4), (1, 4))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check that the bottoms fit each other, and return the shape of the loss, ``[()]``."""
        tops = super().shapes(bottoms)
        param = MULTIBOX_LOSS.get(self.layer_param)
        priors = legacy_shape(bottoms[2])[2] // 4
        classes = 1 if param.share_location else param.num_classes
        wanted = [priors * classes * 4, priors * param.num_classes]
        for kind, bottom, want in zip(("locations", "scores"), bottoms, wanted, strict=False):
            if math.prod(bottom[1:]) != want:
                raise NetError(f"the number of {kind} must fit the {priors} prior boxes", got=bottom, want=want)
        if math.prod(bottoms[3]) != 8 * legacy_shape(bottoms[3])[2]:
            raise NetError("the last bottom must be a list of true boxes", got=bottoms[3], want="(1, 1, M, 8)")
        return tops

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the loss; boxes are matched on the CPU in single precision."""
        param, images = MULTIBOX_LOSS.get(self.layer_param), bottoms[0].shape[0]
        classes = 1 if param.share_location else param.num_classes
        locations = bottoms[0].reshape(images, -1, classes, 4)
        scores = bottoms[1].reshape(images, -1, param.num_classes)
        batch = _Batch(param, *(x.detach().cpu().float().numpy() for x in (locations, scores, *bottoms[2:])))
        batch.mine()
        count = sum(len(match.positive) for matches in batch.matches for match in matches)
        total = locations.flatten()[:0].sum() + scores.flatten()[:0].sum()
        through = self.layer_param.propagate_down or [True] * 4
        if count and through[0]:
            total = total + param.loc_weight * self._compute_loc_loss(locations, batch)
        if through[1]:
            total = total + self._compute_conf_loss(scores, batch)
        mode = normalization(self.layer_param.loss_param, NormalizationMode.VALID)
        divisors = {NormalizationMode.BATCH_SIZE: images, NormalizationMode.NONE: 1, NormalizationMode.VALID: count}
        return (total / max(divisors.get(mode, images * scores.shape[1]), 1),)

    def _compute_loc_loss(self, locations: Tensor, batch: _Batch) -> Tensor:
        """Return the sum of the losses of the matched prior boxes."""
        target, variances, inside = (torch.from_numpy(x).to(locations) for x in batch.encode_positives())
        predicted = locations[batch.list_positives()]
        if batch.param.encode_variance_in_target:
            # Upstream bug, kept: with encode_variance_in_target, MultiBoxLoss divides the predictions by the variances,
            # but not their gradient (bbox_util.cpp L1243-L1249, multibox_loss_layer.cpp L278-L303).
            predicted = replace_value(predicted, predicted / variances)
        predicted = torch.where(inside > 0, predicted, target)
        (loss,) = self.loc_loss(predicted.reshape(1, -1), target.reshape(1, -1))
        return loss  # type: ignore[no-any-return]

    def _compute_conf_loss(self, scores: Tensor, batch: _Batch) -> Tensor:
        """Return the sum of the losses of the chosen prior boxes."""
        param, (image, prior, label) = batch.param, batch.list_examples()
        _, priors, classes = scores.shape
        is_softmax = param.conf_loss_type is ConfLossType.SOFTMAX
        if param.mining_type is not MiningType.NONE:
            chosen, place = scores[image, prior], np.arange(len(label))
        else:
            chosen = scores.reshape(-1, classes)
            # Upstream bug, kept: without mining, the target of a LOGISTIC MultiBoxLoss is at a wrong place for all
            # images but the first: the next image begins P values later instead of P * num_classes
            # (bbox_util.cpp L1635).
            place = image * priors + prior if is_softmax else image * priors + prior * classes
        if not len(chosen):
            return scores.flatten()[:0].sum()
        # Upstream bug, kept: LOGISTIC targets are background_label_id, which is meant as a label, where they are not 1
        # (multibox_loss_layer.cpp L231).
        size = len(chosen) if is_softmax else chosen.numel()
        target = np.full(size, param.background_label_id, np.float32)
        if is_softmax:
            target[place] = label
            (loss,) = self.conf_loss(chosen, torch.from_numpy(target).to(scores))
        else:
            target[(place if param.mining_type is MiningType.NONE else place * classes) + label] = 1
            shape = (1, -1, classes)
            (loss,) = self.conf_loss(chosen.reshape(shape), torch.from_numpy(target).to(scores).reshape(shape))
        return loss  # type: ignore[no-any-return]


def _inner(kind: type[LossLayer], *bottoms: Shape) -> LossLayer:
    """Return a layer that computes the sum of losses of one batch."""
    param = LayerParameter(type=kind.__name__, bottom=["a", "b"], top=["loss"])
    if kind is SoftmaxWithLoss:
        param.loss_param = LossParameter(normalization=NormalizationMode.NONE)
    return kind(param, bottoms)


class _Batch:
    """The predictions and true boxes of a batch, and what they are matched with.

    Args:
        param: The settings of the layer.
        locations: (N, P, L, 4).
        scores: (N, P, classes).
        priors: The prior boxes and variances, (1, 2, P * 4).
        true: The rows of true boxes, (1, 1, M, 8).

    Attributes:
        matches: For each image, a Match for each class, or one for all classes if they have the same locations.
        negatives: For each image, the prior boxes that are chosen as negative examples.
    """

    def __init__(
        self, param: MultiBoxLossParameter, locations: Float32, scores: Float32, priors: Float32, true: Float32
    ):
        self.param, self.locations, self.scores = param, locations, scores
        self.priors, self.variances = priors.reshape(2, -1, 4)
        rows = true.reshape(-1, 8)
        rows = rows[rows[:, 0].astype(np.int64) != -1]
        if (rows[:, 1].astype(np.int64) == param.background_label_id).any():
            raise NetError("a true box has the label of the background", got=param.background_label_id)
        if not param.use_difficult_gt:
            rows = rows[rows[:, 7] == 0]
        self.true = [rows[rows[:, 0].astype(np.int64) == image] for image in range(len(locations))]
        self.matches = [self._match(image) if len(true) else [] for image, true in enumerate(self.true)]
        self.negatives: list[Int64] = [np.empty(0, np.int64) for _ in locations]

    def _match(self, image: int) -> list[Match]:
        param, true = self.param, self.true[image]
        shared, labels = param.share_location, true[:, 1].astype(np.int64)
        classes = [-1] if shared else list_foreground(param)
        threshold = param.overlap_threshold if param.match_type is MatchType.PER_PREDICTION else None

        def match(found: Float32, label: int) -> Match:
            chosen = np.arange(len(true)) if label == -1 else np.flatnonzero(labels == label)
            ignored = multibox_matching.crosses_border(found) if param.ignore_cross_boundary_bbox else None
            index, overlap = multibox_matching.match_boxes(found, true[chosen, 3:7], threshold, ignored)
            return Match(label, np.where(index > -1, np.append(chosen, -1)[index.clip(-1)], index), overlap)

        if not param.use_prior_for_matching:
            return [match(self.decode(image, label), label) for label in classes]
        whole = match(self.priors, -1)
        if shared:
            return [whole]
        true_label = np.where(whole.index > -1, np.append(labels, -1)[whole.index.clip(-1)], -1)
        return [Match(c, np.where(true_label == c, whole.index, -1), whole.overlap) for c in classes]

    def decode(self, image: int, label: int) -> Float32:
        """Return the predicted boxes (P, 4) of an image and a class, -1 for all."""
        variances = None if self.param.encode_variance_in_target else self.variances
        return boxes.decode(self.locations[image, :, max(label, 0)], self.priors, variances, self.param.code_type)

    def mine(self) -> None:
        """Choose negative examples, or drop the easy examples from ``matches``, as ``mining_type`` says."""
        param = self.param
        if param.mining_type is MiningType.NONE:
            return
        is_hard = param.mining_type is MiningType.HARD_EXAMPLE
        nms = param.nms_param if param.has("nms_param") else None
        for image, matches in enumerate(self.matches):
            for match in matches:
                losses = self._compute_conf_losses(image, match)
                if is_hard:
                    losses += self._compute_loc_losses(image, match)
                    eligible = np.arange(len(losses))
                    count = min(param.sample_size, len(eligible))
                else:
                    eligible = np.flatnonzero((match.index == -1) & (match.overlap < np.float32(param.neg_overlap)))
                    count = min(int(len(match.positive) * np.float32(param.neg_pos_ratio)), len(eligible))
                compared = self.priors if param.use_prior_for_nms or nms is None else self.decode(image, match.label)
                picked = multibox_matching.pick_greatest(eligible, count, losses, compared, nms)
                self.negatives[image] = np.sort(picked[match.index[picked] == -1])
                if is_hard:
                    match.index[np.setdiff1d(match.positive, picked)] = -1

    def _compute_conf_losses(self, image: int, match: Match) -> Float32:
        """Return the loss of the scores of each prior box, (P,)."""
        label = np.full(len(match.index), self.param.background_label_id)
        label[match.positive] = self._labels(image, match)
        scores = self.scores[image]
        if self.param.conf_loss_type is ConfLossType.SOFTMAX:
            powers = np.exp(scores - scores.max(1, keepdims=True))
            likely = powers[np.arange(len(label)), label] / powers.sum(1)
            of_label: Float32 = -np.log(np.maximum(likely, np.float32(FLT_MIN)))
            return of_label
        target = np.eye(self.param.num_classes, dtype=np.float32)[label]
        losses: Float32 = (scores.clip(0) - scores * target + np.log(1 + np.exp(-np.abs(scores)))).sum(1)
        return losses

    def _labels(self, image: int, match: Match) -> Int64:
        """Return the labels of the true boxes of the positive prior boxes of a match.

        Raises:
            NetError: If a label is out of range.
        """
        labels: Int64 = self.true[image][match.index[match.positive], 1].astype(np.int64)
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.param.num_classes:
            odd = labels[(labels < 0) | (labels >= self.param.num_classes)][0]
            raise NetError("the label of a true box is out of range", got=odd, want=f"0..{self.param.num_classes - 1}")
        return labels

    def _compute_loc_losses(self, image: int, match: Match) -> Float32:
        """Return the loss of the location of each prior box, (P,); 0 for one without a true box."""
        target, variances, inside = self._encode(image, match)
        predicted = self.locations[image, match.positive, max(match.label, 0)]
        if self.param.encode_variance_in_target:
            predicted = predicted / variances
        difference = np.abs(np.where(inside > 0, predicted - target, np.float32(0)))
        half = difference * difference / np.float32(2)
        if self.param.loc_loss_type is LocLossType.SMOOTH_L1:
            half = np.where(difference < 1, half, difference - np.float32(0.5))
        losses = np.zeros(len(match.index), np.float32)
        losses[match.positive] = half.sum(1)
        return losses

    def _encode(self, image: int, match: Match) -> tuple[Float32, Float32, Float32]:
        """Return what a match's positive prior boxes should predict, their variances, and 1 where that counts.

        Raises:
            NetError: If a variance is not positive.
        """
        positive = match.positive
        priors, variances = self.priors[positive], self.variances[positive]
        if not (variances > 0).all():
            raise NetError("variances must be positive", got=float(variances.min()))
        target = boxes.encode(self.true[image][match.index[positive], 3:7], priors, variances, self.param.code_type)
        inside = np.ones_like(target)
        if self.param.bp_inside:
            matched = priors if self.param.use_prior_for_matching else self.decode(image, match.label)[positive]
            inside = ((matched >= 0) & (matched <= 1)).astype(np.float32)
        return target, variances, inside

    def encode_positives(self) -> tuple[Float32, Float32, Float32]:
        """Return what the matched prior boxes of all images should predict, their variances, and 1 where that counts.

        Each array has the shape (number of matches, 4) and the order of ``list_positives``.
        """
        parts = [self._encode(image, match) for image, matches in enumerate(self.matches) for match in matches]
        target, variances, inside = (np.concatenate(part) for part in zip(*parts, strict=True))
        return target, variances, inside

    def list_positives(self) -> tuple[Int64, Int64, Int64]:
        """Return image, prior box and location class of each match."""
        rows = []
        for index, matches in enumerate(self.matches):
            for match in matches:
                found = match.positive
                rows.append([np.full_like(found, index), found, np.full_like(found, max(match.label, 0))])
        image, prior, label = np.concatenate(rows, 1)
        return image, prior, label

    def list_examples(self) -> tuple[Int64, Int64, Int64]:
        """Return image, prior box and label of each positive example and of each negative one that was mined."""
        rows = [np.empty((3, 0), np.int64)]
        for image, matches in enumerate(self.matches):
            for match in matches:
                label = self._labels(image, match)
                if self.param.map_object_to_agnostic:
                    label = np.full_like(label, self.param.background_label_id + 1)
                rows.append(np.stack([np.full_like(label, image), match.positive, label]))
            missing = self.negatives[image]
            background = np.full_like(missing, self.param.background_label_id)
            rows.append(np.stack([np.full_like(missing, image), missing, background]))
        image_index, prior, label = np.concatenate(rows, 1)
        return image_index, prior, label

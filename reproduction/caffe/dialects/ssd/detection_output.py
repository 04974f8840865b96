"""The layer DetectionOutput, which turns the predictions of SSD into the boxes of objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.ssd import SSD, boxes, detection_onnx
from reproduction.caffe.dialects.ssd.messages import (
    CodeType,
    NonMaximumSuppressionParameter,
    ResizeParameter,
    list_foreground,
)
from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, choice, int32, nested, single, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32, Int64

T = TypeVar("T")


class SaveOutputParameter(Message):
    """Where the fork's DetectionOutput layers save detections, and in which format. It has no effect here."""

    output_directory = string(1)
    output_name_prefix = string(2)
    output_format = string(3)
    label_map_file = string(4)
    name_size_file = string(5)
    num_test_image = uint32(6)
    resize_param = nested(7, ResizeParameter)


class DetectionOutputParameter(Message):
    """The fields of DetectionOutput layers: how predictions are decoded, and which boxes are kept.

    ``objectness_score``, ``ratio_permute``, ``no_permute`` and ``nbottom`` are fields of synopsys' fork.
    """

    num_classes = uint32(1)
    share_location = boolean(2, True)
    background_label_id = int32(3)
    nms_param = nested(4, NonMaximumSuppressionParameter)
    save_output_param = nested(5, SaveOutputParameter)
    code_type = choice(6, CodeType, CodeType.CORNER)
    keep_top_k = int32(7, -1)
    variance_encoded_in_target = boolean(8)
    confidence_threshold = single(9)
    visualize = boolean(10)
    visualize_threshold = single(11)
    save_file = string(12)
    objectness_score = single(24, 0.01)
    ratio_permute = boolean(25)
    no_permute = boolean(32)
    nbottom = int32(33, 6)


DETECTION_OUTPUT = LayerParameter.add_field("detection_output_param", nested(204, DetectionOutputParameter), SSD)

_FOREIGN = ("objectness_score", "ratio_permute")  # fields of forms of the layer that are not here


@register
class DetectionOutput(Layer):
    """The boxes of objects, from predictions relative to prior boxes, after non-maximum suppression for each class.

    A prediction is kept if its score is above ``confidence_threshold``, it is among the ``top_k`` of its class, and no
    better box of its class overlaps it by more than ``nms_threshold``. Of each image, the ``keep_top_k`` best are kept.
    Boxes are fractions of the image's width and height, and may reach outside the image. There is no gradient.

    In synopsys' fork, predictions may stay in ``nbottom`` blobs, one for each feature map: the scores, then the
    locations, then the prior boxes, in one blob or as many. With ``no_permute`` they have the order of convolutions:
    scores (N, classes, P, h * w) and locations (N, P * L * 4, h, w), for P boxes in a cell.

    Shapes:
        bottom 0  (N, P * L * 4)        the predicted locations, P boxes with L = 1 or, without ``share_location``, L =
                  ``num_classes`` locations each
        bottom 1  (N, P * num_classes)  the scores, e.g. of a Softmax
        bottom 2  (1, 2, P * 4)         the prior boxes and variances, of PriorBox layers
        bottom 3  optional, the image on which the fork draws; it is not read
        top       (1, 1, D, 7)          a row for each of D detections: index of the image, label, score, xmin, ymin,
                  xmax, ymax. Images and labels ascend, the scores of a label descend. If there are no detections, N
                  rows of -1 except for the index of the image. ``shapes`` returns D = 1, as Caffe does without data.

    Raises:
        NetError: If ``num_classes`` is missing, a threshold is out of range, or the bottoms do not fit each other.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/detection_output_layer.cpp L15-L296, L313-L334;
    foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36a src/caffe/layers/detection_output_layer.cpp L144-L685.
    """

    dialect = SSD
    reads = frozenset(f"detection_output_param.{name}" for name in DetectionOutputParameter.fields)
    bottoms = (3, None)
    differentiable = ()
    sizes_vary = True

    def settings(self) -> DetectionOutputParameter:
        """Return the layer's message."""
        return DETECTION_OUTPUT.get(self.layer_param)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings."""
        param = self.settings()
        if param.num_classes < 1:
            raise NetError("num_classes must be set and positive", got=param.num_classes)
        if param.nms_param.nms_threshold < 0:
            raise NetError("nms_threshold must not be negative", got=param.nms_param.nms_threshold)
        if not 0 < param.nms_param.eta <= 1:
            raise NetError("eta must be above 0 and at most 1", got=param.nms_param.eta)
        if param.share_location and param.background_label_id == -1:
            raise NetError(
                "locations that all classes share need a background class, in the fork as well",
                got="background_label_id -1",
                remedy="Write the number of classes if there is none.",
            )
        self._check_form(len(bottoms), param)
        if param.visualize or param.save_output_param.has("output_directory"):
            what = "drawn" if param.visualize else "saved"
            remedy = f"Its top {self.layer_param.top[0]!r} has them."
            warn(NetError(f"detections are not {what} by this layer", remedy=remedy, layer=self.layer_param.name))

    def _check_form(self, bottoms: int, param: DetectionOutputParameter) -> None:
        """Set ``split``, the number of blobs of scores, or 0 if there is one blob for each kind of prediction."""
        if foreign := [name for name in _FOREIGN if param.has(name)]:
            raise NetError(f"the form with {foreign[0]} is not supported", want="bottoms as in SSD")
        maps = param.nbottom
        self.split = 0 if bottoms <= 4 else maps
        if self.split and bottoms not in (2 * maps + 1, 3 * maps):
            raise NetError(
                "wrong number of bottoms", got=bottoms, want=f"3, 4, {2 * maps + 1} or {3 * maps} for nbottom {maps}"
            )
        if param.no_permute and bottoms != 2 * maps + 1:
            raise NetError("no_permute needs the scores and locations of each map", got=bottoms, want=2 * maps + 1)

    @property
    def score_threshold(self) -> float | None:
        """The score that a detection must exceed; None if there is no limit."""
        param = self.settings()
        return param.confidence_threshold if param.has("confidence_threshold") else None

    @property
    def top_k(self) -> int:
        """The number of boxes of a class that the suppression begins with; -1 for no limit."""
        param = self.settings()
        return param.nms_param.top_k if param.nms_param.has("top_k") else -1

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check that the bottoms fit each other, and return the shape of the top for one detection."""
        param = self.settings()
        maps = self.split or 1
        scores, locations, priors = self._sort_by_kind(bottoms)
        priors_in_all = sum(legacy_shape(shape)[2] // 4 for shape in priors)
        counts = [sum(math.prod(shape[1:]) for shape in shapes) for shapes in (scores, locations)]
        classes = 1 if param.share_location else param.num_classes
        wanted = [priors_in_all * param.num_classes, priors_in_all * classes * 4]
        for kind, got, want in zip(("scores", "locations"), counts, wanted, strict=True):
            if got != want:
                raise NetError(f"the number of {kind} must fit the {priors_in_all} prior boxes", got=got, want=want)
        if any(shape[:1] != scores[0][:1] for shape in (*scores, *locations)):
            raise NetError("scores and locations must have the same first dimension", got=bottoms[: 2 * maps])
        if param.no_permute:
            for score, location in zip(scores, locations, strict=True):
                cells = math.prod(location[2:])
                fitting = (score[0], param.num_classes, math.prod(location[1:2]) // 4 // classes, cells)
                if legacy_shape(score) != fitting:
                    raise NetError("scores and locations of a map do not fit", got=f"{score}, {location}", want=fitting)
        return [(1, 1, 1, 7)]

    def _sort_by_kind(self, bottoms: list[T]) -> tuple[list[T], list[T], list[T]]:
        """Return the scores, the locations and the priors of all feature maps."""
        if not self.split:
            return bottoms[1:2], bottoms[:1], bottoms[2:3]
        return bottoms[: self.split], bottoms[self.split : 2 * self.split], bottoms[2 * self.split :]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the detections; they are computed on the CPU in single precision."""
        param = self.settings()
        arrays = [bottom.detach().cpu().float().numpy() for bottom in bottoms]
        scores, locations, priors, variances = self._join(arrays)
        decoded = boxes.decode(
            locations, priors, None if param.variance_encoded_in_target else variances, param.code_type
        )
        rows = [self._detect(i, scores[i], decoded[i]) for i in range(len(scores))]
        found = np.concatenate(rows)
        if not len(found):
            found = np.full((len(scores), 7), -1, np.float32)
            found[:, 0] = np.arange(len(scores))
        return (torch.from_numpy(found)[None, None].to(bottoms[0]),)

    def _join(self, arrays: list[Float32]) -> tuple[Float32, Float32, Float32, Float32]:
        """Return scores (N, classes, P), locations (N, L, P, 4), prior boxes and variances (P, 4)."""
        param = self.settings()
        classes, images = 1 if param.share_location else param.num_classes, len(arrays[0])
        # Upstream bug, fixed: with a blob for each feature map, synopsys' fork reads the predictions of the first image
        # for all images of a batch.
        scores, locations, priors = self._sort_by_kind(arrays)
        if param.no_permute:
            sizes = [(location.shape[1] // 4 // classes, math.prod(location.shape[2:])) for location in locations]
            by_class = [score.reshape(images, param.num_classes, -1) for score in scores]
            by_place = [
                location.reshape(images, in_cell, classes, 4, cells).transpose(0, 2, 1, 4, 3)
                for location, (in_cell, cells) in zip(locations, sizes, strict=True)
            ]
            order = _order_by_box(sizes)
        else:
            by_class = [score.reshape(images, -1, param.num_classes).transpose(0, 2, 1) for score in scores]
            by_place = [location.reshape(images, -1, classes, 4).transpose(0, 2, 1, 3) for location in locations]
            order = None
        halves = [prior.reshape(2, -1, 4) for prior in priors]
        prior_boxes, variances = np.concatenate(halves, 1)
        return (
            np.ascontiguousarray(np.concatenate(by_class, 2)),
            np.concatenate([each.reshape(images, classes, -1, 4) for each in by_place], 2),
            prior_boxes if order is None else prior_boxes[order],  # the fork does not reorder the variances
            variances,
        )

    def _detect(self, image: int, scores: Float32, decoded: Float32) -> Float32:
        """Return the rows of one image.

        Args:
            image: The index of the image.
            scores: (classes, P).
            decoded: The boxes, (1, P, 4) or (classes, P, 4).
        """
        param = self.settings()
        rows = [np.empty((0, 7), np.float32)]
        for label in list_foreground(param):
            order = boxes.sort_scores(scores[label], self.score_threshold, self.top_k)
            if not len(order):
                continue
            candidates = decoded[0 if param.share_location else label][order]
            kept = boxes.suppress(candidates, param.nms_param.nms_threshold, param.nms_param.eta)
            head = np.broadcast_to(np.array([image, label], np.float32), (len(kept), 2))
            rows.append(np.concatenate([head, scores[label][order[kept], None], candidates[kept]], 1))
        found = np.concatenate(rows)
        if 0 <= param.keep_top_k < len(found):
            best: Int64 = boxes.sort_scores(found[:, 2], None, param.keep_top_k)
            found = found[np.sort(best)]
        return found

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add decoding, and NonMaxSuppression for each class; see ``detection_onnx``.

        Raises:
            NetError: If ``eta`` is not 1 or the predictions are in several blobs, for which there are no operators.
        """
        param = self.settings()
        if self.split:
            raise NetError("predictions in several blobs cannot be written as ONNX", got=f"{len(bottoms)} bottoms")
        if param.nms_param.eta < 1 or 0 in (self.top_k, param.keep_top_k):
            raise NetError("ONNX has no such suppression of boxes", want="eta 1, and top_k and keep_top_k not 0")
        return [detection_onnx.add_detections(onnx, self, *bottoms[:3])]


def _order_by_box(sizes: Sequence[tuple[int, int]]) -> Int64:
    """Return the order that sorts prior boxes of several maps by box and then cell, instead of cell and then box.

    Args:
        sizes: For each map, the number of boxes in a cell and the number of cells.
    """
    orders, start = [], 0
    for in_cell, cells in sizes:
        orders.append(start + np.arange(in_cell * cells).reshape(cells, in_cell).T.reshape(-1))
        start += in_cell * cells
    return np.concatenate(orders)

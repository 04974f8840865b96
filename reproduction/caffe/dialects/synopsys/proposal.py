"""The layer Proposal of Synopsys Caffe."""

from __future__ import annotations

import heapq

import numpy as np

from reproduction.caffe.dialects.faster_rcnn.boxes import (
    decode_boxes,
    is_large,
    make_anchors,
    place_anchors,
    suppress_overlaps,
)
from reproduction.caffe.dialects.faster_rcnn.proposal_base import ProposalBase
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import int32, nested, single
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32


class SynopsysProposalParameter(Message):
    """The fields of Proposal layers of Synopsys Caffe; ``anchor_scale`` and ``anchor_ratio`` are numbers of values."""

    feat_stride = int32(1, 16)
    anchor_base_size = int32(2, 16)
    anchor_scale = int32(3, 3)
    anchor_ratio = int32(4, 3)
    max_rois = int32(5, 300)
    pre_nms_topn = int32(6, 6000)
    rpn_min_size = single(7, 16.0)
    rpn_nms_thresh = single(8, 0.7)


PROPOSAL = LayerParameter.add_field("proposal_param", nested(212, SynopsysProposalParameter), SYNOPSYS)


@register
class Proposal(ProposalBase):
    """Region proposals: boxes that are predicted from anchors, the best first, without those that overlap a better one.

    The anchors of each cell of the feature map are boxes around its center: of the scales 8, 16 and 32 if
    ``anchor_scale`` is 3, else 32; and of the ratios 0.5, 1 and 2 if ``anchor_ratio`` is 3, else 1. Regression moves
    and resizes them, and clips them to the image. Boxes smaller than ``rpn_min_size`` are removed. The best are kept
    that overlap no better kept one by more than ``rpn_nms_thresh`` (intersection over union), up to ``max_rois``. There
    is no gradient.

    Shapes:
        scores   (1, 2 A, H, W)   A anchors for each cell: scores of the background, then of the foreground
        deltas   (1, 4 A, H, W)   for each anchor the shift of its center along x and y, relative to its size, and the
            logarithms of the factors of its width and height
        im_info  (1, 3)           height and width of the image in pixels, and the factor by which it was enlarged
        top 0    (R, 5)           0, x1, y1, x2, y2 in pixels of the image
        top 1    (R, 1)           optional: the scores

    Raises:
        NetError: If there is more than one image, or the bottoms do not fit the anchors.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/proposal_layer.cpp L6-L324.
    """

    dialect = SYNOPSYS
    reads = frozenset(f"proposal_param.{name}" for name in SynopsysProposalParameter.fields)
    image_values = 3

    def setup(self, bottoms: list[Shape]) -> None:
        """Compute the anchors."""
        param = PROPOSAL.get(self.layer_param)
        scales = (8, 16, 32) if param.anchor_scale == 3 else (32,)
        ratios = (0.5, 1, 2) if param.anchor_ratio == 3 else (1,)
        self.anchors = make_anchors(param.anchor_base_size, ratios, scales)
        self.most = param.max_rois

    def score_shape(self, count: int) -> Shape:
        """Return ``(count, 1)``."""
        return (count, 1)

    def propose(self, scores: Float32, deltas: Float32, info: Float32) -> tuple[Float32, Float32]:
        """Return the boxes and their scores; see ``ProposalBase.propose``."""
        param, count, (_, height, width) = PROPOSAL.get(self.layer_param), len(self.anchors), scores.shape
        anchors = place_anchors(self.anchors, height, width, param.feat_stride).transpose(2, 0, 1, 3).reshape(-1, 4)
        moves = deltas.reshape(count, 4, height, width).transpose(0, 2, 3, 1).reshape(-1, 4)
        boxes = decode_boxes(anchors, moves, np.trunc(info[0]), np.trunc(info[1]))
        least = np.float32(param.rpn_min_size) * info[2]
        large = is_large(boxes, least, least)
        # Upstream bug, kept: the last box is never removed (proposal_layer.cpp L266).
        large[-1:] = True
        boxes, each = boxes[large], scores[count:].ravel()[large]
        # Upstream bug, kept: the boxes after the best ``pre_nms_topn`` are not left out but come after these, in the
        # order in which a partial sort leaves them (proposal_layer.cpp L117-L122).
        order = np.array(partial_order(each, param.pre_nms_topn), np.int64)
        kept = order[suppress_overlaps(boxes[order], param.rpn_nms_thresh, self.most)]
        return boxes[kept], each[kept]


def partial_order(scores: Float32, most: int) -> list[int]:
    """Return the order in which C++'s ``partial_sort`` leaves boxes with these scores: the ``most`` best ones first.

    Of equal scores, the later box is first. The boxes after the first ``most`` are in no order, but in a definite one.
    """
    pairs = list(zip(scores.tolist(), range(len(scores)), strict=True))
    best = pairs[:most]
    heapq.heapify(best)
    rest = [heapq.heappushpop(best, pair) for pair in pairs[most:]] if best else pairs
    return [index for _, index in (*sorted(best, reverse=True), *rest)]

"""The layer Proposal of PVANet."""

from __future__ import annotations

import numpy as np

from reproduction.caffe.dialects.faster_rcnn.boxes import (
    Integers,
    decode_boxes,
    is_large,
    make_anchors,
    place_anchors,
    suppress_overlaps,
)
from reproduction.caffe.dialects.faster_rcnn.proposal_base import ProposalBase
from reproduction.caffe.dialects.pvanet import PVANET
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import nested, single, singles, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32


class ProposalParameter(Message):
    """The fields of PVANet's Proposal layers."""

    feat_stride = uint32(1, 16)
    base_size = uint32(2, 16)
    min_size = uint32(3, 16)
    ratio = singles(4)
    scale = singles(5)
    pre_nms_topn = uint32(6, 6000)
    post_nms_topn = uint32(7, 300)
    nms_thresh = single(8, 0.7)


PROPOSAL = LayerParameter.add_field("proposal_param", nested(8266713, ProposalParameter), PVANET)


@register
class Proposal(ProposalBase):
    """Region proposals: boxes that are predicted from anchors, the best first, without those that overlap a better one.

    The anchors of each cell of the feature map are boxes around its center, of each ``ratio`` and ``scale``. Regression
    moves and resizes them, and clips them to the image. A box that is smaller than ``min_size`` gets the score 0. Of
    the ``pre_nms_topn`` best boxes, those are kept that overlap no better kept one by more than ``nms_thresh``
    (intersection over union), up to ``post_nms_topn``. There is no gradient.

    Shapes:
        scores   (1, 2 A, H, W)   A anchors for each cell: scores of the background, then of the foreground
        deltas   (1, 4 A, H, W)   for each anchor the shift of its center along x and y, relative to its size, and the
            logarithms of the factors of its width and height
        im_info  (1, 4)           height and width of the image in pixels, and the factors by which they were enlarged
        top 0    (R, 5)           0, x1, y1, x2, y2 in pixels of the image
        top 1    (R,)             optional: the scores

    Raises:
        NetError: If there is no ratio or no scale, there is more than one image, or the bottoms do not fit the anchors.

    Source: sanghoon/caffe@6068dd0 src/caffe/layers/proposal_layer.cpp L11-L317, src/caffe/util/nms.cpp L8-L72.
    """

    dialect = PVANET
    reads = frozenset(f"proposal_param.{name}" for name in ProposalParameter.fields)
    image_values = 4

    @classmethod
    def is_typical(cls, layer_param: LayerParameter) -> bool:
        """Return whether there is a ratio or a scale, without which there are no anchors."""
        param = PROPOSAL.get(layer_param)
        return bool(param.ratio or param.scale)

    def setup(self, bottoms: list[Shape]) -> None:
        """Compute the anchors."""
        param = PROPOSAL.get(self.layer_param)
        if not param.ratio or not param.scale:
            raise NetError("there are no anchors", got=f"{len(param.ratio)} ratios and {len(param.scale)} scales")
        self.anchors = make_anchors(param.base_size, param.ratio, param.scale)
        self.most = param.post_nms_topn

    def score_shape(self, count: int) -> Shape:
        """Return ``(count,)``."""
        return (count,)

    def propose(self, scores: Float32, deltas: Float32, info: Float32) -> tuple[Float32, Float32]:
        """Return the boxes and their scores; see ``ProposalBase.propose``."""
        param, (_, height, width) = PROPOSAL.get(self.layer_param), scores.shape
        anchors = place_anchors(self.anchors, height, width, param.feat_stride).reshape(-1, 4)
        boxes = decode_boxes(anchors, deltas.transpose(1, 2, 0).reshape(-1, 4), info[0], info[1])
        least_height, least_width = np.float32(param.min_size) * info[2:4]
        each = scores[len(self.anchors) :].transpose(1, 2, 0).ravel() * is_large(boxes, least_height, least_width)
        order = sort_boxes(each, param.pre_nms_topn)[: param.pre_nms_topn]
        kept = order[suppress_overlaps(boxes[order], param.nms_thresh, self.most, apart=True)]
        return boxes[kept], each[kept]


def sort_boxes(scores: Float32, most: int) -> Integers:
    """Return the order in which PVANet's quicksort leaves boxes with these scores, the first ``most`` of them sorted.

    Boxes of equal scores change places in it, as the sort is not stable.

    Source: sanghoon/caffe@6068dd0 src/caffe/layers/proposal_layer.cpp L54-L98.
    """
    order, values = np.arange(len(scores)), scores.copy()
    ranges = [(0, len(scores))]
    while ranges:
        start, end = ranges.pop()
        part = values[start:end]
        best = np.argsort(-part, kind="stable")
        descending = part[best]
        if (descending[1:] < descending[:-1]).all():  # without equal scores there is only one order
            order[start:end], values[start:end] = order[start:end][best], descending
        elif descending[0] > descending[-1]:
            split = start + _partition(order[start:end], part)
            ranges.append((start, split))
            if split + 1 < min(most, end - 1):
                ranges.append((split + 1, end))
    return order


def _partition(order: Integers, values: Float32) -> int:
    """Move the values above the first one before it and those below it behind it, in place; return its new index."""
    above, below = np.flatnonzero(values > values[0])[::-1], np.flatnonzero(values < values[0])
    # One scan from the left stops at values below, one from the right at values above, which change places until the
    # scans meet.
    pairs = min(len(above), len(below))
    count = int((below[:pairs] < above[:pairs]).sum())
    left, right = below[:count], above[:count]
    for each in (order, values):
        each[left], each[right] = each[right], each[left]
    done, split = (int(left[-1]), int(right[-1]) - 1) if count else (0, len(values) - 1)
    if done < split:
        split = max(done, int(above[count]) if count < len(above) else 0)
    for each in (order, values):
        each[0], each[split] = each[split], each[0]
    return split

"""How MultiBoxLoss assigns true boxes to prior boxes, and which prior boxes count as negative examples.

A *match* is an array with a number for each prior box: the index of its true box in the image, -1 without one, and -2
if the prior box is ignored. If classes have different locations, there is a match for each class.

Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L584-L1031.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reproduction.caffe.dialects.ssd import boxes
from reproduction.caffe.dialects.ssd.messages import NonMaximumSuppressionParameter
from reproduction.caffe.typing import Bool, Float32, Int64

_LEAST_OVERLAP = np.float64(1e-6)  # boxes that overlap less do not meet
_LEAST_AREA = np.float64(1e-5)  # smaller boxes are dropped before the suppression of hard examples


@dataclass
class Match:
    """The true box of each prior box, for one class of one image.

    Attributes:
        label: The class; -1 for all classes, which then have the same locations.
        index: The index of the true box, -1 without one, -2 if the prior box is ignored; int64 (P,).
        overlap: The overlap with the true box, or the greatest with any; float32 (P,).
    """

    label: int
    index: Int64
    overlap: Float32

    @property
    def positive(self) -> Int64:
        """The prior boxes that have a true box."""
        return np.flatnonzero(self.index > -1)


def match_boxes(found: Float32, true: Float32, threshold: float | None, ignored: Bool | None) -> tuple[Int64, Float32]:
    """Assign true boxes to prior boxes, or to predicted ones.

    First, each true box is assigned to one prior box: of all pairs, the one that overlaps most, again and again. Then
    each prior box that is left gets the true box that it overlaps most, if that is at least the threshold.

    Args:
        found: The prior boxes, (P, 4).
        true: The true boxes, (G, 4).
        threshold: The overlap of the second step; None to leave it out.
        ignored: Which prior boxes get none, (P,); None for no such boxes.

    Returns:
        ``index`` and ``overlap`` of a Match.
    """
    index = np.full(len(found), -1)
    greatest = np.zeros(len(found), np.float32)
    if not len(true):
        return index, greatest
    overlaps = boxes.compute_overlaps(found, true)
    overlaps[~(overlaps > _LEAST_OVERLAP)] = -1
    if ignored is not None:
        index[ignored] = -2
        overlaps[ignored] = -1
    greatest = overlaps.max(1).clip(0)
    pool = overlaps.copy()
    for _ in range(len(true)):
        best = int(pool.argmax())
        row, column = divmod(best, len(true))
        if pool[row, column] < 0:
            break
        index[row], greatest[row] = column, overlaps[row, column]
        pool[row], pool[:, column] = -1, -1
    if threshold is not None:
        free = (index == -1) & (overlaps.max(1) > 0) & (overlaps.max(1) >= np.float32(threshold))
        index[free] = overlaps[free].argmax(1)
    return index, greatest


def crosses_border(found: Float32) -> Bool:
    """Return which boxes (P, 4) reach outside the image."""
    outside = (found < 0) | (found > 1)
    return np.logical_or.reduce(outside, -1)  # type: ignore[no-any-return]


def pick_greatest(
    eligible: Int64, count: int, losses: Float32, found: Float32, nms: NonMaximumSuppressionParameter | None
) -> Int64:
    """Return the ``count`` prior boxes of the greatest losses, after non-maximum suppression if it is asked for.

    Args:
        eligible: The prior boxes to choose from.
        count: The greatest number of boxes to return.
        losses: The loss of each prior box, (P,).
        found: The boxes whose overlaps the suppression compares, (P, 4).
        nms: The settings of the suppression; None, or a threshold of 0, to leave it out.
    """
    if nms is None or nms.nms_threshold <= 0:
        return eligible[boxes.sort_scores(losses[eligible], None, count)]
    return eligible[_suppress_hard(found[eligible], losses[eligible], nms.nms_threshold, nms.top_k)[:count]]


def _suppress_hard(found: Float32, losses: Float32, threshold: float, top_k: int) -> Int64:
    """Return the indices of the boxes that remain, by descending loss; tiny boxes are dropped.

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L1790-L1863.
    """
    # Upstream bug, kept: without top_k in nms_param, MultiBoxLoss takes it as 0 and finds no hard examples
    # (bbox_util.cpp L890, L1737).
    order = boxes.sort_scores(losses, None, top_k)
    order = order[boxes.compute_areas(found[order]) >= _LEAST_AREA]
    return order[boxes.suppress(found[order], threshold)]

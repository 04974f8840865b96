"""Anchors, box regression and suppression of overlapping boxes, which all layers of region proposals share.

A box has the corners (x1, y1, x2, y2), in pixels of the image, both included: its width is ``x2 - x1 + 1``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.typing import Array, Float32

Integers = npt.NDArray[np.int64]


def round_up(x: Array) -> Array:
    """Round to the nearest integer, and halves up, as the forks' C++ does for positive numbers."""
    rounded: Array = np.floor(x + x.dtype.type(0.5))
    return rounded


def make_anchors(
    base_size: int,
    ratios: Sequence[float],
    scales: Sequence[float],
    round_size: Callable[[Array], Array] = round_up,
    dtype: npt.DTypeLike = np.float32,
) -> Float32:
    """Return the anchors of one cell of the feature map: boxes of each ratio and scale around the cell's center.

    Args:
        base_size: The width and height in pixels of the square that has ratio 1 and scale 1.
        ratios: The ratios of height to width.
        scales: The factors by which the boxes are larger than the square.
        round_size: A function that rounds the widths and heights at scale 1.
        dtype: The type that sizes are computed in before they are rounded.

    Returns:
        Corners (ratios * scales, 4), by ratio and then by scale; the cell's center is ``(base_size - 1) / 2``.
    """
    ratio, scale = np.asarray(ratios, dtype), np.asarray(scales, np.float32)
    widths = round_size(np.sqrt(ratio.dtype.type(base_size * base_size) / ratio))
    sizes = np.stack([widths, round_size(widths * ratio)], 1).astype(np.float32)
    halves = (sizes[:, None] * scale[:, None] - 1) * np.float32(0.5)
    center = np.float32(0.5 * (base_size - 1))
    return np.concatenate([center - halves, center + halves], 2).reshape(-1, 4)


def place_anchors(anchors: Array, height: int, width: int, stride: int) -> Array:
    """Return the anchors of every cell of a feature map, (height, width, A, 4), for those of its first cell, (A, 4)."""
    rows, columns = np.meshgrid(np.arange(height) * stride, np.arange(width) * stride, indexing="ij")
    shifts = np.stack([columns, rows, columns, rows], 2).astype(anchors.dtype)
    placed: Array = shifts[:, :, None] + anchors
    return placed


def decode_boxes(anchors: Float32, deltas: Float32, height: float, width: float) -> Float32:
    """Return the boxes that regression predicts from anchors, clipped to the image.

    Args:
        anchors: Corners (N, 4).
        deltas: (N, 4): the shift of the center along x and y, relative to the anchor's size, and the logarithms of the
            factors of width and height.
        height: The height of the image in pixels.
        width: The width of the image in pixels.

    Source: rbgirshick/py-faster-rcnn@781a917 lib/fast_rcnn/bbox_transform.py L30-L76;
    sanghoon/caffe@6068dd0 src/caffe/layers/proposal_layer.cpp L11-L52.
    """
    one, half = np.float32(1), np.float32(0.5)
    sizes = anchors[:, 2:] - anchors[:, :2] + one
    centers = deltas[:, :2] * sizes + (anchors[:, :2] + half * sizes)
    with np.errstate(over="ignore"):  # an infinite box is clipped to the image
        halves = half * (np.exp(deltas[:, 2:]) * sizes)
    last = np.array([width, height] * 2, np.float32) - one
    boxes: Float32 = np.maximum(np.minimum(np.concatenate([centers - halves, centers + halves], 1), last), 0)
    return boxes


def is_large(boxes: Float32, height: Any, width: Any) -> npt.NDArray[np.bool_]:
    """Return for each of the boxes (N, 4) whether it has at least this height and width."""
    sizes = boxes[:, 2:] - boxes[:, :2] + np.float32(1)
    large: npt.NDArray[np.bool_] = (sizes[:, 0] >= width) & (sizes[:, 1] >= height)
    return large


def suppress_overlaps(boxes: Float32, threshold: float, most: int, *, apart: bool = False) -> Integers:
    """Return the indices of the boxes that overlap no better box that is kept, which is known as greedy NMS.

    Args:
        boxes: Corners (N, 4), the best box first.
        threshold: The largest intersection over union with a kept box at which a box is kept, too.
        most: How many boxes to keep at most.
        apart: Whether boxes without a common point do not overlap. Otherwise boxes with a gap of less than a pixel
            overlap, since both corners belong to a box.
    """
    kept: list[int] = []
    alive, limit = np.arange(len(boxes)), np.float32(threshold)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2] + np.float32(1), 1)
    while len(alive) and len(kept) < most:
        best, alive = alive[0], alive[1:]
        kept.append(best)
        box, others = boxes[best], boxes[alive]
        sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        common = np.prod(np.maximum(sides + np.float32(1), 0), 1)
        if apart:
            common[(sides < 0).any(1)] = 0
        alive = alive[common / (areas[best] + areas[alive] - common) <= limit]
    return np.array(kept, np.int64)

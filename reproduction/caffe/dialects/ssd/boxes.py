"""Arithmetic of boxes in SSD: overlaps, codes relative to prior boxes, and non-maximum suppression.

Boxes are float32 arrays (..., 4) of xmin, ymin, xmax and ymax, as fractions of the image's width and height. The order
of operations and their precision are those of the fork, so that the same boxes are kept.

Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reproduction.caffe.dialects.ssd.messages import CodeType
from reproduction.caffe.errors import NetError
from reproduction.caffe.typing import Float32, Int64

_BLOCK = 512  # the boxes that are compared with all others at a time, which limits the memory for overlaps


def compute_areas(boxes: Float32, pixel: int = 0) -> Float32:
    """Return the area of each box; 0 if xmax is less than xmin or ymax less than ymin.

    Args:
        boxes: (..., 4).
        pixel: What to add to the differences: 1 if the coordinates are pixels, both of which count, else 0.

    Returns:
        An array (...).

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L82-L100.
    """
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return np.where((width < 0) | (height < 0), np.float32(0), (width + pixel) * (height + pixel))


def compute_overlaps(first: Float32, second: Float32, pixel: int = 0) -> Float32:
    """Return the intersection over union of each pair of boxes.

    Args:
        first: (A, 4).
        second: (B, 4).
        pixel: 1 if the coordinates are pixels, both of which count, else 0.

    Returns:
        An array (A, B).

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L65-L80, L274-L294.
    """
    a, b = first[:, None], second[None]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    if pixel:
        # Upstream bug, kept: boxes in pixels that do not meet have an intersection of one pixel (bbox_util.cpp L283).
        apart = (width < 0) | (height < 0)
        width, height = (np.where(apart, np.float32(0), side) + pixel for side in (width, height))
    shared = width * height
    union = compute_areas(first, pixel)[:, None] + compute_areas(second, pixel) - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((width > 0) & (height > 0), shared / union, np.float32(0))


def decode(codes: Float32, priors: Float32, variances: Float32 | None, code_type: CodeType) -> Float32:
    """Return the boxes that predictions describe relative to prior boxes.

    Args:
        codes: The predictions, (..., P, 4).
        priors: The prior boxes, (P, 4).
        variances: The factor of each prediction, (P, 4); None if they are part of the predictions.
        code_type: What the four numbers are: CORNER, differences of the corners; CORNER_SIZE, the same in units of the
            prior's size; CENTER_SIZE, the difference of the centers in units of the prior's size, and the logarithms of
            the ratios of the sizes.

    Returns:
        The boxes, (..., P, 4).

    Raises:
        NetError: If a prior box is empty, unless the code is CORNER.

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L441-L529.
    """
    scaled = codes if variances is None else variances * codes
    if code_type is CodeType.CORNER:
        return priors + scaled
    size, center = _sizes_and_centers(priors, "a prior box")
    if code_type is CodeType.CORNER_SIZE:
        return priors + scaled * np.concatenate([size, size], -1)  # type: ignore[no-any-return]
    middle = scaled[..., :2] * size + center
    # The exponential is correctly rounded, as that of glibc; the fork then continues in double precision.
    half = np.exp(scaled[..., 2:], dtype=np.float64).astype(np.float32) * size / np.float64(2)
    return np.concatenate([middle - half, middle + half], -1).astype(np.float32)


def encode(boxes: Float32, priors: Float32, variances: Float32 | None, code_type: CodeType) -> Float32:
    """Return the numbers that describe boxes relative to prior boxes; ``decode`` returns the boxes again.

    Args:
        boxes: The boxes, (P, 4).
        priors: The prior box of each, (P, 4).
        variances: Divisors of the result, (P, 4), or None.
        code_type: What the four numbers are; see ``decode``.

    Raises:
        NetError: If a prior box is empty, or a box is and the code is CENTER_SIZE; not if the code is CORNER.

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L355-L439.
    """
    if code_type is CodeType.CENTER_SIZE:
        size, center = _sizes_and_centers(priors, "a prior box")
        box_size, box_center = _sizes_and_centers(boxes, "a true box")
        codes: Float32 = np.concatenate([(box_center - center) / size, np.log(box_size / size)], -1)
    else:
        codes = boxes - priors
        if code_type is CodeType.CORNER_SIZE:
            size, _ = _sizes_and_centers(priors, "a prior box")
            codes = codes / np.concatenate([size, size], -1)
    return codes if variances is None else codes / variances


def _sizes_and_centers(boxes: Float32, what: str) -> tuple[Float32, Float32]:
    """Return width and height, and the center, of boxes (P, 4) as two arrays (P, 2).

    Raises:
        NetError: If a box has no positive width and height; ``what`` names the box.
    """
    size: Float32 = boxes[..., 2:] - boxes[..., :2]
    if not (size > 0).all():
        empty = boxes[~(size > 0).all(-1)][0]
        raise NetError(f"{what} is empty", got=tuple(map(float, empty)), want="xmin < xmax and ymin < ymax")
    center: Float32 = (boxes[..., :2] + boxes[..., 2:]) / np.float32(2)
    return size, center


def sort_scores(scores: Float32, threshold: float | None, top_k: int) -> Int64:
    """Return the indices of the greatest scores in descending order; equal scores keep their order.

    Args:
        scores: (P,).
        threshold: Only scores above it are returned; None for all.
        top_k: The greatest number of indices to return; negative for no limit.

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L1724-L1761.
    """
    above = np.arange(len(scores)) if threshold is None else np.flatnonzero(scores > np.float32(threshold))
    order = above[np.argsort(-scores[above], kind="stable")]
    return order if top_k < 0 else order[:top_k]


def suppress(
    boxes: Float32,
    threshold: float,
    eta: float = 1.0,
    overlaps: Callable[[Float32, Float32], Float32] = compute_overlaps,
) -> Int64:
    """Return the indices of the boxes that remain after non-maximum suppression.

    Each box, in the given order, is kept unless its overlap with a box that was kept before is above the threshold.

    Args:
        boxes: (K, 4), sorted by descending score.
        threshold: The greatest overlap of two boxes that are kept.
        eta: A factor of at most 1. After each box that is kept, a threshold above 0.5 is multiplied by it.
        overlaps: Computes the overlap of each pair of boxes, (A, 4) and (B, 4), as an array (A, B).

    Source: weiliu89/caffe@4817bf8b src/caffe/util/bbox_util.cpp L1901-L1936.
    """
    limit = np.float32(threshold)
    kept: list[int] = []
    for start in range(0, len(boxes), _BLOCK):
        block = boxes[start : start + _BLOCK]
        greatest = overlaps(boxes[kept], block).max(0, initial=-1)
        within = overlaps(block, block)
        for i in range(len(block)):
            if greatest[i] <= limit:
                kept.append(start + i)
                np.maximum(greatest, within[i], out=greatest)
                if eta < 1 and limit > 0.5:
                    limit *= np.float32(eta)
    return np.array(kept, np.int64)

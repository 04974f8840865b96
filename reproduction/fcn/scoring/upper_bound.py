"""Upper bounds on mean IU at a coarse stride: downsample the true labels, upsample them, score them as a prediction.

The paper computes these "approximate upper bounds" on part of VOC 2011 val, for factors from 128 to 4. It does not say
how the labels are resampled, so this module implements two methods, see ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from reproduction.caffe.errors import DataError
from reproduction.caffe.typing import Progress, UInt8
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.scoring import score
from reproduction.fcn.scoring.score import Scores

FACTORS = (128, 64, 32, 16, 8, 4)

#: The methods of resampling labels: the label in the middle of each cell, repeated; and the share of each class in each
#: cell, interpolated bilinearly as the nets' scores are, of which the greatest is taken.
METHODS = ("nearest", "bilinear")


def coarsen(labels: UInt8, factor: int, way: str) -> UInt8:
    """Return labels as a perfect net of stride ``factor`` could predict them: downsampled by it, and upsampled again.

    Args:
        labels: (H, W) uint8, without void.
        factor: The stride: height and width of a cell that gets one label, in pixels. Cells at the right and bottom
            border may be smaller.
        way: How the labels are resampled, one of ``METHODS``: ``nearest`` or ``bilinear``.

    Returns:
        (H, W) uint8, with classes that occur in ``labels``.

    Source: Long, Shelhamer, Darrell, CVPR 2015, upper bounds on IU (the table of downsampling factors).
    """
    if way == "nearest":
        middle = [np.minimum(np.arange(size) // factor * factor + factor // 2, size - 1) for size in labels.shape]
        return labels[np.ix_(*middle)]
    return _bilinear(labels, factor)


def fill_void(labels: UInt8) -> UInt8:
    """Replace each void label by that of the nearest pixel with a class, since nets predict a class everywhere.

    Args:
        labels: (H, W) uint8; 255 is void. At least one pixel must have a class.

    Returns:
        (H, W) uint8, without void.
    """
    from scipy import ndimage

    void = labels == VOID
    if not void.any():
        return labels
    nearest = ndimage.distance_transform_edt(void, return_distances=False, return_indices=True)
    filled: UInt8 = labels[tuple(nearest)]
    return filled


def _bilinear(labels: UInt8, factor: int) -> UInt8:
    import torch
    from torch.nn import functional

    classes, inverse = np.unique(labels, return_inverse=True)
    shares = functional.one_hot(torch.from_numpy(inverse.reshape(labels.shape)), len(classes))
    shares = shares.permute(2, 0, 1)[None].float()
    coarse = functional.avg_pool2d(shares, factor, ceil_mode=True, count_include_pad=False)
    fine = functional.interpolate(coarse, scale_factor=factor, mode="bilinear", align_corners=False)
    best = fine[0, :, : labels.shape[0], : labels.shape[1]].argmax(0).numpy()
    chosen: UInt8 = classes[best].astype(np.uint8)
    return chosen


def compute_upper_bounds(
    dataset: Dataset,
    top: str,
    *,
    factors: Iterable[int] = FACTORS,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Mapping[str, Mapping[int, Scores]]:
    """Compute upper bounds: the scores of a data set's own labels as predictions, after resampling them at each stride.

    Args:
        dataset: The split; only its labels are read.
        top: The label top: ``label``; for SIFT Flow ``sem`` or ``geo``.
        factors: The strides, in pixels.
        limit: Use only the first ``limit`` samples; None for all.
        progress: Called with the number of samples done and their total.

    Returns:
        The scores by method (one of ``METHODS``) and by stride: ``bounds["nearest"][32].mean_iu``.

    Raises:
        DataError: If labels are missing or broken, or no pixel has a class.
    """
    names, kind = dataset.label_classes[top], dataset.tops[top]
    counts = {(way, factor): np.zeros((len(names), len(names)), np.int64) for way in METHODS for factor in factors}
    ids = dataset.ids[:limit]
    for number, image_id in enumerate(ids, 1):
        labels = dataset.load(kind, image_id)[0]
        if (labels != VOID).any():
            filled = fill_void(labels)
            for way, factor in counts:
                counts[way, factor] += score.confusion_matrix(labels, coarsen(filled, factor, way), len(names))
        progress(number, len(ids))
    try:
        return {way: {factor: score.compute_scores(counts[way, factor]) for factor in factors} for way in METHODS}
    except DataError as error:
        raise error.at(f"{dataset.name} {dataset.split}") from None

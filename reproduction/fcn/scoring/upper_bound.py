"""How well a net of a coarse stride could do at best: true labels, made coarse and fine again, scored as a prediction.

The paper computes these "approximate upper bounds" on part of VOC 2011 val, for factors from 128 to 4, by downsampling
the true labels and upsampling them again. It does not say how either is done, so two ways are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.scoring import score
from reproduction.fcn.scoring.score import Scores

UInt8 = npt.NDArray[np.uint8]
Progress = Callable[[int, int], object]

FACTORS = (128, 64, 32, 16, 8, 4)

#: How labels are made coarse and fine again.
WAYS = {
    "nearest": "the label in the middle of each cell, repeated",
    "bilinear": "the share of each class in each cell, interpolated bilinearly as the nets' scores are; the greatest",
}


def coarsen(labels: UInt8, factor: int, way: str) -> UInt8:
    """Make labels as coarse as the output of a net of that stride, and fine again.

    Args:
        labels: (H, W), without void.
        factor: height and width of a cell, pixels; cells at the right and bottom may be cut off.
        way: one of ``WAYS``.

    Returns:
        (H, W) of the same classes.

    Source: Long, Shelhamer, Darrell, CVPR 2015, upper bounds on IU (the table of downsampling factors).
    """
    if way == "nearest":
        middle = [np.minimum(np.arange(size) // factor * factor + factor // 2, size - 1) for size in labels.shape]
        return labels[np.ix_(*middle)]
    return _bilinear(labels, factor)


def without_void(labels: UInt8) -> UInt8:
    """Give each pixel without a class that of the nearest pixel with one: a net says a class everywhere.

    Args:
        labels: (H, W); 255 is void. Some pixel has a class.
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


def upper_bounds(
    dataset: Dataset,
    top: str,
    *,
    factors: Iterable[int] = FACTORS,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Mapping[str, Mapping[int, Scores]]:
    """Score the labels of a data set as if nets of each stride had predicted them as well as they can.

    Args:
        dataset: the split; only its labels are read.
        top: the label top.
        factors: see ``coarsen``.
        limit: look at that many images only.
        progress: called with the images done, and in all.

    Returns:
        For each of ``WAYS``, the scores by factor.

    Raises:
        DataError: labels are missing or broken, or no pixel has a class.
    """
    names, kind = dataset.label_classes[top], dataset.tops[top]
    counts = {(way, factor): np.zeros((len(names), len(names)), np.int64) for way in WAYS for factor in factors}
    ids = dataset.ids[:limit]
    for number, id in enumerate(ids, 1):
        labels = dataset.read(kind, dataset.file(kind, id))[0]
        if (labels != VOID).any():
            filled = without_void(labels)
            for (way, factor), counted in counts.items():
                counted += score.confusion(labels, coarsen(filled, factor, way), len(names))
        if progress:
            progress(number, len(ids))
    try:
        return {way: {factor: score.scores(counts[way, factor]) for factor in factors} for way in WAYS}
    except DataError as error:
        raise error.at(f"{dataset.name} {dataset.split}") from None

"""The paper's four metrics, from one matrix of exact counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import DataError

Confusion = npt.NDArray[np.int64]

Absent = Literal["skip", "published"]


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a data set; fractions from 0 to 1.

    With n[i, j] pixels of class i predicted as j, t[i] pixels of class i, and C classes:

    Attributes:
        pixel_acc: sum of n[i, i] over sum of t[i].
        mean_acc: mean over the classes of n[i, i] / t[i].
        mean_iu: mean over the classes of ``class_iu``.
        fw_iu: mean of ``class_iu``, each class weighted by its share t[i] of the pixels.
        class_iu: n[i, i] / (t[i] + sum over j of n[j, i] - n[i, i]) for each class; NaN for a class that is neither in
            the truth nor predicted.
        confusion: n, (C, C) int64; rows are the truth, columns the prediction.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 5 (Metrics).
    """

    pixel_acc: float
    mean_acc: float
    mean_iu: float
    fw_iu: float
    class_iu: tuple[float, ...]
    confusion: Confusion

    def __eq__(self, other: object) -> bool:
        """Compare the counts and the mean; two scores of the same counts differ when ``absent`` did."""
        if not isinstance(other, Scores):
            return NotImplemented
        return np.array_equal(self.confusion, other.confusion) and self.mean_iu == other.mean_iu

    __hash__ = None  # type: ignore[assignment]  # it holds an array


def confusion(label: npt.NDArray[Any], prediction: npt.NDArray[Any], classes: int) -> Confusion:
    """Count which class was predicted for the pixels of which class.

    Args:
        label: truth, integers of any shape; pixels that are not in 0 ... classes - 1 (void, 255) do not count.
        prediction: integers of the same shape.
        classes: number of classes, C.

    Returns:
        (C, C) int64; rows are the truth, columns the prediction.

    Raises:
        DataError: the shapes differ, or a pixel that counts is predicted as no class.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 score.py L9-11.
    """
    if label.shape != prediction.shape:
        raise DataError("label and prediction differ in shape", got=prediction.shape, want=label.shape)
    counts = (label >= 0) & (label < classes)
    truth, predicted = label[counts].astype(np.int64), prediction[counts].astype(np.int64)
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < classes:
        got = f"{predicted.min()} to {predicted.max()}"
        raise DataError("a prediction is no class", got=got, want=f"0 to {classes - 1}")
    counted: Confusion = np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, classes)
    return counted


def merge(confusions: Iterable[Confusion]) -> Confusion:
    """Add the counts of several parts of a data set.

    Raises:
        DataError: there are none, or they are of different sizes.
    """
    parts = list(confusions)
    if len({part.shape for part in parts}) != 1:
        raise DataError("confusions of one size are needed", got=[part.shape for part in parts])
    total: Confusion = np.sum(parts, axis=0, dtype=np.int64)
    return total


def scores(confusion: Confusion, *, absent: Absent = "skip") -> Scores:
    """Compute the four metrics.

    Args:
        confusion: (C, C) counts; rows are the truth, columns the prediction.
        absent: what mean_iu does with a class that has no pixel in the truth. ``skip`` leaves it out, as the paper
            does for SIFT Flow, whose test split lacks three of 33 classes; pixels predicted as it still count against
            their own class. ``published`` does as the published score.py: it leaves the class out only when it is not
            predicted either, else it counts as 0.

    Raises:
        DataError: no pixel has a class.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 score.py L41-55; the rule for absent classes: CVPR 2015, Table 5,
    and data/sift-flow/classes.txt.
    """
    # Upstream bug, fixed: score.py averages in an IU of 0 for an absent class that is predicted anywhere; its own
    # comment in siftflow-fcn*/solve.py says so. absent="published" keeps it.
    right, truth = np.diag(confusion), confusion.sum(1)
    union = truth + confusion.sum(0) - right
    total = truth.sum()
    if total == 0:
        raise DataError("no pixel has a class; there is nothing to score", remedy="Every label is void, 255.")
    present = truth > 0
    class_iu = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
    averaged = present if absent == "skip" else union > 0
    return Scores(
        pixel_acc=float(right.sum() / total),
        mean_acc=float(np.mean(right[present] / truth[present])),
        mean_iu=float(np.mean(class_iu[averaged])),
        fw_iu=float(np.sum(truth[present] / total * class_iu[present])),
        class_iu=tuple(float(iu) for iu in class_iu),
        confusion=confusion,
    )

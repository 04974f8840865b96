"""The paper's four metrics, computed from one exact confusion matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reproduction.caffe.errors import DataError
from reproduction.caffe.typing import Array, Int64

Confusion = Int64

#: The metrics of the paper, attributes of ``Scores``.
METRICS = ("pixel_acc", "mean_acc", "mean_iu", "fw_iu")

#: The titles of the metrics in tables.
TITLES = {"pixel_acc": "pixel acc.", "mean_acc": "mean acc.", "mean_iu": "mean IU", "fw_iu": "f.w. IU"}

Absent = Literal["skip", "published"]


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores on a data set, as fractions from 0 to 1.

    Below, n[i, j] is the number of pixels of class i predicted as class j, and t[i] is the number of pixels of class i.

    Attributes:
        pixel_acc: Pixel accuracy: the sum of n[i, i] divided by the sum of t[i].
        mean_acc: Mean accuracy: the mean of n[i, i] / t[i] over the classes that occur in the truth.
        mean_iu: Mean IU: the mean of ``class_iu``. Whether classes without a true pixel are left out depends on the
            argument ``absent`` of ``compute_scores``.
        fw_iu: Frequency-weighted IU: the mean of ``class_iu`` weighted by t[i].
        class_iu: For each class, n[i, i] / (t[i] + sum over j of n[j, i] - n[i, i]); NaN for a class that is neither in
            the truth nor predicted.
        confusion: The confusion matrix n, (C, C) int64; rows are the truth, columns the prediction.

    Source: Long, Shelhamer, Darrell, CVPR 2015, section 5 (Metrics).
    """

    pixel_acc: float
    mean_acc: float
    mean_iu: float
    fw_iu: float
    class_iu: tuple[float, ...]
    confusion: Confusion

    def __eq__(self, other: object) -> bool:
        """Return True if the confusion matrices and ``mean_iu`` are equal; the latter depends on ``absent`` too."""
        if not isinstance(other, Scores):
            return NotImplemented
        return np.array_equal(self.confusion, other.confusion) and self.mean_iu == other.mean_iu

    __hash__ = None  # type: ignore[assignment]  # it holds an array


def confusion_matrix(label: Array, prediction: Array, classes: int) -> Confusion:
    """Compute the confusion matrix of predicted labels: how many pixels of each class were predicted as each class.

    Args:
        label: The truth, integers of any shape. Pixels outside 0 to classes - 1 (such as void, 255) are ignored.
        prediction: Integers of the same shape.
        classes: Number of classes, C.

    Returns:
        (C, C) int64; rows are the truth, columns the prediction.

    Raises:
        DataError: If the shapes differ, or the prediction of a pixel that is not ignored is outside 0 to classes - 1.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 score.py L9-11.
    """
    if label.shape != prediction.shape:
        raise DataError("label and prediction differ in shape", got=prediction.shape, want=label.shape)
    counts = (label >= 0) & (label < classes)
    truth, predicted = label[counts].astype(np.int64), prediction[counts].astype(np.int64)
    if predicted.size and not 0 <= predicted.min() <= predicted.max() < classes:
        got = f"{predicted.min()} to {predicted.max()}"
        raise DataError("a prediction is not a class", got=got, want=f"0 to {classes - 1}")
    counted: Confusion = np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, classes)
    return counted


def merge(confusions: Iterable[Confusion]) -> Confusion:
    """Return the sum of the confusion matrices of several parts of a data set.

    Args:
        confusions: (C, C) matrices.

    Returns:
        (C, C) int64.

    Raises:
        DataError: If there are none, or their sizes differ.
    """
    total: Confusion | None = None
    for part in confusions:
        if total is not None and part.shape != total.shape:
            raise DataError("confusions of one size are needed", got=[total.shape, part.shape])
        total = part.astype(np.int64) if total is None else total + part
    if total is None:
        raise DataError("confusions of one size are needed", got=[])
    return total


def compute_scores(confusion: Confusion, *, absent: Absent = "skip") -> Scores:
    """Compute the paper's four metrics from a confusion matrix.

    Args:
        confusion: (C, C) counts; rows are the truth, columns the prediction.
        absent: How ``mean_iu`` treats a class that has no pixel in the truth. With ``"skip"``, it is left out, as in
            the paper's results for SIFT Flow, whose test split lacks three of 33 classes; pixels that are wrongly
            predicted as this class still lower the IU of their true class. With ``"published"``, it is left out only
            if it is not predicted either; otherwise its IU of 0 counts, as in the published score.py.

    Returns:
        The scores.

    Raises:
        DataError: If no pixel has a class.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 score.py L41-55; the rule for absent classes: CVPR 2015, Table 5,
    and data/sift-flow/classes.txt.
    """
    # Upstream bug, fixed: if a class has no pixel in the truth but is predicted somewhere, score.py counts its IU of 0
    # in mean IU, as a comment in siftflow-fcn*/solve.py admits. Here such a class is left out of the mean;
    # absent="published" restores the published behaviour.
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

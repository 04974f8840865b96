"""The result of an evaluation: one record for each image, from which scores, pages and the state of a run follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

import numpy as np

from reproduction.caffe.formats.json_file import at_least
from reproduction.caffe.typing import Integer
from reproduction.fcn.datasets import VOID
from reproduction.fcn.scoring.score import Confusion, Scores, compute_scores, confusion_matrix, merge

_Count = Annotated[int, at_least(0)]


@dataclass(frozen=True)
class ImageResult:
    """The result of one image: which pixels of each true class were predicted as which class.

    Attributes:
        id: Its id in the data set.
        counts: By label top (``label``; SIFT Flow has ``sem`` and ``geo``), the (true class, predicted class, number of
            pixels) of each pair of classes that occurs.
        void: Number of void pixels, which do not count, by label top.
        seconds: Time from the previous image's result to this one, in seconds.
    """

    id: str
    counts: Mapping[str, Sequence[tuple[_Count, _Count, _Count]]]
    void: Mapping[str, _Count]
    seconds: float

    @classmethod
    def from_labels(
        cls,
        image_id: str,
        truth: Mapping[str, Integer],
        predictions: Mapping[str, Integer],
        classes: Mapping[str, int],
        seconds: float,
    ) -> ImageResult:
        """Compare the predicted labels of an image with the true ones, and return the result.

        Args:
            image_id: The image's id.
            truth: The true labels by label top, (H, W); 255 is void.
            predictions: The predicted labels by label top, (H, W).
            classes: Number of classes, by label top.
            seconds: The time that the image took, in seconds.
        """
        counts = {}
        for top, number in classes.items():
            matrix = confusion_matrix(truth[top], predictions[top], number)
            counts[top] = [(int(i), int(j), int(matrix[i, j])) for i, j in np.argwhere(matrix)]
        void = {top: int(np.count_nonzero(truth[top] == VOID)) for top in classes}
        return cls(image_id, counts, void, seconds)

    def confusion(self, top: str, classes: int) -> Confusion:
        """Return the image's confusion matrix, (classes, classes) int64; rows are the truth, columns the prediction.

        Args:
            top: The label top: ``label``; for SIFT Flow ``sem`` or ``geo``.
            classes: Number of classes.
        """
        matrix = np.zeros((classes, classes), np.int64)
        for truth, prediction, pixels in self.counts[top]:
            matrix[truth, prediction] = pixels
        return matrix


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a net on a data set.

    Attributes:
        images: The result of each image, in the order of the split.
        scores: The scores by label top: ``label``; for SIFT Flow ``sem`` and ``geo``.
    """

    images: Sequence[ImageResult]
    scores: Mapping[str, Scores]

    @classmethod
    def from_images(cls, images: Sequence[ImageResult], classes: Mapping[str, int]) -> Evaluation:
        """Add up the results of all images, and compute the scores from the sum.

        Args:
            images: The result of each image.
            classes: Number of classes by label top.

        Raises:
            DataError: If no pixel has a class.
        """
        totals = {top: merge(image.confusion(top, number) for image in images) for top, number in classes.items()}
        return cls(images, {top: compute_scores(total) for top, total in totals.items()})

    @property
    def seconds_per_image(self) -> float:
        """The mean time for an image in seconds, including the images that were scored before the run was resumed."""
        return fmean(image.seconds for image in self.images)

"""Validation during training: the paper's metrics for dense labels, else the outputs of the test net."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from reproduction.caffe.errors import StrPath
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.caffe.training.parallel import Ranks
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.scoring.score import METRICS, Scores
from reproduction.fcn.train import feeds, preflight
from reproduction.fcn.train.feeds import DatasetFeed, Feed
from reproduction.fcn.train.log_file import Metrics, Validation, format_now


class Validator:
    """A test net that shares its weights with the net in training, together with the validation data.

    Call it to evaluate the present weights. For nets with dense labels (one for each pixel) it computes the paper's
    metrics; for a classifier of whole images, the mean of the test net's outputs, as Caffe's solver does.

    Args:
        test: the definition of the test net.
        learner: the net in training, already moved to its device, since both nets use the same parameter tensors.
        root: the data root.
        batches: for a classifier, the number of batches; the solver's ``test_iter``.
        limit: for dense labels, the number of images, from the start of the split; None for all.
        ranks: the processes that validate together; None for one. With dense labels each evaluates a share of the
            images; of a classifier, each evaluates all batches.

    Attributes:
        feed: the validation data.
        dataset: the data set that ``feed`` reads; None for a classifier.
        classes: the class names by label top; empty for a classifier.
    """

    def __init__(
        self,
        test: NetParameter,
        learner: Net,
        root: StrPath,
        *,
        batches: int = 1,
        limit: int | None = None,
        ranks: Ranks | None = None,
    ):
        self.feed: Feed = feeds.open_feed(test, root, Phase.TEST)
        self.dataset: Dataset | None = self.feed.dataset if isinstance(self.feed, DatasetFeed) else None
        self.classes: Mapping[str, Sequence[str]] = self.dataset.label_classes if self.dataset else {}
        self._net = Net(test, feeds.with_phase(test, Phase.TEST), inputs=self.feed.shapes)
        self._net.to(learner.device)
        self._net.share_with(learner)
        self._batches, self._limit, self._ranks = batches, limit, ranks

    def __call__(
        self,
        iteration: int,
        progress: evaluate.TimedProgress | None = None,
        predicted: evaluate.Predicted | None = None,
    ) -> Validation:
        """Evaluate the net with its present weights, and return the record for the log.

        Args:
            iteration: the number of updates made before, for the record.
            progress: called with images done, images in all, and seconds since the start; for dense labels only.
            predicted: called with the predictions for each image, see ``evaluate``; for dense labels only.

        Raises:
            DataError: If an image or label cannot be read.
            NetError: If the scores contain NaN.
        """
        if self.dataset is None:
            count = sum(len(self.feed.images(batch)) for batch in range(self._batches))
            return Validation(iteration, count, outputs=self._outputs(), time=format_now())
        found = evaluate.evaluate(
            self._net, self.dataset, device=self._net.device, limit=self._limit, force=True, progress=progress,
            predicted=predicted, ranks=self._ranks,
        )  # fmt: skip
        scores = found.scores
        metrics = {top: _to_metrics(each) for top, each in scores.items()}
        notes = preflight.describe_collapse(scores, self.classes, iteration)
        return Validation(iteration, len(found.images), metrics, time=format_now(), notes=notes)

    def _outputs(self) -> dict[str, float]:
        """Return the mean of each output of the test net over all batches, as Caffe's solver computes when it tests."""
        with torch.inference_mode():
            rows = [self._net(self.feed(batch)) for batch in range(self._batches)]
        return {name: float(np.mean([float(row[name].mean()) for row in rows])) for name in self._net.outputs}


def _to_metrics(scores: Scores) -> Metrics:
    """Return the numbers of a score that a log stores; NaN (nothing to count) becomes None, since JSON has no NaN."""
    means = {name: _none_if_nan(getattr(scores, name)) for name in METRICS}
    return Metrics(**means, class_iu=[_none_if_nan(iu) for iu in scores.class_iu])


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

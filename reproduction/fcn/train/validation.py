"""Validation during training: the paper's metrics for dense labels, else the outputs of the test net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reproduction.caffe.errors import StrPath
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.caffe.training.parallel import Ranks
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.scoring.score import Scores
from reproduction.fcn.train import feeds
from reproduction.fcn.train.feeds import DatasetFeed, Feed

METRICS = ("pixel_acc", "mean_acc", "mean_iu", "fw_iu")


@dataclass(frozen=True)
class Validation:
    """The result of one validation.

    Attributes:
        iteration: the number of updates made before.
        images: the number of images that were evaluated.
        scores: the scores by label top; empty for nets without dense labels.
        outputs: the mean of each output of the test net, such as loss and accuracy; empty for nets with dense labels.
    """

    iteration: int
    images: int
    scores: Mapping[str, Scores]
    outputs: Mapping[str, float]

    def record(self) -> dict[str, object]:
        """Return the fields of a validation record of the log."""
        by_label = {
            top: {
                **{metric: _number(getattr(found, metric)) for metric in METRICS},
                "class_iu": [_number(iu) for iu in found.class_iu],
            }
            for top, found in self.scores.items()
        }
        return {"images": self.images, "scores": by_label} if by_label else {"outputs": dict(self.outputs)}


def _number(value: float) -> float | None:
    """Convert to float, and NaN (nothing to count) to None, since JSON has no NaN."""
    return None if value != value else float(value)


class Validator:
    """A test net that shares the weights of the net in training, with its validation data.

    Args:
        test: the definition of the test net.
        learner: the net in training, already on its final device, since the parameters are shared there.
        root: the data root.
        batches: the number of batches for nets without dense labels; the solver's ``test_iter``.
        limit: the number of images for nets with dense labels, from the start of the split; None for all.
        ranks: the processes that validate together: each evaluates a share of the images. Without dense labels each
            evaluates all batches.

    Attributes:
        feed: the validation data.
        dataset: the data set of ``feed`` for dense labels; None for an image list.
        classes: the class names by label top; empty for an image list.
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
        state = test.state
        self._net = Net(test, Phase.TEST, level=state.level, stages=state.stage, inputs=self.feed.shapes)
        self._net.to(learner.device)
        self._net.share_with(learner)
        self._batches, self._limit, self._ranks = batches, limit, ranks

    def __call__(self, iteration: int, progress: evaluate.TimedProgress | None = None) -> Validation:
        """Evaluate the net with its current weights.

        Args:
            iteration: the number of updates made before.
            progress: called with images done, images in all, and seconds since the start; for dense labels only.

        Raises:
            DataError: If an image or label cannot be read.
            NetError: If the scores contain NaN.
        """
        if self.dataset is None:
            count = sum(len(self.feed.images(batch)) for batch in range(self._batches))
            return Validation(iteration, count, {}, self._outputs())
        found = evaluate.evaluate(
            self._net,
            self.dataset,
            device=self._net.device,
            limit=self._limit,
            force=True,
            progress=progress,
            ranks=self._ranks,
        )
        count = len(self.dataset) if self._limit is None else min(self._limit, len(self.dataset))
        return Validation(iteration, count, found, {})

    def _outputs(self) -> dict[str, float]:
        """Return the mean of each output of the test net over all batches, as Caffe's solver computes when it tests."""
        with torch.inference_mode():
            rows = [self._net(self.feed(batch)) for batch in range(self._batches)]
        return {name: float(np.mean([float(row[name].mean()) for row in rows])) for name in self._net.outputs}

"""How good a net is while it learns: the paper's metrics for labels of pixels, the test net's outputs for others."""

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
    """What a net was found to be worth.

    Attributes:
        iteration: the updates that it had learnt from.
        images: how many it was shown.
        scores: by label top; empty for nets whose labels are not of pixels.
        outputs: the means of the test net's outputs, such as its loss and accuracy; empty for the others.
    """

    iteration: int
    images: int
    scores: Mapping[str, Scores]
    outputs: Mapping[str, float]

    def record(self) -> dict[str, object]:
        """Give what belongs into a log."""
        by_label = {
            top: {
                **{metric: _number(getattr(found, metric)) for metric in METRICS},
                "class_iu": [_number(iu) for iu in found.class_iu],
            }
            for top, found in self.scores.items()
        }
        return {"images": self.images, "scores": by_label} if by_label else {"outputs": dict(self.outputs)}


def _number(value: float) -> float | None:
    """Return None for NaN, of what there was nothing to count."""
    return None if value != value else float(value)


class Validator:
    """A test net that shares the weights of the net that learns, and what it is tested on.

    Args:
        test: the test net.
        learner: the net that learns, where it will stay.
        root: the data root.
        batches: how many a net without labels of pixels is shown; the solver's ``test_iter``.
        limit: show others the first so many images only.
        ranks: the processes that test together; each tests all of a net without labels of pixels.

    Attributes:
        feed: what it is tested on.
        dataset: likewise, for labels of pixels; else None.
        classes: names by label top.
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
        self.feed: Feed = feeds.open(test, root, Phase.TEST)
        self.dataset: Dataset | None = self.feed.dataset if isinstance(self.feed, DatasetFeed) else None
        self.classes: Mapping[str, Sequence[str]] = self.dataset.label_classes if self.dataset else {}
        state = test.state
        self._net = Net(test, Phase.TEST, level=state.level, stages=state.stage, inputs=self.feed.shapes)
        self._net.to(learner.device)
        self._net.share_with(learner)
        self._batches, self._limit, self._ranks = batches, limit, ranks

    def __call__(self, iteration: int, progress: evaluate.Progress | None = None) -> Validation:
        """Test the net as it is now.

        Args:
            iteration: the updates that it learnt from.
            progress: as ``evaluate.evaluate``'s.

        Raises:
            DataError: an image or label cannot be read.
            NetError: scores that are not numbers.
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
        """Give the mean of every number that the test net puts out, as Caffe's solver does when it tests."""
        with torch.inference_mode():
            rows = [self._net(self.feed(batch)) for batch in range(self._batches)]
        return {name: float(np.mean([float(row[name].mean()) for row in rows])) for name in self._net.outputs}

"""Score nets of any prototxt on a data set, whose samples are preprocessed for the published nets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.fcn.datasets import SPECS, Dataset
from reproduction.fcn.scoring.evaluate import Scorer
from reproduction.fcn.segment import preprocess
from reproduction.fcn.segment.card import Card


class CardScorer:
    """A net that is run as its card says, with the interface that ``evaluate`` requires.

    The image of a sample is recovered exactly from its blob by adding the mean of the data set, and preprocessed again.
    Scores or labels of another size than the image are resized to it.

    Args:
        card: the net's model card, with one colour image and one kind of labels.
        scorer: the net, compiled or not.
        dataset: the data set, whose samples have one colour image.

    Attributes:
        precision: that of a compiled net, otherwise ``plain``.

    Raises:
        NetError: If the net classifies whole images.
    """

    def __init__(self, card: Card, scorer: Scorer, dataset: Dataset):
        if card.task != "segment":
            raise NetError(f"{card.net} classifies whole images", want="labels of each pixel")
        self.card, self.scorer = card, scorer
        self.precision = getattr(scorer, "precision", "plain")
        self._mean = _find_mean(dataset)

    def __call__(self, inputs: Mapping[str, Tensor], /, *, blobs: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the class scores of an image, (1, classes, H, W), under each of the names in ``blobs``."""
        (x,) = inputs.values()
        ((name, taken),), (told,) = self.card.inputs.items(), self.card.labels.values()
        bgr = np.rint(x[0].cpu().numpy() + self._mean[:, None, None]).astype(np.uint8)
        rgb = np.ascontiguousarray(bgr.transpose(1, 2, 0)[:, :, ::-1])
        blob = torch.from_numpy(preprocess.to_blob(taken, rgb, self.card.side))[None].to(x.device)
        scores = self.scorer({name: self.card.framing.frame_tensor(blob)}, blobs=[told.score])[told.score]
        scores = self.card.framing.crop_scores(scores, blob.shape[2:])
        size = (x.shape[2], x.shape[3])
        if told.holds == "labels":
            labels = preprocess.labels_of(scores, told, size).long()
            scores = F.one_hot(labels, len(told.classes)).permute(2, 0, 1)[None].float()
        elif tuple(scores.shape[2:]) != size:
            scores = F.interpolate(scores, size, mode="bilinear", align_corners=False)
        return dict.fromkeys(blobs or [told.score], scores)

    def state_dict(self) -> Mapping[str, Any]:
        """Return the weights by name."""
        return self.scorer.state_dict()


def _find_mean(dataset: Dataset) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """Return the mean that the data set subtracts from its colour images, (3,) in the order B G R."""
    own = getattr(dataset, "mean_bgr", None)
    return own if own is not None else next(s for s in SPECS.values() if type(dataset) in s.datasets).means["color"]

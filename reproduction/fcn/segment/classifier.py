"""Classification of whole images with any Caffe classifier: ``Classifier`` returns the score of each class.

classifier = Classifier.from_prototxt("deploy.prototxt", "alexnet.caffemodel", NetOptions(mean=(104, 117, 123)))
classifier("photo.jpg").top(5)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reproduction.caffe.errors import NetError, StrPath
from reproduction.caffe.net.net import Net
from reproduction.caffe.typing import Float32
from reproduction.fcn.segment import any_net
from reproduction.fcn.segment.any_net import NetOptions
from reproduction.fcn.segment.card import Card
from reproduction.fcn.segment.read_images import Picture
from reproduction.fcn.segment.segmenter import Segmenter


class RankedClass(NamedTuple):
    """A class of a classified image.

    Attributes:
        label: its number.
        name: its name.
        score: its score; a probability if the net ends with Softmax.
    """

    label: int
    name: str
    score: float


@dataclass(frozen=True, eq=False)
class Classification:
    """The result of classifying one image.

    Attributes:
        scores: (classes,) float32, the net's output.
        classes: the class names; the index is the label.
    """

    scores: Float32
    classes: tuple[str, ...]

    def top(self, count: int = 5) -> list[RankedClass]:
        """Return the classes with the highest scores, the best first; of equal scores, the lower number first.

        Args:
            count: how many.
        """
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [RankedClass(int(label), self.classes[label], float(self.scores[label])) for label in order]


class Classifier:
    """A net with its weights, which classifies images of any size.

    Args:
        card: the net's model card, whose task is ``classify``.
        net: the ``torch.nn.Module``, in phase TEST, with its weights.

    Attributes:
        runner: the ``Segmenter`` that reads the images and runs the net.
    """

    def __init__(self, card: Card, net: Net):
        self.runner = Segmenter(card, net)

    @classmethod
    def from_prototxt(
        cls, prototxt_path: StrPath, weights_path: StrPath, options: NetOptions | None = None, *, device: str = "cpu"
    ) -> Classifier:
        """Build a classifier of any net with a score for each class, and load its weights.

        Args:
            prototxt_path: the net's prototxt, a deploy net.
            weights_path: its weights, a file of any supported format.
            options: how images are preprocessed, and the class names; what is not given is found from the net.
            device: the device to run on: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            ReproductionError: If a file is missing, broken or of another net, or if the net does not classify.
        """
        card, net, _ = any_net.load_any_net(prototxt_path, weights_path, options, device=device)
        if card.task != "classify":
            problem = f"{card.net} labels pixels"
            raise NetError(problem, want="scores of whole images", remedy="Use Segmenter.from_prototxt.")
        return cls(card, net)

    def __call__(self, image: Picture) -> Classification:
        """Classify an image.

        Args:
            image: a file, the bytes of one, a file object, a PIL image, or a uint8 array (H, W, 3) R G B or (H, W).

        Raises:
            DataError: If the image is missing or broken.
            NetError: If the scores contain NaN.
        """
        ((_, labels),) = self.runner.card.labels.items()
        scores = self.runner.compute_scores([self.runner.read(image)])[labels.score].float().cpu().numpy().reshape(-1)
        if np.isnan(scores).any():
            raise NetError(f"blob {labels.score!r} is not a number (NaN)", remedy="Check the weights.")
        return Classification(scores, labels.classes)

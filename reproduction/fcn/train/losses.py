"""The normalization of a net's losses, and losses per pixel.

The published nets are trained with losses that are summed over the pixels of an image: 1e5 is a typical value, to which
learning rates of 1e-10 belong. ``Meter`` also computes the mean over the pixels, which is comparable between nets: it
starts near the logarithm of the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reproduction.caffe.layers.cross_entropy_losses import SoftmaxWithLoss, normalization
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NormalizationMode
from reproduction.caffe.typing import Array

_SUMMED = {NormalizationMode.BATCH_SIZE, NormalizationMode.NONE}


@dataclass(frozen=True)
class Loss:
    """One SoftmaxWithLoss layer.

    Attributes:
        layer: the name of the layer.
        label: the input of the net that holds the labels.
        classes: the number of classes.
        dense: True if there is a label for each pixel, False if there is one for each image.
        summed: True if a dense loss is a sum over the pixels of an image, False if it is a mean or not dense.
        ignored: the label that does not count; None if every label counts.
        weight: the ``loss_weight`` of this loss in the net's total loss.
    """

    layer: str
    label: str
    classes: int
    dense: bool
    summed: bool
    ignored: int | None
    weight: float


def find_losses(net: Net) -> list[Loss]:
    """Return the SoftmaxWithLoss layers of a net that was built in phase TRAIN."""
    sources: dict[str, str] = {}
    found = []
    for node in net.graph.nodes:
        if node.type == "Split":
            sources.update(dict.fromkeys(node.tops, sources.get(node.bottoms[0], node.bottoms[0])))
        if node.type != SoftmaxWithLoss.__name__:
            continue
        scores, label = node.bottoms
        shape, param = net.blob_shapes[scores], node.layer_param.loss_param
        dense = int(np.prod(shape[2:])) > 1
        found.append(
            Loss(
                layer=node.name,
                label=sources.get(label, label),
                classes=shape[node.layer_param.softmax_param.axis],
                dense=dense,
                summed=dense and normalization(param, NormalizationMode.VALID) in _SUMMED,
                ignored=param.ignore_label if param.has("ignore_label") else None,
                weight=net.loss_weights.get(node.tops[0], 0.0),
            )
        )
    return found


class Meter:
    """A wrapper of a feed that counts the pixels of each draw, to convert losses to means over pixels.

    Args:
        net: the net that is trained.
        feed: a function from the draw number to the inputs.

    Attributes:
        pixels: for each draw since the last ``reset``, the number of pixels that are not ignored, added up over all
            dense losses.
    """

    def __init__(self, net: Net, feed: Callable[[int], Mapping[str, Array]]):
        self._feed = feed
        self._dense = [loss for loss in find_losses(net) if loss.dense]
        self._summed = any(loss.summed for loss in self._dense)
        self.pixels: list[int] = []

    def __call__(self, draw: int) -> Mapping[str, Array]:
        """Return the inputs of a draw and count its pixels."""
        inputs = self._feed(draw)
        labels = [(inputs[loss.label], loss.ignored) for loss in self._dense if loss.label in inputs]
        self.pixels.append(sum(int((array != ignored).sum()) for array, ignored in labels))
        return inputs

    def reset(self) -> None:
        """Clear the counts."""
        self.pixels = []

    def read(self, values: Sequence[float], pixels: Sequence[float]) -> tuple[float, float | None]:
        """Compute the summed and the per-pixel loss of several draws.

        Args:
            values: the net's loss for each draw.
            pixels: the number of pixels that count in each draw.

        Returns:
            The loss summed over pixels, as a mean over the draws; and the mean loss per pixel. For nets without dense
            losses, the mean of ``values`` and None.
        """
        own = sum(values) / len(values)
        if not self._dense:
            return own, None
        counts = [max(count, 1) for count in pixels]
        if self._summed:
            return own, sum(values) / sum(counts)
        return sum(value * count for value, count in zip(values, counts, strict=True)) / len(values), own

"""What the losses of a net are taken over, and how to read their numbers.

The published nets learn from losses that are summed over the pixels of an image: 1e5 is a usual value, and the
learning rates of 1e-10 belong to it. ``Meter`` gives the same loss as a mean over the pixels, where it can be
compared: it starts at the logarithm of the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reproduction.caffe.layers.loss import SoftmaxWithLoss, normalization
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NormalizationMode

Array = npt.NDArray[Any]

_SUMMED = {NormalizationMode.BATCH_SIZE, NormalizationMode.NONE}


@dataclass(frozen=True)
class Loss:
    """One SoftmaxWithLoss layer.

    Attributes:
        layer: its name.
        label: the input of the net that it is held against.
        classes: how many it tells apart.
        dense: whether there is a label for each pixel, not one for the image.
        summed: whether the pixels of an image add up; else their mean is taken.
        ignored: the label that does not count; None when every label does.
        weight: of this loss in the net's.
    """

    layer: str
    label: str
    classes: int
    dense: bool
    summed: bool
    ignored: int | None
    weight: float


def losses(net: Net) -> list[Loss]:
    """List the SoftmaxWithLoss layers of a net that was built for TRAIN."""
    sources: dict[str, str] = {}
    found = []
    for node in net.graph.nodes:
        if node.type == "Split":
            sources.update(dict.fromkeys(node.tops, sources.get(node.bottoms[0], node.bottoms[0])))
        if node.type != SoftmaxWithLoss.__name__:
            continue
        scores, label = node.bottoms
        shape, param = net.blob_shapes[scores], node.spec.loss_param
        dense = int(np.prod(shape[2:])) > 1
        found.append(
            Loss(
                layer=node.name,
                label=sources.get(label, label),
                classes=shape[node.spec.softmax_param.axis],
                dense=dense,
                summed=dense and normalization(param, NormalizationMode.VALID) in _SUMMED,
                ignored=param.ignore_label if param.has("ignore_label") else None,
                weight=net.loss_weights.get(node.tops[0], 0.0),
            )
        )
    return found


class Meter:
    """Passes samples on to a solver, and keeps what its losses are read by.

    Args:
        net: the net that learns.
        feed: from the number of a draw to the inputs.

    Attributes:
        pixels: how many labels counted in each draw since the last ``reset``, over all losses.
    """

    def __init__(self, net: Net, feed: Callable[[int], Mapping[str, Array]]):
        self._feed = feed
        self._dense = [loss for loss in losses(net) if loss.dense]
        self._summed = any(loss.summed for loss in self._dense)
        self.pixels: list[int] = []

    def __call__(self, draw: int) -> Mapping[str, Array]:
        """Read a draw and count its labels."""
        inputs = self._feed(draw)
        labels = [(inputs[loss.label], loss.ignored) for loss in self._dense if loss.label in inputs]
        self.pixels.append(sum(int((array != ignored).sum()) for array, ignored in labels))
        return inputs

    def reset(self) -> None:
        """Forget the draws."""
        self.pixels = []

    def read(self, values: Sequence[float], pixels: Sequence[float]) -> tuple[float, float | None]:
        """Read the losses of some draws.

        Args:
            values: the net's loss for each.
            pixels: how many labels counted in each.

        Returns:
            The loss as it is when pixels add up, mean over the draws, and as mean over the pixels. The latter is None
            for nets whose labels are not of pixels; the former is then the net's own.
        """
        own = sum(values) / len(values)
        if not self._dense:
            return own, None
        counts = [max(count, 1) for count in pixels]
        if self._summed:
            return own, sum(values) / sum(counts)
        return sum(value * count for value, count in zip(values, counts, strict=True)) / len(values), own

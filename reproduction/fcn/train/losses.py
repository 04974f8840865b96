"""The normalization of a net's losses (sum or mean over pixels), and the mean loss per pixel for logs.

The published nets are trained with losses that are summed over the pixels of an image: 1e5 is a typical value, to which
learning rates of 1e-10 belong. ``Meter`` also computes the mean over the pixels, which is comparable between nets: it
starts near the logarithm of the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reproduction.caffe.layers.cross_entropy_losses import SoftmaxWithLoss, normalization
from reproduction.caffe.net.export_net import infer_shapes
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NormalizationMode
from reproduction.caffe.typing import Array

_SUMMED = {NormalizationMode.BATCH_SIZE, NormalizationMode.NONE}


@dataclass(frozen=True)
class Loss:
    """The properties of one SoftmaxWithLoss layer of a net.

    Attributes:
        layer: the name of the layer.
        label: the name of the net's input that contains the labels, such as ``label``. They may be cropped before they
            reach the loss.
        classes: the number of classes.
        dense: True if there is a label for each pixel; False for a classifier, with one for each image.
        summed: True if a dense loss is the sum over the pixels of an image; False if it is their mean, or the loss is
            not dense.
        ignored: the label whose pixels do not count (255 for the published nets); None if all pixels count.
        weight: the ``loss_weight`` of this loss in the net's total loss.
        crops: the Crop layers between the input and the loss, in their order; for nets that score fewer pixels than the
            image has, as U-Net.
    """

    layer: str
    label: str
    classes: int
    dense: bool
    summed: bool
    ignored: int | None
    weight: float
    crops: tuple[Node, ...] = ()


def find_losses(net: Net) -> list[Loss]:
    """Return the properties of each SoftmaxWithLoss layer of a net that was built in phase TRAIN."""
    sources: dict[str, tuple[str, tuple[Node, ...]]] = {}
    found = []
    for node in net.graph.nodes:
        if node.type in ("Split", "Crop"):
            source, crops = sources.get(node.bottoms[0], (node.bottoms[0], ()))
            crops += (node,) if node.type == "Crop" else ()
            sources.update(dict.fromkeys(node.tops, (source, crops)))
        if node.type != SoftmaxWithLoss.__name__:
            continue
        scores, label = node.bottoms
        shape, param = net.blob_shapes[scores], node.layer_param.loss_param
        source, crops = sources.get(label, (label, ()))
        dense = int(np.prod(shape[2:])) > 1
        found.append(
            Loss(
                layer=node.name,
                label=source,
                classes=shape[node.layer_param.softmax_param.axis],
                dense=dense,
                summed=dense and normalization(param, NormalizationMode.VALID) in _SUMMED,
                ignored=param.ignore_label if param.has("ignore_label") else None,
                weight=net.loss_weights.get(node.tops[0], 0.0),
                crops=crops,
            )
        )
    return found


class Meter:
    """A feed that passes on the inputs of another and counts their labelled pixels, to compute the mean loss per pixel.

    Args:
        net: the net that is trained.
        feed: the feed of the training, a function from the draw number to the inputs.

    Attributes:
        pixels: one number for each draw (forward pass) since the last ``reset``: its pixels that reach a loss and are
            not ignored, added up over all dense losses.
    """

    def __init__(self, net: Net, feed: Callable[[int], Mapping[str, Array]]):
        self._net, self._feed = net, feed
        self._dense = [loss for loss in find_losses(net) if loss.dense]
        self._summed = any(loss.summed for loss in self._dense)
        self.pixels: list[int] = []

    def __call__(self, draw: int) -> Mapping[str, Array]:
        """Return the inputs for forward pass number ``draw``; append their number of labelled pixels to ``pixels``."""
        inputs = self._feed(draw)
        labels = [(self._crop(loss, inputs), loss.ignored) for loss in self._dense if loss.label in inputs]
        self.pixels.append(sum(int((array != ignored).sum()) for array, ignored in labels))
        return inputs

    def _crop(self, loss: Loss, inputs: Mapping[str, Array]) -> Array:
        """Return the labels that a loss compares; of what they are cropped to, only the shape is computed."""
        if not loss.crops:
            return inputs[loss.label]
        labels, given = torch.from_numpy(inputs[loss.label]), {name: array.shape for name, array in inputs.items()}
        shapes = infer_shapes(self._net, [node.bottoms[1] for node in loss.crops], given) or {}
        for node in loss.crops:
            (labels,) = self._net.run(node, [labels, torch.empty(1).expand(shapes[node.bottoms[1]])])
        cropped: Array = labels.numpy()
        return cropped

    def reset(self) -> None:
        """Empty ``pixels``, before the forward passes of the next update."""
        self.pixels = []

    def read(self, values: Sequence[float], pixels: Sequence[float]) -> tuple[float, float | None]:
        """Compute the loss of one update from its forward passes: as the solver minimizes it, and per pixel.

        Args:
            values: the net's loss for each forward pass of the update.
            pixels: the number of labelled pixels in each of them.

        Returns:
            (loss, loss per pixel). With dense labels: the loss summed over the pixels of an image, a mean over the
            forward passes, and the mean over all labelled pixels. For a classifier: the mean of ``values``, and None.
        """
        own = sum(values) / len(values)
        if not self._dense:
            return own, None
        counts = [max(count, 1) for count in pixels]
        if self._summed:
            return own, sum(values) / sum(counts)
        return sum(value * count for value, count in zip(values, counts, strict=True)) / len(values), own

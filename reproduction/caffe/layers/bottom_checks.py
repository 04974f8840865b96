"""Checks of settings and bottoms, and conversions of bottoms, that several layer types use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.schema import LayerParameter, Message


def legacy_shape(shape: Shape) -> tuple[int, int, int, int]:
    """Return a shape as num, channels, height and width, with 1 for missing axes at the end.

    Raises:
        NetError: If there are more than four axes.

    Source: BVLC/caffe@9b89154 include/caffe/blob.hpp L141-L160 (Blob::LegacyShape).
    """
    if len(shape) > 4:
        raise NetError("the blob must have num, channels, height and width only", got=shape, want="at most 4 axes")
    num, channels, height, width = (*shape, 1, 1, 1, 1)[:4]
    return num, channels, height, width


def check_positive(param: Message, *names: str) -> None:
    """Check that fields of a layer's settings are positive.

    Raises:
        NetError: If one is not.
    """
    wrong = {name: getattr(param, name) for name in names if getattr(param, name) < 1}
    if wrong:
        raise NetError(f"{', '.join(wrong)} must be positive", got=", ".join(map(str, wrong.values())))


def refuse_in_place(layer_param: LayerParameter) -> None:
    """Check that no top of a layer has the name of its first bottom.

    Raises:
        NetError: If one has.
    """
    if layer_param.bottom[0] in layer_param.top:
        got = f"top {layer_param.bottom[0]!r} for both"
        raise NetError(f"{layer_param.type} layers cannot work in place", got=got)


def check_label_count(scores: Shape, labels: Shape, axis: int) -> None:
    """Check that there is one label for each position of ``scores``, not counting the class axis.

    Args:
        scores: The shape of the scores.
        labels: The shape of the labels.
        axis: The class axis of the scores, not negative.

    Raises:
        NetError: If the number of labels differs.
    """
    places = math.prod(scores[:axis] + scores[axis + 1 :])
    if places != math.prod(labels):
        raise NetError(
            "the number of labels must match the number of predictions",
            got=f"labels {labels} for predictions {scores}",
            want=f"{places} labels, one for each position outside axis {axis}",
        )


def class_index(labels: Tensor, classes: int, ignore: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Convert labels to class indices as Caffe does, by truncation to integers.

    Args:
        labels: Labels of any shape and dtype.
        classes: The number of classes.
        ignore: The label to ignore; None for none.

    Returns:
        The labels, int64, with 0 in place of ignored ones; and a bool tensor, True for ignored labels (None if
        ``ignore`` is None).

    Raises:
        NetError: If a label is neither ignored nor in 0..classes - 1. Caffe's release build reads out of bounds.
    """
    index = labels.detach().long()
    ignored = None
    if ignore is not None:
        ignored = index == ignore
        index = index.masked_fill(ignored, 0)
    if not torch.compiler.is_exporting() and index.numel():  # an exported program cannot depend on values
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= classes:
            odd = (index < 0) | (index >= classes)
            raise NetError(
                f"label {int(index[odd][0])} is out of range",
                got=f"{int(odd.sum())} such of {index.numel()}",
                want=f"0..{classes - 1}" + ("" if ignore is None else f" or {ignore}"),
            )
    return index, ignored

"""The base class of losses."""

from __future__ import annotations

from typing import ClassVar

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer


class LossLayer(Layer):
    """The base class of layers that compute a loss, a single number, from predictions and labels.

    Predictions and labels have the same batch size.

    Source: BVLC/caffe@9b89154 src/caffe/layers/loss_layer.cpp L7-L25.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)
    is_loss = True
    differentiable: ClassVar[tuple[int, ...] | None] = (0,)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check that both bottoms have the same batch size, and return the shape of the loss, ``[()]``."""
        first, second = bottoms[:2]
        if not first or not second or first[0] != second[0]:
            raise NetError("predictions and labels must have the same first dimension", got=f"{first} and {second}")
        return [()]

"""What the layers of several forks that propose regions have in common."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.typing import Float32


class ProposalBase(Layer):
    """The base class of layers that propose regions of an image, from the scores and deltas of A anchors for each cell.

    A subclass sets the attributes in ``setup``, and defines ``propose``.

    Attributes:
        image_values: The number of values of ``im_info`` that the layer reads.
        anchors: The anchors of the first cell, (A, 4).
        most: The largest number of proposals.
    """

    bottoms = (3, 3)
    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    differentiable: ClassVar[tuple[int, ...] | None] = ()
    image_values: ClassVar[int]

    anchors: Float32
    most: int

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops for as many proposals as there can be; the image decides how many there are.

        Raises:
            NetError: If there is more than one image, or the bottoms do not fit the anchors.
        """
        scores, deltas, info = map(legacy_shape, bottoms)
        want = tuple((1, count * len(self.anchors), *scores[2:]) for count in (2, 4))
        if (scores, deltas) != want:
            got = f"{bottoms[0]} and {bottoms[1]}"
            raise NetError("scores and deltas must be those of one image", got=got, want=f"{want[0]} and {want[1]}")
        if math.prod(info) < self.image_values:
            raise NetError("im_info has too few values", got=bottoms[2], want=f"(1, {self.image_values})")
        return [(self.most, 5), self.score_shape(self.most)][: len(self.layer_param.top)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the proposals, on the CPU, since whether a box is kept depends on those before it."""
        scores, deltas, info = (x.detach().to("cpu", torch.float32).numpy() for x in bottoms)
        boxes, kept = self.propose(scores[0], deltas[0], info.ravel())
        rois = np.concatenate([np.zeros((len(boxes), 1), np.float32), boxes], 1)
        tops = rois, kept.reshape(self.score_shape(len(boxes)))
        return tuple(torch.from_numpy(top).to(bottoms[0]) for top in tops[: len(self.layer_param.top)])

    def score_shape(self, count: int) -> Shape:
        """Return the shape of the second top for this number of proposals."""
        raise NotImplementedError(type(self).__name__)

    def propose(self, scores: Float32, deltas: Float32, info: Float32) -> tuple[Float32, Float32]:
        """Return the boxes (R, 4) and their scores (R,).

        Args:
            scores: (2 A, H, W): those of the background, then those of the foreground.
            deltas: (4 A, H, W): see ``boxes.decode_boxes``.
            info: The values of ``im_info``.
        """
        raise NotImplementedError(type(self).__name__)

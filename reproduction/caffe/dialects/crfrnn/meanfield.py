"""The layer MultiStageMeanfield of CRF-RNN: a dense conditional random field as a recurrent network."""

from __future__ import annotations

import enum
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.crfrnn import CRFRNN, CRFRNN_MASTER
from reproduction.caffe.dialects.crfrnn.permutohedral import PermutohedralLattice
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import Field, boolean, choice, nested, single, string
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import FLOAT, UINT32
from reproduction.caffe.typing import Float32


class CompatibilityMode(enum.IntEnum):
    """How the matrix of compatibilities is initialized; there is only Potts' model."""

    POTTS = 0


class MultiStageMeanfieldParameter(Message):
    """Parameters of MultiStageMeanfield layers: the widths of the filters, and their weights at first.

    The strings are fields of the branch ``crfrnn``, and the weights as numbers of the older branch ``master``.
    """

    compatibility_mode = choice(1, CompatibilityMode)
    threshold = single(2)
    theta_alpha: Field[float] = Field(3, kind=FLOAT, default=10, required=True)
    theta_beta: Field[float] = Field(4, kind=FLOAT, default=10, required=True)
    theta_gamma: Field[float] = Field(5, kind=FLOAT, default=10, required=True)
    num_iterations: Field[int] = Field(6, kind=UINT32, default=1, required=True)
    spatial_filter_weight = single(7, 1)
    bilateral_filter_weight = single(8, 1)
    forced_spatial_filter_weight = single(9)
    forced_bilateral_filter_weight = single(10)
    spatial_filter_weights_str = string(19, "")
    bilateral_filter_weights_str = string(20, "")
    force_cpu = boolean(29, False)


MEANFIELD = LayerParameter.add_field("multi_stage_meanfield_param", nested(1000, MultiStageMeanfieldParameter), CRFRNN)
LayerParameter.add_field("multi_stage_meanfield_param", nested(146, MultiStageMeanfieldParameter), CRFRNN_MASTER)


@register
class MultiStageMeanfield(Layer):
    """Mean field inference in a conditional random field that connects all pixels, CRF-RNN's last layer.

    Each of ``num_iterations`` steps computes, from the scores Q of the step before::

        P = softmax(Q)
        M = spatial @ filter(P; position / theta_gamma)
            + bilateral @ filter(P; position / theta_alpha, color / theta_beta)
        Q = unary - compatibility @ M

    A filter is a Gaussian one with a permutohedral lattice, divided by its response to ones. The top is the last Q,
    scores and not probabilities. A step takes about 0.3 s for 500 x 500 pixels and 21 classes on one core.

    Shapes:
        bottom 0  (N, C, H, W)  unary scores
        bottom 1  (N, C, H, W)  the first Q, usually the same blob
        bottom 2  (N, 3, H, W)  the image, with values of about -128 to 255; it has no gradient
        top       (N, C, H, W)

    Blobs:
        weight  (1, 1, C, C)  spatial; at first diagonal, from ``spatial_filter_weights_str`` with C numbers, or
                              ``spatial_filter_weight`` for all
        bias    (1, 1, C, C)  bilateral; the same with ``bilateral_filter_weights_str`` or ``bilateral_filter_weight``
        2       (1, 1, C, C)  compatibility; at first -1 on the diagonal, 0 elsewhere

    Raises:
        NetError: If a field is invalid, or the bottoms do not fit together.

    Source: torrvision/caffe@fcd05e8 src/caffe/layers/multi_stage_meanfield.cpp L32-L330,
    src/caffe/layers/meanfield_iteration.cpp L89-L240.
    """

    dialect = CRFRNN
    reads = frozenset(f"multi_stage_meanfield_param.{name}" for name in MultiStageMeanfieldParameter.fields)
    bottoms = (3, 3)
    differentiable = (0, 1)
    keeps_coordinates = True
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the fields, and create the blobs."""
        param = MEANFIELD.get(self.layer_param)
        if param.num_iterations < 2:
            raise NetError("num_iterations must be greater than 1", got=param.num_iterations)
        for name in ("theta_alpha", "theta_beta", "theta_gamma"):
            if not getattr(param, name) > 0:
                raise NetError(f"{name} must be positive", got=getattr(param, name))
        ((_, classes, _, _),) = self.shapes(bottoms)
        for name in ("spatial", "bilateral"):
            blob = self.add_blob((1, 1, classes, classes))
            blob.data[0, 0] = torch.diag(torch.tensor(self._first_weights(name, classes)))
        self.add_blob((1, 1, classes, classes)).data[0, 0] = -torch.eye(classes)

    def _first_weights(self, name: str, classes: int) -> list[float]:
        """Return the weight of each class, from the list of the branch ``crfrnn`` or the number of ``master``."""
        param = MEANFIELD.get(self.layer_param)
        text: str = getattr(param, f"{name}_filter_weights_str")
        if not text:
            # Upstream bug, fixed: the branch crfrnn cannot be set up without the list, and master reads its weights
            # from the files spatial.par and bilateral.par of the current folder (multi_stage_meanfield.cpp L228-L241).
            # Both then load them from a caffemodel. Here the fields of master, which it does not read, give them.
            return [getattr(param, f"{name}_filter_weight")] * classes
        words = text.split()[:classes]
        try:
            weights = [float(word) for word in words]
        except ValueError:
            weights = []
        if len(weights) < classes:
            raise NetError(
                f"{name}_filter_weights_str must have a number for each class",
                got=repr(text[:80]),
                want=f"{classes} numbers",
            )
        return weights

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the unary scores."""
        unary, first, image = bottoms
        if len(unary) != 4 or first != unary or image != (unary[0], 3, *unary[2:]):
            raise NetError(
                "unary scores, first scores and image do not fit together",
                got=f"{unary}, {first} and {image}",
                want="(N, C, H, W) twice and (N, 3, H, W)",
            )
        if self.blobs and unary[1] != self.blobs[0].shape[2]:
            raise NetError("the number of classes has changed", got=unary[1], want=self.blobs[0].shape[2])
        return [unary]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        # Upstream bug, fixed: the branch crfrnn computes only the first image of a batch (meanfield_iteration.cpp
        # L118-L140), and both keep the size of the first batch. Here every image is computed, of any size.
        self.shapes([tuple(bottom.shape) for bottom in bottoms])
        return (torch.stack([self._infer(*image) for image in zip(*bottoms, strict=True)]),)

    def _infer(self, unary: Tensor, first: Tensor, image: Tensor) -> Tensor:
        """Return the last scores of one image, (C, H, W)."""
        param = MEANFIELD.get(self.layer_param)
        classes, height, width = unary.shape
        spatial = _spatial_lattice(height, width, param.theta_gamma).to(unary)
        colors = image.detach().cpu().numpy().astype(np.float32).reshape(3, -1).T / np.float32(param.theta_beta)
        positions = _positions(height, width) / np.float32(param.theta_alpha)
        bilateral = PermutohedralLattice(np.concatenate([positions, colors], 1)).to(unary)
        ones = unary.new_ones(height * width, 1)
        filters = [
            (lattice, 1 / (lattice.compute(ones) + 1e-20), blob[0, 0].T)
            for lattice, blob in zip((spatial, bilateral), self.blobs, strict=False)
        ]
        # One row for each pixel, as the lattices take values.
        rows, scores = (blob.reshape(classes, -1).T.contiguous() for blob in (unary, first))
        for _ in range(param.num_iterations):
            probabilities = scores.softmax(1)
            messages = [(lattice.filter(probabilities) * norm) @ weight for lattice, norm, weight in filters]
            scores = rows - (messages[0] + messages[1]) @ self.blobs[2][0, 0].T
        return scores.T.reshape(unary.shape)

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return True: the fork overwrites the gradients of its blobs instead of adding to them."""
        # Upstream bug, kept: the backward pass sets the gradients of the blobs to zero before it adds to them, so that
        # with iter_size only the last batch counts (multi_stage_meanfield.cpp L188-L199).
        return True


def _positions(height: int, width: int) -> Float32:
    """Return column and row of each pixel, (H * W, 2)."""
    rows, columns = np.divmod(np.arange(height * width), width)
    return np.stack([columns, rows], 1).astype(np.float32)


@lru_cache(maxsize=4)
def _spatial_lattice(height: int, width: int, theta: float) -> PermutohedralLattice:
    """Return the lattice of the positions alone, which images of one size have in common."""
    return PermutohedralLattice(_positions(height, width) / np.float32(theta))

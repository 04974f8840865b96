"""SENet: channels are weighed by factors that depend on the whole image."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import add_dialect

SENET = add_dialect("senet", "SENet", "hujie-frank/SENet@0262d43", 2017)


@register
class Axpy(Layer):
    """A sum of two blobs, the first of which is multiplied by a factor for each channel: ``a * x + y``.

    All three bottoms receive a gradient.

    Shapes:
        a    (N, C) or (N, C, 1, 1)
        x    (N, C, H, W)
        y    (N, C, H, W)
        top  (N, C, H, W)

    Raises:
        NetError: If the bottoms do not fit each other.

    Source: hujie-frank/SENet@0262d43 src/caffe/layers/axpy_layer.cpp L12-L92.
    """

    dialect = SENET
    bottoms = (3, 3)
    in_place_values = False
    top_is_free = True
    rereads = Rereads.BOTTOM  # the gradient of x is computed from the factors

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of x and y."""
        factor, x, y = bottoms
        if len(x) < 2 or legacy_shape(factor) != (*legacy_shape(x)[:2], 1, 1):
            raise NetError("there must be one factor for each image and channel", got=f"{factor} for {x}", want=x[:2])
        if x != y:
            raise NetError("bottom 2 differs in shape from bottom 1", got=y, want=x)
        return [x]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the sum."""
        factor, x, y = bottoms
        return (y.addcmul(factor.reshape(*x.shape[:2], *[1] * (x.dim() - 2)), x),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Reshape, Mul and Add."""
        shape = onnx.constant(np.array([0, -1, 1, 1][: len(onnx.shapes[1])]), "shape")
        factor = onnx.node("Reshape", bottoms[0], shape, step="factor")
        return [onnx.node("Add", onnx.node("Mul", factor, bottoms[1], step="product"), bottoms[2])]

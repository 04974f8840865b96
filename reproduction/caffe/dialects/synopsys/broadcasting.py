"""The layers Add and Mul of Synopsys Caffe, which broadcast their bottoms."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import integers, nested
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32


class MulParameter(Message):
    """Parameters of Mul layers: the shape of the blob by which a single bottom is multiplied."""

    mul_shape = integers(1, UINT32)


MUL = LayerParameter.add_field("mul_param", nested(278, MulParameter), SYNOPSYS)


def _broadcast_shape(first: Shape, second: Shape) -> Shape:
    """Return the shape to which two shapes broadcast as in NumPy."""
    try:
        return tuple(np.broadcast_shapes(first, second))
    except ValueError:
        raise NetError("the bottoms do not broadcast", got=f"{first} and {second}", want="equal sizes, or 1") from None


@register
class Add(Layer):
    """The sum of two bottoms, which broadcast as in NumPy.

    Shapes:
        bottoms  two; from the last axis on, their sizes are equal, or one of them is 1 or missing
        top      the greater of both sizes on each axis

    Raises:
        NetError: If the bottoms do not broadcast, or the layer works in place.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/add_layer.cpp L10-L170.
    """

    dialect = SYNOPSYS
    bottoms = (2, 2)
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place."""
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        return [_broadcast_shape(*bottoms)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradients are those of the sum."""
        return (bottoms[0] + bottoms[1],)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Add."""
        return [onnx.node("Add", *bottoms)]


@register
class Mul(Layer):
    """The product of two bottoms, or of one bottom and a blob, which broadcast as in NumPy.

    Shapes:
        bottoms  one or two; from the last axis on, their sizes are equal, or one of them is 1 or missing
        top      the greater of both sizes on each axis

    Blobs:
        weight  ``mul_shape``, zeros until weights are loaded; only with one bottom

    Raises:
        NetError: If the factors do not broadcast, or the layer works in place.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/mul_layer.cpp L9-L171.
    """

    dialect = SYNOPSYS
    reads = frozenset({"mul_param.mul_shape"})
    bottoms = (1, 2)
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the blob if there is one bottom, and check that the layer does not work in place."""
        refuse_in_place(self.layer_param)
        if len(bottoms) == 1:
            self.add_blob(tuple(MUL.get(self.layer_param).mul_shape))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        return [_broadcast_shape(bottoms[0], bottoms[1] if len(bottoms) > 1 else tuple(self.blobs[0].shape))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradients are those of the product."""
        return (bottoms[0] * (bottoms[1] if len(bottoms) > 1 else self.blobs[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Mul."""
        return [onnx.node("Mul", *bottoms, *onnx.blobs())]

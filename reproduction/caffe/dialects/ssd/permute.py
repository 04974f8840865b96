"""The layer Permute, which reorders the axes of a blob."""

from __future__ import annotations

from torch import Tensor

from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import integers, nested
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32


class PermuteParameter(Message):
    """The field of Permute layers: for each axis of the top, the axis of the bottom that it is."""

    order = integers(1, UINT32)


PERMUTE = LayerParameter.add_field("permute_param", nested(202, PermuteParameter), SSD)


@register
class Permute(Layer):
    """Reorder the axes: axis i of the top is axis ``order[i]`` of the bottom.

    Axes that ``order`` does not name follow in their old order. E.g. ``order: 0 order: 2 order: 3 order: 1`` moves the
    channels behind the pixels, and ``order: 2`` alone moves the rows to the front.

    Shapes:
        bottom  any shape
        top     its sizes in the new order; a view

    Raises:
        NetError: If an axis is named twice or does not exist, or the layer works in place.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/permute_layer.cpp L8-L123.
    """

    dialect = SSD
    reads = frozenset({"permute_param.order"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Compute the order of all axes."""
        order, axes = list(PERMUTE.get(self.layer_param).order), len(bottoms[0])
        if any(axis >= axes for axis in order):
            raise NetError("order names an axis that the bottom does not have", got=order, want=f"0 to {axes - 1}")
        if len(set(order)) < len(order):
            raise NetError("order names an axis twice", got=order)
        refuse_in_place(self.layer_param)
        self.order = (*order, *(axis for axis in range(axes) if axis not in order))
        # With the old order, the top uses the memory of the bottom, for the gradient only when the backward pass runs.
        self.shares = list(self.order) == sorted(self.order), False

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the sizes of the bottom in the new order."""
        if len(bottoms[0]) != len(self.order):
            raise NetError("the number of axes must not change", got=bottoms[0], want=f"{len(self.order)} axes")
        return [tuple(bottoms[0][axis] for axis in self.order)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the bottom with its axes in the new order."""
        return (bottoms[0].permute(self.order),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Transpose."""
        return [onnx.node("Transpose", *bottoms, perm=list(self.order))]

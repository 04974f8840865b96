"""The layers Reshape and Flatten, which change the shape of a blob."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer


def add_reshape(onnx: OnnxLayer, bottom: str, dims: list[int], end: int, step: str = "") -> str:
    """Add the operator Reshape and return the name of its output.

    Args:
        onnx: Adds operators to the graph.
        bottom: The name of the value to reshape, which has the axes of the layer's first bottom.
        dims: The new sizes that replace all axes before ``end``: a positive number, -1 for the size that follows from
            the others, or 0 for that of the bottom's axis at the same index.
        end: The index of the first axis that is kept with those after it.
        step: What the result is; see ``OnnxLayer.node``.
    """
    kept = onnx.axes - end
    if not kept or len(dims) == end:
        shape = onnx.constant(np.array([*dims, *[0] * kept], np.int64), f"{step}shape")
    else:
        tail = onnx.node("Shape", bottom, step=f"{step}tail", start=end)
        front = onnx.constant(np.array(dims, np.int64), f"{step}front")
        shape = onnx.node("Concat", front, tail, step=f"{step}shape", axis=0)
    return onnx.node("Reshape", bottom, shape, step=step)


@register
class Reshape(Layer):
    """Change the shape of a blob; values and their order stay the same.

    ``shape`` replaces the ``num_axes`` axes (-1: all) from ``axis`` on. In it, 0 stands for the bottom's size of the
    axis at that position, and a single -1 is computed from the number of values.

    Shapes:
        bottom  any shape
        top     the new shape; a view if torch can make one

    Source: BVLC/caffe@9b89154 src/caffe/layers/reshape_layer.cpp L8-L88.
    """

    reads = frozenset({"reshape_param.shape", "reshape_param.axis", "reshape_param.num_axes"})
    shares = (True, True)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that ``shape`` is valid and that the layer does not work in place."""
        refuse_in_place(self.layer_param)
        dims = self.layer_param.reshape_param.shape.dim
        if dims.count(-1) > 1 or min(dims, default=0) < -1:
            raise NetError("shape may hold sizes, zeros, and one -1", got=list(dims))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the new shape, with its zeros and -1 replaced by sizes."""
        param, bottom = self.layer_param.reshape_param, bottoms[0]
        start, end = self._find_replaced(len(bottom))
        if param.num_axes < -1 or not 0 <= start <= end <= len(bottom):
            raise NetError(
                "axis and num_axes reach outside the bottom",
                got=f"axis {param.axis}, num_axes {param.num_axes}",
                want=f"within {len(bottom)} axes",
            )
        dims = list(param.shape.dim)
        for i, size in enumerate(dims):
            if size == 0:
                if start + i >= len(bottom):
                    raise NetError(f"the zero at place {i} of shape has no axis of the bottom to copy", got=bottom)
                dims[i] = bottom[start + i]
        top = (*bottom[:start], *dims, *bottom[end:])
        if -1 in dims:
            known = -math.prod(top)
            if known == 0 or math.prod(bottom) % known:
                raise NetError(
                    f"the -1 in {tuple(dims)} cannot be worked out", got=f"{bottom}, {math.prod(bottom)} values"
                )
            dims[dims.index(-1)] = math.prod(bottom) // known
            top = (*bottom[:start], *dims, *bottom[end:])
        if math.prod(top) != math.prod(bottom):
            raise NetError("the new shape must hold as many values as the old", got=top, want=f"as {bottom}")
        return [top]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].reshape(self.shapes([tuple(bottoms[0].shape)])[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Reshape, which has the same meaning of 0 and -1."""
        start, end = self._find_replaced(onnx.axes)
        return [add_reshape(onnx, bottoms[0], [*[0] * start, *self.layer_param.reshape_param.shape.dim], end)]

    def _find_replaced(self, axes: int) -> tuple[int, int]:
        """Return the index of the first axis of the bottom that ``shape`` replaces, and of the first after these."""
        param = self.layer_param.reshape_param
        start = param.axis if param.axis >= 0 else axes + param.axis + 1
        return start, axes if param.num_axes == -1 else start + param.num_axes


@register
class Flatten(Layer):
    """Flatten the axes from ``axis`` to ``end_axis``, both included, to one.

    Shapes:
        bottom  (A..., B..., C...)
        top     (A..., product of B, C...); a view if torch can make one

    Source: BVLC/caffe@9b89154 src/caffe/layers/flatten_layer.cpp L8-L40.
    """

    reads = frozenset({"flatten_param.axis", "flatten_param.end_axis"})
    shares = (True, False)  # the memory of the gradient is shared only when the backward pass runs

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place, as Caffe does."""
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's with the product of the flattened axes in their place."""
        param, bottom = self.layer_param.flatten_param, bottoms[0]
        start, end = (canonical_axis(axis, len(bottom)) for axis in (param.axis, param.end_axis))
        if start > end + 1:
            raise NetError("axis must not come after end_axis", got=f"axis {start}, end_axis {end}")
        return [(*bottom[:start], math.prod(bottom[start : end + 1]), *bottom[end + 1 :])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].reshape(self.shapes([tuple(bottoms[0].shape)])[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Flatten, or Reshape if the result has more than two axes."""
        param = self.layer_param.flatten_param
        start, end = (canonical_axis(axis, onnx.axes) for axis in (param.axis, param.end_axis))
        if start == 1 and end == onnx.axes - 1:
            return [onnx.node("Flatten", *bottoms, axis=1)]
        return [add_reshape(onnx, bottoms[0], [*[0] * start, -1 if start <= end else 1], end + 1)]

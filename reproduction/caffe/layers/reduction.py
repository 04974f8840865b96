"""The layer Reduction."""

from __future__ import annotations

import math

from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, canonical_axis, register
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import ReductionOp

_ONNX_OPERATORS = {
    ReductionOp.MEAN: "ReduceMean",
    ReductionOp.ASUM: "ReduceL1",
    ReductionOp.SUMSQ: "ReduceSumSquare",
}


@register
class Reduction(Layer):
    """A reduction of all axes from ``axis`` on: the sum, mean, or sum of absolute values or squares, times ``coeff``.

    Shapes:
        bottom  (leading axes, reduced axes)
        top     (leading axes)

    Source: BVLC/caffe@9b89154 src/caffe/layers/reduction_layer.cpp L9-L133.
    """

    reads = frozenset({"reduction_param.operation", "reduction_param.axis", "reduction_param.coeff"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``rereads``: the gradient of ASUM and SUMSQ is computed from the bottom."""
        if self.layer_param.reduction_param.operation in (ReductionOp.ASUM, ReductionOp.SUMSQ):
            self.rereads = Rereads.BOTTOM

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the sizes of the axes before ``axis``."""
        return [bottoms[0][: canonical_axis(self.layer_param.reduction_param.axis, len(bottoms[0]))]]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        param = self.layer_param.reduction_param
        values = bottoms[0].flatten(canonical_axis(param.axis, bottoms[0].dim()))
        coeff = param.coeff
        if param.operation is ReductionOp.MEAN:
            coeff = coeff / values.shape[-1] if values.shape[-1] else math.inf  # as in C++: inf * 0 is NaN
        elif param.operation is ReductionOp.ASUM:
            values = values.abs()
        elif param.operation is ReductionOp.SUMSQ:
            values = values.square()
        return (values.sum(-1) * coeff,)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator ReduceSum, ReduceMean, ReduceL1 or ReduceSumSquare, and Mul for ``coeff``."""
        param = self.layer_param.reduction_param
        axes = list(range(canonical_axis(param.axis, onnx.axes), onnx.axes))
        step = "" if param.coeff == 1 else "reduced"
        if param.operation is ReductionOp.SUM:
            top = onnx.node("ReduceSum", *bottoms, onnx.constant(axes, "axes"), step=step, keepdims=0)
        else:
            top = onnx.node(_ONNX_OPERATORS[param.operation], *bottoms, step=step, axes=axes, keepdims=0)
        return [top if param.coeff == 1 else onnx.node("Mul", top, onnx.number(param.coeff, "coeff"))]

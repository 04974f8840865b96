"""The layers InnerProduct and Embed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import check_positive, class_index
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.reshaping import add_reshape


@register
class InnerProduct(Layer):
    """A fully connected layer: ``top = bottom W^T + b``.

    The axes of the bottom from ``axis`` on are flattened to K values.

    Shapes:
        bottom  (..., axes with K values in all)
        top     (..., N)   N = num_output

    Blobs:
        weight  (N, K), or (K, N) with ``transpose``
        bias    (N,), unless ``bias_term`` is false

    Source: BVLC/caffe@9b89154 src/caffe/layers/inner_product_layer.cpp L10-L151.
    """

    reads = frozenset(
        f"inner_product_param.{name}"
        for name in ("num_output", "bias_term", "weight_filler", "bias_filler", "axis", "transpose")
    )
    top_is_free = True
    rereads = Rereads.TO_LEARN

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.layer_param.inner_product_param
        check_positive(param, "num_output")
        self._inputs = math.prod(bottoms[0][canonical_axis(param.axis, len(bottoms[0])) :])
        shape = (param.num_output, self._inputs)
        self.add_blob(shape[::-1] if param.transpose else shape, param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's with ``num_output`` in place of the axes from ``axis`` on."""
        param = self.layer_param.inner_product_param
        axis = canonical_axis(param.axis, len(bottoms[0]))
        if math.prod(bottoms[0][axis:]) != self._inputs:
            raise NetError(
                f"the axes from {axis} on must hold as many values as a row of the weights",
                got=f"{math.prod(bottoms[0][axis:])} in {bottoms[0]}",
                want=self._inputs,
            )
        return [(*bottoms[0][:axis], param.num_output)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        param = self.layer_param.inner_product_param
        weight, *bias = self.blobs
        rows = bottoms[0].flatten(canonical_axis(param.axis, bottoms[0].dim()))
        weight = weight.t() if param.transpose else weight
        if blas.applies_to(self.in_blas_order, rows):
            args = (rows, self.blobs[0], bias[0] if bias else None, param.transpose, self.totals)
            return (_BlasLinear.apply(*args),)  # type: ignore[no-untyped-call]
        return (F.linear(rows, weight, *bias),)

    def products(self, bottoms: list[Shape]) -> int:
        """Return the number of multiplications in a forward pass: K for each value of the top."""
        return math.prod(self.shapes(bottoms)[0]) * self._inputs

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Flatten and Gemm, or Reshape, MatMul and Add if there are several vectors an image."""
        param = self.layer_param.inner_product_param
        axis = canonical_axis(param.axis, onnx.axes)
        if axis == 1:
            rows = onnx.node("Flatten", *bottoms, step="rows", axis=1)
            return [onnx.node("Gemm", rows, *onnx.blobs(), transB=int(not param.transpose))]
        rows = add_reshape(onnx, bottoms[0], [*[0] * axis, self._inputs], onnx.axes, "rows")
        weight, *bias = onnx.arrays().values()
        matrix = onnx.constant(weight if param.transpose else weight.T, "weight")
        top = onnx.node("MatMul", rows, matrix, step="products" if bias else "")
        return [onnx.node("Add", top, onnx.constant(bias[0], "bias")) if bias else top]


class _BlasLinear(Function):
    """``F.linear`` with the summation order of Caffe's BLAS. The weight is (N, K), or (K, N) with ``transpose``."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, transpose: bool, totals: dict[int, Tensor]
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.transpose, ctx.totals = transpose, totals
        matrix = weight.detach().numpy()
        found = blas.product(rows.reshape(-1, rows.shape[-1]).numpy(), matrix if transpose else matrix.T)
        # Reshaped before it is a tensor: torch lets no layer that follows change a view in place.
        top = torch.from_numpy(found.reshape(*rows.shape[:-1], -1))
        return top if bias is None else top.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        top, bottom = (x.reshape(-1, x.shape[-1]).contiguous().numpy() for x in (gradient, rows))
        matrix = weight.numpy().T if ctx.transpose else weight.numpy()
        found: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            found[0] = torch.from_numpy(blas.product(top, matrix)).reshape(rows.shape)
        if ctx.needs_input_grad[1]:
            found[1] = weights = blas.take_total(ctx.totals, 0, weight.shape)
            blas.product(*((bottom.T, top) if ctx.transpose else (top.T, bottom)), weights.numpy())
        if ctx.needs_input_grad[2]:
            found[2] = sums = blas.take_total(ctx.totals, 1, gradient.shape[-1:])
            blas.column_sums(top, sums.numpy())
        return (*found, None, None)


@register
class Embed(Layer):
    """An embedding: the row of the weight for each index, like InnerProduct on one-hot vectors.

    Shapes:
        bottom  (...)      integers 0..K-1, K = input_dim
        top     (..., N)   N = num_output

    Blobs:
        weight  (K, N)
        bias    (N,), unless ``bias_term`` is false

    Raises:
        NetError: If an index is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/embed_layer.cpp L10-L119.
    """

    reads = frozenset(
        f"embed_param.{name}" for name in ("num_output", "input_dim", "bias_term", "weight_filler", "bias_filler")
    )
    differentiable = ()
    rereads = Rereads.TO_LEARN

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.layer_param.embed_param
        check_positive(param, "num_output", "input_dim")
        self.add_blob((param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's with ``num_output`` appended."""
        return [(*bottoms[0], self.layer_param.embed_param.num_output)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        weight, *bias = self.blobs
        index, _ = class_index(bottoms[0], weight.shape[0])
        top = F.embedding(index, weight)
        return (top + bias[0] if bias else top,)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Gather and, if there is a bias, Add."""
        weight, *bias = onnx.blobs()
        rows = onnx.node(
            "Gather", weight, onnx.cast(bottoms[0], np.int64, "index"), step="rows" if bias else "", axis=0
        )
        return [onnx.node("Add", rows, *bias) if bias else rows]

"""The layers Filter and BatchReindex, which select instances of a batch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.onnx_graph import OnnxLayer


@register
class Filter(Layer):
    """Select the instances whose selector is not zero.

    ``shapes`` returns the shapes for M = N, as Caffe does before it has data.

    Shapes:
        bottoms  (N, ...), one or more, and the selector as the last one: (N,), (N, 1), (N, 1, 1) ...
        tops     (M, ...), where M is the number of nonzero selectors; one for each bottom except the selector

    Source: BVLC/caffe@9b89154 src/caffe/layers/filter_layer.cpp L8-L116.
    """

    bottoms = (2, None)
    tops = (1, None)
    sizes_vary = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that there is one top for each bottom except the selector."""
        if len(self.layer_param.top) != len(bottoms) - 1:
            raise NetError(
                "there must be a top for each bottom but the selector",
                got=len(self.layer_param.top),
                want=len(bottoms) - 1,
            )

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops for the case that all instances are selected."""
        *blobs, selector = bottoms
        if not selector or math.prod(selector[1:]) != 1:
            raise NetError("the selector must have one value for each instance", got=selector, want="(N,) or (N, 1, 1)")
        for i, bottom in enumerate(blobs):
            if bottom[:1] != selector[:1]:
                raise NetError(f"bottom {i} and the selector differ in their first axis", got=bottom, want=selector)
        return blobs

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        *blobs, selector = bottoms
        kept = selector.detach().flatten().nonzero().flatten()
        return tuple(bottom.index_select(0, kept) for bottom in blobs)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add an operator Compress for each top."""
        *blobs, selector = bottoms
        flat = onnx.node("Reshape", selector, onnx.constant([-1], "flat"), step="selector")
        kept = onnx.cast(flat, np.bool_, "kept")
        return [onnx.node("Compress", bottom, kept, axis=0, top=i) for i, bottom in enumerate(blobs)]


@register
class BatchReindex(Layer):
    """Select instances by index; an index may occur several times or not at all.

    Shapes:
        bottom 0  (N, ...)
        bottom 1  (M,)       integers 0..N-1
        top       (M, ...)

    Raises:
        NetError: If an index is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/batch_reindex_layer.cpp L8-L75.
    """

    bottoms = (2, 2)
    differentiable = (0,)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: that of bottom 0 with the number of indices as its first size."""
        blob, index = bottoms
        if len(index) != 1 or not blob:
            raise NetError("the second bottom must be a vector of indices into the first", got=f"{index} into {blob}")
        return [(*index, *blob[1:])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        blob, index = bottoms[0], bottoms[1].detach()
        outside = ~((index >= 0) & (index < blob.shape[0]))
        if not torch.compiler.is_exporting() and outside.any():
            raise NetError("an index is out of range", got=f"{index[outside][0]:g}", want=f"0..{blob.shape[0] - 1}")
        return (blob.index_select(0, index.long()),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Gather."""
        return [onnx.node("Gather", bottoms[0], onnx.cast(bottoms[1], np.int64, "index"), axis=0)]

"""Layers that turn scores into predictions: Softmax, ArgMax and Accuracy."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import check_label_count, class_index
from reproduction.caffe.layers.onnx_graph import OnnxLayer


@register
class Softmax(Layer):
    """The softmax along ``axis``: ``exp(x_k) / sum_j exp(x_j)``.

    Shapes:
        bottom  (..., K, ...)   scores
        top     (..., K, ...)   probabilities

    Source: BVLC/caffe@9b89154 src/caffe/layers/softmax_layer.cpp L9-L92.
    """

    reads = frozenset({"softmax_param.axis"})
    positive = True
    keeps_coordinates = True
    rereads = Rereads.TOP

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        canonical_axis(self.layer_param.softmax_param.axis, len(bottoms[0]))
        return bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (torch.softmax(bottoms[0], self.layer_param.softmax_param.axis),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Softmax."""
        return [onnx.node("Softmax", *bottoms, axis=self.layer_param.softmax_param.axis)]


@register
class ArgMax(Layer):
    """The indices or values of the ``top_k`` greatest values, in descending order.

    It has no gradient.

    Shapes:
        bottom  (N, ...)
        top     With ``axis``: the bottom's shape with ``top_k`` as the size of that axis. It holds indices along the
                axis or, with ``out_max_val``, values.
                Without ``axis``: (N, 1, top_k, 1 ...), indices into each flattened instance, or, with
                ``out_max_val``, (N, 2, top_k, 1 ...), indices and values. It has as many axes as the bottom, and at
                least three.

    Source: BVLC/caffe@9b89154 src/caffe/layers/argmax_layer.cpp L11-L104.
    """

    reads = frozenset({"argmax_param.out_max_val", "argmax_param.top_k", "argmax_param.axis"})
    differentiable = ()

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top, which depends on ``axis`` and ``out_max_val``; see the class."""
        param, bottom = self.layer_param.argmax_param, bottoms[0]
        if not bottom:
            raise NetError("the bottom has no axes", got=bottom)
        axis = canonical_axis(param.axis, len(bottom)) if param.has("axis") else None
        choices = math.prod(bottom[1:]) if axis is None else bottom[axis]
        if not 1 <= param.top_k <= choices:
            raise NetError("top_k is out of range", got=param.top_k, want=f"1..{choices}")
        if axis is not None:
            return [(*bottom[:axis], param.top_k, *bottom[axis + 1 :])]
        pairs = 2 if param.out_max_val else 1
        return [(bottom[0], pairs, param.top_k, *(1,) * (len(bottom) - 3))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        param, bottom = self.layer_param.argmax_param, bottoms[0].detach()
        if param.has("axis"):
            index, value = _greatest(bottom, canonical_axis(param.axis, bottom.dim()), param.top_k)
            return (value if param.out_max_val else index,)
        (shape,) = self.shapes([tuple(bottom.shape)])
        index, value = _greatest(bottom.flatten(1) if bottom.dim() > 1 else bottom[:, None], 1, param.top_k)
        return ((torch.stack([index, value], 1) if param.out_max_val else index).reshape(shape),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add ArgMax, or TopK on the reversed axis, whose first index among equal values is Caffe's last."""
        param, (bottom,) = self.layer_param.argmax_param, bottoms
        if param.has("axis"):
            index, value = _add_greatest(onnx, bottom, canonical_axis(param.axis, onnx.axes), param.top_k)
            return [onnx.node("Identity", value if param.out_max_val else index)]
        flat = bottom if onnx.axes == 2 else onnx.node(
            "Reshape", bottom, onnx.constant([0, -1 if onnx.axes > 1 else 1], "flat_shape"), step="flat"
        )  # fmt: skip
        parts = _add_greatest(onnx, flat, 1, param.top_k)[: 2 if param.out_max_val else 1]
        joined = onnx.node("Concat", *parts, step="joined", axis=1) if len(parts) > 1 else parts[0]
        shape = [0, len(parts), param.top_k, *[1] * (onnx.axes - 3)]
        return [onnx.node("Reshape", joined, onnx.constant(shape, "shape"))]


def _add_greatest(onnx: OnnxLayer, value: str, axis: int, count: int) -> tuple[str, str]:
    """Add the operators of ``_greatest`` and return the names of indices and values."""
    if count == 1:
        index = onnx.node("ArgMax", value, step="index", axis=axis, keepdims=1, select_last_index=1)
        return onnx.cast(index, np.float32, "place"), onnx.node("ReduceMax", value, step="greatest", axes=[axis])
    ends = (-1, np.iinfo(np.int64).min)
    bounds = [onnx.constant([bound], name) for bound, name in zip((*ends, axis, -1), "abcd", strict=True)]
    backwards = onnx.node("Slice", value, *bounds, step="backwards")
    amount = onnx.constant([count], "top_k")
    greatest, index = onnx.node_with_outputs("TopK", backwards, amount, steps=("greatest", "index"), axis=axis)
    last = onnx.node("Sub", onnx.node("Shape", value, step="length", start=axis, end=axis + 1),
                     onnx.constant([1], "one"), step="last")  # fmt: skip
    return onnx.cast(onnx.node("Sub", last, index, step="place"), np.float32, "float_place"), greatest


def _greatest(values: Tensor, axis: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the indices (in the dtype of ``values``) and values of the ``count`` greatest values along ``axis``."""
    # Caffe: among equal values, ArgMax returns the one with the greater index first, since it sorts pairs of value and
    # index (argmax_layer.cpp L75-L82). torch.argmax returns the smaller index, and torch.topk any.
    backwards = values.flip(axis)
    if count == 1:
        index = backwards.argmax(axis, keepdim=True)
    else:
        index = backwards.argsort(stable=True, dim=axis, descending=True).narrow(axis, 0, count)
    return (values.shape[axis] - 1 - index).to(values.dtype), backwards.gather(axis, index)


@register
class Accuracy(Layer):
    """The top-k accuracy: the fraction of labels that are among the ``top_k`` greatest scores. It has no gradient.

    Shapes:
        scores  (..., K, ...)   K classes on ``axis``
        labels  any shape       one integer 0..K-1 or ``ignore_label`` for each position of the scores
        top 0   ()              the accuracy; 0 if all labels are ignored
        top 1   (K,)            optional: the accuracy of each class; 0 for a class without labels

    Raises:
        NetError: If a label is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/accuracy_layer.cpp L11-L107.
    """

    reads = frozenset({"accuracy_param.top_k", "accuracy_param.axis", "accuracy_param.ignore_label"})
    bottoms = (2, 2)
    tops = (1, 2)
    differentiable = ()

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops: ``()`` for the accuracy and, if there is a second top, ``(K,)``."""
        param, (scores, labels) = self.layer_param.accuracy_param, bottoms
        axis = canonical_axis(param.axis, len(scores))
        check_label_count(scores, labels, axis)
        if param.top_k > scores[axis]:
            raise NetError("top_k is more than there are classes", got=param.top_k, want=f"at most {scores[axis]}")
        return [(), (scores[axis],)][: len(self.layer_param.top)]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        param, (scores, labels) = self.layer_param.accuracy_param, bottoms
        axis = canonical_axis(param.axis, scores.dim())
        places = [*scores.shape[:axis], 1, *scores.shape[axis + 1 :]]
        classes = scores.shape[axis]
        ignore = param.ignore_label if param.has("ignore_label") else None
        index, ignored = class_index(labels.reshape(places), classes, ignore)
        # Caffe: in Accuracy, a class with the same score as the true class ranks above it, so that a tie is a wrong
        # prediction (accuracy_layer.cpp L74-L80).
        rivals = (scores >= scores.gather(axis, index)).sum(axis, keepdim=True) - 1
        hit = rivals < param.top_k
        if ignored is not None:
            index, hit = index[~ignored], hit[~ignored]
        total = hit.sum().to(scores.dtype) / max(hit.numel(), 1)
        if len(self.layer_param.top) == 1:
            return (total,)
        found = torch.bincount(index.flatten(), minlength=classes)
        right = torch.bincount(index.flatten(), weights=hit.flatten().to(scores.dtype), minlength=classes)
        return total, (right / found.clamp(min=1)).to(scores.dtype)

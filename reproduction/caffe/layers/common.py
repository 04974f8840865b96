"""The layers InnerProduct, Embed, Eltwise, Reduction, Softmax, ArgMax and Accuracy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, canonical_axis
from reproduction.caffe.layers.checks import check_label_count, class_index
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.memory import Rereads
from reproduction.caffe.schema import EltwiseOp, ReductionOp


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

    def rereads(self) -> Rereads:
        """Return ``TO_LEARN``: the gradient of the weights needs the bottom."""
        return Rereads.TO_LEARN

    def setup(self, bottoms: list[Shape]) -> None:
        """Create weight and bias."""
        param = self.spec.inner_product_param
        if param.num_output < 1:
            raise NetError("num_output must be positive", got=param.num_output)
        self._inputs = math.prod(bottoms[0][canonical_axis(param.axis, len(bottoms[0])) :])
        shape = (param.num_output, self._inputs)
        self.add_blob(shape[::-1] if param.transpose else shape, param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the bottom's shape with ``num_output`` in place of the axes from ``axis`` on."""
        param = self.spec.inner_product_param
        axis = canonical_axis(param.axis, len(bottoms[0]))
        if math.prod(bottoms[0][axis:]) != self._inputs:
            raise NetError(
                f"the axes from {axis} on must hold as many values as the weights were made for",
                got=f"{math.prod(bottoms[0][axis:])} in {bottoms[0]}",
                want=self._inputs,
            )
        return [(*bottoms[0][:axis], param.num_output)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        param = self.spec.inner_product_param
        weight, *bias = self.blobs
        rows = bottoms[0].flatten(canonical_axis(param.axis, bottoms[0].dim()))
        weight = weight.t() if param.transpose else weight
        if blas.serves(self.in_blas_order, rows):
            args = (rows, self.blobs[0], bias[0] if bias else None, param.transpose, self.totals)
            top: Tensor = _Product.apply(*args)  # type: ignore[no-untyped-call]
            return (top,)
        return (F.linear(rows, weight, *bias),)


class _Product(Function):
    """``F.linear`` with the summation order of Caffe's BLAS. The weight is (N, K), or (K, N) with ``transpose``."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, transpose: bool, totals: dict[int, Tensor]
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.transpose, ctx.totals = transpose, totals
        matrix = weight.detach().numpy()
        found = blas.product(rows.reshape(-1, rows.shape[-1]).numpy(), matrix if transpose else matrix.T)
        top = torch.from_numpy(found).reshape(*rows.shape[:-1], -1)
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
            found[1] = weights = blas.begin(ctx.totals, 0, weight.shape)
            blas.product(*((bottom.T, top) if ctx.transpose else (top.T, bottom)), weights.numpy())
        if ctx.needs_input_grad[2]:
            found[2] = sums = blas.begin(ctx.totals, 1, gradient.shape[-1:])
            blas.column_sums(top, sums.numpy())
        return (*found, None, None)


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

    def rereads(self) -> Rereads:
        """Return ``TO_LEARN``: the gradient of the weights needs the bottom."""
        return Rereads.TO_LEARN

    def setup(self, bottoms: list[Shape]) -> None:
        """Create weight and bias."""
        param = self.spec.embed_param
        if param.num_output < 1 or param.input_dim < 1:
            raise NetError("num_output and input_dim must be positive", got=f"{param.num_output} and {param.input_dim}")
        self.add_blob((param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob((param.num_output,), param.bias_filler)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the bottom's shape with ``num_output`` appended."""
        return [(*bottoms[0], self.spec.embed_param.num_output)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        weight, *bias = self.blobs
        index, _ = class_index(bottoms[0], weight.shape[0])
        top = F.embedding(index, weight)
        return (top + bias[0] if bias else top,)


class Eltwise(Layer):
    """The elementwise product, weighted sum or maximum of the bottoms.

    Shapes:
        bottoms  (...), two or more of the same shape
        top      (...)

    Source: BVLC/caffe@9b89154 src/caffe/layers/eltwise_layer.cpp L10-L160.
    """

    reads = frozenset({"eltwise_param.operation", "eltwise_param.coeff"})
    bottoms = (2, None)
    top_is_free = True
    in_place_values = False

    def rereads(self) -> Rereads:
        """Return bottom and top for PROD, else nothing."""
        return Rereads.BOTTOM | Rereads.TOP if self.spec.eltwise_param.operation is EltwiseOp.PROD else Rereads.NOTHING

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the coefficients."""
        param = self.spec.eltwise_param
        if param.coeff and param.operation is not EltwiseOp.SUM:
            raise NetError("coeff is for operation SUM", got=param.operation.name)
        if param.coeff and len(param.coeff) != len(bottoms):
            raise NetError("coeff must be given once for each bottom", got=len(param.coeff), want=len(bottoms))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the common shape of the bottoms."""
        for i, bottom in enumerate(bottoms):
            if bottom != bottoms[0]:
                raise NetError(f"bottom {i} differs in shape from bottom 0", got=bottom, want=bottoms[0])
        return bottoms[:1]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        operation = self.spec.eltwise_param.operation
        if operation is EltwiseOp.SUM:
            return (self._sum(bottoms),)
        top, *rest = bottoms
        if operation is EltwiseOp.PROD:
            for bottom in rest:
                top = top * bottom
            return (top,)
        # Caffe: among equal values in an Eltwise maximum, the second bottom takes precedence over the first, and these
        # two over the others. The whole gradient goes to one bottom (eltwise_layer.cpp L75-L94); torch.maximum halves
        # it.
        top = torch.where(top > rest[0], top, rest[0])
        for bottom in rest[1:]:
            top = torch.where(bottom > top, bottom, top)
        return (top,)

    def _sum(self, bottoms: tuple[Tensor, ...]) -> Tensor:
        coeff = self.spec.eltwise_param.coeff or [1.0] * len(bottoms)
        top = bottoms[0] * coeff[0] if coeff[0] != 1 else bottoms[0]
        for bottom, factor in zip(bottoms[1:], coeff[1:], strict=True):
            top = torch.add(top, bottom, alpha=factor)
        return top


class Reduction(Layer):
    """A reduction of all axes from ``axis`` on: the sum, mean, or sum of absolute values or squares, times ``coeff``.

    Shapes:
        bottom  (leading axes, reduced axes)
        top     (leading axes)

    Source: BVLC/caffe@9b89154 src/caffe/layers/reduction_layer.cpp L9-L133.
    """

    reads = frozenset({"reduction_param.operation", "reduction_param.axis", "reduction_param.coeff"})

    def rereads(self) -> Rereads:
        """Return the bottom for ASUM and SUMSQ, else nothing."""
        return (
            Rereads.BOTTOM
            if self.spec.reduction_param.operation in (ReductionOp.ASUM, ReductionOp.SUMSQ)
            else Rereads.NOTHING
        )

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the axes before ``axis``."""
        return [bottoms[0][: canonical_axis(self.spec.reduction_param.axis, len(bottoms[0]))]]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        param = self.spec.reduction_param
        values = bottoms[0].flatten(canonical_axis(param.axis, bottoms[0].dim()))
        coeff = param.coeff
        if param.operation is ReductionOp.MEAN:
            coeff = coeff / values.shape[-1] if values.shape[-1] else math.inf  # as in C++: inf * 0 is NaN
        elif param.operation is ReductionOp.ASUM:
            values = values.abs()
        elif param.operation is ReductionOp.SUMSQ:
            values = values.square()
        return (values.sum(-1) * coeff,)


class Softmax(Layer):
    """The softmax along ``axis``: ``exp(x_k) / sum_j exp(x_j)``.

    Shapes:
        bottom  (..., K, ...)   scores
        top     (..., K, ...)   probabilities

    Source: BVLC/caffe@9b89154 src/caffe/layers/softmax_layer.cpp L9-L92.
    """

    reads = frozenset({"softmax_param.axis"})
    positive = True

    def rereads(self) -> Rereads:
        """Return the top."""
        return Rereads.TOP

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        canonical_axis(self.spec.softmax_param.axis, len(bottoms[0]))
        return bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        return (torch.softmax(bottoms[0], self.spec.softmax_param.axis),)


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
        """Return the shape of the top, which depends on ``axis`` and ``out_max_val``."""
        param, bottom = self.spec.argmax_param, bottoms[0]
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
        """Compute the top."""
        param, bottom = self.spec.argmax_param, bottoms[0].detach()
        if param.has("axis"):
            index, value = _greatest(bottom, canonical_axis(param.axis, bottom.dim()), param.top_k)
            return (value if param.out_max_val else index,)
        (shape,) = self.shapes([tuple(bottom.shape)])
        index, value = _greatest(bottom.flatten(1) if bottom.dim() > 1 else bottom[:, None], 1, param.top_k)
        return ((torch.stack([index, value], 1) if param.out_max_val else index).reshape(shape),)


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
        """Return ``()`` and, if there is a second top, ``(K,)``."""
        param, (scores, labels) = self.spec.accuracy_param, bottoms
        axis = canonical_axis(param.axis, len(scores))
        check_label_count(scores, labels, axis)
        if param.top_k > scores[axis]:
            raise NetError("top_k is more than there are classes", got=param.top_k, want=f"at most {scores[axis]}")
        return [(), (scores[axis],)][: len(self.spec.top)]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        param, (scores, labels) = self.spec.accuracy_param, bottoms
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
        if len(self.spec.top) == 1:
            return (total,)
        found = torch.bincount(index.flatten(), minlength=classes)
        right = torch.bincount(index.flatten(), weights=hit.flatten().to(scores.dtype), minlength=classes)
        return total, (right / found.clamp(min=1)).to(scores.dtype)


LAYERS = (InnerProduct, Embed, Eltwise, Reduction, Softmax, ArgMax, Accuracy)

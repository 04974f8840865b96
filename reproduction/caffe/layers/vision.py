"""Layers over images that slide no weights: LRN, Crop, Split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape, Window
from reproduction.caffe.layers.base import Layer, canonical_axis
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.memory import Rereads
from reproduction.caffe.layers.pooling import average_pool
from reproduction.caffe.layers.quick.borders import AnyBlob
from reproduction.caffe.schema import NormRegion


class LRN(Layer):
    """Divide each value by a power of the squares around it (local response normalisation).

    Across channels, over the ``local_size`` channels around each: ``x * (k + alpha / local_size * sum x^2) ** -beta``.
    Within a channel, over the square of ``local_size`` pixels: ``x * (1 + alpha / local_size^2 * sum x^2) ** -beta``.

    Shapes:
        bottom and top: (N, C, H, W).

    Raises:
        NetError: ``local_size`` is even.

    Source: BVLC/caffe@9b89154 src/caffe/layers/lrn_layer.cpp L9-L247.
    """

    reads = frozenset(f"lrn_param.{name}" for name in ("local_size", "alpha", "beta", "norm_region", "k"))
    in_place_values = False

    def rereads(self) -> Rereads:
        """Return both."""
        return Rereads.BOTTOM | Rereads.TOP

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the size of the neighbourhood."""
        if self.spec.lrn_param.local_size % 2 == 0:
            raise NetError("local_size must be odd", got=self.spec.lrn_param.local_size)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        if len(bottoms[0]) != 4:
            raise NetError("the bottom must have 4 axes (N, C, H, W)", got=bottoms[0])
        return list(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Normalise."""
        (x,) = bottoms
        param = self.spec.lrn_param
        if param.norm_region is NormRegion.ACROSS_CHANNELS:
            power = blas.power if blas.serves(self.in_blas_order, x) else torch.pow
            y: Tensor = _Across.apply(x, param.local_size, param.alpha, param.beta, param.k, power)  # type: ignore[no-untyped-call]
            return (y,)
        # Caffe: LRN within a channel uses the constant 1, whatever `k` is (lrn_layer.cpp L52).
        size = _reach(param.local_size, max(x.shape[2:]))
        alpha = param.alpha * (size / param.local_size) ** 2
        return (x * (1 + alpha * average_pool(x * x, [Window(size, 1, size // 2)] * 2)).pow(-param.beta),)


def _reach(size: int, length: int) -> int:
    """Return an odd size with which a neighbourhood sees no less of an axis; sizes have no limit but that of int."""
    return min(size, 2 * length + 1)


class _Across(torch.autograd.Function):
    """LRN across channels, with running sums over the channels."""

    # Caffe: the sum of squares of a channel is that of the channel before, plus one square, minus one; with squares
    # far above 1 / alpha the rounding shows, and it is Caffe's (lrn_layer.cpp L133-L146, L214-L230).

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float, power: Callable[[Tensor, float], Tensor]
    ) -> Tensor:
        rate = alpha / size
        size = _reach(size, x.shape[1])
        squares = F.pad(x * x, (0, 0, 0, 0, size // 2, size // 2))
        scale = torch.full_like(x, k)
        with torch.no_grad():  # as it is here anyway, but not while torch.export looks into it
            for c in range(size):
                scale[:, 0].add_(squares[:, c], alpha=rate)
            for c in range(1, x.shape[1]):
                torch.add(scale[:, c - 1], squares[:, c + size - 1], alpha=rate, out=scale[:, c])
                scale[:, c].sub_(squares[:, c - 1], alpha=rate)
        y = x * power(scale, -beta)
        ctx.save_for_backward(x, y, scale)
        ctx.size, ctx.rate, ctx.beta, ctx.power = size, rate, beta, power
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, y, scale = ctx.saved_tensors
        ratio = F.pad(grad * y / scale, (0, 0, 0, 0, ctx.size // 2, ctx.size // 2))
        total = ratio[:, : ctx.size - 1].sum(1)
        result = grad * ctx.power(scale, -ctx.beta)
        for c in range(x.shape[1]):
            total += ratio[:, c + ctx.size - 1]
            result[:, c].sub_(x[:, c] * total, alpha=2 * ctx.rate * ctx.beta)
            total -= ratio[:, c]
        return result, None, None, None, None, None


class Crop(Layer):
    """Cut the first bottom to the size of the second, from ``axis`` on, starting at the offsets.

    Shapes:
        bottoms: (N, C, H, W) or any other, and one that gives the sizes; its values are not read.
        top: as bottom 0 before ``axis``, as bottom 1 from there on; it shares the memory of bottom 0.

    Raises:
        NetError: the number of offsets is neither 0, 1 nor that of the axes cut, or the cut passes the end.

    Source: BVLC/caffe@9b89154 src/caffe/layers/crop_layer.cpp L16-L143.
    """

    reads = frozenset({"crop_param.axis", "crop_param.offset"})
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[tuple[int, ...] | None] = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the offsets."""
        self.cuts(*bottoms)

    def cuts(self, data: Shape, size: Shape) -> list[tuple[int, int, int]]:
        """Give axis, offset and length of each cut."""
        param = self.spec.crop_param
        axis = canonical_axis(param.axis, len(data))
        if len(size) < len(data):
            raise NetError("bottom 1 must have as many axes as bottom 0", got=size, want=f"{len(data)} axes")
        axes = range(axis, len(data))
        offsets = list(param.offset) or [0]
        if len(offsets) == 1:
            offsets *= len(axes)
        if len(offsets) != len(axes):
            raise NetError(
                "offset must be given once, or once for each axis cut", got=len(offsets), want=f"1 or {len(axes)}"
            )
        for i, offset in zip(axes, offsets, strict=True):
            if offset + size[i] > data[i]:
                raise NetError(
                    f"the crop is past the end of axis {i}",
                    got=f"offset {offset} + size {size[i]}",
                    want=f"at most {data[i]}",
                )
        return [(i, offset, size[i]) for i, offset in zip(axes, offsets, strict=True)]

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Put the sizes of bottom 1 after ``axis``."""
        cuts = self.cuts(*bottoms)
        return [(*bottoms[0][: cuts[0][0]], *(length for _, _, length in cuts))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Cut."""
        data, size = bottoms
        for axis, offset, length in self.cuts(tuple(data.shape), tuple(size.shape)):
            data = data.narrow(axis, offset, length)
        return (data,)


class Split(Layer):
    """Hand the bottom on to several tops; their gradients add up.

    Caffe puts these layers into a net by itself wherever a blob has several readers; here a blob may have them.

    Shapes:
        bottom and tops: any; the tops share the memory of the bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/split_layer.cpp L9-L49.
    """

    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        """Refuse to work in place."""
        if self.spec.bottom[0] in self.spec.top:
            raise NetError("a top must not be the bottom", got=repr(self.spec.bottom[0]))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom for each top."""
        return [bottoms[0]] * len(self.spec.top)

    def shares(self) -> tuple[bool, bool]:
        """Say that the values are shared, and the gradients are not."""
        return True, False

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Hand on."""
        if not self.in_blas_order:
            return bottoms * len(self.spec.top)
        tops: tuple[Tensor, ...] = _HandOn.apply(bottoms[0], len(self.spec.top))  # type: ignore[no-untyped-call]
        return tops

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Hand on."""
        return None if self.in_blas_order else bottoms * len(self.spec.top)


class _HandOn(torch.autograd.Function):
    """Several views of a tensor, whose gradients add up in their order; torch begins with the last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for _ in range(count))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        first, *rest = (grad for grad in grads if grad is not None)
        for grad in rest:
            first = first + grad
        return first, None


LAYERS: tuple[type[Layer], ...] = (LRN, Crop, Split)

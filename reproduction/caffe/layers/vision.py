"""The layers LRN, Crop and Split."""

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
    """Local response normalization: divide each value by a power of the sum of squares around it.

    ACROSS_CHANNELS sums over ``local_size`` channels: ``x * (k + alpha / local_size * sum x^2) ** -beta``.
    WITHIN_CHANNEL sums over ``local_size`` x ``local_size`` pixels:
    ``x * (1 + alpha / local_size^2 * sum x^2) ** -beta``.

    Shapes:
        bottom and top: (N, C, H, W).

    Raises:
        NetError: If ``local_size`` is even.

    Source: BVLC/caffe@9b89154 src/caffe/layers/lrn_layer.cpp L9-L247.
    """

    reads = frozenset(f"lrn_param.{name}" for name in ("local_size", "alpha", "beta", "norm_region", "k"))
    in_place_values = False

    def rereads(self) -> Rereads:
        """Return bottom and top."""
        return Rereads.BOTTOM | Rereads.TOP

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that ``local_size`` is odd."""
        if self.spec.lrn_param.local_size % 2 == 0:
            raise NetError("local_size must be odd", got=self.spec.lrn_param.local_size)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        if len(bottoms[0]) != 4:
            raise NetError("the bottom must have 4 axes (N, C, H, W)", got=bottoms[0])
        return list(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        (x,) = bottoms
        param = self.spec.lrn_param
        if param.norm_region is NormRegion.ACROSS_CHANNELS:
            power = blas.power if blas.serves(self.in_blas_order, x) else torch.pow
            y: Tensor = _Across.apply(x, param.local_size, param.alpha, param.beta, param.k, power)  # type: ignore[no-untyped-call]
            return (y,)
        # Caffe: LRN within a channel ignores `k` and uses 1 (lrn_layer.cpp L52).
        size = _reach(param.local_size, max(x.shape[2:]))
        alpha = param.alpha * (size / param.local_size) ** 2
        return (x * (1 + alpha * average_pool(x * x, [Window(size, 1, size // 2)] * 2)).pow(-param.beta),)


def _reach(size: int, length: int) -> int:
    """Return ``size``, or ``2 * length + 1`` if that is smaller: it already covers an axis of this length."""
    return min(size, 2 * length + 1)


class _Across(torch.autograd.Function):
    """LRN across channels, by a running sum over the channels."""

    # Caffe: LRN across channels computes the sum of squares of a channel from that of the channel before, by adding one
    # square and subtracting another (lrn_layer.cpp L133-L146, L214-L230). The rounding errors, which are visible where
    # squares are far above 1 / alpha, are the same here. torch sums each window separately.

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float, power: Callable[[Tensor, float], Tensor]
    ) -> Tensor:
        rate = alpha / size
        size = _reach(size, x.shape[1])
        squares = F.pad(x * x, (0, 0, 0, 0, size // 2, size // 2))
        scale = torch.full_like(x, k)
        with torch.no_grad():  # the default within a Function, but not while torch.export traces it
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
    """Crop the first bottom to the size of the second in all axes from ``axis`` on.

    ``offset`` is where the crop starts: one value for all of these axes, or one for each; 0 by default.

    Shapes:
        bottom 0: Any shape, e.g. (N, C, H, W).
        bottom 1: The same number of axes; only the sizes are used.
        top: The sizes of bottom 0 before ``axis`` and those of bottom 1 from ``axis`` on. It is a view of bottom 0.

    Raises:
        NetError: If the number of offsets is not 0, 1 or that of the cropped axes, bottom 1 has fewer axes than bottom
            0, or the crop exceeds bottom 0.

    Source: BVLC/caffe@9b89154 src/caffe/layers/crop_layer.cpp L16-L143.
    """

    reads = frozenset({"crop_param.axis", "crop_param.offset"})
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[tuple[int, ...] | None] = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the offsets."""
        self.cuts(*bottoms)

    def cuts(self, data: Shape, size: Shape) -> list[tuple[int, int, int]]:
        """Return ``(axis, offset, length)`` of each cropped axis for the shapes of the two bottoms."""
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
        """Return the sizes of bottom 0 before ``axis`` and those of bottom 1 from there on."""
        cuts = self.cuts(*bottoms)
        return [(*bottoms[0][: cuts[0][0]], *(length for _, _, length in cuts))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return a view of the crop."""
        data, size = bottoms
        for axis, offset, length in self.cuts(tuple(data.shape), tuple(size.shape)):
            data = data.narrow(axis, offset, length)
        return (data,)


class Split(Layer):
    """Return the bottom as several tops, whose gradients add up.

    Caffe inserts these layers wherever several layers read a blob. Here that is not needed, but a net may contain them.

    Shapes:
        bottom and tops: any shape; the tops share the memory of the bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/split_layer.cpp L9-L49.
    """

    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        """Raise ``NetError`` if a top has the name of the bottom."""
        if self.spec.bottom[0] in self.spec.top:
            raise NetError("a top must not be the bottom", got=repr(self.spec.bottom[0]))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom, once for each top."""
        return [bottoms[0]] * len(self.spec.top)

    def shares(self) -> tuple[bool, bool]:
        """Return that the tops share the memory of the values, but not that of the gradient."""
        return True, False

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the bottom once for each top."""
        if not self.in_blas_order:
            return bottoms * len(self.spec.top)
        tops: tuple[Tensor, ...] = _HandOn.apply(bottoms[0], len(self.spec.top))  # type: ignore[no-untyped-call]
        return tops

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Return the bottom once for each top; None with ``in_blas_order``."""
        return None if self.in_blas_order else bottoms * len(self.spec.top)


class _HandOn(torch.autograd.Function):
    """Views of a tensor. The backward pass adds their gradients from first to last; torch starts at the last."""

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

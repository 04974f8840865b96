"""The layer LRN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape, Window
from reproduction.caffe.layers.base import Layer, Rereads, register
from reproduction.caffe.layers.compiled_forms import LRNForm
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.pooling import average_pool
from reproduction.caffe.layers.pooling_onnx import add_average_pool
from reproduction.caffe.schema import NormRegion, RoundMode


@register
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
    keeps_coordinates = True
    rereads = Rereads.BOTTOM | Rereads.TOP

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that ``local_size`` is odd."""
        if self.layer_param.lrn_param.local_size % 2 == 0:
            raise NetError("local_size must be odd", got=self.layer_param.lrn_param.local_size)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        if len(bottoms[0]) != 4:
            raise NetError("the bottom must have 4 axes (N, C, H, W)", got=bottoms[0])
        return list(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        (x,) = bottoms
        param = self.layer_param.lrn_param
        if param.norm_region is NormRegion.ACROSS_CHANNELS:
            power = blas.power if blas.applies_to(self.in_blas_order, x) else torch.pow
            return (_AcrossChannels.apply(x, param.local_size, param.alpha, param.beta, param.k, power),)  # type: ignore[no-untyped-call]
        # Caffe: LRN within a channel ignores `k` and uses 1 (lrn_layer.cpp L52).
        size = _limit_size(param.local_size, max(x.shape[2:]))
        alpha = param.alpha * (size / param.local_size) ** 2
        return (x * (1 + alpha * average_pool(x * x, [Window(size, 1, size // 2)] * 2)).pow(-param.beta),)

    def compiled_form(self, bottoms: list[Shape]) -> LRNForm | None:
        """Return an ``LRNForm`` if the sum is over channels, so that pixels are independent; otherwise None."""
        param = self.layer_param.lrn_param
        if param.norm_region is not NormRegion.ACROSS_CHANNELS:
            return None
        return LRNForm(size=param.local_size, alpha=param.alpha, beta=param.beta, k=param.k)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator LRN, or for sums within a channel AveragePool and the operators around it."""
        param, (bottom,) = self.layer_param.lrn_param, bottoms
        if param.norm_region is NormRegion.ACROSS_CHANNELS:
            return [onnx.node("LRN", bottom, size=param.local_size, alpha=param.alpha, beta=param.beta, bias=param.k)]
        windows = [Window(param.local_size, 1, param.local_size // 2)] * 2
        squares = onnx.node("Mul", bottom, bottom, step="squares")
        mean = add_average_pool(onnx, squares, windows, RoundMode.CEIL, "mean")
        scaled = onnx.node("Mul", mean, onnx.number(param.alpha, "alpha"), step="scaled")
        base = onnx.node("Add", scaled, onnx.number(1.0, "one"), step="base")
        factor = onnx.node("Pow", base, onnx.number(-param.beta, "power"), step="factor")
        return [onnx.node("Mul", bottom, factor)]


def _limit_size(size: int, length: int) -> int:
    """Return ``size``, or ``2 * length + 1`` if that is smaller: it already covers an axis of this length."""
    return min(size, 2 * length + 1)


class _AcrossChannels(torch.autograd.Function):
    """LRN across channels, by a running sum over the channels."""

    # Caffe: LRN across channels computes the sum of squares of a channel from that of the channel before, by adding one
    # square and subtracting another (lrn_layer.cpp L133-L146, L214-L230). The rounding errors, which are visible where
    # squares are far above 1 / alpha, are the same here. torch sums each window separately.

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float, power: Callable[[Tensor, float], Tensor]
    ) -> Tensor:
        rate = alpha / size
        size = _limit_size(size, x.shape[1])
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

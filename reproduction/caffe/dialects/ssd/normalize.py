"""The layer Normalize, which divides each pixel or instance by its Euclidean norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.dialects.batch_statistics import per_channel
from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import FillerParameter, LayerParameter
from reproduction.caffe.schema.field import boolean, nested, single
from reproduction.caffe.schema.message import Message


class NormalizeParameter(Message):
    """The fields of Normalize layers: what a norm is taken of, the scales, and how the norm is kept above 0.

    ``add_eps_before_sqrt`` is a field of synopsys' fork.
    """

    across_spatial = boolean(1, True)
    scale_filler = nested(2, FillerParameter)
    channel_shared = boolean(3, True)
    eps = single(4, 1e-10)
    add_eps_before_sqrt = boolean(5, True)


NORMALIZE = LayerParameter.add_field("norm_param", nested(206, NormalizeParameter), SSD)


@register
class Normalize(Layer):
    """Divide by the Euclidean norm, then multiply by a learned scale: ``scale * x / sqrt(sum x^2 + eps)``.

    The sum is over the channels of each pixel, or over all values of an instance if ``across_spatial`` is set, as it is
    by default. If ``add_eps_before_sqrt`` is not set, the norm of an instance is ``sqrt(sum x^2) + eps``; the norm of a
    pixel is always ``sqrt(sum x^2 + eps)``.

    Shapes:
        bottom  (N, C, H, W), (N, C, H) or (N, C)
        top     the same

    Blobs:
        weight  the scale: () if ``channel_shared`` is set, else (C,); initialized by ``scale_filler``, else with 1

    Raises:
        NetError: If the bottom has fewer than 2 axes or more than 4.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/normalize_layer.cpp L9-L224;
    foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36a src/caffe/layers/normalize_layer.cpp L104-L111.
    """

    dialect = SSD
    reads = frozenset(f"norm_param.{name}" for name in NormalizeParameter.fields)
    in_place_gradient = False
    keeps_coordinates = True
    rereads = Rereads.BOTTOM | Rereads.TOP  # the top is for the gradient of the scale

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the scale."""
        param = NORMALIZE.get(self.layer_param)
        self.shapes(bottoms)
        ones = FillerParameter(type="constant", value=1.0)
        self.add_blob(
            () if param.channel_shared else (bottoms[0][1],), param.scale_filler if param.has("scale_filler") else ones
        )

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        legacy_shape(bottoms[0])
        if len(bottoms[0]) < 2:
            raise NetError("the bottom must have channels", got=bottoms[0], want="(N, C, H, W), (N, C, H) or (N, C)")
        if self.blob_names and self.blobs[0].shape not in ((), (bottoms[0][1],)):
            raise NetError("there is one scale for each channel", got=bottoms[0], want=f"{len(self.blobs[0])} channels")
        return bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; the gradients are those of the fork."""
        scale = self.blobs[0] if self.blobs[0].dim() == 0 else per_channel(self.blobs[0], bottoms[0].dim())
        return (_Scaled.apply(bottoms[0], scale, *self._norm_options(bottoms[0].dim())),)  # type: ignore[no-untyped-call]

    def _norm_options(self, axes: int) -> tuple[list[int], float, float]:
        """Return the axes to sum over, what to add to the sum, and what to add to the norm."""
        param = NORMALIZE.get(self.layer_param)
        after = param.across_spatial and not param.add_eps_before_sqrt
        return list(range(1, axes if param.across_spatial else 2)), 0.0 if after else param.eps, after * param.eps

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return a ``PointwiseForm`` if each pixel of an image has its own norm, otherwise None."""
        across = NORMALIZE.get(self.layer_param).across_spatial
        return PointwiseForm() if len(bottoms[0]) == 4 and not across else None

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators that compute the norm, divide by it and scale."""
        axes, before, after = self._norm_options(4)
        (scale,) = (array.reshape(-1, 1, 1) for array in onnx.arrays().values())
        squares = onnx.node("Mul", bottoms[0], bottoms[0], step="squares")
        total = onnx.node("ReduceSum", squares, onnx.constant(np.array(axes), "axes"), step="sum", keepdims=1)
        if before:
            total = onnx.node("Add", total, onnx.constant(np.float32(before), "eps"), step="sum_eps")
        norm = onnx.node("Sqrt", total, step="norm")
        if after:
            norm = onnx.node("Add", norm, onnx.constant(np.float32(after), "eps"), step="norm_eps")
        unit = onnx.node("Div", bottoms[0], norm, step="unit")
        return [onnx.node("Mul", unit, onnx.constant(scale, "scale"))]


class _Scaled(Function):
    """``scale * x / norm`` with the fork's gradients; ``scale`` broadcasts to ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, axes: list[int], before: float, after: float) -> Tensor:
        norm = (x.square().sum(axes, keepdim=True) + before).sqrt() + after
        top = x / norm * scale
        ctx.axes = axes
        ctx.save_for_backward(x, scale, norm, top)
        return top

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, scale, norm, top = ctx.saved_tensors
        # Upstream bug, kept: with a scale for each channel, Normalize's gradient is not that of its top unless all
        # scales are equal: the product of bottom and gradient is summed without the scales, and the result multiplied
        # by the scale of the channel (normalize_layer.cpp L175-L219).
        along = (x * gradient).sum(ctx.axes, keepdim=True) / norm.square()
        # Caffe: the gradient of Normalize's scale is divided by the scale, and so is NaN for a scale of 0
        # (normalize_layer.cpp L157-L172).
        product = top * gradient
        summed = product.sum() if scale.dim() == 0 else product.sum([0, *range(2, x.dim())]).view(scale.shape)
        return (gradient - x * along) / norm * scale, summed / scale, None, None, None

"""The layer ROIPooling of Fast R-CNN: max pooling of regions of interest (RoIs) to one size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from reproduction.caffe.dialects.faster_rcnn import FASTER_RCNN
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import nested, single, uint32
from reproduction.caffe.schema.message import Message

_LEAST = -torch.finfo(torch.float32).max  # the value that Caffe's maximum starts at, -FLT_MAX


class ROIPoolingParameter(Message):
    """The fields of ROIPooling layers: the size of the top, and that of the features relative to the image."""

    pooled_h = uint32(1)
    pooled_w = uint32(2)
    spatial_scale = single(3, 1.0)


ROI_POOLING = LayerParameter.add_field("roi_pooling_param", nested(8266711, ROIPoolingParameter), FASTER_RCNN)


def check_rois(rois: Shape) -> int:
    """Return the number of RoIs in a bottom of this shape.

    Raises:
        NetError: If there are not five numbers for each RoI.
    """
    count, *rest = legacy_shape(rois)
    if rest != [5, 1, 1]:
        raise NetError("each RoI is the index of an image and the corners x1, y1, x2, y2", got=rois, want="(R, 5)")
    return count


def image_indices(rois: Tensor, images: int) -> Tensor:
    """Return the index of the image that each of the RoIs (R, 5) lies in, int64.

    Raises:
        NetError: If there is no such image.
    """
    index = rois[:, 0].long()
    outside = index[(index < 0) | (index >= images)]
    if len(outside):
        raise NetError("a RoI lies in an image that is not there", got=int(outside[0]), want=f"0..{images - 1}")
    return index


def round_half_away(x: Tensor) -> Tensor:
    """Round to integers (int64) as C does: halves away from zero. ``torch.round`` rounds halves to even numbers."""
    return (x.double().abs() + 0.5).floor().copysign(x).clamp(-(2**31), 2**31 - 1).long()


@register
class ROIPooling(Layer):
    """Max pooling of each RoI, divided into ``pooled_h`` x ``pooled_w`` bins.

    The corners of a RoI are multiplied by ``spatial_scale``, rounded, and included; a RoI that ends before it starts
    becomes a single pixel. Bins may overlap by a pixel, and are clipped to the features; an empty bin is 0.

    Shapes:
        features  (N, C, H, W)
        rois      (R, 5) or (R, 5, 1, 1)   index of the image, x1, y1, x2, y2 in pixels of the image
        top       (R, C, pooled_h, pooled_w)

    Raises:
        NetError: If ``pooled_h`` or ``pooled_w`` is 0, or a RoI lies in an image that is not there.

    Source: rbgirshick/caffe-fast-rcnn@4115385 src/caffe/layers/roi_pooling_layer.cpp L19-L125,
    roi_pooling_layer.cu L94-L184.
    """

    dialect = FASTER_RCNN
    reads = frozenset({f"roi_pooling_param.{name}" for name in ("pooled_h", "pooled_w", "spatial_scale")})
    bottoms = (2, 2)
    differentiable = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that both sizes of the top are set."""
        param = ROI_POOLING.get(self.layer_param)
        if not param.pooled_h or not param.pooled_w:
            raise NetError("pooled_h and pooled_w must be positive", got=f"{param.pooled_h} and {param.pooled_w}")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: one map of bins for each RoI."""
        param, (_, channels, _, _) = ROI_POOLING.get(self.layer_param), legacy_shape(bottoms[0])
        return [(check_rois(bottoms[1]), channels, param.pooled_h, param.pooled_w)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; the gradient of each of its values goes to the first maximum of the bin."""
        param = ROI_POOLING.get(self.layer_param)
        features = bottoms[0].reshape(legacy_shape(tuple(bottoms[0].shape)))
        rois = bottoms[1].detach().reshape(-1, 5)
        images = image_indices(rois, len(features))
        corners = round_half_away(rois[:, 1:] * param.spatial_scale)
        rows = _Bins(corners[:, 1], corners[:, 3], param.pooled_h, features.shape[2], features.dtype)
        columns = _Bins(corners[:, 0], corners[:, 2], param.pooled_w, features.shape[3], features.dtype)
        return (_ROIPool.apply(features, images, rows, columns),)  # type: ignore[no-untyped-call]

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator MaxRoiPool, whose bins and rounding are the same."""
        param = ROI_POOLING.get(self.layer_param)
        rois = onnx.node("Reshape", bottoms[1], onnx.constant(np.array([-1, 5]), "rows"), step="rois")
        size = [param.pooled_h, param.pooled_w]
        return [onnx.node("MaxRoiPool", bottoms[0], rois, pooled_shape=size, spatial_scale=param.spatial_scale)]


class _Bins:
    """The bins of all RoIs along one axis.

    Attributes:
        start: The first pixel of each RoI, (R, 1).
        end: The last pixel of each RoI, (R, 1); before ``start`` in a malformed one.
        size: The size of a bin, (R, 1).
        first: The first pixel of each bin, (R, bins), clipped to the features.
        last: The pixel after each bin, (R, bins), clipped to the features.
        length: The length of the longest bin of each RoI, (R,).
    """

    def __init__(self, start: Tensor, end: Tensor, bins: int, pixels: int, dtype: torch.dtype):
        self.start, self.end = start[:, None], end[:, None]
        self.size = (self.end - self.start + 1).clamp(min=1).to(dtype) / bins
        index = torch.arange(bins + 1, dtype=dtype, device=start.device)
        self.first = ((index[:-1] * self.size).floor().long() + self.start).clamp(0, pixels)
        self.last = ((index[1:] * self.size).ceil().long() + self.start).clamp(0, pixels)
        self.length = (self.last - self.first).amax(1)

    def pixels(self) -> Tensor:
        """Return the pixels of each bin, (R, bins, longest bin); shorter bins repeat their last pixel."""
        steps = torch.arange(max(1, int(self.length.max())), device=self.first.device)
        return torch.minimum(self.first[..., None] + steps, self.last[..., None] - 1).clamp(min=0)

    def passes_gradient(self, pixels: Tensor) -> Tensor:
        """Return whether the backward pass finds that these pixels, (R, bins, C) along this axis, are in their bins.

        In exact arithmetic it does, unless the RoI is malformed.
        """
        start, end, size = self.start[..., None], self.end[..., None], self.size[..., None]
        offset = (pixels - start).to(size.dtype)
        bins = torch.arange(self.first.shape[1], device=pixels.device)[:, None]
        found = (bins >= (offset / size).floor()) & (bins < ((offset + 1) / size).ceil())
        return found & (pixels >= start) & (pixels <= end)


class _ROIPool(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, images: Tensor, rows: _Bins, columns: _Bins) -> Tensor:
        count, (_, channels, _, width) = len(images), features.shape
        tall, wide = rows.first.shape[1], columns.first.shape[1]
        table = features.permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        # Caffe: a NaN or -infinity in the features is skipped, as its comparison with -FLT_MAX is false.
        table = table.nan_to_num(nan=_LEAST, posinf=torch.inf, neginf=_LEAST)
        top = features.new_zeros(count, tall * wide, channels)
        best = torch.full(top.shape, -1, device=top.device) if ctx.needs_input_grad[0] else None
        if count:
            lengths = zip(images.tolist(), rows.length.tolist(), columns.length.tolist(), strict=True)
            ys, xs = rows.pixels()[:, :, None, :, None] * width, columns.pixels()[:, None, :, None, :]
            for index, (image, height, length) in enumerate(lengths):
                if height < 1 or length < 1:
                    continue
                cells = (ys[index, ..., :height, :] + xs[index, ..., :length]).reshape(tall * wide, -1)
                values = table[image].index_select(0, cells.flatten()).view(*cells.shape, channels)
                if best is None:
                    torch.amax(values, 1, out=top[index])
                else:
                    top[index], which = values.max(1)
                    best[index] = cells.gather(1, which)
        filled = (rows.last > rows.first)[:, :, None] & (columns.last > columns.first)[:, None, :]
        empty = ~filled.reshape(count, -1, 1)
        top.masked_fill_(empty, 0)
        if best is not None:
            best.masked_fill_(empty | (top <= _LEAST), -1)
            ctx.save_for_backward(images, best)
            ctx.bins, ctx.shape = (rows, columns), features.shape
        return top.mT.reshape(count, channels, tall, wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        images, best = ctx.saved_tensors
        (rows, columns), (_, channels, height, width) = ctx.bins, ctx.shape
        shape = (len(best), rows.first.shape[1], columns.first.shape[1], channels)
        # Upstream bug, kept: no gradient passes to a RoI that ends before it starts, of which the forward pass has
        # pooled a pixel, nor to a pixel that only the forward pass rounds into a bin (roi_pooling_layer.cu L123-L163).
        y, x = best.div(width, rounding_mode="floor").view(shape), best.remainder(width).view(shape)
        passed = rows.passes_gradient(y.flatten(2)).view(shape)
        passed &= (
            columns.passes_gradient(x.transpose(1, 2).flatten(2))
            .view(len(best), shape[2], shape[1], channels)
            .transpose(1, 2)
        )
        passed &= best.view(shape) >= 0
        cells = (images[:, None, None] * (height * width) + best.clamp(min=0)) * channels
        cells = cells + torch.arange(channels, device=cells.device)
        values = (gradient.permute(0, 2, 3, 1) * passed).flatten()
        found = gradient.new_zeros(ctx.shape[0] * height * width * channels).index_add_(0, cells.flatten(), values)
        return found.view(ctx.shape[0], height, width, channels).permute(0, 3, 1, 2), None, None, None

"""The layer PSROIPooling of R-FCN: position-sensitive average pooling of regions of interest (RoIs)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.faster_rcnn.roi_pooling import check_rois, image_indices, round_half_away
from reproduction.caffe.dialects.rfcn import RFCN
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive, legacy_shape
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import Field, nested, single
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32


class PSROIPoolingParameter(Message):
    """The fields of PSROIPooling layers, all required: the channels of the top and its width, which is its height."""

    spatial_scale = single(1, required=True)
    output_dim: Field[int] = Field(2, kind=INT32, required=True)
    group_size: Field[int] = Field(3, kind=INT32, required=True)


PSROI_POOLING = LayerParameter.add_field("psroi_pooling_param", nested(10001, PSROIPoolingParameter), RFCN)


@register
class PSROIPooling(Layer):
    """Average pooling of each RoI, divided into g x g bins, each of which has its own features.

    Bin (i, j) of channel c is the mean of channel ``(c g + i) g + j`` of the features. The corners of a RoI are rounded
    and then multiplied by ``spatial_scale``, so that it may start between pixels; it is at least 0.1 pixels wide and
    high. A bin covers every pixel that it touches, and is clipped to the features; an empty one is 0.

    Shapes:
        features  (N, D g g, H, W)         D = output_dim, g = group_size
        rois      (R, 5) or (R, 5, 1, 1)   index of the image, x1, y1, x2, y2 in pixels of the image
        top       (R, D, g, g)

    Raises:
        NetError: If a setting is missing or not positive, the number of channels does not fit, or a RoI lies in an
            image that is not there.

    Source: daijifeng001/caffe-rfcn@543f8f6 src/caffe/layers/psroi_pooling_layer.cpp L22-L50,
    psroi_pooling_layer.cu L18-L190.
    """

    dialect = RFCN
    reads = frozenset({f"psroi_pooling_param.{name}" for name in ("spatial_scale", "output_dim", "group_size")})
    bottoms = (2, 2)
    differentiable = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings."""
        param = PSROI_POOLING.get(self.layer_param)
        for name in PSROIPoolingParameter.required:
            if not param.has(name):
                raise NetError(f"psroi_pooling_param.{name} is missing")
        check_positive(param, "output_dim", "group_size")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: one map of bins for each RoI."""
        param, (_, channels, _, _) = PSROI_POOLING.get(self.layer_param), legacy_shape(bottoms[0])
        want = param.output_dim * param.group_size**2
        if channels != want:
            raise NetError("the channels must be output_dim * group_size * group_size", got=channels, want=want)
        return [(check_rois(bottoms[1]), param.output_dim, param.group_size, param.group_size)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the means of the bins."""
        param = PSROI_POOLING.get(self.layer_param)
        shape = legacy_shape(tuple(bottoms[0].shape))
        rois = bottoms[1].detach().reshape(-1, 5)
        images, size = image_indices(rois, shape[0]), param.group_size
        corners = round_half_away(rois[:, 1:]).to(rois.dtype)
        starts, ends = corners[:, :2] * param.spatial_scale, (corners[:, 2:] + 1) * param.spatial_scale
        left, right = _bins(starts[:, 0], ends[:, 0], size, shape[3])
        above, below = _bins(starts[:, 1], ends[:, 1], size, shape[2])
        # The sum over a rectangle is the sum of four values of an integral image, in double precision, as the
        # differences of large sums would lose digits.
        sums = F.pad(bottoms[0].reshape(shape).double().cumsum(2).cumsum(3), (1, 0, 1, 0))
        sums = sums.reshape(shape[0], param.output_dim, size, size, shape[2] + 1, shape[3] + 1)
        bins = torch.arange(size, device=rois.device)
        place = (images[:, None, None], slice(None), bins[:, None], bins)
        above, below, left, right = above[:, :, None], below[:, :, None], left[:, None, :], right[:, None, :]
        total = sums[*place, below, right] - sums[*place, above, right]
        total = total - sums[*place, below, left] + sums[*place, above, left]
        area = (below - above) * (right - left)
        mean = torch.where((area > 0)[..., None], total / area.clamp(min=1)[..., None], 0.0)
        return (mean.permute(0, 3, 1, 2).to(bottoms[0].dtype).contiguous(),)


def _bins(start: Tensor, end: Tensor, bins: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Return the first pixel of each bin and the one after it, (R, bins) each, clipped to the features."""
    size = ((end - start).double().clamp(min=0.1).to(start.dtype) / bins)[:, None]
    index = torch.arange(bins + 1, dtype=start.dtype, device=start.device)
    first = (index[:-1] * size + start[:, None]).floor()
    last = (index[1:] * size + start[:, None]).ceil()
    first, last = (side.clamp(0, pixels).long() for side in (first, last))
    return first, torch.maximum(first, last)

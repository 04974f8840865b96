"""The layer BoxAnnotatorOHEM of R-FCN, for online hard example mining (OHEM)."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduction.caffe.dialects.faster_rcnn.roi_pooling import image_indices
from reproduction.caffe.dialects.rfcn import RFCN
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import Field, int32, nested
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32


class BoxAnnotatorOHEMParameter(Message):
    """The fields of BoxAnnotatorOHEM layers: how many RoIs of an image are learned, and the label of the others."""

    roi_per_img: Field[int] = Field(1, kind=UINT32, required=True)
    ignore_label = int32(2, -1)


BOX_ANNOTATOR = LayerParameter.add_field("box_annotator_ohem_param", nested(10000, BoxAnnotatorOHEMParameter), RFCN)


@register
class BoxAnnotatorOHEM(Layer):
    """Choose the ``roi_per_img`` RoIs of each image with the largest losses; only these are learned.

    Their labels and weights are copied; the other RoIs get ``ignore_label`` and weights of 0. Of equal losses, the
    first is chosen; the fork leaves that open.

    Shapes:
        rois     (R, 5, 1, 1)   index of the image, and four more values
        losses   (R, 1, 1, 1)
        labels   (R, 1, 1, 1)
        weights  (R, K, 1, 1)   of the regression of boxes
        top 0    (R, 1, 1, 1)   the labels
        top 1    (R, K, 1, 1)   the weights

    Raises:
        NetError: If ``roi_per_img`` is missing or 0, or the bottoms do not fit each other.

    Source: daijifeng001/caffe-rfcn@543f8f6 src/caffe/layers/box_annotator_ohem_layer.cpp L26-L63,
    box_annotator_ohem_layer.cu L19-L70.
    """

    dialect = RFCN
    reads = frozenset({"box_annotator_ohem_param.roi_per_img", "box_annotator_ohem_param.ignore_label"})
    bottoms = (4, 4)
    tops = (2, 2)
    differentiable = ()

    def setup(self, bottoms: list[Shape]) -> None:
        """Check ``roi_per_img``."""
        if BOX_ANNOTATOR.get(self.layer_param).roi_per_img < 1:
            raise NetError("roi_per_img must be set and positive", got=BOX_ANNOTATOR.get(self.layer_param).roi_per_img)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the labels and of the weights."""
        rois, losses, labels, weights = map(legacy_shape, bottoms)
        num, _, height, width = rois
        if rois[1] != 5:
            raise NetError("there must be five values for each RoI", got=bottoms[0], want="(R, 5, 1, 1)")
        for index, shape in enumerate((losses, labels, (weights[0], 1, *weights[2:])), 1):
            if shape != (num, 1, height, width):
                raise NetError(f"bottom {index} does not fit the RoIs", got=bottoms[index], want=f"(R, ...), R = {num}")
        return [labels, weights]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the labels and weights of the RoIs that were chosen."""
        rois, losses, labels, weights = (x.detach().reshape(legacy_shape(tuple(x.shape))) for x in bottoms)
        images = image_indices(rois[:, :1].flatten()[:, None], 2**31)
        order = losses.flatten().sort(descending=True, stable=True).indices
        by_image = order[images[order].sort(stable=True).indices]
        counts = torch.unique_consecutive(images[by_image], return_counts=True)[1]
        begins = (counts.cumsum(0) - counts).repeat_interleave(counts)
        rank = torch.arange(len(by_image), device=by_image.device) - begins
        chosen = torch.zeros(losses.numel(), dtype=torch.bool, device=losses.device)
        chosen[by_image] = rank < BOX_ANNOTATOR.get(self.layer_param).roi_per_img
        chosen = chosen.view(losses.shape)
        ignore = torch.full_like(labels, BOX_ANNOTATOR.get(self.layer_param).ignore_label)
        return torch.where(chosen, labels, ignore), torch.where(chosen, weights, 0)

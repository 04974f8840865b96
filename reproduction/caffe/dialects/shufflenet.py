"""ShuffleNet: channels are shuffled between the groups of two grouped convolutions."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter, add_dialect
from reproduction.caffe.schema.field import nested, uint32
from reproduction.caffe.schema.message import Message

SHUFFLENET = add_dialect("shufflenet", "ShuffleNet", "farmingyard/ShuffleNet@b962444", 2017)


class ShuffleChannelParameter(Message):
    """The field of ShuffleChannel layers: the number of groups."""

    group = uint32(1, 1)


SHUFFLE_CHANNEL = LayerParameter.add_field("shuffle_channel_param", nested(164, ShuffleChannelParameter), SHUFFLENET)


@register
class ShuffleChannel(Layer):
    """Reorder the channels: those of ``group`` groups are interleaved, as in a transposed matrix of channels.

    Shapes:
        bottom  (N, C, H, W), where C is a multiple of ``group``
        top     as the bottom

    Raises:
        NetError: If ``group`` is 0 or does not divide the number of channels.

    Source: farmingyard/ShuffleNet@b962444 shuffle_channel_layer.cpp L8-L96.
    """

    dialect = SHUFFLENET
    reads = frozenset({"shuffle_channel_param.group"})
    keeps_coordinates = True
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the number of groups."""
        self.groups = SHUFFLE_CHANNEL.get(self.layer_param).group
        self.channels = bottoms[0][1] if len(bottoms[0]) > 1 else 1
        if self.groups == 0:
            raise NetError("group must be positive", got=self.groups)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top, that of the bottom."""
        if len(bottoms[0]) < 2 or bottoms[0][1] % self.groups:
            raise NetError("group does not divide the channels", got=bottoms[0], want=f"a multiple of {self.groups}")
        return [bottoms[0]]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the bottom with its channels reordered."""
        images, channels, *sizes = bottoms[0].shape
        grouped = bottoms[0].reshape(images, self.groups, channels // self.groups, *sizes)
        return (grouped.transpose(1, 2).reshape(bottoms[0].shape),)

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm:
        """Return a ``PointwiseForm``: pixels stay where they are."""
        return PointwiseForm()

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add Gather with the order of the channels."""
        order = np.arange(self.channels).reshape(self.groups, -1).T.reshape(-1)
        return [onnx.node("Gather", *bottoms, onnx.constant(order, "order"), axis=1)]

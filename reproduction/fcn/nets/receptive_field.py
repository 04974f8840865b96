"""The numbers in the paper's Table 1, computed from a net's prototxt: parameters, receptive field, stride."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase


@dataclass(frozen=True)
class NetFigures:
    """The numbers that Table 1 of the paper states of a net: its size, receptive field and stride.

    Attributes:
        parameters: Number of weights and biases of all layers.
        learned: Number of those that are trained, whose ``lr_mult`` is not 0: without the fixed upsampling.
        convolutions: Number of Convolution layers.
        depth: Number of Convolution layers on the longest path from an input to an output; Table 1's "conv. layers". In
            a net without branches it is ``convolutions``.
        receptive_field: The largest receptive field of any blob before the first upsampling, in input pixels along the
            height.
        max_stride: The largest stride of any such blob, in input pixels along the height.
    """

    parameters: int
    learned: int
    convolutions: int
    depth: int
    receptive_field: int
    max_stride: int


@dataclass(frozen=True)
class _Field:
    """The receptive field and stride of a blob in input pixels, and what lies between the input and the blob.

    Attributes:
        size: Number of input pixels along the height that a value of the blob depends on.
        stride: Number of input pixels from one value of the blob to the next.
        depth: Number of Convolution layers on the longest path from an input.
        upsampled: Whether the blob follows an upsampling.
    """

    size: int = 1
    stride: int = 1
    depth: int = 0
    upsampled: bool = False


def compute_net_figures(net: NetParameter | Net) -> NetFigures:
    """Compute the numbers that Table 1 states of a net, from its prototxt.

    Args:
        net: The net: a prototxt whose inputs are Input layers, or a net of any inputs, perhaps on the device ``meta``.

    Raises:
        NetError: If Caffe would reject the net, or a layer's tops have no coordinates in its bottoms.

    Source: Long, Shelhamer and Darrell, CVPR 2015, Table 1 (rf and max stride of the last convolution).
    """
    if isinstance(net, NetParameter):
        with torch.device("meta"):  # weights without memory
            net = Net(net, Phase.TEST)
    fields: dict[str, _Field] = {}
    for node in net.graph.nodes:
        layer = net.layer_at(node)
        if layer is not None and layer.is_loss:
            continue  # it has no place in the image, and no layer reads it
        fields.update(dict.fromkeys(node.tops, _find_field(layer, node, fields) if layer else _Field()))
    coarse = [field for field in fields.values() if not field.upsampled]
    return NetFigures(
        sum(blob.numel() for blob in net.parameters()),
        sum(blob.numel() for blob in net.parameters() if blob.requires_grad),
        sum(node.type == "Convolution" for node in net.graph.nodes),
        max((field.depth for field in fields.values()), default=0),
        max((field.size for field in coarse), default=1),
        max((field.stride for field in coarse), default=1),
    )


def _find_field(layer: Layer, node: Node, fields: dict[str, _Field]) -> _Field:
    """Return the field of a layer's tops: the largest of its bottoms', extended by its window along the height."""
    between = layer.coord_map(node.layer_param)
    if between is None:
        raise NetError("these figures do not cover this layer").at(node.layer_param.place)
    window = layer.sliding_windows(node.layer_param)[0]
    bottoms = [fields[bottom] for bottom in node.bottoms[: layer.located_bottoms]]
    size, stride = max(bottom.size for bottom in bottoms), max(bottom.stride for bottom in bottoms)
    depth = max(bottom.depth for bottom in bottoms) + (node.type == "Convolution")
    upsampled = between.scale[0] > 1 or any(bottom.upsampled for bottom in bottoms)
    return _Field(size + stride * (window.extent - 1), stride * window.stride, depth, upsampled)

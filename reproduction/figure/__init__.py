"""Architecture figures of nets, drawn from their prototxts: SVG with a lane for each resolution.

The net's path falls from lane to lane where the resolution is halved, and rises where scores are upsampled; what is on
one lane has one resolution. Equal layers in sequence are drawn side by side with one caption.
"""

from __future__ import annotations

from collections.abc import Mapping

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net.net import Net
from reproduction.caffe.net.net_info import build_without_values
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.nets import registry
from reproduction.fcn.nets.receptive_field import compute_net_figures
from reproduction.figure.layout import find_drawing
from reproduction.figure.parts import find_parts
from reproduction.figure.shapes import Drawing
from reproduction.figure.svg import format_svg

SIDE = 500  # height and width of the images of a net that reads its own data

_LEGEND = (
    ("conv", "convolution"),
    ("pool", "pooling"),
    ("module", "module of parallel branches"),
    ("score", "score map: a channel for each class"),
    ("up", "upsampling"),
    ("", "channels \N{MULTIPLICATION SIGN} height \N{MULTIPLICATION SIGN} width"),
    ("crop", "crop: offset in pixels"),
)


def draw_net(net_param: NetParameter, side: int = SIDE, inputs: Mapping[str, Shape] | None = None) -> str:
    """Return the architecture figure of a net as the text of an SVG file.

    The file has the colours of light and of dark pages, and follows those of the page that shows it.

    Args:
        net_param: The net; its figure shows phase TEST, with the losses that it has there.
        side: Height and width of the images, for which sizes are shown, if the net does not set them.
        inputs: The shapes of the inputs, if they are known; else they are guessed from ``side``.

    Raises:
        NetError: If Caffe would reject the net.
    """
    title = net_param.name or "net"
    return format_svg(find_net_drawing(net_param, side, inputs), f"The architecture of {title}")


def find_net_drawing(net_param: NetParameter, side: int = SIDE, inputs: Mapping[str, Shape] | None = None) -> Drawing:
    """Return the shapes of the figure of a net; see ``draw_net``."""
    net, _ = build_without_values(net_param, side, inputs)
    parts = find_parts(net)
    kinds = {"", *(part.kind for part in parts)}
    kinds |= {step.kind for part in parts for wire in part.wires for step in wire.steps}
    legend = [(style, text) for style, text in _LEGEND if style in kinds]
    return find_drawing(parts, net_param.name or "net", _describe(net), legend)


def load_training_net(record: NetRecord, side: int | None = None) -> tuple[NetParameter, dict[str, Shape]]:
    """Load the training net of a record, named, and return it with the shapes of its inputs.

    Args:
        record: The record of a net of this project.
        side: Height and width of the images; None for those that its deploy net declares.
    """
    net_param = registry.load_net(record.name, f"{record.dataset.train.file}.prototxt")
    net_param.name = record.name
    declared = registry.load_net(record.name).layer[0]
    side = side or declared.input_param.shape[0].dim[2]
    inputs: dict[str, Shape] = {
        top: (1, shape.dim[1], side, side) for top, shape in zip(declared.top, declared.input_param.shape, strict=True)
    }
    labels = side - side % -record.framing.multiple + 2 * record.framing.margin
    return net_param, inputs | {head.label: (1, 1, labels, labels) for head in record.heads}


def _describe(net: Net) -> str:
    """Return the numbers of Table 1 as text, or the number of parameters if a layer has no place in the image."""
    try:
        found = compute_net_figures(net)
    except NetError:
        return f"{sum(blob.numel() for blob in net.parameters()):,} parameters"
    return (
        f"{found.learned:,} learned parameters; receptive field {found.receptive_field} px; stride {found.max_stride}"
    )

"""Write a net as the two files that ncnn reads: a text of layers, and the bytes of their weights.

Each line of the text is a layer: type, name, the number of bottoms and of tops, their names, and numbered parameters.
The bytes are the weights of the layers in order; a tag of zero (32-bit floats follow) precedes the weights of each
convolution. As in ncnn's optimiser, a ReLU becomes a parameter of the convolution before it, and Dropout, which does
nothing at test time, is omitted.

Source: Tencent/ncnn, docs/developer-guide/param-and-model-file-structure.md and operation-param-weight-table.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.caffe.errors import NetError
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import EltwiseOp, PoolMethod

MAGIC = "7767517"
FLOATS = np.zeros(1, "<i4")  # the tag: 32-bit floats follow


@dataclass
class Line:
    """One layer of the text.

    Attributes:
        type: ncnn's name of the layer type.
        name: Name of the layer.
        bottoms: Names of the input blobs.
        tops: Names of the output blobs.
        params: Parameters by number; strings are templates for ``str.format``, with ``height`` and ``width``.
        weights: Arrays for the file of bytes, in order.
    """

    type: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: dict[int, Any]
    weights: list[np.ndarray[Any, Any]]

    def __str__(self) -> str:
        """Format the layer as a line."""
        params = (f"{number}={value}" for number, value in self.params.items())
        counts = (str(len(self.bottoms)), str(len(self.tops)))
        return " ".join([self.type, self.name, *counts, *self.bottoms, *self.tops, *params])


def write(net: Net, path: str) -> None:
    """Write a net for ncnn.

    Args:
        net: The net with its weights; its input is ``data``.
        path: Path of the text, a template for ``str.format`` with the image's ``height`` and ``width``. The bytes go to
            a file of the same name that ends in .bin.

    Raises:
        NetError: If a layer cannot be expressed in ncnn.
    """
    lines: list[Line] = []
    for node in net.graph.nodes:
        if node.type == "Dropout" and node.bottoms == node.tops:
            continue
        if node.type == "ReLU" and lines[-1].type == "Convolution" and lines[-1].tops == node.bottoms == node.tops:
            lines[-1].params[9] = 1
            continue
        if node.type not in FORMS:
            raise NetError(f"type {node.type!r} cannot be written for ncnn", layer=node.name)
        lines.append(FORMS[node.type](net, node))
    blobs = sum(len(line.tops) for line in lines)
    Path(path).write_text("\n".join([MAGIC, f"{len(lines)} {blobs}", *map(str, lines)]) + "\n")
    with Path(path).with_suffix(".bin").open("wb") as file:
        for line in lines:
            for array in line.weights:
                file.write(array.tobytes())


def _line(node: Node, params: dict[int, Any], *weights: np.ndarray[Any, Any]) -> Line:
    return Line(node.type, node.name, node.bottoms, node.tops, params, list(weights))


def _arrays(net: Net, node: Node) -> list[np.ndarray[Any, Any]]:
    return [blob.detach().numpy().astype("<f4", copy=False) for blob in net.params[node.name]]


def _windowed(net: Net, node: Node) -> Line:
    """Convert a Convolution or Deconvolution.

    The first axis of ncnn's kernels is the output channels; that of Caffe's Deconvolution is the input channels.
    """
    kernel, *bias = _arrays(net, node)
    if node.layer_param.convolution_param.group != 1:
        raise NetError("groups cannot be written for ncnn", layer=node.name)
    if node.type == "Deconvolution":
        kernel = kernel.swapaxes(0, 1)
    vertical, horizontal = net.layers[node.name].windows
    params = {0: len(kernel), 1: horizontal.kernel, 11: vertical.kernel, 2: horizontal.dilation, 12: vertical.dilation}
    params |= {3: horizontal.stride, 13: vertical.stride, 4: horizontal.pad, 14: vertical.pad}
    return _line(node, params | {5: len(bias), 6: kernel.size}, FLOATS, np.ascontiguousarray(kernel), *bias)


def _pooling(net: Net, node: Node) -> Line:
    param = node.layer_param.pooling_param
    if param.pool is not PoolMethod.MAX or param.pad:
        raise NetError("this pooling cannot be written for ncnn", layer=node.name)
    return _line(node, {0: 0, 1: param.kernel_size, 2: param.stride, 5: 0})  # 5=0: round sizes up, as Caffe does


def _crop(net: Net, node: Node) -> Line:
    """Convert a Crop to the size of its second bottom.

    ncnn would also crop the channels to those of the input; for a crop to ``data``, the line has the height and width.
    """
    offset = node.layer_param.crop_param.offset[0]
    params: dict[int, Any] = {0: offset, 1: offset, 2: 0}
    if not node.bottoms[1].startswith("data"):
        return _line(node, params)
    line = _line(node, params | {3: "{width}", 4: "{height}", 5: -233})  # -233: keep all channels
    line.bottoms = node.bottoms[:1]
    return line


def _sum(net: Net, node: Node) -> Line:
    param = node.layer_param.eltwise_param
    if param.operation is not EltwiseOp.SUM or param.coeff:
        raise NetError("this operation cannot be written for ncnn", layer=node.name)
    return _line(node, {0: 1})


FORMS: dict[str, Callable[[Net, Node], Line]] = {
    "Input": lambda net, node: _line(node, {}),
    "Split": lambda net, node: _line(node, {}),
    "ReLU": lambda net, node: _line(node, {}),
    "Convolution": _windowed,
    "Deconvolution": _windowed,
    "Pooling": _pooling,
    "Crop": _crop,
    "Eltwise": _sum,
}

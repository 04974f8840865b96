"""A net as the two files that ncnn reads: layers as text, weights as bytes.

Each line of the text is a layer: type, name, the number of bottoms and of tops, their names, and numbered parameters.
The bytes are the weights of the layers in order, a tag of zero (32-bit floats follow) before the first of each
convolution's. As ncnn's own optimiser does, a ReLU becomes a parameter of the convolution before it, and dropout, which
does nothing in testing, is left out.

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
FLOATS = np.zeros(1, "<i4")  # the tag


@dataclass
class Line:
    """One layer of the text.

    Attributes:
        type: as ncnn calls it.
        name: of the layer.
        bottoms: names of blobs.
        tops: names of blobs.
        params: by their numbers; text is for ``str.format``, with the height and width of the image.
        weights: what the bytes have of it, in order.
    """

    type: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    params: dict[int, Any]
    weights: list[np.ndarray[Any, Any]]

    def __str__(self) -> str:
        """Format the line."""
        params = (f"{number}={value}" for number, value in self.params.items())
        counts = (str(len(self.bottoms)), str(len(self.tops)))
        return " ".join([self.type, self.name, *counts, *self.bottoms, *self.tops, *params])


def write(net: Net, path: str) -> None:
    """Write a net for ncnn.

    Args:
        net: with its weights; its input is ``data``.
        path: of the text, a template for ``str.format`` with ``height`` and ``width``; the bytes go to a file of the
            same name that ends in .bin.

    Raises:
        NetError: a layer that has no form here.
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
    """Convolution or Deconvolution; ncnn has the output channels of both first, Caffe of the former alone."""
    kernel, *bias = _arrays(net, node)
    if node.spec.convolution_param.group != 1:
        raise NetError("groups cannot be written for ncnn", layer=node.name)
    if node.type == "Deconvolution":
        kernel = kernel.swapaxes(0, 1)
    vertical, horizontal = net.layers[node.name].windows
    params = {0: len(kernel), 1: horizontal.kernel, 11: vertical.kernel, 2: horizontal.dilation, 12: vertical.dilation}
    params |= {3: horizontal.stride, 13: vertical.stride, 4: horizontal.pad, 14: vertical.pad}
    return _line(node, params | {5: len(bias), 6: kernel.size}, FLOATS, np.ascontiguousarray(kernel), *bias)


def _pooling(net: Net, node: Node) -> Line:
    param = node.spec.pooling_param
    if param.pool is not PoolMethod.MAX or param.pad:
        raise NetError("this pooling cannot be written for ncnn", layer=node.name)
    return _line(node, {0: 0, 1: param.kernel_size, 2: param.stride, 5: 0})  # 5=0: sizes are rounded up


def _crop(net: Net, node: Node) -> Line:
    """Crop as the second bottom; ncnn would take its channels too, so that the input's height and width are written."""
    offset = node.spec.crop_param.offset[0]
    params: dict[int, Any] = {0: offset, 1: offset, 2: 0}
    if not node.bottoms[1].startswith("data"):
        return _line(node, params)
    line = _line(node, params | {3: "{width}", 4: "{height}", 5: -233})  # -233: all
    line.bottoms = node.bottoms[:1]
    return line


def _sum(net: Net, node: Node) -> Line:
    param = node.spec.eltwise_param
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

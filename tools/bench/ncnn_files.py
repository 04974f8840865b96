"""Write a net as the two files that ncnn reads: a text of layers, and the bytes of their weights.

Each line of the text is a layer: type, name, the number of bottoms and of tops, their names, and numbered parameters.
The bytes are the weights of the layers in order; a tag of zero (32-bit floats follow) precedes the weights of each
convolution. As in ncnn's optimiser, BatchNorm, Scale and ReLU become part of the convolution before them, and Dropout,
which does nothing at test time, is omitted.

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
from reproduction.caffe.schema import EltwiseOp, NormRegion, PoolMethod, RoundMode

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
        follows = lines and node.bottoms == lines[-1].tops
        if node.type == "Dropout" and node.bottoms == node.tops:
            continue
        if node.type == "ReLU" and follows and lines[-1].type in _WEIGHTED and not _slope(node):
            lines[-1].params[9] = 1
            lines[-1].tops = node.tops
            continue
        if node.type in AFFINE:
            factor, offset = AFFINE[node.type](net, node)
            if not (follows and lines[-1].type in _WEIGHTED and 9 not in lines[-1].params):
                zeros, ones = np.zeros_like(factor), np.ones_like(factor)
                params = {0: factor.size, 1: 0}
                weights = [factor, zeros, ones, offset]  # slope, mean, variance, bias
                lines.append(Line("BatchNorm", node.name, node.bottoms, node.tops, params, weights))
            else:
                _fold(lines[-1], factor, offset)
                lines[-1].tops = node.tops
            continue
        if node.type not in FORMS:
            raise NetError(f"type {node.type!r} cannot be written for ncnn", layer=node.name)
        lines.append(FORMS[node.type](net, node))
    _name_versions(lines)
    blobs = sum(len(line.tops) for line in lines)
    Path(path).write_text("\n".join([MAGIC, f"{len(lines)} {blobs}", *map(str, lines)]) + "\n")
    with Path(path).with_suffix(".bin").open("wb") as file:
        for line in lines:
            for array in line.weights:
                file.write(array.tobytes())


def _name_versions(lines: list[Line]) -> None:
    """Rename the values of blobs that are overwritten in place, so that each name stands for one; the last keeps it."""
    last = {top: index for index, line in enumerate(lines) for top in line.tops}
    names: dict[str, str] = {}
    for index, line in enumerate(lines):
        line.bottoms = tuple(names.get(bottom, bottom) for bottom in line.bottoms)
        names |= {top: top if last[top] == index else f"{top}_{index}" for top in line.tops}
        line.tops = tuple(names[top] for top in line.tops)


def _line(node: Node, params: dict[int, Any], *weights: np.ndarray[Any, Any]) -> Line:
    return Line(node.type, node.name, node.bottoms, node.tops, params, list(weights))


def _arrays(net: Net, node: Node) -> list[np.ndarray[Any, Any]]:
    return [blob.detach().numpy().astype("<f4", copy=False) for blob in net.params[node.name]]


def _affine_of_statistics(net: Net, node: Node) -> tuple[Any, Any]:
    """Return factor and offset of BatchNorm with stored statistics."""
    mean, variance, count = _arrays(net, node)
    scale = 1 / count[0] if count[0] else 0
    factor = 1 / np.sqrt(variance * scale + node.layer_param.batch_norm_param.eps)
    return factor, -mean * scale * factor


def _affine_of_scale(net: Net, node: Node) -> tuple[Any, Any]:
    """Return factor and offset of Scale along the channels."""
    factor, *offset = _arrays(net, node)
    return factor, offset[0] if offset else np.zeros_like(factor)


def _affine_of_bn(net: Net, node: Node) -> tuple[Any, Any]:
    """Return factor and offset of BN: PSPNet's has slope, bias, mean and variance, SegNet's scale and shift."""
    slope, bias, *stored = (array.ravel() for array in _arrays(net, node))
    if not stored:
        return slope, bias
    factor = slope / np.sqrt(stored[1] + node.layer_param.bn_param.eps)  # type: ignore[attr-defined]  # of PSPNet's fork
    return factor, bias - stored[0] * factor


def _fold(line: Line, factor: Any, offset: Any) -> None:
    """Multiply the outputs of a layer with weights by ``factor``, (C,), and add ``offset``."""
    tag, kernel, *bias = line.weights
    kernel = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    line.weights = [tag, kernel, (bias[0] * factor if bias else 0) + offset]
    line.weights = [np.ascontiguousarray(array, array.dtype if array is tag else "<f4") for array in line.weights]
    line.params[1 if line.type == "InnerProduct" else 5] = 1


def _slope(node: Node) -> float:
    return float(node.layer_param.relu_param.negative_slope)


def _windowed(net: Net, node: Node) -> Line:
    """Convert a Convolution or Deconvolution.

    The first axis of ncnn's kernels is the output channels; that of Caffe's Deconvolution is the input channels.
    """
    kernel, *bias = _arrays(net, node)
    group = node.layer_param.convolution_param.group
    if node.type == "Deconvolution":
        if group != 1:
            raise NetError("groups of a Deconvolution cannot be written for ncnn", layer=node.name)
        kernel = kernel.swapaxes(0, 1)
    vertical, horizontal = net.layers[node.name].windows
    params = {0: len(kernel), 1: horizontal.kernel, 11: vertical.kernel, 2: horizontal.dilation, 12: vertical.dilation}
    params |= {3: horizontal.stride, 13: vertical.stride, 4: horizontal.pad, 14: vertical.pad}
    line = _line(node, params | {5: len(bias), 6: kernel.size}, FLOATS, np.ascontiguousarray(kernel), *bias)
    if group != 1:
        line.type, line.params[7] = "ConvolutionDepthWise", group
    return line


def _dense(net: Net, node: Node) -> Line:
    kernel, *bias = _arrays(net, node)
    return _line(node, {0: len(kernel), 1: len(bias), 2: kernel.size}, FLOATS, kernel, *bias)


def _pooling(net: Net, node: Node) -> Line:
    param = node.layer_param.pooling_param
    if param.pool not in (PoolMethod.MAX, PoolMethod.AVE) or len(node.tops) > 1:
        raise NetError("this pooling cannot be written for ncnn", layer=node.name)
    average = param.pool is PoolMethod.AVE
    if param.global_pooling:
        return _line(node, {0: int(average), 4: 1})
    params = {0: int(average), 1: param.kernel_size, 2: param.stride, 3: param.pad}
    params[5] = int(param.round_mode is RoundMode.FLOOR)  # 0: round sizes up, as Caffe does
    return _line(node, params | ({6: 1} if average else {}))  # 6=1: padding counts in the mean


def _lrn(net: Net, node: Node) -> Line:
    param = node.layer_param.lrn_param
    within = param.norm_region is NormRegion.WITHIN_CHANNEL
    return _line(node, {0: int(within), 1: param.local_size, 2: param.alpha, 3: param.beta, 4: param.k})


def _interp(net: Net, node: Node) -> Line:
    height, width = net.blob_shapes[node.tops[0]][2:]
    return _line(node, {0: 2, 3: height, 4: width, 6: 1})  # bilinear, with aligned corners


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
    "ReLU": lambda net, node: _line(node, {0: _slope(node)} if _slope(node) else {}),
    "InnerProduct": _dense,
    "LRN": _lrn,
    "Concat": lambda net, node: _line(node, {}),
    "Softmax": lambda net, node: _line(node, {}),
    "Interp": _interp,
    "Convolution": _windowed,
    "Deconvolution": _windowed,
    "Pooling": _pooling,
    "Crop": _crop,
    "Eltwise": _sum,
}
#: The layers that multiply each channel by a factor and add an offset; both are returned, (C,) float32.
AFFINE: dict[str, Callable[[Net, Node], tuple[Any, Any]]] = {
    "BatchNorm": _affine_of_statistics, "Scale": _affine_of_scale, "BN": _affine_of_bn
}  # fmt: skip
_WEIGHTED = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "InnerProduct")

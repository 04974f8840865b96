"""Export a net as ONNX: each layer becomes the equivalent operators, for any batch size, height and width.

Nothing is traced: the operators are written from the net's graph with the names of its blobs, and contain no image
size. The results of ONNX Runtime differ from those of the module by rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.onnx_graph import OnnxGraph, OnnxLayer
from reproduction.caffe.net.graph import layer_place
from reproduction.caffe.net.net import Net

__all__ = ["OnnxGraph", "add_layers"]


def add_layers(net: Net, graph: OnnxGraph, inputs: Mapping[str, str], blobs: Iterable[str]) -> dict[str, str]:
    """Add the layers that the given blobs need to an ONNX graph.

    Args:
        net: The net, in phase TEST.
        graph: The graph that the operators are added to.
        inputs: For each input of the net, the name of its value in the graph, which is float32, ``(N, C, H, W)``.
        blobs: Names of the blobs to compute.

    Returns:
        For each requested blob, the name of its value in the graph.

    Raises:
        NetError: If a layer or one of its fields has no equivalent in ONNX, if an input is missing, or if the net has
            no such blob.
    """
    wanted = list(blobs)
    values = dict(inputs)
    for node in net.graph.find_needed(wanted):
        layer = net.layer_at(node)
        if layer is None:
            if missing := [top for top in node.tops if top not in values]:
                raise NetError(f"input {missing[0]!r} is missing", got=sorted(inputs), want=net.inputs)
            continue
        try:
            tops = _add_layer(layer, graph, [values[bottom] for bottom in node.bottoms])
        except NetError as error:
            raise error.at(layer_place(node.layer_param)) from None
        values.update(zip(node.tops, tops, strict=False))
    return {blob: values[blob] for blob in wanted}


def _add_layer(layer: Layer, graph: OnnxGraph, bottoms: list[str]) -> list[str]:
    if not _has_onnx_form(type(layer)):
        types = ", ".join(sorted(name for name, kind in LAYERS.items() if _has_onnx_form(kind)))
        raise NetError("this type cannot be written as ONNX", want=f"one of {types}")
    if len(bottoms) > 1 and len(layer.layer_param.top) > 1:
        raise NetError("a layer with several bottoms and tops cannot be written as ONNX")
    return layer.to_onnx(OnnxLayer(graph, layer), *bottoms)


def _has_onnx_form(kind: type[Layer]) -> bool:
    return kind.to_onnx is not Layer.to_onnx

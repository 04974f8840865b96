"""Export a net as ONNX: each layer becomes the equivalent operators, for any batch size, height and width.

Nothing is traced: the operators are written from the net's graph with the names of its blobs, and contain no image
size. The results of ONNX Runtime differ from those of the module by rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.onnx_graph import OnnxGraph, OnnxLayer
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net

__all__ = ["OnnxGraph", "add_layers", "has_onnx_form"]


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
        NetError: If layers or fields of them have no equivalent in ONNX, all of which the error lists; if an input is
            missing, or if the net has no such blob.
    """
    wanted, refusals = list(blobs), []
    values = dict(inputs)
    for node in net.graph.find_needed(wanted):
        layer = net.layer_at(node)
        if layer is None:
            if missing := [top for top in node.tops if top not in values]:
                raise NetError(f"input {missing[0]!r} is missing", got=sorted(inputs), want=net.inputs)
            continue
        shapes = [net.blob_shapes[bottom] for bottom in node.bottoms]
        try:
            tops = layer.to_onnx(OnnxLayer(graph, layer, shapes), *(values[bottom] for bottom in node.bottoms))
        except NetError as error:
            refusals.append((node, error))
            tops = list(node.tops)  # the other layers are still asked, so that the error lists all that refuse
        values.update(zip(node.tops, tops, strict=False))
    if refusals:
        raise _join_refusals(net, refusals)
    return {blob: values[blob] for blob in wanted}


def _join_refusals(net: Net, refusals: list[tuple[Node, NetError]]) -> ReproductionError:
    """Return one error for all layers that cannot be written; the remedy names blobs before them."""
    split = {top: node.bottoms[0] for node in net.graph.nodes if node.type == "Split" for top in node.tops}
    before = list(dict.fromkeys(split.get(bottom, bottom) for node, _ in refusals for bottom in node.bottoms))
    remedy = f"Export the net up to the blobs before: {', '.join(before)}." if before else "Feed the tops instead."
    places = [error.at(node.layer_param.place) for node, error in refusals]
    if len(places) == 1:
        return places[0] if places[0].remedy else places[0].advise(remedy)
    listed = "; ".join(str(error).rstrip(".") for error in places)
    return NetError(f"{len(places)} layers cannot be written as ONNX: {listed}", remedy=remedy)


def has_onnx_form(kind: type[Layer]) -> bool:
    """Return whether a layer type can be written as ONNX, at least with some of its settings."""
    return kind.to_onnx is not Layer.to_onnx

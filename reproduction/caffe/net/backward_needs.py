"""Find which layers run backward, and to which of their bottoms, as Caffe decides when it builds a net.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L68-L247, L395-L421.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.net.graph import Graph, Node


@dataclass
class Need:
    """What the backward pass of one layer must compute.

    Attributes:
        layer: Whether the backward pass runs at all.
        bottoms: For each bottom, whether its gradient is computed.
        params: For each parameter, whether the layer adds to its gradient.
    """

    layer: bool
    bottoms: list[bool]
    params: list[bool]


def find_needs(graph: Graph, layers: Sequence[Layer | None], loss_weights: Mapping[str, float]) -> list[Need]:
    """Return what the backward pass of each layer must compute.

    Args:
        graph: The net.
        layers: The layer of each node of ``graph``, or None where the caller feeds the tops. If layers share a
            parameter, those with ``lr_mult: 0`` add nothing to its gradient, and the others do.
        loss_weights: Loss weights by name of the top, for the tops that have one.

    Returns:
        One ``Need`` per node, in order.
    """
    reached: set[str] = set()
    found = []
    # Caffe: Each layer that shares a parameter adds to its gradient if the layer's own lr_mult is not 0, though the
    # owner's lr_mult sets the update (net.cpp L141-L150). In torch, either all of these layers add to it or none does.
    for node, layer in zip(graph.nodes, layers, strict=True):
        bottoms = list(node.layer_param.propagate_down) or [name in reached for name in node.bottoms]
        learns = [spec.lr_mult != 0 for spec in (layer.param_specs if layer else ())]
        need = Need(any(learns) or not reached.isdisjoint(node.bottoms), bottoms, learns)
        if need.layer:
            reached.update(node.tops)
        found.append(need)
    _drop_what_no_loss_needs(graph.nodes, found, loss_weights)
    # Upstream bug, fixed: Caffe aborts the process when a gradient would pass through Accuracy, ArgMax or Threshold, to
    # Embed's bottom or to labels, which happens with force_backward or with a label that depends on weights
    # (argmax_layer.hpp L67, embed_layer.cpp L88, softmax_loss_layer.cpp L121). Here these bottoms have no gradient.
    for node, need in zip(graph.nodes, found, strict=True):
        need.layer = need.layer or graph.force_backward
        need.params = [learns or graph.force_backward for learns in need.params]
        # A fed layer, which has no bottoms, may have an unsupported type.
        taught = find_class(node.layer_param).differentiable if node.bottoms else None
        need.bottoms = [
            (wanted or graph.force_backward) and (taught is None or i in taught)
            for i, wanted in enumerate(need.bottoms)
        ]
    return found


def _drop_what_no_loss_needs(nodes: Sequence[Node], found: list[Need], loss_weights: Mapping[str, float]) -> None:
    """Drop layers that no loss depends on, and layers none of whose tops receives a gradient."""
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for node, need in zip(reversed(nodes), reversed(found), strict=True):
        contributes = any(top in loss_weights or top in under_loss for top in node.tops)
        if not contributes or (need.layer and skipped.issuperset(node.tops)):
            need.layer, need.bottoms = False, [False] * len(need.bottoms)
        if contributes:
            under_loss.update(node.bottoms)
        skipped.update(name for name, wanted in zip(node.bottoms, need.bottoms, strict=True) if not wanted)

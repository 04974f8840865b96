"""Which layers go backward, and to which bottoms, as Caffe finds when it builds a net.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L68-L247, L395-L421.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.graph import Graph, Node


@dataclass
class Need:
    """What a layer's backward has to do.

    Attributes:
        layer: whether it runs at all.
        bottoms: for each bottom, whether its gradient is computed.
        params: for each parameter, whether the layer adds to its gradient.
    """

    layer: bool
    bottoms: list[bool]
    params: list[bool]

    def drop(self) -> None:
        """Let it do nothing."""
        self.layer, self.bottoms = False, [False] * len(self.bottoms)


def find(graph: Graph, layers: Sequence[Layer | None], loss_weights: Mapping[str, float]) -> list[Need]:
    """Find what is needed of each layer.

    Args:
        graph: the layers in order.
        layers: what they are; None for input slots. How their parameters learn is what their own messages say: of
            layers that share a parameter, one with ``lr_mult: 0`` adds nothing to the gradient, and another one does.
        loss_weights: of the tops that have one.
    """
    reached: set[str] = set()
    found = []
    # Caffe: of layers that share a parameter each adds to its gradient as its own lr_mult says, though the update is
    # that of the owner (net.cpp L141-L150). In a torch module a parameter whose rate is 0 takes no gradient.
    for node, layer in zip(graph.nodes, layers, strict=True):
        bottoms = list(node.spec.propagate_down) or [name in reached for name in node.bottoms]
        learns = [spec.lr_mult != 0 for spec in (layer.param_specs if layer else ())]
        need = Need(any(learns) or not reached.isdisjoint(node.bottoms), bottoms, learns)
        if need.layer:
            reached.update(node.tops)
        found.append(need)
    _drop_what_no_loss_needs(graph.nodes, found, loss_weights)
    # Upstream bug, fixed: Caffe ends the process where a gradient is to go through Accuracy, ArgMax or Threshold, to
    # Embed's bottom or to labels, which force_backward or a label that depends on weights can ask for
    # (argmax_layer.hpp L67, embed_layer.cpp L88, softmax_loss_layer.cpp L121). Here none goes there.
    for node, need in zip(graph.nodes, found, strict=True):
        need.layer = need.layer or graph.force_backward
        need.params = [learns or graph.force_backward for learns in need.params]
        taught = LAYERS[node.type].differentiable if node.bottoms else None  # a data layer that is fed has any type
        need.bottoms = [
            (wanted or graph.force_backward) and (taught is None or i in taught)
            for i, wanted in enumerate(need.bottoms)
        ]
    return found


def _drop_what_no_loss_needs(nodes: Sequence[Node], found: list[Need], loss_weights: Mapping[str, float]) -> None:
    """Go through the net backwards; drop what no loss depends on, and what would pass its gradient to nothing."""
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for node, need in zip(reversed(nodes), reversed(found), strict=True):
        contributes = any(top in loss_weights or top in under_loss for top in node.tops)
        if not contributes or (need.layer and skipped.issuperset(node.tops)):
            need.drop()
        if contributes:
            under_loss.update(node.bottoms)
        skipped.update(name for name, wanted in zip(node.bottoms, need.bottoms, strict=True) if not wanted)

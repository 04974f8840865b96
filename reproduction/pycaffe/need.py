"""Which layers go backward, and to which bottoms, as Caffe finds when it builds a net.

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L68-L247, L395-L421.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reproduction.caffe.graph import Graph, Node
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.schema import ParamSpec


@dataclass
class Need:
    """What a layer's backward has to do.

    Attributes:
        layer: whether it runs at all.
        bottoms: for each bottom, whether its gradient is computed.
    """

    layer: bool
    bottoms: list[bool]

    def drop(self) -> None:
        """Let it do nothing."""
        self.layer, self.bottoms = False, [False] * len(self.bottoms)


def find(graph: Graph, specs: Mapping[str, Sequence[ParamSpec]], loss_weights: Mapping[str, float]) -> list[Need]:
    """Find what is needed of each layer.

    Args:
        graph: the layers in order.
        specs: how each layer's parameters learn, by its name.
        loss_weights: of the tops that have one.
    """
    reached: set[str] = set()
    found = []
    for node in graph.nodes:
        bottoms = list(node.spec.propagate_down) or [name in reached for name in node.bottoms]
        learns = any(spec.lr_mult != 0 for spec in specs.get(node.name, ()))
        need = Need(learns or not reached.isdisjoint(node.bottoms), bottoms)
        if need.layer:
            reached.update(node.tops)
        found.append(need)
    _drop_what_no_loss_needs(graph.nodes, found, loss_weights)
    for node, need in zip(graph.nodes, found, strict=True):
        need.layer = need.layer or graph.force_backward
        taught = LAYERS[node.type].differentiable
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

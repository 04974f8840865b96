"""Warn of nets for which Caffe computes wrong values because an in-place layer overwrites values that are still needed.

An in-place layer writes its top over its bottom. In Caffe the backward of the layer before it, and sometimes its own
backward, reads that memory again. Here every layer reads the values of its forward, so that the gradients are correct;
a warning names the layers for which Caffe's gradients differ.

Source: BVLC/caffe@9b89154 src/caffe/layers/*.cpp (Backward_cpu), flatten_layer.cpp L30-L33, reshape_layer.cpp L87-L90.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.layers.base import Keeps, Layer, Rereads
from reproduction.caffe.layers.reshaping import Flatten
from reproduction.caffe.net import backward_needs
from reproduction.caffe.net.backward_needs import Need
from reproduction.caffe.net.graph import Graph, Node


@dataclass
class _Memory:
    """The history of a piece of memory.

    Attributes:
        writers: The layers that wrote it in place, after the layer that produced it.
        positive: Whether no value was negative, after the producer and after each of ``writers``.
    """

    writers: list[tuple[Node, Layer]] = field(default_factory=list)
    positive: list[bool] = field(default_factory=list)

    def write(self, node: Node, layer: Layer) -> None:
        self.writers.append((node, layer))
        kept = self.positive[-1] and bool(layer.keeps() & (Keeps.POSITIVE | Keeps.VALUES))
        self.positive.append(layer.positive or kept)

    def find_overwriting(self, version: int, *, sign: bool) -> Node | None:
        """Return the first layer that destroys the values (or signs) present after ``version`` writers, or None."""
        enough = Keeps.VALUES | (Keeps.SIGN if sign else Keeps.NOTHING)
        for number in range(version, len(self.writers)):
            node, layer = self.writers[number]
            if not layer.keeps() & (enough | (Keeps.POSITIVE if self.positive[number] else Keeps.NOTHING)):
                return node
        return None


@dataclass
class _TracedLayer:
    """A layer, with the memory of its first bottom and top and how many in-place writes each had after its forward."""

    node: Node
    layer: Layer
    need: Need
    bottom: tuple[_Memory, int] | None
    top: tuple[_Memory, int] | None


def warn_of_overwriting(graph: Graph, layers: Sequence[Layer | None], loss_weights: Mapping[str, float]) -> None:
    """Warn of each layer for which Caffe computes other values or gradients, as memory is overwritten or shared.

    Args:
        graph: The net.
        layers: The layer of each node of ``graph``, or None where the caller feeds the tops.
        loss_weights: Loss weights by name of the top, for the tops that have one.
    """
    traced = list(_trace_memory(graph.nodes, layers, backward_needs.find_needs(graph, layers, loss_weights)))
    for found in traced:
        problem = _find_in_place_problem(found) or _find_overwritten_values(found) or _find_lost_gradient(found, traced)
        if problem is not None:
            problem.at(found.node.layer_param.place)
            warn(problem)


def _trace_memory(
    nodes: Sequence[Node], layers: Sequence[Layer | None], needs: Sequence[Need]
) -> Iterator[_TracedLayer]:
    memory: dict[str, _Memory] = {}
    for node, layer, needed in zip(nodes, layers, needs, strict=True):
        if layer is None:
            memory.update({top: _Memory(positive=[False]) for top in node.tops})
            continue
        read = memory[node.bottoms[0]] if node.bottoms else None
        for top in node.tops:
            if top in node.bottoms:
                memory[top].write(node, layer)
            elif layer.shares[0] and read is not None:
                memory[top] = read
            else:
                memory[top] = _Memory(positive=[layer.positive])
        written = memory[node.tops[0]] if node.tops else None
        bottom = (read, len(read.writers)) if read else None
        yield _TracedLayer(node, layer, needed, bottom, (written, len(written.writers)) if written else None)


def _find_in_place_problem(found: _TracedLayer) -> NetError | None:
    """Return the warning for an in-place layer that in Caffe overwrites its bottom or gradient too early, or None."""
    # Upstream bug, fixed: In place, Caffe's Eltwise and LRN compute wrong values, and Eltwise, LRN, MVN, Power and Log
    # compute a wrong gradient, since they overwrite values that they still have to read (eltwise_layer.cpp L62,
    # lrn_layer.cpp L148, mvn_layer.cpp L93, power_layer.cpp L58, log_layer.cpp L71). Here both are right, and a net
    # with such a layer causes a warning.
    layer = found.layer
    passes = layer.in_place_gradient or not (found.need.layer and any(found.need.bottoms))
    if found.node.tops[:1] != found.node.bottoms[:1] or (layer.in_place_values and passes):
        return None
    what = "another gradient" if layer.in_place_values else "other values"
    return NetError(
        f"in place, Caffe overwrites what it still has to read, and computes {what}; here both are right",
        remedy="Give the top another name, and the numbers are the same in both.",
    )


def _find_overwritten_values(found: _TracedLayer) -> NetError | None:
    """Return the warning for a layer whose backward in Caffe reads values that a later layer overwrote, or None."""
    # Upstream bug, fixed: If an in-place layer overwrites values that the backward of the layer before it reads,
    # Caffe's gradient is wrong (sigmoid_layer.cpp L29, and every other layer whose backward reads its top or bottom).
    # Here the gradient is right, and such a net causes a warning that names both layers.
    needed, rereads = found.need, found.layer.rereads
    if not needed.layer or not any([*needed.bottoms, *needed.params]):
        return None
    # With the pycaffe interface (`import caffe`), such a layer reads the overwritten bottom, as in Caffe.
    where = "here it"
    if rereads & Rereads.TO_LEARN and any(needed.params):
        rereads, where = rereads | Rereads.BOTTOM, "as a torch module it"
    for what, memory, wanted, sign in (
        ("top", found.top, Rereads.TOP, False),
        ("bottom", found.bottom, Rereads.BOTTOM, False),
        ("bottom", found.bottom, Rereads.SIGN, True),
    ):
        find_overwriting = memory[0].find_overwriting(memory[1], sign=sign) if memory and rereads & wanted else None
        if find_overwriting is not None:
            writer = find_overwriting.layer_param.place
            return NetError(
                f"Caffe computes another gradient, since its backward reads the {what} after {writer}, "
                f"has overwritten it; {where} reads the values of the forward pass",
                remedy=f"Give the top of {find_overwriting.name!r} another name, and the numbers are the same in both.",
            )
    return None


def _find_lost_gradient(found: _TracedLayer, traced: Sequence[_TracedLayer]) -> NetError | None:
    """Return the warning for a layer that shares gradient memory with its bottom and feeds a Flatten layer, or None."""
    # Upstream bug, fixed: If a layer's top shares the memory of its bottom's gradient, as Reshape's does, a Flatten
    # layer after it replaces that memory in Caffe, and no gradient reaches the bottom (flatten_layer.cpp L32). Here
    # the gradient passes, and a net with both layers causes a warning.
    if not found.layer.shares[1] or not any([*found.need.bottoms, *found.need.params]):
        return None
    for reader in traced:
        if isinstance(reader.layer, Flatten) and reader.node.bottoms[0] in found.node.tops:
            flatten = reader.node.layer_param.place
            return NetError(
                f"Caffe passes no gradient on, since {flatten}, replaces the memory of the gradient "
                "that top and bottom share; here the gradient passes",
                remedy="Replace both by one Reshape layer, and the numbers are the same in both.",
            )
    return None

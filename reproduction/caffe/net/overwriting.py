"""Where Caffe computes other numbers than a net says, since a layer in place overwrites what is still to be read.

A layer in place writes its top over its bottom. In Caffe the backward of the layer before it, and sometimes its own,
reads that memory again. Here every layer reads the values that it has seen in its forward, so that gradients are those
of the net as it is written; a warning names the layers where Caffe's differ.

Source: BVLC/caffe@9b89154 src/caffe/layers/*.cpp (Backward_cpu), flatten_layer.cpp L30-L33, reshape_layer.cpp L87-L90.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.memory import Keeps, Rereads
from reproduction.caffe.layers.shaping import Flatten
from reproduction.caffe.net import backward_needs
from reproduction.caffe.net.backward_needs import Need
from reproduction.caffe.net.graph import Graph, Node, place


@dataclass
class _Memory:
    """The layers that wrote a piece of memory after the first, and whether its values were below 0 nowhere then."""

    writers: list[tuple[Node, Layer]] = field(default_factory=list)
    positive: list[bool] = field(default_factory=list)

    def write(self, node: Node, layer: Layer) -> None:
        self.writers.append((node, layer))
        kept = self.positive[-1] and bool(layer.keeps() & (Keeps.POSITIVE | Keeps.VALUES))
        self.positive.append(layer.positive or kept)

    def spoiler(self, version: int, *, sign: bool) -> Node | None:
        """Find the layer that overwrites what there was after ``version`` writers."""
        enough = Keeps.VALUES | (Keeps.SIGN if sign else Keeps.NOTHING)
        for number in range(version, len(self.writers)):
            node, layer = self.writers[number]
            if not layer.keeps() & (enough | (Keeps.POSITIVE if self.positive[number] else Keeps.NOTHING)):
                return node
        return None


@dataclass
class _Place:
    """A layer, and the memory of its first bottom and top with how often each had been written when it was done."""

    node: Node
    layer: Layer
    need: Need
    bottom: tuple[_Memory, int] | None
    top: tuple[_Memory, int] | None


def warn_of(graph: Graph, layers: Sequence[Layer | None], loss_weights: Mapping[str, float]) -> None:
    """Warn of each layer of a net for which Caffe computes something else; the arguments are those of ``need.find``."""
    places = list(_places(graph.nodes, layers, backward_needs.find(graph, layers, loss_weights)))
    for found in places:
        problem = _in_place(found) or _overwritten(found) or _detached(found, places)
        if problem is not None:
            problem.at(place(found.node.spec))
            warn(problem)


def _places(nodes: Sequence[Node], layers: Sequence[Layer | None], needs: Sequence[Need]) -> Iterator[_Place]:
    memory: dict[str, _Memory] = {}
    for node, layer, needed in zip(nodes, layers, needs, strict=True):
        if layer is None:
            memory.update({top: _Memory(positive=[False]) for top in node.tops})
            continue
        read = memory[node.bottoms[0]] if node.bottoms else None
        for top in node.tops:
            if top in node.bottoms:
                memory[top].write(node, layer)
            elif layer.shares()[0] and read is not None:
                memory[top] = read
            else:
                memory[top] = _Memory(positive=[layer.positive])
        written = memory[node.tops[0]] if node.tops else None
        bottom = (read, len(read.writers)) if read else None
        yield _Place(node, layer, needed, bottom, (written, len(written.writers)) if written else None)


def _in_place(found: _Place) -> NetError | None:
    """Describe a layer that in Caffe overwrites its bottom, or the gradient of its top, before it has read it."""
    # Upstream bug, fixed: in place, Caffe's Eltwise and LRN compute other values, and these and MVN, Power and Log
    # another gradient, since they overwrite what they still have to read (eltwise_layer.cpp L62, lrn_layer.cpp L148,
    # mvn_layer.cpp L93, power_layer.cpp L58, log_layer.cpp L71). A net that has one gets a warning.
    layer = found.layer
    passes = layer.in_place_gradient or not (found.need.layer and any(found.need.bottoms))
    if found.node.tops[:1] != found.node.bottoms[:1] or (layer.in_place_values and passes):
        return None
    what = "another gradient" if layer.in_place_values else "other values"
    return NetError(
        f"in place, Caffe overwrites what it still has to read, and computes {what}; here both are right",
        remedy="Give the top another name, and the numbers are the same in both.",
    )


def _overwritten(found: _Place) -> NetError | None:
    """Describe a layer whose backward reads in Caffe what a later layer has overwritten."""
    # Upstream bug, fixed: where a layer in place overwrites what the backward of the layer before it reads, Caffe's
    # gradient is another (sigmoid_layer.cpp L29, and every other layer whose backward reads its top or bottom). A net
    # that has such a chain gets a warning that names both.
    needed, rereads = found.need, found.layer.rereads()
    if not needed.layer or not any([*needed.bottoms, *needed.params]):
        return None
    # Under `import caffe` such a layer finds its bottom changed and reads it as it is then, as in Caffe.
    where = "here it"
    if rereads & Rereads.TO_LEARN and any(needed.params):
        rereads, where = rereads | Rereads.BOTTOM, "as a torch module it"
    for what, memory, wanted, sign in (
        ("top", found.top, Rereads.TOP, False),
        ("bottom", found.bottom, Rereads.BOTTOM, False),
        ("bottom", found.bottom, Rereads.SIGN, True),
    ):
        spoiler = memory[0].spoiler(memory[1], sign=sign) if memory and rereads & wanted else None
        if spoiler is not None:
            return NetError(
                f"Caffe computes another gradient, since its backward reads the {what} after {place(spoiler.spec)}, "
                f"has overwritten it; {where} reads the values of its own forward",
                remedy=f"Give the top of {spoiler.name!r} another name, and the numbers are the same in both.",
            )
    return None


def _detached(found: _Place, places: Sequence[_Place]) -> NetError | None:
    """Describe a layer whose bottom has its top's gradient in Caffe, until a Flatten layer replaces the latter."""
    # Upstream bug, fixed: behind a layer whose top has the memory of its bottom's gradient, as Reshape's, Flatten
    # replaces that memory, and no gradient passes (flatten_layer.cpp L32). A net that has both gets a warning.
    if not found.layer.shares()[1] or not any([*found.need.bottoms, *found.need.params]):
        return None
    for reader in places:
        if isinstance(reader.layer, Flatten) and reader.node.bottoms[0] in found.node.tops:
            return NetError(
                f"Caffe passes no gradient on, since {place(reader.node.spec)}, replaces the memory of the gradient "
                "that top and bottom share; here the gradient passes",
                remedy="Let one Reshape layer do the work of both, and the numbers are the same in both.",
            )
    return None

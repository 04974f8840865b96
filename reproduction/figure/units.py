"""Simplify the graph of a net for a drawing: layers that belong together become one unit.

Activations, normalizations and dropout join the layer before them, and the branches between a fork and the layer that
sums or concatenates them, as in residual units and inception modules, become one module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from reproduction.caffe.geometry import CoordMap, Shape
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter

_ABSORBED = frozenset({
    "AbsVal", "BatchNorm", "Bias", "BNLL", "Dropout", "ELU", "Exp", "LRN", "Log", "MVN", "Normalize", "PReLU", "Power",
    "ReLU", "ReLU6", "Scale", "Sigmoid", "Swish", "TanH", "BN", "Threshold",
})  # fmt: skip
_NOT_DRAWN = frozenset({"Silence", "Accuracy"})
_JOINS = frozenset({"Eltwise", "Concat"})
_MOST_IN_MODULE = 40  # layers between a fork and a join that are drawn as one module


@dataclass(eq=False)
class Unit:
    """One layer of a drawing with the layers that it absorbed.

    Attributes:
        name: The name of its first top; of a loss, the layer's.
        kind: ``image``, ``conv``, ``pool``, ``module``, ``up``, ``crop``, ``scale``, ``join``, ``loss`` or ``other``.
        layers: The layer's message, then those of the absorbed layers.
        bottoms: The units that it reads; of a loss only the scores.
        labels: Of a loss, the units of the labels.
        branches: Of a module, how many branches it joins.
        stride: Pixels of the image from one value to the next; None where there is no such map, as for a vector.
        shape: The shape of its first top.
    """

    name: str
    kind: str
    layers: list[LayerParameter]
    bottoms: list[Unit]
    stride: Fraction | None
    shape: Shape
    labels: list[Unit] = field(default_factory=list)
    branches: int = 0

    @property
    def layer(self) -> LayerParameter:
        """The message of the layer itself."""
        return self.layers[0]

    @property
    def channels(self) -> int:
        """The size of the second axis; 1 if there is none."""
        return self.shape[1] if len(self.shape) > 1 else 1


def read_units(net: Net) -> list[Unit]:
    """Return the units of a net, each after those that it reads, with its branches merged to modules.

    Args:
        net: The net. It may be on the device ``meta``, since no values are computed.
    """
    made: dict[str, Unit] = {}
    copies: set[str] = set()
    units: list[Unit] = []
    for node in net.graph.nodes:
        if node.type == "Split":
            made.update(dict.fromkeys(node.tops, made[node.bottoms[0]]))
            copies.update(node.tops)
        elif node.is_slot or (not node.bottoms and node.tops):
            for top in node.tops:
                shape = net.blob_shapes[top]
                units.append(Unit(top, "image", [node.layer_param], [], Fraction(1), shape))
                made[top] = units[-1]
        elif node.type not in _NOT_DRAWN:
            bottoms = [made[bottom] for bottom in node.bottoms]
            shape = net.blob_shapes[node.tops[0]] if node.tops else bottoms[0].shape
            if _is_absorbed(node, copies):
                bottoms[0].layers.append(node.layer_param)
                made.update(dict.fromkeys(node.tops, bottoms[0]))
                continue
            units.append(_make_unit(net, node, bottoms, shape))
            made.update(dict.fromkeys(node.tops, units[-1]))
    return _merge_modules(_without_labels(units))


def _is_absorbed(node: Node, copies: set[str]) -> bool:
    """Return whether a layer is drawn with the one before it; ``copies`` are the tops of Split layers."""
    if len(node.bottoms) != 1 or len(node.tops) != 1 or node.type not in _ABSORBED or _is_constant_scale(node):
        return False
    return node.bottoms == node.tops or node.bottoms[0] not in copies


def _is_constant_scale(node: Node) -> bool:
    """Return whether a layer multiplies by a number of the prototxt that is not learned, as in at-once nets."""
    param = node.layer_param
    return param.type == "Scale" and len(param.param) > 0 and param.param[0].lr_mult == 0


def _make_unit(net: Net, node: Node, bottoms: list[Unit], shape: Shape) -> Unit:
    layer = net.layer_at(node)
    kind, stride, labels = "other", bottoms[0].stride, []
    maps = layer.coord_map(node.layer_param) if layer is not None else CoordMap()
    if layer is not None and layer.is_loss:
        kind, labels, bottoms = "loss", bottoms[1:], bottoms[:1]
    elif node.type in _JOINS:
        kind = "join"
        stride = max((b.stride for b in bottoms if b.stride is not None), default=None)
    elif node.type == "Crop":
        kind, bottoms = "crop", bottoms[:1]
    elif node.type == "Scale":
        kind = "scale"
    elif maps is not None and stride is not None:
        stride = stride / maps.scale[0]
        kind = {"Convolution": "conv", "Pooling": "pool", "Deconvolution": "up"}.get(node.type, "other")
        if maps.scale[0] > 1 and len(bottoms) == 1:
            kind = "up"
    elif len(bottoms[0].shape) == len(shape) == 4 and shape[2] > bottoms[0].shape[2] and stride is not None:
        kind, stride = "up", stride / max(round(shape[2] / bottoms[0].shape[2]), 1)
    elif node.type in ("InnerProduct", "Convolution"):
        kind, stride = "conv", None
    elif len(shape) < 4:
        stride = None
    name = node.name if kind == "loss" or not node.tops else node.tops[0]
    return Unit(name, kind, [node.layer_param], bottoms, stride, shape, labels)


def _without_labels(units: Sequence[Unit]) -> list[Unit]:
    """Return the units without those that lead only to the labels of a loss."""
    read = {unit for each in units for unit in (*each.bottoms, *each.labels)}
    kept = {unit for unit in units if unit not in read and unit.kind != "image"}
    for unit in reversed(units):
        if unit in kept:
            kept.update(unit.bottoms)
    return [unit for unit in units if unit in kept]


def find_readers(units: Iterable[Unit]) -> dict[Unit, list[Unit]]:
    """Return the units that read each unit, in order; one that reads it twice occurs twice, and an end has none."""
    readers: dict[Unit, list[Unit]] = {unit: [] for unit in units}
    for unit in readers:
        for bottom in unit.bottoms:
            readers[bottom].append(unit)
    return readers


def _merge_modules(units: list[Unit]) -> list[Unit]:
    """Replace each join and the layers between it and its fork by a module, if nothing else reads those layers."""
    index = {unit: number for number, unit in enumerate(units)}
    removed: set[Unit] = set()
    readers = find_readers(units)
    for join in units:
        if join.kind != "join":
            continue
        found = _find_branches(join, index)
        if found is None:
            continue
        fork, inner = found
        if any(unit.kind not in ("conv", "pool", "module", "other", "join") for unit in inner):
            continue
        if any(reader not in inner and reader is not join for unit in inner for reader in readers[unit]):
            continue
        inner_layers = [layer for unit in sorted(inner, key=index.__getitem__) for layer in unit.layers]
        join.branches = len(join.bottoms)
        join.kind, join.bottoms = "module", [fork]
        join.layers = [*join.layers, *inner_layers]
        readers[fork] = [*(reader for reader in readers[fork] if reader not in inner), join]
        removed |= inner
    return [unit for unit in units if unit not in removed]


def _find_branches(join: Unit, index: dict[Unit, int]) -> tuple[Unit, set[Unit]] | None:
    """Return the last unit that all paths to a join pass through, and the units between the two; None without one."""
    inner: set[Unit] = set()
    front = set(join.bottoms)
    while len(front) > 1:
        last = max(front, key=index.__getitem__)
        front.remove(last)
        if not last.bottoms or len(inner) >= _MOST_IN_MODULE:
            return None
        inner.add(last)
        front.update(last.bottoms)
    return (front.pop(), inner) if inner else None

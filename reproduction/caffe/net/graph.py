"""Convert a NetParameter to an ordered graph of layers, without tensors or weights.

As Caffe does before it builds a layer, this module applies include and exclude rules, inserts Split layers and sets
phases. Every blob then has one producer and at most one consumer, and the graph contains the Split layers that Caffe
writes to its files (``data_data_0_split``).

Source: BVLC/caffe@9b89154 src/caffe/net.cpp L44-L290, src/caffe/util/insert_splits.cpp.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import OutOfMemoryError

from reproduction.caffe.errors import DataError, NetError, append_unknown_names, did_you_mean, spelling_hint
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import UNSUPPORTED
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.choice import choose_classes, find_class
from reproduction.caffe.net import crops
from reproduction.caffe.schema import LayerParameter, NetParameter, NetState, NetStateRule, Phase
from reproduction.caffe.schema.dialect import find_missing_type
from reproduction.caffe.schema.types import TYPES, has_type, unknown_types


@dataclass(frozen=True)
class Node:
    """One layer of a graph, or an input slot: blobs that the caller feeds instead of a layer.

    Attributes:
        layer_param: The layer's message, with its phase set. The layer may fill in fields, as Caffe's layers do.
        bottoms: Names of the blobs that the layer reads.
        tops: Names of the blobs that the layer writes; more than ``layer_param.top`` if a loss has an unnamed top.
        propagate: For each bottom, whether gradients may reach it.
        is_slot: True for an input slot: an Input layer, or a data layer of any type whose tops the caller feeds.
        index: Position in the graph, from 0.
    """

    layer_param: LayerParameter
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    propagate: tuple[bool, ...]
    is_slot: bool
    index: int

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer_param.name

    @property
    def type(self) -> str:
        """The layer's type, as in the prototxt."""
        return self.layer_param.type


@dataclass(frozen=True)
class Graph:
    """The layers of a net for one phase, level and set of stages.

    Attributes:
        name: The net's name.
        state: The phase, level and stages.
        nodes: The layers, in order.
        outputs: Names of the blobs that no layer reads, sorted as in Caffe.
        force_backward: Whether gradients are computed for every bottom and parameter that can have one.
    """

    name: str
    state: NetState
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    force_backward: bool

    @functools.cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the blobs that the caller feeds."""
        return tuple(top for node in self.nodes if node.is_slot for top in node.tops)

    def find_needed(self, blobs: Sequence[str]) -> tuple[Node, ...]:
        """Return the layers that compute the given blobs, with all layers that these depend on, in order.

        Args:
            blobs: Names of blobs.

        Raises:
            NetError: If the net has no such blob; the remedy suggests the most similar name.
        """
        made = {top for node in self.nodes for top in node.tops}
        for blob in blobs:
            if blob not in made:
                raise NetError(f"the net has no blob {blob!r}", remedy=did_you_mean(blob, made))
        wanted, picked = set(blobs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.tops):
                wanted.update(node.bottoms)
                picked.append(node)
        return tuple(reversed(picked))

    def find_inputs(self, nodes: Iterable[Node], blobs: Iterable[str]) -> list[str]:
        """Return the names of the inputs that some layers read, and of those among some blobs, in order.

        Args:
            nodes: The layers.
            blobs: Names of blobs.
        """
        needed = {bottom for node in nodes for bottom in node.bottoms}.union(blobs)
        return [name for name in self.inputs if name in needed]

    def find_producer(self, blob: str) -> Node | None:
        """Return the layer that computes the last values of a blob, not counting Split layers; None for an input.

        Args:
            blob: The name of a blob.

        Raises:
            NetError: If the net has no such blob.
        """
        for node in reversed(self.find_needed([blob])):
            if blob in node.tops and node.type != "Split":
                return None if node.is_slot else node
            if blob in node.tops:
                blob = node.bottoms[0]
        return None


def build_graph(
    net: NetParameter,
    state: NetState | Phase | None = None,
    *,
    fed: Mapping[str, Shape] | None = None,
) -> Graph:
    """Build the graph of a net for one state.

    Args:
        net: The net, upgraded to the current format; it is not modified.
        state: Its phase and level replace those in the net's ``state``, and its stages are added to those of the net.
            A Phase is a state of that phase, level 0 and no stages; None uses the net's ``state`` unchanged.
        fed: Shapes of the blobs that the caller feeds, by name; they replace the data layers that produce them.

    Raises:
        NetError: If a layer type is unknown or unsupported, if no earlier layer produces a bottom, if two layers
            produce the same blob, or if a layer has both include and exclude rules.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L31-L44.
    """
    given = NetState(phase=state) if isinstance(state, Phase) else state
    state = net.state.copy()
    if given is not None:
        state.merge(NetState(phase=given.phase, level=given.level, stage=list(given.stage)))
    layers = [layer.copy() for layer in net.layer if _included(layer, state)]
    _check_types([layer for layer in layers if not _is_fed(layer, fed or {})])
    choose_classes(layers)
    crops.warn_of_zero_offsets(layers)
    for layer in layers:
        if not layer.has("phase"):
            layer.phase = state.phase
    nodes = [_node(i, layer, fed or {}, force=net.force_backward) for i, layer in enumerate(_insert_splits(layers))]
    return Graph(
        name=net.name,
        state=state,
        nodes=tuple(nodes),
        outputs=_connect(nodes),
        force_backward=net.force_backward,
    )


@contextlib.contextmanager
def locate_errors(node: Node) -> Iterator[None]:
    """A context manager that adds the layer's name, type and line to errors that are raised in the block.

    Failed memory allocations are converted to NetError.
    """
    try:
        yield
    except NetError as error:
        raise error.at(node.layer_param.place) from error.__cause__  # the cause is the error that a Python layer raised
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        remedy = "Use smaller images or a smaller batch."
        raise NetError("there is not enough memory for the layer", remedy=remedy).at(node.layer_param.place) from None


def _lacks_memory(error: Exception) -> bool:
    """Return whether an allocation failed; on the CPU, torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | OutOfMemoryError) or "can't allocate memory" in str(error)


@contextlib.contextmanager
def advise_feeding(node: Node) -> Iterator[None]:
    """A context manager for building a data layer: errors about its files advise to feed its tops instead."""
    try:
        yield
    except DataError as error:
        if node.bottoms or error.remedy:
            raise
        raise error.advise(how_to_feed(node.layer_param)) from None


def _included(layer: LayerParameter, state: NetState) -> bool:
    if layer.include and layer.exclude:
        raise NetError("include and exclude rules together", want="one kind").at(layer.place)
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def _meets(state: NetState, rule: NetStateRule) -> bool:
    return (
        (not rule.has("phase") or rule.phase == state.phase)
        and (not rule.has("min_level") or state.level >= rule.min_level)
        and (not rule.has("max_level") or state.level <= rule.max_level)
        and all(stage in state.stage for stage in rule.stage)
        and not any(stage in state.stage for stage in rule.not_stage)
    )


def _check_types(layers: list[LayerParameter]) -> None:
    unknown = [layer for layer in layers if not has_type(layer.type)]
    if unknown:
        first, *others = unknown
        near = find_missing_type(first.type) or spelling_hint(first.type, TYPES)
        remedy = append_unknown_names(near, unknown_types(others))
        raise NetError(f"unknown layer type {first.type!r}", remedy=remedy).at(first.place)
    for layer in layers:
        if layer.type in UNSUPPORTED:
            raise NetError(UNSUPPORTED[layer.type], remedy=how_to_feed(layer)).at(layer.place)


def how_to_feed(layer: LayerParameter) -> str:
    """Return the advice for a data layer that cannot read its data: the ``inputs`` to pass, with names and shapes."""
    param = getattr(layer, TYPES[layer.type][0])
    size = layer.transform_param.crop_size
    batch = param.batch_size if "batch_size" in param.fields and param.batch_size else 1
    shapes = [f"({batch}, C, {size or 'H'}, {size or 'W'})", *[f"({batch},)"] * (len(layer.top) - 1)]
    if layer.type == "Python":
        shapes = [shapes[0]] * len(layer.top)
    wanted = ", ".join(f"{top!r}: {shape}" for top, shape in zip(layer.top, shapes, strict=False))
    return f"Pass inputs={{{wanted}}}."


def _insert_splits(layers: list[LayerParameter]) -> list[LayerParameter]:
    """Insert a Split layer after each blob that has several consumers; a loss weight counts as a consumer.

    The layers are modified in place.
    """
    last_top: dict[str, tuple[int, int]] = {}  # blob -> (layer, top) of its latest writer
    source: dict[tuple[int, int], tuple[int, int]] = {}  # (layer, bottom) -> (layer, top)
    uses: dict[tuple[int, int], int] = defaultdict(int)
    loss: dict[tuple[int, int], float] = {}
    for i, layer in enumerate(layers):
        for j, blob in enumerate(layer.bottom):
            if blob not in last_top:
                raise NetError(f"no layer before it makes bottom {blob!r}", remedy=did_you_mean(blob, last_top)).at(
                    layer.place
                )
            source[i, j] = last_top[blob]
            uses[source[i, j]] += 1
        last_top.update({blob: (i, j) for j, blob in enumerate(layer.top)})
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            loss[i, j] = weight
            uses[i, j] += weight != 0
    result: list[LayerParameter] = []
    taken: dict[tuple[int, int], int] = defaultdict(int)
    for i, layer in enumerate(layers):
        for j, blob in enumerate(layer.bottom):
            top = source[i, j]
            if uses[top] > 1:
                layer.bottom[j] = f"{_split_name(layers[top[0]], blob, top[1])}_{taken[top]}"
                taken[top] += 1
        result.append(layer)
        for j, blob in enumerate(layer.top):
            if uses[i, j] > 1:
                result.append(_split(layer, blob, j, uses[i, j], loss.get((i, j), 0)))
                if loss.get((i, j)):
                    layer.clear("loss_weight")
                    taken[i, j] += 1
    return result


def _split_name(layer: LayerParameter, blob: str, top: int) -> str:
    return f"{blob}_{layer.name}_{top}_split"


def _split(layer: LayerParameter, blob: str, top: int, count: int, loss_weight: float) -> LayerParameter:
    name = _split_name(layer, blob, top)
    split = LayerParameter(
        name=name, type="Split", bottom=[blob], top=[f"{name}_{k}" for k in range(count)], phase=layer.phase
    )
    if loss_weight:
        split.loss_weight = [loss_weight] + [0.0] * (count - 1)
    return split


def _node(index: int, layer: LayerParameter, fed: Mapping[str, Shape], *, force: bool) -> Node:
    if layer.propagate_down and len(layer.propagate_down) != len(layer.bottom):
        raise NetError(
            "propagate_down is for no bottom or for each", got=len(layer.propagate_down), want=len(layer.bottom)
        ).at(layer.place)
    tops = list(layer.top)
    if _is_fed(layer, fed):
        return Node(layer, (), tuple(tops), (), True, index)
    kind = find_class(layer)
    if kind.is_loss:
        # Caffe: A loss layer without a named top gets an unnamed one (LossLayer::AutoTopBlobs).
        tops += [f"{layer.name}(automatic)"] * (kind.tops[0] - len(tops))
    taught = kind.differentiable
    # Caffe: `force_backward` overrides `propagate_down: false` (net.cpp L232-L247).
    propagate = tuple(
        (force or not layer.propagate_down or layer.propagate_down[j]) and (taught is None or j in taught)
        for j in range(len(layer.bottom))
    )
    return Node(layer, tuple(layer.bottom), tuple(tops), propagate, layer.type == "Input", index)


def _is_fed(layer: LayerParameter, fed: Mapping[str, Shape]) -> bool:
    """Return whether the layer has no bottoms and the caller feeds all of its tops; the type does not matter."""
    return not layer.bottom and bool(layer.top) and all(top in fed for top in layer.top)


def _connect(nodes: list[Node]) -> tuple[str, ...]:
    """Check that every blob has one producer (in-place layers aside), and return the blobs that no layer reads."""
    produced: set[str] = set()
    available: set[str] = set()
    for node in nodes:
        for j, top in enumerate(node.tops):
            in_place = j < len(node.bottoms) and node.bottoms[j] == top
            if top in produced and not in_place:
                raise NetError(f"top {top!r} is made by an earlier layer already").at(node.layer_param.place)
        available.difference_update(node.bottoms)
        available.update(node.tops)
        produced.update(node.tops)
    return tuple(sorted(available))


def find_loss_weights(node: Node, layer: Layer) -> dict[str, float]:
    """Return the loss weights of a layer by name of the top, for the tops that have one.

    Raises:
        NetError: If there are weights for some of the tops only.
    """
    layer_param = layer.layer_param
    if layer.is_loss and not layer_param.loss_weight:
        layer_param.loss_weight = [1.0]  # Caffe: LossLayer writes the default of 1 into its message (loss_layer.cpp L9)
    if layer_param.loss_weight and len(layer_param.loss_weight) != len(node.tops):
        raise NetError("loss_weight is for no top or for each", got=len(layer_param.loss_weight), want=len(node.tops))
    return {top: weight for top, weight in zip(node.tops, layer_param.loss_weight, strict=False) if weight}

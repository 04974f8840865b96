"""Nets written in Python: ``n["pool1"] = layer("Pooling", n["relu1_2"], pool="MAX", kernel_size=2, stride=2)``.

This is Caffe's NetSpec, except that each keyword is checked against the schema at the call. ``crop`` computes its
offset from coordinate maps, so that a misaligned net raises an error when it is written.

Source: BVLC/caffe@9b89154 python/caffe/net_spec.py, python/caffe/coord_map.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reproduction.caffe.errors import NetError, ReproductionError, did_you_mean, spelling_hint
from reproduction.caffe.geometry import CoordMap, crop_offset, format_fractions
from reproduction.caffe.schema import LayerParameter, Message, NetParameter
from reproduction.caffe.schema.types import TYPES, has_type

if TYPE_CHECKING:
    from reproduction.caffe.layers.base import Layer

# Fields that the other arguments of the call set, and weights, which do not belong in a prototxt.
_NOT_KEYWORDS = {"type", "bottom", "top", "blobs"}


class Top:
    """One output blob of a layer; ``to_proto`` assigns its name.

    Args:
        function: The layer.
        index: Which of the layer's tops it is, from 0.
    """

    def __init__(self, function: Function, index: int):
        self.function = function
        self.index = index

    def __repr__(self) -> str:
        return f"<top {self.index} of {self.function.type}>"


class Function:
    """A layer with its bottoms and parameters; ``to_proto`` assigns its name.

    Args:
        type: The layer type, as in a prototxt.
        bottoms: Tops of other layers.
        fields: The layer's parameters by field name. Pass fields of the type's own message directly
            (``kernel_size=3``) or as a dict (``convolution_param={"kernel_size": 3}``), and other fields of
            LayerParameter (``param``, ``loss_weight``, ``include``, ``name`` ...) by their name. For a repeated field,
            a single value means a list with one element.
        ntop: The number of tops.
        in_place: Whether the tops overwrite the bottoms.

    Attributes:
        tops: The tops.

    Raises:
        ReproductionError: If the type or a field is unknown, if a value does not fit its field, if a bottom is not a
            ``Top``, or if ``in_place`` is set with fewer bottoms than tops.
    """

    def __init__(
        self, type: str, bottoms: Sequence[Top], fields: Mapping[str, Any], *, ntop: int = 1, in_place: bool = False
    ):
        self.type = type
        self._layer_param = self._build(fields)
        for index, bottom in enumerate(bottoms):
            if not isinstance(bottom, Top):
                raise NetError(f"bottom {index} is not a top", type=type, got=repr(bottom))
        if in_place and ntop > len(bottoms):
            raise NetError("in_place needs a bottom for each top", type=type, got=len(bottoms), want=ntop)
        self.bottoms = tuple(bottoms)
        self.in_place = in_place
        self.tops = tuple(Top(self, index) for index in range(ntop))

    @property
    def layer_param(self) -> LayerParameter:
        """The LayerParameter, without tops and bottoms; its name is empty unless ``fields`` contains it."""
        return self._layer_param

    def _build(self, fields: Mapping[str, Any]) -> LayerParameter:
        """Build the LayerParameter from the keyword arguments."""
        if not has_type(self.type) and find_layer_type(self.type) is None:
            raise NetError(f"there is no layer type {self.type!r}", remedy=spelling_hint(self.type, TYPES))
        return _build_layer_param(self.type, fields)


def layer(type: str, *bottoms: Top, in_place: bool = False, **fields: Any) -> Top:
    """Create a layer with one top and return the top.

    Args:
        type: The layer type, as in a prototxt.
        bottoms: Tops of other layers.
        in_place: Whether the top overwrites the bottom.
        fields: The layer's parameters by field name; see ``Function``.
    """
    return Function(type, bottoms, fields, in_place=in_place).tops[0]


def layers(type: str, *bottoms: Top, ntop: int, in_place: bool = False, **fields: Any) -> tuple[Top, ...]:
    """Create a layer with several tops and return the tops.

    Args:
        type: The layer type, as in a prototxt.
        bottoms: Tops of other layers.
        ntop: The number of tops.
        in_place: Whether the tops overwrite the bottoms.
        fields: The layer's parameters by field name; see ``Function``.
    """
    return Function(type, bottoms, fields, ntop=ntop, in_place=in_place).tops


def _build_layer_param(type: str, fields: Mapping[str, Any]) -> LayerParameter:
    layer_param = LayerParameter(type=type)
    own = {name: param for param in TYPES[type] for name in getattr(layer_param, param).fields}
    if not fields.keys() <= own.keys() | LayerParameter.fields.keys():
        LayerParameter.import_late_fields()
        own = {name: param for param in TYPES[type] for name in getattr(layer_param, param).fields}
    for name, value in fields.items():
        known = name in LayerParameter.fields and name not in _NOT_KEYWORDS
        if not known and name not in own:
            near = spelling_hint(name, [*own, *(LayerParameter.fields.keys() - _NOT_KEYWORDS)])
            raise NetError(f"unknown field {name!r}", type=type, remedy=near)
        try:
            _assign(layer_param if known else getattr(layer_param, own[name]), name, value)
        except ReproductionError as error:
            raise error.at(type) from None
    return layer_param


def _assign(message: Message, name: str, value: Any) -> None:
    """Set a field from Python values: convert dicts to messages, and a value of a repeated field to a list."""
    field = message.field(name)

    def convert(item: Any) -> Any:
        if field.message is None or not isinstance(item, Mapping):
            return item
        inner = field.message()
        for key, part in item.items():
            _assign(inner, key, part)
        return inner

    if field.repeated:
        items = value if isinstance(value, (list, tuple)) else [value]
        setattr(message, name, [convert(item) for item in items])
    else:
        setattr(message, name, convert(value))


class NetSpec:
    """A mapping from names to tops that defines a net.

    ``n["conv1"] = layer(...)`` names the top and its layer; ``n["conv1"]`` returns the top. To name a layer without
    tops, assign its ``Function``. Tops and layers without a name are named by their type and a number.
    """

    def __init__(self) -> None:
        self.tops: dict[str, Top | Function] = {}

    def __setitem__(self, name: str, top: Top | Function) -> None:
        if not isinstance(top, (Top, Function)):
            raise NetError(
                f"{name!r} must be assigned a top",
                got=repr(top),
                remedy="A layer with several tops returns a tuple: assign each of them.",
            )
        self.tops[name] = top

    def __getitem__(self, name: str) -> Top:
        top = self.tops.get(name)
        if not isinstance(top, Top):
            raise NetError(f"the net has no top {name!r} yet", remedy=did_you_mean(name, self.tops))
        return top

    def to_proto(self) -> NetParameter:
        """Return the net of all tops that have been named and the layers that they need.

        Layers come after the layers that they need, and otherwise in the order of assignment.
        """
        return to_proto(*self.tops.values(), names={top: name for name, top in self.tops.items()})


def to_proto(*tops: Top | Function, names: Mapping[Top | Function, str] | None = None) -> NetParameter:
    """Return the net that computes the given tops.

    Args:
        tops: The tops that the net must compute, and layers without tops.
        names: Names of tops, and of layers without tops. Other tops are named by their layer's type and the next
            number that is not in use. A layer without a ``name`` field has the name of its first top.

    Returns:
        The net, each layer after the layers that it needs. The messages are copies.
    """
    names = dict(names or {})
    taken, counts = set(names.values()), Counter[str]()
    blobs: dict[Top, str] = {}
    net = NetParameter()

    def name_of(thing: Top | Function, type: str) -> str:
        while thing not in names:
            counts[type] += 1
            if (name := f"{type}{counts[type]}") not in taken:
                names[thing] = name
        return names[thing]

    for function in _sort_layers(tops):
        layer_param = function.layer_param.copy()
        layer_param.bottom = [blobs[bottom] for bottom in function.bottoms]
        for top in function.tops:
            blobs[top] = layer_param.bottom[top.index] if function.in_place else name_of(top, function.type)
        layer_param.top = [blobs[top] for top in function.tops]
        if not layer_param.has("name"):
            layer_param.name = name_of(function.tops[0] if function.tops else function, function.type)
        net.layer.append(layer_param)
    return net


def _sort_layers(tops: Iterable[Top | Function]) -> list[Function]:
    """Return the layers that the tops need, each after those that it needs; not recursive, to support deep nets."""
    done: dict[Function, None] = {}
    for top in tops:
        stack = [(top.function if isinstance(top, Top) else top, False)]
        while stack:
            function, ready = stack.pop()
            if ready:
                done[function] = None
            elif function not in done:
                stack.append((function, True))
                stack.extend((bottom.function, False) for bottom in reversed(function.bottoms))
    return list(done)


def find_layer_type(name: str, layer_param: LayerParameter | None = None) -> type[Layer] | None:
    """Return the class of a layer type by its name in prototxts; None if it is not implemented.

    Args:
        name: the name.
        layer_param: the layer's message, by which the class is chosen if several dialects have the type.
    """
    from reproduction.caffe.layers import LAYERS, choice  # imported here, as it imports torch

    return choice.find_class(layer_param) if layer_param and name in LAYERS else LAYERS.get(name)


def coord_map(function: Function) -> CoordMap | None:
    """Return the map from coordinates of a layer's bottoms to those of its tops, or None if the layer has none."""
    kind = find_layer_type(function.type, function.layer_param)
    return kind.coord_map(function.layer_param) if kind else None


def _located_bottoms(top: Top) -> Sequence[Top]:
    """Return the bottoms that the coordinate map of a top's layer applies to."""
    kind, bottoms = find_layer_type(top.function.type, top.function.layer_param), top.function.bottoms
    if kind is not None and kind.located_bottoms is not None:
        return bottoms[: kind.located_bottoms]
    # A convolution with several bottoms has as many tops, one per bottom.
    return bottoms[top.index : top.index + 1] if len(top.function.tops) == len(bottoms) else bottoms


def _maps_from(top: Top, stop: Iterable[Top] = ()) -> dict[Top, list[CoordMap]]:
    """Return the coordinate maps from each ancestor of ``top`` to ``top``.

    An ancestor has one map, or two different ones if its paths to ``top`` disagree. Ancestors of the tops in ``stop``
    are not visited.
    """
    maps = {top: [CoordMap()]}
    frontier = [top]
    while frontier:
        here = frontier.pop()
        step = None if here in stop else coord_map(here.function)
        if step is None:
            continue
        for bottom in _located_bottoms(here):
            known = maps.setdefault(bottom, [])
            before = len(known)
            _add_distinct(known, (through @ step for through in maps[here]))
            if len(known) > before:
                frontier.append(bottom)
    return maps


def _add_distinct(known: list[CoordMap], more: Iterable[CoordMap]) -> None:
    for candidate in more:
        if len(known) < 2 and not any(candidate.agrees(other) for other in known):
            known.append(candidate)


def map_between(top_from: Top, top_to: Top) -> CoordMap:
    """Return the map from coordinates of one top to those of another, through their nearest common ancestors.

    Raises:
        NetError: If no common ancestor is connected to both tops through layers that have a coordinate map, or if two
            paths between the tops disagree.

    Source: BVLC/caffe@9b89154 python/caffe/coord_map.py L116-L163.
    """
    maps_from = _maps_from(top_from)
    maps_to = _maps_from(top_to, stop=maps_from)
    found: list[CoordMap] = []
    for common in maps_to:
        _add_distinct(found, (to @ back.inverse() for to in maps_to[common] for back in maps_from.get(common, [])))
    if not found:
        raise NetError(
            f"no coordinate map leads from the {top_from.function.type} top to the {top_to.function.type} top",
            remedy="They need a common ancestor, through layers that keep pixels in place.",
        )
    if len(found) > 1:
        raise NetError(
            f"paths from the {top_from.function.type} top to the {top_to.function.type} top disagree",
            got="shifts " + " and ".join(format_fractions(between.shift) for between in found),
            remedy="Crop the branches to each other before they are joined.",
        )
    return found[0]


def crop(top_from: Top, top_to: Top) -> Top:
    """Create the Crop layer that crops ``top_from`` to the pixels that lie over ``top_to``, and return its top.

    Raises:
        NetError: If the two have no common ancestor or different scales, or if the offset is negative or fractional.
    """
    return layer("Crop", top_from, top_to, **crop_fields(top_from, top_to))


def crop_fields(top_from: Top, top_to: Top) -> dict[str, Any]:
    """Return the ``axis`` and ``offset`` of the Crop layer that crops ``top_from`` to the pixels over ``top_to``.

    Raises:
        NetError: If the two have no common ancestor or different scales, or if the offset is negative or fractional.

    Source: BVLC/caffe@9b89154 python/caffe/coord_map.py L166-L185.
    """
    between = map_between(top_from, top_to)
    offset = crop_offset(between, f"the {top_from.function.type} top and the {top_to.function.type} top")
    return {"axis": 2 if between.axis is None else between.axis, "offset": offset}

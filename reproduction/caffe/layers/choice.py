"""The choice between the classes of a layer type that several dialects have.

The fields that a layer sets, the numbers of its bottoms, tops and parameter blobs, and the other layers of the net tell
which dialect a net was written for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from reproduction.caffe.errors import NetError, warn
from reproduction.caffe.formats import upgrade
from reproduction.caffe.layers.base import CLASSES, Layer
from reproduction.caffe.layers.fork_fields import find_fork_fields
from reproduction.caffe.schema import LayerParameter, find_dialect


def find_class(layer_param: LayerParameter) -> type[Layer]:
    """Return the class that computes a layer: that of its ``dialect``, or else the first that fits the message."""
    classes = CLASSES[layer_param.type]
    if len(classes) == 1:
        return classes[0]
    chosen = [kind for kind in classes if layer_param.dialect and _name(kind) == layer_param.dialect]
    return (chosen or _typical(_fitting(layer_param), layer_param) or classes)[0]


def choose_classes(
    layers: Sequence[LayerParameter], asked: str = "", blob_counts: Mapping[str, int] | None = None
) -> list[str]:
    """Set ``dialect`` of each layer whose type several dialects have.

    Args:
        layers: The layers of a net.
        asked: The name of a dialect to take wherever it has the type of a layer; empty for none.
        blob_counts: Numbers of parameter blobs in the weights that the net will have, by name of the layer.

    Returns:
        Sentences that name the layer types of forks, and the dialects that were taken.

    Raises:
        ReproductionError: If there is no dialect with the name ``asked``.
    """
    if asked:
        find_dialect(asked)
    fitting = [_fitting(layer, asked, (blob_counts or {}).get(layer.name)) for layer in layers]
    shown = {_name(kinds[0]) for kinds in fitting if len(kinds) == 1} - {""}
    taken: dict[type[Layer], None] = {}
    guessed: dict[type[Layer], LayerParameter] = {}
    for layer, kinds in zip(layers, fitting, strict=True):
        if not kinds:
            continue
        likely = [kind for kind in kinds if _name(kind) in shown] or _typical(kinds, layer)
        kind = likely[0]
        if len(CLASSES[layer.type]) > 1:
            layer.dialect = _name(kind)
        if kind.dialect is not None:
            taken[kind] = None
            if len(likely) > 1 and _name(kind) not in shown:
                guessed.setdefault(kind, layer)
    for kind, layer in guessed.items():
        others = ", ".join(repr(_name(each)) for each in CLASSES[layer.type] if each is not kind)
        problem = f"several forks have {layer.type} layers, and nothing shows whose these are"
        remedy = f"Those of {kind.dialect} are taken; for the others, name the dialect: {others}."
        warn(NetError(problem, layer=layer.name, line=layer.line, remedy=remedy))
    return _describe(taken)


def _name(kind: type[Layer]) -> str:
    return kind.dialect.name if kind.dialect is not None else ""


def _fitting(layer: LayerParameter, asked: str = "", blobs: int | None = None) -> list[type[Layer]]:
    """Return the classes of a layer's type that it can be of: only BVLC's if that fits, only the one asked for."""
    classes = CLASSES.get(layer.type, [])
    name = asked or layer.dialect
    wanted = [kind for kind in classes if name and _name(kind) == name]
    if wanted or len(classes) < 2:
        return wanted or classes
    fields = set(_fork_fields(layer))
    unconnected = not layer.bottom and not layer.top  # the message of a net that is written in Python
    count = blobs if blobs is not None else len(layer.blobs)
    found = [
        kind
        for kind in classes
        if fields <= kind.reads
        and (unconnected or (_within(len(layer.bottom), kind.bottoms) and _within(len(layer.top), kind.tops)))
        and (not count or not kind.blob_counts or count in kind.blob_counts)
    ]
    if found and found[0].dialect is None:
        return found[:1]
    # A class that extends another one computes the same from the fields that both read.
    return [kind for kind in found if not any(kind is not other and issubclass(kind, other) for other in found)]


def _typical(kinds: list[type[Layer]], layer: LayerParameter) -> list[type[Layer]]:
    """Return the classes of the forks whose nets have such layers, or all of ``kinds`` if there are none."""
    return [kind for kind in kinds if kind.is_typical(layer)] or kinds


def _within(count: int, limits: tuple[int, int | None]) -> bool:
    low, high = limits
    return low <= count and (high is None or count <= high)


def _fork_fields(layer: LayerParameter) -> Iterator[str]:
    for param, message in layer.set_fields():
        if param.message is not None and not param.repeated:
            yield from (name for name, _ in find_fork_fields(param, message))


def _describe(taken: Iterable[type[Layer]]) -> list[str]:
    types: dict[str, list[str]] = {}
    for kind in taken:
        types.setdefault(str(kind.dialect), []).append(kind.__name__)
    return [f"{', '.join(sorted(names))}: as in {dialect}." for dialect, names in types.items()]


upgrade.CHOOSE_CLASSES.append(choose_classes)

"""What a file of Caffe says of its net, without its weights in memory: age, forks, layers, sizes, and what runs here.

The net is built on torch's device ``meta``, which has shapes but no values, so that a large net takes milliseconds.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reproduction.caffe.errors import NetError, ReproductionError, StrPath
from reproduction.caffe.formats import file_kinds, prototxt, weights
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import LAYERS, UNSUPPORTED
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.layers.data import BaseDataLayer
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.graph import build_graph
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase

_ENDINGS = (".prototxt", ".caffemodel", ".h5", ".pt", ".prototxt.txt")
GUESSED_SIDE = 224  # of the images of a net that reads its own data, if it does not crop them


@dataclass
class NetInfo:
    """What is known of a file.

    Attributes:
        file: The path.
        kind: What it is, such as ``a net's prototxt``; empty if it is not recognized.
        name: The net's name.
        age: ``V0`` (2013), ``V1`` (2014) or ``current``: the form of its layers.
        forks: The forks of Caffe whose layers or fields it has.
        layers: How many layers there are of each type, most first.
        inputs: The shapes of the inputs; guessed if the net reads its own data, as ``notes`` say.
        outputs: The shapes of the outputs.
        parameters: The number of parameters.
        products: How many times a forward pass multiplies an input by a weight, for one image.
        without_gradient: Layer types through which no gradient passes.
        without_onnx: Layer types that cannot be written as ONNX.
        as_they_are: Layer types that a compiled net runs as they are.
        notes: Sentences on what was upgraded or guessed.
        error: Why the file cannot be read, or its net cannot run; empty if it runs.
        reason: The same without the place, to count files by.
        loads: Whether the file can be read.
        runs: Whether the net runs forward.
    """

    file: str
    kind: str = ""
    name: str = ""
    age: str = ""
    forks: list[str] = field(default_factory=list)
    layers: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    parameters: int = 0
    products: int = 0
    without_gradient: list[str] = field(default_factory=list)
    without_onnx: list[str] = field(default_factory=list)
    as_they_are: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    reason: str = ""
    loads: bool = False
    runs: bool = False


def list_files(path: StrPath) -> list[Path]:
    """Return a file, or the files of a folder and below it that may be Caffe's by their endings, sorted.

    Args:
        path: A file or a folder.
    """
    if not Path(path).is_dir():
        return [Path(path)]
    return sorted(found for found in Path(path).rglob("*") if found.name.endswith(_ENDINGS) and found.is_file())


def inspect_file(path: StrPath, dialect: str = "") -> NetInfo:
    """Return what is known of a prototxt or of weights; a file that cannot be read has an ``error``.

    Args:
        path: The file.
        dialect: The fork of Caffe that the net is for, where several have layers of one type.

    Raises:
        OSError: If the file cannot be opened.
    """
    info = NetInfo(os.fspath(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            info.kind = file_kinds.recognize(path) or ""
            if info.kind == file_kinds.SOLVER:
                prototxt.load_solver(path)
                info.loads = True
            elif info.kind == file_kinds.WEIGHTS:
                _describe_weights(info)
            else:
                net_param, info.notes = prototxt.load_net(path, dialect=dialect)
                info.kind, info.loads = file_kinds.NET, True
                _describe_layers(info, net_param)
                _describe_net(info, net_param)
        except ReproductionError as error:
            info.error, info.reason = str(error), error.problem
    return info


def _describe_weights(info: NetInfo) -> None:
    found = weights.read(info.file)
    info.loads, info.notes = True, list(found.notes)
    _describe_layers(info, found.net)
    info.parameters = sum(math.prod(array.shape) for _, arrays in found for array in arrays)


def _describe_layers(info: NetInfo, net_param: NetParameter) -> None:
    """Fill in what the messages of the layers say, without building them."""
    info.name = net_param.name
    info.age = next((age for age in ("V0", "V1") if any(f" {age}" in note for note in info.notes)), "current")
    info.layers = dict(Counter(layer.type for layer in net_param.layer if layer.type).most_common())
    info.forks = sorted({fork for layer in net_param.layer for fork in _forks(layer)})


def _forks(layer: LayerParameter) -> Iterable[str]:
    """Yield the forks whose class computes a layer, or whose fields it sets."""
    if layer.type in LAYERS and (kind := find_class(layer)).dialect is not None:
        yield str(kind.dialect)
    for param, message in layer.set_fields():
        if param.dialect is not None:
            yield str(param.dialect)
        if param.message is not None and not param.repeated:
            for inner, _ in message.set_fields():
                if inner.dialect is not None:
                    yield str(inner.dialect)


def _describe_net(info: NetInfo, net_param: NetParameter) -> None:
    """Fill in what the net shows when it is built without values."""
    net, guessed = build_without_values(net_param)
    if guessed:
        info.notes.append("the net reads its own data; the shapes of its inputs are guessed.")
    info.runs = True
    info.inputs = {name: net.blob_shapes[name] for name in net.inputs}
    info.outputs = {name: net.blob_shapes[name] for name in net.outputs}
    info.parameters = sum(blob.numel() for blob in net.parameters())
    kinds: dict[type[Layer], bool] = {}
    for node in net.graph.nodes:
        layer = net.layer_at(node)
        if layer is None:
            continue
        shapes = [net.blob_shapes[bottom] for bottom in node.bottoms]
        is_compiled = layer.compiled_form(shapes) is not None
        kinds[type(layer)] = kinds.get(type(layer), True) and is_compiled
    batch = max([shape[0] for shape in info.inputs.values() if len(shape) == 4] or [1])
    info.products = count_products(net) // max(batch, 1)
    info.without_gradient = sorted(kind.__name__ for kind in kinds if _stops_gradient(kind))
    info.without_onnx = sorted(kind.__name__ for kind in kinds if not onnx_export.has_onnx_form(kind))
    info.as_they_are = sorted(kind.__name__ for kind, compiled in kinds.items() if not compiled)


def count_products(net: Net) -> int:
    """Return how many times a forward pass of a net multiplies an input by a weight.

    Args:
        net: The net, whose blobs have the shapes to count for.
    """
    layers = [(net.layer_at(node), node.bottoms) for node in net.graph.nodes]
    return sum(layer.products([net.blob_shapes[name] for name in bottoms]) for layer, bottoms in layers if layer)


def _stops_gradient(kind: type[Layer]) -> bool:
    return kind.differentiable == () and kind.bottoms != (0, 0)


def build_without_values(
    net_param: NetParameter, side: int = GUESSED_SIDE, inputs: Mapping[str, Shape] | None = None
) -> tuple[Net, bool]:
    """Build a net of phase TEST on the device ``meta``, where its blobs have shapes but no values.

    Args:
        net_param: The net.
        side: Height and width of the images of a data layer that does not crop them.
        inputs: The shapes of the inputs, if they are known; else they are guessed.

    Returns:
        The net, and whether it reads its own data, so that the shapes of its inputs were guessed.

    Raises:
        NetError: If Caffe would reject the net, or no guess fits its layers.
    """
    guesses: Sequence[Mapping[str, Shape]] = [inputs] if inputs else _guess_inputs(net_param, side)
    for number, guess in enumerate(guesses):
        try:
            with torch.device("meta"):
                return Net(net_param, inputs=guess or None), bool(guess) and not inputs
        except NetError:
            if number == len(guesses) - 1:
                raise
    raise AssertionError("there is at least one guess")


def _guess_inputs(net_param: NetParameter, largest: int) -> list[dict[str, Shape]]:
    """Return guesses of the shapes of the tops of data layers that would read files: images of their ``crop_size``.

    The tops after the first are a label for each image; or images too, except that the last one is a label map; or
    all label maps.
    """
    nodes = build_graph(net_param, Phase.TEST, fed=_fed_tops(net_param)).nodes
    layers = [node.layer_param for node in nodes if node.is_slot and node.layer_param.type != "Input"]
    if not layers:
        return [{}]
    guesses = []
    for kind in ("label", "images", "maps"):
        found: dict[str, Shape] = {}
        for layer in layers:
            side = layer.transform_param.crop_size or largest
            image, label_map = (1, 3, side, side), (1, 1, side, side)
            first, *others = layer.top
            found[first] = image
            for top in others:
                found[top] = (1,) if kind == "label" else image if kind == "images" and top != others[-1] else label_map
        guesses.append(found)
    return guesses


def _fed_tops(net_param: NetParameter) -> dict[str, Shape]:
    return {top: () for layer in net_param.layer if _reads_files(layer) for top in layer.top}


def _reads_files(layer: LayerParameter) -> bool:
    """Return whether a layer is a data layer whose files may be missing here."""
    if layer.bottom or layer.type in ("Input", "DummyData", "Parameter"):
        return False
    kind = LAYERS.get(layer.type)
    return layer.type in UNSUPPORTED or (kind is not None and issubclass(kind, BaseDataLayer))


def count_reasons(infos: Iterable[NetInfo]) -> list[tuple[int, str]]:
    """Return how many files cannot be read or run for each reason, most first.

    Args:
        infos: What is known of the files.
    """
    return [(count, reason) for reason, count in Counter(i.reason for i in infos if i.reason).most_common()]

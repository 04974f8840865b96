"""``readNetFromCaffe``, and a net with the methods of OpenCV's ``cv2.dnn.Net``.

Source: opencv/opencv@4.x modules/dnn/src/net.cpp, net_impl.cpp, caffe/caffe_importer.cpp;
opencv/opencv-python issue 436 (the names of Convolution layers).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe import devices, fillers
from reproduction.caffe.errors import NetError, ReproductionError, StrPath, did_you_mean, warn
from reproduction.caffe.formats import caffemodel, prototxt, upgrade, weights
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.caffe.typing import Array, Float32

__all__ = [
    "DNN_BACKEND_CUDA", "DNN_BACKEND_DEFAULT", "DNN_BACKEND_OPENCV", "DNN_TARGET_CPU", "DNN_TARGET_CUDA", "DnnLayer",
    "DnnNet", "readNet", "readNetFromCaffe",
]  # fmt: skip

DNN_BACKEND_DEFAULT, DNN_BACKEND_OPENCV, DNN_BACKEND_CUDA = 0, 3, 5
DNN_TARGET_CPU, DNN_TARGET_CUDA = 0, 6

Content = bytes | bytearray | memoryview | Array  # of a file, instead of its path
_CONTENT = (bytes, bytearray, memoryview, np.ndarray)


def readNetFromCaffe(prototxt: StrPath | Content, caffeModel: StrPath | Content = "") -> DnnNet:
    """Load a net from a prototxt and a caffemodel, in phase TEST.

    Args:
        prototxt: The path of the prototxt, or the content of one as bytes or as an array of uint8.
        caffeModel: The path or the content of the weights; empty to keep the values of the fillers. A path may have any
            format that ``reproduction.read_weights`` supports.

    Raises:
        ReproductionError: If a file cannot be parsed, or if Caffe would reject the net or its weights.
    """
    net_param = _read_prototxt(prototxt)
    source = _read_weights(caffeModel)
    if source is None:
        net = Net(net_param)
    else:
        with fillers.postpone() as fillings:
            net = Net(net_param)
        net.copy_from(source, "" if isinstance(caffeModel, _CONTENT) else caffeModel, fillings=fillings)
    return DnnNet(net, {layer.name for layer in net_param.layer})


def readNet(model: StrPath, config: StrPath = "", framework: str = "") -> DnnNet:
    """Load a net from its two files in either order, as ``cv2.dnn.readNet`` does.

    Args:
        model: The path of the caffemodel, or of the prototxt.
        config: The path of the other file.
        framework: ``caffe`` or empty.

    Raises:
        ReproductionError: If ``framework`` has any other value, or a file cannot be loaded.
    """
    if framework.lower() not in ("", "caffe"):
        raise ReproductionError("only Caffe's nets are loaded", got=framework, remedy="Use OpenCV for others.")
    first, second = str(model), str(config)
    is_prototxt = [name.endswith((".prototxt", ".pt", ".txt", ".pbtxt")) for name in (first, second)]
    return readNetFromCaffe(second, first) if is_prototxt == [False, True] else readNetFromCaffe(first, second)


@dataclass(frozen=True)
class DnnLayer:
    """A layer as ``DnnNet.getLayer`` returns it.

    Attributes:
        name: The name in the prototxt.
        type: The type in the prototxt.
        blobs: Copies of the parameters, in Caffe's order and shapes. (OpenCV adds axes to biases.)
    """

    name: str
    type: str
    blobs: list[Float32] = field(default_factory=list)


class DnnNet:
    """A net with the methods of OpenCV's ``cv2.dnn.Net``; ``readNetFromCaffe`` returns it.

    As in OpenCV, a result belongs to a layer and not to a blob: if ``relu1`` overwrites the top of ``conv1``,
    ``forward("conv1")`` returns the values before the ReLU. A layer's result is its first top. OpenCV names a layer as
    the prototxt does, a Convolution after its top, and the second layer of a name ``NAME_1``; these names are listed.
    Names of the prototxt and of blobs are found too, so that further tops can be read.

    Args:
        net: The ``torch.nn.Module``.
        declared: The names of the layers of the prototxt; the Split layers that Caffe inserts are not among them.
    """

    def __init__(self, net: Net, declared: Collection[str]):
        self.net = net.requires_grad_(False)
        self._nodes: list[Node] = [node for node in net.graph.nodes if not node.is_slot]
        self._layers = [node for node in self._nodes if node.name in declared]
        self._names = _opencv_names(self._layers)
        self._inputs: dict[str, Tensor] = {}
        self._seconds = 0.0

    # ---- inputs and results

    def setInput(
        self, blob: Array, name: str = "", scalefactor: float = 1.0, mean: float | Sequence[float] = ()
    ) -> None:
        """Set the values of an input; they are copied.

        Args:
            blob: (N, C, H, W), or as many axes as the input has; any sizes that the layers accept.
            name: The input's name; empty for the first.
            scalefactor: A factor by which values are multiplied after the mean is subtracted.
            mean: Values to subtract from each channel; missing ones are 0.

        Raises:
            NetError: If there is no such input, or ``blob`` is not an array of numbers.
        """
        names = self.net.inputs
        name = name or (names[0] if names else "")
        if name not in names:
            raise NetError(f"the net has no input {name!r}", want=f"one of {names}", remedy=did_you_mean(name, names))
        values = np.array(blob, np.float32)
        means = np.atleast_1d(np.asarray(mean, np.float32)).ravel()
        if values.ndim > 1 and means.any():
            channels = np.zeros(values.shape[1], np.float32)
            channels[: means.size] = means[: channels.size]
            values -= channels.reshape(-1, *[1] * (values.ndim - 2))
        self._inputs[name] = torch.from_numpy(values * np.float32(scalefactor))

    @overload
    def forward(self, outputName: str = "") -> Float32: ...
    @overload
    def forward(self, outputName: list[str] | tuple[str, ...]) -> tuple[Float32, ...]: ...
    def forward(self, outputName: str | list[str] | tuple[str, ...] = "") -> Float32 | tuple[Float32, ...]:
        """Run the layers that the requested results need, and return the results as arrays of float32.

        Args:
            outputName: The name of a layer, a list of names, or empty for the last layer.

        Returns:
            An array; a tuple of arrays for a list of names.

        Raises:
            NetError: If there is no such layer, or an input is missing or does not fit.
        """
        if isinstance(outputName, str):
            return self._compute([outputName or self._names[-1]])[0]
        return tuple(self._compute(outputName))

    def forwardAndRetrieve(self, outBlobNames: Iterable[str]) -> tuple[tuple[Float32, ...], ...]:
        """Return all tops of each of the given layers."""
        names = list(outBlobNames)
        nodes = [self._find(name) for name in names]
        tops = self._run({(node.index, top) for node in nodes for top in node.tops})
        return tuple(tuple(tops[node.index, top] for top in node.tops) for node in nodes)

    def getPerfProfile(self) -> tuple[int, tuple[float, ...]]:
        """Return the time of the last forward pass in nanoseconds, the ticks of OpenCV on Linux, and no details."""
        return round(self._seconds * 1e9), ()

    # ---- layers

    def empty(self) -> bool:
        """Return True if the net has no layers."""
        return not self._layers

    def getLayerNames(self) -> tuple[str, ...]:
        """Return the names of the layers in order, without inputs."""
        return tuple(self._names)

    def getLayerId(self, layer: str) -> int:
        """Return the number of a layer, from 1 for the first; -1 if there is none of this name."""
        names = self._names if layer in self._names else [node.name for node in self._layers]
        return names.index(layer) + 1 if layer in names else -1

    def getLayer(self, layerId: int | str) -> DnnLayer:
        """Return a layer by name or by number, with its parameters.

        Raises:
            NetError: If there is no such layer.
        """
        node = self._find(layerId)
        name = self._names[self._layers.index(node)]
        return DnnLayer(name, node.type, [blob.detach().cpu().numpy().copy() for blob in self._blobs(node)])

    def getLayerTypes(self) -> tuple[str, ...]:
        """Return the types of the layers, sorted, each once."""
        return tuple(sorted({node.type for node in self._layers}))

    def getLayersCount(self, layerType: str) -> int:
        """Return the number of layers of a type."""
        return sum(node.type == layerType for node in self._layers)

    def getUnconnectedOutLayers(self) -> Array:
        """Return the numbers of the layers whose results no other layer reads, as int32."""
        return np.array(self._ends(), np.int32)

    def getUnconnectedOutLayersNames(self) -> tuple[str, ...]:
        """Return the names of the layers whose results no other layer reads."""
        return tuple(self._names[number - 1] for number in self._ends())

    def getParam(self, layer: int | str, numParam: int = 0) -> Float32:
        """Return a copy of a parameter of a layer.

        Raises:
            NetError: If there is no such layer or parameter.
        """
        return self._blob(layer, numParam).detach().cpu().numpy().copy()

    def setParam(self, layer: int | str, numParam: int, blob: Array) -> None:
        """Set a parameter of a layer to the values of an array, which has as many.

        Raises:
            NetError: If there is no such layer or parameter, or the number of values differs.
        """
        target, values = self._blob(layer, numParam), np.asarray(blob, np.float32)
        if values.size != target.numel():
            raise NetError("the parameter has another number of values", got=values.shape, want=tuple(target.shape)).at(
                f"layer {layer!r}"
            )
        with torch.no_grad():
            target.copy_(torch.from_numpy(values).view(target.shape))

    # ---- where and how to compute

    def setPreferableBackend(self, backendId: int) -> None:
        """Accept any of OpenCV's backends; the target decides where the net is computed, by torch."""

    def setPreferableTarget(self, targetId: int) -> None:
        """Move the net to the CPU or to the GPU.

        Args:
            targetId: ``DNN_TARGET_CUDA`` for the GPU; ``DNN_TARGET_CPU`` and, with a warning, any other for the CPU.

        Raises:
            ReproductionError: If this build of torch has no CUDA.
        """
        if targetId not in (DNN_TARGET_CPU, DNN_TARGET_CUDA):
            warn(NetError("the net is computed on the CPU", got=f"target {targetId}", want="DNN_TARGET_CPU or _CUDA"))
        self.net.to(devices.select_device("cuda" if targetId == DNN_TARGET_CUDA else "cpu"))

    def enableFusion(self, fusion: bool) -> None:
        """Accept OpenCV's setting; results do not depend on it."""

    def enableWinograd(self, useWinograd: bool) -> None:
        """Accept OpenCV's setting; results do not depend on it."""

    # ---- inside

    def _find(self, layer: int | str) -> Node:
        number = layer if isinstance(layer, int) else self.getLayerId(layer)
        if not 1 <= number <= len(self._layers):
            raise NetError(f"the net has no layer {layer!r}", remedy=did_you_mean(str(layer), self._names))
        return self._layers[number - 1]

    def _blobs(self, node: Node) -> list[Tensor]:
        layer = self.net.layer_at(node)
        return layer.blobs if layer is not None else []

    def _blob(self, layer: int | str, index: int) -> Tensor:
        node = self._find(layer)
        blobs = self._blobs(node)
        if not 0 <= index < len(blobs):
            raise NetError(f"layer {node.name!r} has no parameter {index}", want=f"less than {len(blobs)}")
        return blobs[index]

    def _ends(self) -> list[int]:
        """Return the numbers of the layers that no later layer reads; a layer that works in place reads its top."""
        read: set[str] = set()
        ends = []
        for node in reversed(self._nodes):
            if not read.intersection(node.tops):
                ends.append(self._layers.index(node) + 1)
            read.difference_update(node.tops)
            read.update(node.bottoms)
        return ends[::-1]

    def _compute(self, names: Sequence[str]) -> list[Float32]:
        """Return one result for each name of a layer or, if there is no such layer, of a blob."""
        places = [self._place(name) for name in names]
        found = self._run(set(places))
        return [found[place] for place in places]

    def _place(self, name: str) -> tuple[int, str]:
        """Return the index of the node, and the blob, from which the result of this name is taken."""
        writers = [node for node in self._layers if name in node.tops]
        if writers and self.getLayerId(name) < 0:
            return writers[-1].index, name
        node = self._find(name)
        return node.index, (node.tops or node.bottoms)[0]

    def _run(self, places: set[tuple[int, str]]) -> dict[tuple[int, str], Float32]:
        """Run the layers that these results need, and return the results by place."""
        started = time.perf_counter()
        needed: set[str] = set()
        nodes: list[Node] = []
        for node in reversed(self._nodes):
            blobs = [blob for index, blob in places if index == node.index]
            if blobs or needed.intersection(node.tops):
                nodes.insert(0, node)
                needed.difference_update(node.tops)
                needed.update(node.bottoms)
        results = {}
        with torch.inference_mode():
            values = self.net.feed(self._inputs, self.net.graph.find_inputs(nodes, needed))
            for node in nodes:
                tops = self.net.run(node, [values[name] for name in node.bottoms])
                values.update(zip(node.tops, tops, strict=True))
                for place in places:
                    if place[0] == node.index:  # copied now, since a layer that works in place overwrites it
                        results[place] = values[place[1]].to("cpu", torch.float32, copy=True).numpy()
        self._seconds = time.perf_counter() - started
        return results


def _opencv_names(layers: Sequence[Node]) -> list[str]:
    """Return the names that OpenCV gives to these layers."""
    names: list[str] = []
    count: Counter[str] = Counter()
    for node in layers:
        name = f"{node.name}_{count[node.name]}" if count[node.name] else node.name
        count[node.name] += 1
        names.append(node.tops[0] if node.type == "Convolution" and node.tops else name)
    return names


def _read_prototxt(source: StrPath | Content) -> NetParameter:
    if not isinstance(source, _CONTENT):
        return prototxt.load_net(source)[0]
    net_param = prototxt.loads(bytes(source).decode("utf-8", "surrogateescape"), NetParameter)
    upgrade.upgrade_net(net_param)
    return net_param


def _read_weights(source: StrPath | Content) -> NetParameter | None:
    if not isinstance(source, _CONTENT):
        return weights.read(source).net if source else None
    if not len(source):
        return None
    net_param = caffemodel.loads(bytes(source), NetParameter)
    upgrade.upgrade_net(net_param)
    return net_param

"""The inputs of a net in training, by the number of the forward pass ("draw") that they are for.

With ``iter_size`` forward passes for each update, pass j of iteration i has the draw number i * iter_size + j. What a
draw loads depends on this number alone, so that a resumed run, and several processes that share the draws, read the
same images as an uninterrupted run in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from reproduction.caffe.errors import DataError, NetError, StrPath
from reproduction.caffe.formats import hashes
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net import graph
from reproduction.caffe.schema import LayerParameter, NetParameter, NetState, Phase
from reproduction.caffe.typing import Array
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.train.image_list import ImageList
from reproduction.fcn.train.sample_changes import SampleChange


class DatasetFeed:
    """A feed of a data set's samples, one for each forward pass, in the order of the published data layer.

    The next sample is decoded in a background thread.

    Args:
        dataset: the split to read.
        changes: changes of the samples, which follow one another.

    Attributes:
        dataset: the split that is read.
        changes: changes of the samples, which follow one another.
    """

    def __init__(self, dataset: Dataset, changes: Sequence[SampleChange] = ()):
        self.dataset, self.changes = dataset, tuple(changes)
        self._order = dataset.order()
        self._drawn: list[int] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._last = -1
        self._next: tuple[int, Future[Sample]] | None = None

    def __call__(self, draw: int) -> dict[str, Array]:
        """Load the sample for forward pass number ``draw``: arrays (1, C, H, W) by top of the data layer.

        Raises:
            DataError: If a file of the sample is missing or broken.
        """
        ready = self._next[1] if self._next and self._next[0] == draw else None
        sample = ready.result() if ready else self._load(self._index(draw), draw)
        stride = max(draw - self._last, 1)  # more than 1 if several processes share the draws
        index = self._index(draw + stride)
        self._last, self._next = draw, (draw + stride, self._pool.submit(self._load, index, draw + stride))
        return {top: array[None] for top, array in sample.items()}

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the first sample's arrays by top; later samples differ in height and width."""
        if not len(self.dataset):
            raise DataError("there is no image", path=f"{self.dataset.name} {self.dataset.split}")
        return {top: (1, *array.shape) for top, array in self.dataset.frame(self.dataset[0]).items()}

    @property
    def description(self) -> str:
        """The data set's name and split, the number of ids and their SHA-1, their order's seed and changes, as text."""
        name, ids = f"{self.dataset.name} {self.dataset.split}", self.dataset.ids
        changed = "".join(f", {change.description}" for change in self.changes)
        return f"{name}, {len(ids)} images, sha1 {hashes.hash_lines(ids)}, order {self.dataset.seed}{changed}"

    def images(self, draw: int) -> list[str]:
        """Return the id of the sample that forward pass number ``draw`` loads, in a list."""
        return [self.dataset.ids[self._index(draw)]]

    def _load(self, index: int, draw: int) -> Sample:
        sample = self.dataset[index]
        for change in self.changes:
            sample = change(sample, self.dataset.label_classes, self.dataset.seed, draw)
        return self.dataset.frame(sample)

    def _index(self, draw: int) -> int:
        while len(self._drawn) <= draw:
            self._drawn.append(next(self._order))
        return self._drawn[draw]


#: What loads the inputs of a net for a forward pass by its number, the "draw": 0 for the first of a training, then 1,
#: 2 and so on. Its ``shapes`` are those that ``Net(inputs=...)`` takes; its ``description`` changes if the list of
#: images, or their order, does.
Feed = DatasetFeed | ImageList


def open_feed(
    net: NetParameter,
    root: StrPath,
    phase: Phase,
    seed: int | None = None,
    changes: Sequence[SampleChange] = (),
) -> Feed:
    """Open the data that a net's data layer reads: one of the published Python layers, or an ImageData layer.

    Args:
        net: the net definition, upgraded to the current format.
        root: the data root, to which the layer's paths are relative.
        phase: TRAIN or TEST, the phase whose data layer is opened.
        seed: the seed of the order of the images; None selects the one in the prototxt, else the default.
        changes: changes of the images and their labels, which follow one another.

    Raises:
        NetError: If the net does not have exactly one such layer, its settings are not supported, or it is an ImageData
            layer and there are changes.
        DataError: If the data are missing or do not match the layer's parameters.
    """
    layer = find_data_layer(net, phase)
    if layer.type == "Python":
        dataset = datasets.from_layer(layer.python_param, list(layer.top), root)
        if seed is not None:
            dataset.seed = seed
        return DatasetFeed(dataset, changes)
    if changes:
        remedy = "Set mirror and crop_size in its transform_param instead."
        raise NetError("an ImageData layer is not augmented", layer=layer.name, type=layer.type, remedy=remedy)
    return ImageList(layer, root, phase, *([] if seed is None else [seed]))


def with_phase(net_param: NetParameter, phase: Phase) -> NetState:
    """Return a copy of a net's state (level and stages, as the solver set them) with another phase.

    Args:
        net_param: the net's definition.
        phase: the phase of the new state.
    """
    state = net_param.state.copy()
    state.phase = phase
    return state


def find_data_layer(net: NetParameter, phase: Phase) -> LayerParameter:
    """Return the layer that feeds a net in a phase: its only Python or ImageData layer without bottoms.

    Args:
        net: the net's definition, upgraded to the current format.
        phase: TRAIN or TEST: layers of the other phase are left out.

    Raises:
        NetError: If the net has no such layer, several, or an Input layer.
    """
    sources = [node.layer_param for node in graph.build_graph(net, with_phase(net, phase)).nodes if not node.bottoms]
    known = [layer for layer in sources if layer.type in ("Python", "ImageData")]
    if len(known) != 1 or any(layer.type == "Input" for layer in sources):
        raise NetError(
            f"nothing can be fed into net {net.name!r}",
            got=", ".join(f"layer {layer.name!r} ({layer.type})" for layer in sources) or "no data layer",
            want="one Python layer as the published nets have, or one ImageData layer",
        )
    return known[0]

"""What the data layer of a net reads, as a function of the number of the draw.

A run that is resumed at any iteration, and each of several processes, gets the images that an unbroken single one
would have got.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy.typing as npt

from reproduction.caffe.errors import DataError, NetError, StrPath
from reproduction.caffe.geometry import Shape
from reproduction.caffe.net import graph
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.train.image_list import ImageList

Array = npt.NDArray[Any]


class Feed(Protocol):
    """What brings a net its inputs."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the inputs, by name: what the net wants as ``inputs``."""

    def __call__(self, draw: int) -> Mapping[str, Array]:
        """Read the inputs of a draw, from 0 on without end."""

    @property
    def about(self) -> str:
        """Name what is read, so that another list has another name."""

    def images(self, draw: int) -> list[str]:
        """Name the images of a draw."""


class DatasetFeed:
    """A data set, one sample a draw, in the order in which the published data layer reads it.

    The sample after is decoded in the background.

    Args:
        dataset: the split.

    Attributes:
        dataset: as given.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self._order = dataset.order()
        self._drawn: list[int] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._last = -1
        self._next: tuple[int, Future[Sample]] | None = None

    def __call__(self, draw: int) -> dict[str, Array]:
        """Read a sample: arrays (1, C, H, W) by top.

        Raises:
            DataError: as ``Dataset.__getitem__``.
        """
        ready = self._next[1] if self._next and self._next[0] == draw else None
        sample = ready.result() if ready else self.dataset[self._index(draw)]
        stride = max(draw - self._last, 1)  # more than 1 where several processes share the draws
        index = self._index(draw + stride)
        self._last, self._next = draw, (draw + stride, self._pool.submit(self.dataset.__getitem__, index))
        return {top: array[None] for top, array in sample.items()}

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the first sample; later ones have other heights and widths."""
        if not len(self.dataset):
            raise DataError("there is no image", path=f"{self.dataset.name} {self.dataset.split}")
        return {top: (1, *array.shape) for top, array in self.dataset[0].items()}

    @property
    def about(self) -> str:
        """Name the data set, the split and, by its hash, the order of the images."""
        name, ids = f"{self.dataset.name} {self.dataset.split}", self.dataset.ids
        return f"{name}, {len(ids)} images, sha1 {_sha1(ids)}, order {self.dataset.seed}"

    def images(self, draw: int) -> list[str]:
        """Name the sample of a draw by its id."""
        return [self.dataset.ids[self._index(draw)]]

    def _index(self, draw: int) -> int:
        while len(self._drawn) <= draw:
            self._drawn.append(next(self._order))
        return self._drawn[draw]


class ListFeed:
    """The batches of an ImageData layer.

    Args:
        images: the list.

    Attributes:
        list: as given.
    """

    def __init__(self, images: ImageList):
        self.list = images

    def __call__(self, draw: int) -> Mapping[str, Array]:
        """Read a batch."""
        return self.list(draw)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of a batch."""
        return self.list.shapes

    @property
    def about(self) -> str:
        """Name the list by its hash, and the order of its images."""
        lines = [f"{path.name} {label}" for path, label in self.list.images]
        return f"{len(lines)} images, sha1 {_sha1(lines)}, {self.list.batch_size} a batch, order {self.list.seed}"

    def images(self, draw: int) -> list[str]:
        """Name the images of a batch by their files."""
        size = self.list.batch_size
        return [self.list.image(number)[0].name for number in range(draw * size, (draw + 1) * size)]


def open(net: NetParameter, root: StrPath, phase: Phase, seed: int | None = None) -> Feed:
    """Open what the data layer of a net reads: one of the published Python layers, or an ImageData layer.

    Args:
        net: the net, upgraded.
        root: the data root.
        phase: TRAIN or TEST.
        seed: of the order; None is that of the prototxt, or the published one.

    Raises:
        NetError: there is no such layer.
        DataError: the data are not there, or not as the layer says.
    """
    layer = data_layer(net, phase)
    if layer.type == "Python":
        dataset = datasets.from_layer(layer.python_param, list(layer.top), root)
        if seed is not None:
            dataset.seed = seed
        return DatasetFeed(dataset)
    return ListFeed(ImageList(layer, root, phase, *([] if seed is None else [seed])))


def data_layer(net: NetParameter, phase: Phase) -> LayerParameter:
    """Find the layer that brings the data.

    Raises:
        NetError: the net has none that can be fed, or several.
    """
    sources = [
        node.spec
        for node in graph.build(net, phase, level=net.state.level, stages=net.state.stage).nodes
        if not node.bottoms
    ]
    known = [layer for layer in sources if layer.type in ("Python", "ImageData")]
    if len(known) != 1 or any(layer.type == "Input" for layer in sources):
        raise NetError(
            f"nothing can be fed into net {net.name!r}",
            got=", ".join(f"layer {layer.name!r} ({layer.type})" for layer in sources) or "no data layer",
            want="one Python layer as the published nets have, or one ImageData layer",
        )
    return known[0]


def _sha1(lines: Iterable[str]) -> str:
    return hashlib.sha1("".join(f"{line}\n" for line in lines).encode(), usedforsecurity=False).hexdigest()

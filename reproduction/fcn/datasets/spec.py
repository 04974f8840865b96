"""The record of a data set, and those of the nets that were published for it.

Each data set has one file in this package. Its ``SPEC`` says everything that the rest of the project needs to know of
it, and its ``NETS`` are the published nets that were trained on it. ``datasets.SPECS`` and ``datasets.NETS`` collect
them; docs/data_sets.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.caffe.typing import Floating, Progress
from reproduction.fcn.datasets.base import Dataset
from reproduction.fcn.datasets.layouts import FolderLayout

#: The kinds of inputs of a net: the number of channels, and their order or unit.
CHANNELS = {"color": 3, "depth": 1, "hha": 3}
CHANNEL_ORDERS = {"color": "BGR", "hha": "RGB", "depth": "log(mm)"}

# VGG16's five blocks: (channels, number of convolutions) before each pooling.
VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


@dataclass(frozen=True)
class Head:
    """One task of a net: the labels that it predicts.

    Attributes:
        label: The top of the data layer with the labels.
        classes: Names of the classes; the index is the label.
    """

    label: str
    classes: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """Suffix of the names of its layers: none for the top ``label``, ``_X`` for any other top ``X``."""
        return "" if self.label == "label" else f"_{self.label}"

    @property
    def score(self) -> str:
        """Name of the blob with its scores, (N, classes, H, W)."""
        return f"score{self.suffix}"


@dataclass(frozen=True)
class DataLayer:
    """The data layer of one of a net's two prototxts, for training or for scoring.

    Attributes:
        file: Name of the prototxt without its extension, as upstream calls it.
        split: The split that it reads.
        dataset: The class that reads it; its ``layer`` is the type of the published Python layer.
        keys: Keys of ``param_str``, in the order of the published files (that of a Python 2 dict).
    """

    file: str
    split: str
    dataset: type[Dataset]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSpec:
    """A data set.

    Attributes:
        name: Its name everywhere: the first part of its nets' names, the argument of tools, the set in
            weights/manifest.json, the folder in reports/ and weights/.
        title: Its name on pages.
        classes: Class names by label top; the index is the label. The first top is the main one.
        means: The mean that is subtracted, by kind of input (a key of ``CHANNELS``). Its dtype is the precision of the
            subtraction, its order that of ``CHANNEL_ORDERS``.
        datasets: The classes that read it.
        layouts: Where its folders may be below the data root, by name of the archive.
        module: Module of the published Python layers.
        folders: Folders below the data root, by key of ``param_str``.
        train: The split to train on.
        test: The split to score.
        test_iter: Number of images in the test split.
        max_iter: Number of iterations in the published solvers.
        snapshot: Iterations between snapshots; None if the published solvers do not set it.
        schedule: Iterations in all and between validations, where solve.py sets them whatever the solver says.
        least_rise_points: The required gain in mean IU from each stage to the next, in percentage points; None if there
            is no requirement.
        params: Further values of ``param_str``, by key.
        knows: Description of what its nets can recognize, if not photographs; see ``segment.card.Card``.
        draw: Draws the images below a data root, unless they exist, and returns the folder; None for a data set that is
            fetched.
    """

    name: str
    title: str
    classes: Mapping[str, tuple[str, ...]]
    means: Mapping[str, Floating]
    datasets: tuple[type[Dataset], ...]
    layouts: Mapping[str, FolderLayout]
    module: str
    folders: Mapping[str, str]
    train: DataLayer
    test: DataLayer
    test_iter: int
    max_iter: int = 300_000
    snapshot: int | None = None
    schedule: tuple[int, int] | None = None
    least_rise_points: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    knows: str = ""
    draw: Callable[[Path, Progress | None], Path] | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The tasks of its nets: two for SIFT Flow, one for the other data sets."""
        return tuple(Head(label, names) for label, names in self.classes.items())


@dataclass(frozen=True)
class PublishedNet:
    """One published net.

    Attributes:
        name: Upstream's directory.
        dataset: The data set that it was trained on.
        stride: Input pixels between predictions before the last upsampling.
        base_lr: Learning rate of the solver.
        caffemodel: Path of its weights below the weights folder; None if none were published.
        parents: The nets whose weights its training starts from: for each name, the suffix that the names of that
            net's layers get in this net.
        inputs: The images of the data layer: blob name -> content (a key of ``CHANNELS``).
        trunk: "vgg16" or "alexnet".
        first: Name of the first convolution.
        blocks: VGG16's blocks: (channels, number of convolutions) before each pooling.
        width: Number of channels of fc6 and fc7.
        dropout: Dropout ratio after fc6 and fc7.
        kernel: Kernel size of the last upsampling; None for twice its stride.
        normalize: True if the loss is divided by the number of pixels that are not void.
        late: True for late fusion: each input has its own trunk, and the scores are averaged.
        at_once: True if the skips are trained together with the trunk, through fixed scales.
        data: Path of the data root in the prototxts.
        solver: Solver fields that differ from those of the data set's other nets.
    """

    name: str
    dataset: DatasetSpec
    stride: int
    base_lr: float
    caffemodel: str | None
    parents: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=lambda: {"data": "color"})
    trunk: str = "vgg16"
    first: str = "conv1_1"
    blocks: tuple[tuple[int, int], ...] = VGG16_BLOCKS
    width: int = 4096
    dropout: float = 0.5
    kernel: int | None = None
    normalize: bool = False
    late: bool = False
    at_once: bool = False
    data: str = "../data"
    solver: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The tasks: two for SIFT Flow, one for the other data sets."""
        return self.dataset.heads

    @property
    def tops(self) -> tuple[str, ...]:
        """The tops of the data layer: images first, then labels."""
        return (*self.inputs, *(head.label for head in self.heads))

    @property
    def data_layers(self) -> tuple[DataLayer, DataLayer]:
        """The data layers to train on and to score."""
        return self.dataset.train, self.dataset.test


VGG16, CAFFENET = {"vgg16": ""}, {"caffenet": ""}  # the classifiers that trainings start from
# Upstream bug, kept: the data path in voc-fcn16s and the three pascalcontext nets, "../../data", has one "../" too
# many as seen from the net's folder; the other eleven nets have "../data".
HIGH_DATA = "../../data"

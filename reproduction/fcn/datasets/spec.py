"""The record of a data set, and those of the nets that were published for it.

Each data set has one file in this package. Its ``SPEC`` says everything that the rest of the project needs to know of
it, and its ``NETS`` are the nets of the paper that were trained on it. ``datasets.SPECS`` and ``datasets.NETS`` collect
them; docs/data_sets.md shows how to add one. Further nets are in ``fcn.nets.systems``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reproduction.caffe.typing import Floating, Progress
from reproduction.fcn.datasets.base import Dataset
from reproduction.fcn.datasets.layouts import FolderLayout
from reproduction.fcn.images.framing import NO_FRAME, Framing

#: The kinds of inputs of a net: the number of channels, and their order or unit.
CHANNELS = {"color": 3, "depth": 1, "hha": 3}
CHANNEL_ORDERS = {"color": "BGR", "hha": "RGB", "depth": "log(mm)"}

# VGG16's five blocks: (channels, number of convolutions) before each pooling.
VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


@dataclass(frozen=True)
class Head:
    """One kind of labels that a net predicts, with the layers that compute their scores.

    SIFT Flow's nets have two heads, for semantic and geometric labels; all others have one.

    Attributes:
        label: The data layer's top with the true labels: ``label``; for SIFT Flow ``sem`` and ``geo``.
        classes: Names of the classes; the index is the label.
    """

    label: str
    classes: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """Suffix of the names of this head's layers: empty if its top is ``label``, ``_X`` for any other top ``X``."""
        return "" if self.label == "label" else f"_{self.label}"

    @property
    def score(self) -> str:
        """Name of the blob with the classes' scores, (N, classes, H, W): ``score``, ``score_sem`` or ``score_geo``."""
        return f"score{self.suffix}"


@dataclass(frozen=True)
class DataLayer:
    """One of the two data layers of a data set's nets: that of their prototxt for training, or of the one for scoring.

    Attributes:
        file: Name of the prototxt without its extension, such as ``train``, ``val`` or ``test``.
        split: The split that it reads.
        dataset: The class that reads it; its ``layer`` is the type of the published Python layer.
        keys: Keys of the layer's ``param_str``, in the order of the published files (that of a Python 2 dict).
    """

    file: str
    split: str
    dataset: type[Dataset]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class DatasetSpec:
    """The record of a data set: everything that the rest of the project needs to know of it.

    Attributes:
        name: Its name everywhere, such as ``voc``: the first part of its nets' names, the argument of tools, the set in
            weights/manifest.json, the folder in reports/ and weights/.
        title: Its name on pages.
        classes: Class names by label top (``label``; SIFT Flow has ``sem`` and ``geo``); the index is the label. The
            first top is the main one.
        means: The mean of each channel that is subtracted, by content of the input (a key of ``CHANNELS``). Its dtype
            is the precision of the subtraction, and its channels are in the order of ``CHANNEL_ORDERS``.
        datasets: The ``Dataset`` classes that read it, such as ``VOC`` and ``SBD``.
        layouts: Where its folders may be below the data root, by name of the archive in the manifest.
        module: Name of the module with the published Python data layers, as in the prototxts.
        folders: Paths of its folders below the data root, by the key of ``param_str`` that states them in the
            prototxts.
        train: The split to train on.
        test: The split to score.
        test_iter: Number of images in the test split.
        max_iter: Number of iterations in the published solvers.
        snapshot: Iterations between snapshots; None if the published solvers do not set it.
        schedule: (number of iterations, iterations between validations) of the published solve.py, which override the
            solver prototxt; None if it sets none.
        least_rise_points: The required gain in mean IU from each stage to the next, in percentage points; None if there
            is no requirement.
        params: Further values of the data layers' ``param_str``, by key.
        knows: What kind of images its nets can recognize, such as ``drawn things only``; empty for photographs.
        draw: A function that draws the images below a data root, unless they exist, and returns the folder; None for a
            data set that is downloaded.
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
        """The heads of its nets, one for each kind of labels: two for SIFT Flow, one for the other data sets."""
        return tuple(Head(label, names) for label, names in self.classes.items())


@dataclass(frozen=True)
class NetRecord:
    """The record of a net, from which its prototxts, its model card and its training follow.

    ``PublishedNet`` is the record of a net of the paper; ``nets.systems.System`` is that of any other net.

    Attributes:
        name: Its name everywhere, such as ``voc-fcn8s``: the folder in prototxt/, the argument of commands.
        dataset: The data set that it is trained on.
        stride: Number of input pixels from one prediction to the next before the last upsampling: 32, 16 or 8.
        base_lr: The solver's ``base_lr``.
        caffemodel: Path of its published weights below the weights folder; None if none were published.
        parents: The nets whose weights its training starts from: name -> suffix that is appended to the names of that
            net's layers, e.g. ``{"voc-fcn32s": ""}``. Empty for a net that is trained from its fillers' values.
        inputs: The data layer's tops with images: top -> content (a key of ``CHANNELS``).
        first: Name of the first convolution: ``conv1`` for AlexNet; ``conv1_1_bgrd`` for four input channels.
        normalize: True if the loss is a mean over the pixels that are not void; False if it is their sum.
        data: Path of the data root in the prototxts.
        grey_mean: The mean brightness that is subtracted, if the net takes grey images; None if it takes colours.
        scale: The factor by which the brightness minus its mean is multiplied.
        framing: The frame that the net needs around an image and its labels; none for most nets.
        deploy_size: Height and width of the image that deploy.prototxt declares, in pixels; most nets take any other.
        solver: Fields of the solver that differ from those of the data set's other nets, by name.
    """

    name: str
    dataset: DatasetSpec
    stride: int
    base_lr: float
    caffemodel: str | None
    parents: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=lambda: {"data": "color"})
    first: str = "conv1_1"
    normalize: bool = False
    data: str = "../data"
    grey_mean: float | None = None
    scale: float = 1
    framing: Framing = NO_FRAME
    deploy_size: int = 500
    solver: Mapping[str, Any] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads, one for each kind of labels: two for SIFT Flow, one for the other data sets."""
        return self.dataset.heads

    @property
    def tops(self) -> tuple[str, ...]:
        """The names of the data layer's tops: first those with images, then those with labels."""
        return (*self.inputs, *(head.label for head in self.heads))

    @property
    def data_layers(self) -> tuple[DataLayer, DataLayer]:
        """The data layer for training and the one for scoring."""
        return self.dataset.train, self.dataset.test


@dataclass(frozen=True)
class PublishedNet(NetRecord):
    """The record of a net of the paper, or of a narrow copy of one for Mini-VOC; see ``NetRecord``.

    Attributes:
        trunk: The classifier whose layers the net has up to fc7: ``vgg16`` or ``alexnet``.
        blocks: VGG16's blocks: (channels, number of convolutions) before each pooling.
        width: Number of channels of fc6 and fc7.
        dropout: Dropout ratio after fc6 and fc7.
        kernel: Kernel size of the last upsampling; None for twice its stride.
        late: True for late fusion: each input has its own trunk, and the scores are averaged.
        at_once: True if the skips are trained together with the trunk in one stage, with fixed scales on the pools.
        nearest: True for upsampling that repeats scores; False for bilinear interpolation, as published.
        scales: Fixed scales of an at-once net that differ from the paper's, by pooling.
    """

    trunk: str = "vgg16"
    blocks: tuple[tuple[int, int], ...] = VGG16_BLOCKS
    width: int = 4096
    dropout: float = 0.5
    kernel: int | None = None
    late: bool = False
    at_once: bool = False
    nearest: bool = False
    scales: Mapping[str, float] = field(default_factory=dict)


VGG16, CAFFENET = {"vgg16": ""}, {"caffenet": ""}  # the classifiers that trainings start from
# Upstream bug, kept: the data path in voc-fcn16s and the three pascalcontext nets, "../../data", has one "../" too
# many as seen from the net's folder; the other eleven nets have "../data".
HIGH_DATA = "../../data"

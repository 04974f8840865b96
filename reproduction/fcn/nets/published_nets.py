"""The 15 published nets, generated as prototxt from one table instead of upstream's 15 ``net.py``.

``NETS`` is the table; ``build_net``, ``build_deploy`` and ``build_solver`` return the messages that follow from it.
Nothing here builds a module; that is done from the prototxt.

Source: shelhamer/fcn.berkeleyvision.org@1305c73, each net's net.py, solver.prototxt and solve.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer, layers
from reproduction.caffe.schema import LayerParameter, NetParameter, SolverParameter

VOID = 255  # the label that the loss and the scores ignore
SEED = 1337
MEAN_BGR = (104.00699, 116.66877, 122.67892)
CHANNELS = {"color": 3, "depth": 1, "hha": 3}
EXAMPLE_SIZE = 500  # height and width that deploy nets declare; any other size works too

LEARN = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]  # weights, biases
FIXED = [{"lr_mult": 0}]

# VGG16's five blocks: (channels, number of convolutions) before each pooling.
VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

# AlexNet's convolutions: (channels, kernel, stride, pad, groups).
ALEXNET_CONVS = ((96, 11, 4, 100, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2))

# The skips: (stride of the net with this skip, the pooling that it starts from, its fixed scale in at-once nets).
SKIPS = ((16, "pool4", 0.01), (8, "pool3", 0.0001))


@dataclass(frozen=True)
class Head:
    """One task of a net.

    Attributes:
        label: The top of the data layer with the labels.
        classes: Number of classes.
        suffix: Suffix of the names of its layers.
    """

    label: str
    classes: int
    suffix: str = ""

    @property
    def score(self) -> str:
        """Name of the blob with its scores, (N, classes, H, W)."""
        return f"score{self.suffix}"


@dataclass(frozen=True)
class Split:
    """One of a net's two prototxts (train or test), and the data layer in it.

    Attributes:
        file: Name of the prototxt without its extension, as upstream calls it.
        name: The split that the data layer reads.
        layer: Class name of the published Python layer.
        keys: Keys of ``param_str``, in the order of the published files (that of a Python 2 dict).
    """

    file: str
    name: str
    layer: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """The settings that all nets of one data set share.

    Attributes:
        module: Module of the published Python layers.
        train: The split to train on.
        test: The split to score.
        folders: Folders below the data root, by key of ``param_str``.
        heads: The tasks.
        test_iter: Number of images in the test split.
        max_iter: Number of training iterations.
        snapshot: Iterations between snapshots; None if the published solver does not set it.
        least_rise_points: The required gain in mean IU from each stage to the next, in percentage points; None if there
            is no requirement.
        says: Further values of ``param_str``, by key.
        knows: Description of what its nets can recognize, if not photographs; see ``segment.card.Card``.
    """

    module: str
    train: Split
    test: Split
    folders: dict[str, str]
    heads: tuple[Head, ...]
    test_iter: int
    max_iter: int = 300_000
    snapshot: int | None = None
    least_rise_points: float | None = None
    says: dict[str, Any] = field(default_factory=dict)
    knows: str = ""


DATASETS = {
    "voc": DataSet(
        module="voc_layers",
        train=Split("train", "train", "SBDDSegDataLayer", ("sbdd_dir", "seed", "split", "mean")),
        test=Split("val", "seg11valid", "VOCSegDataLayer", ("voc_dir", "seed", "split", "mean")),
        folders={"sbdd_dir": "sbdd/dataset", "voc_dir": "pascal/VOC2011"},
        heads=(Head("label", 21),),
        test_iter=736,
        max_iter=100_000,
        snapshot=4000,
    ),
    "nyud": DataSet(
        module="nyud_layers",
        train=Split("trainval", "trainval", "NYUDSegDataLayer", ("tops", "seed", "nyud_dir", "split")),
        test=Split("test", "test", "NYUDSegDataLayer", ("tops", "seed", "nyud_dir", "split")),
        folders={"nyud_dir": "nyud"},
        heads=(Head("label", 40),),
        test_iter=654,
        snapshot=2000,
    ),
    "siftflow": DataSet(
        module="siftflow_layers",
        train=Split("trainval", "trainval", "SIFTFlowSegDataLayer", ("siftflow_dir", "seed", "split")),
        test=Split("test", "test", "SIFTFlowSegDataLayer", ("siftflow_dir", "seed", "split")),
        folders={"siftflow_dir": "sift-flow"},
        heads=(Head("sem", 33, "_sem"), Head("geo", 3, "_geo")),
        test_iter=200,
    ),
    "pascalcontext": DataSet(
        module="pascalcontext_layers",
        train=Split("train", "train", "PASCALContextSegDataLayer", ("context_dir", "seed", "split", "voc_dir")),
        test=Split("val", "val", "PASCALContextSegDataLayer", ("context_dir", "seed", "split", "voc_dir")),
        folders={"context_dir": "pascal-context", "voc_dir": "pascal"},
        heads=(Head("label", 60),),
        test_iter=5105,
        snapshot=4000,
    ),
    "mini": DataSet(
        module="voc_layers",
        train=Split("train", "train", "SBDDSegDataLayer", ("sbdd_dir", "seed", "split", "mean")),
        test=Split("val", "val", "VOCSegDataLayer", ("voc_dir", "seed", "split", "mean")),
        folders={"sbdd_dir": "mini/sbdd/dataset", "voc_dir": "mini/pascal/VOC2011"},
        knows="drawn things only, no photographs",
        heads=(Head("label", 7),),
        test_iter=80,
        max_iter=4000,
        snapshot=1000,
        least_rise_points=2,
    ),
}


@dataclass(frozen=True)
class PublishedNet:
    """One published net.

    Attributes:
        name: Upstream's directory.
        dataset: Key of ``DATASETS``.
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
        own: The settings of a user's data set, which is not in ``DATASETS``; None for the others.
    """

    name: str
    dataset: str
    stride: int
    base_lr: float
    caffemodel: str | None
    parents: dict[str, str]
    inputs: dict[str, str] = field(default_factory=lambda: {"data": "color"})
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
    solver: dict[str, Any] = field(default_factory=dict)
    own: DataSet | None = None

    @property
    def source(self) -> DataSet:
        """The settings of its data set."""
        return self.own or DATASETS[self.dataset]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The tasks: two for SIFT Flow, one for the other data sets."""
        return self.source.heads

    @property
    def tops(self) -> tuple[str, ...]:
        """The tops of the data layer: images first, then labels."""
        return (*self.inputs, *(head.label for head in self.heads))

    @property
    def splits(self) -> tuple[Split, Split]:
        """The splits to train on and to score."""
        return self.source.train, self.source.test


_VGG16, _CAFFENET = {"vgg16": ""}, {"caffenet": ""}
_COLOR_D, _COLOR_HHA = {"color": "color", "depth": "depth"}, {"color": "color", "hha": "hha"}
# Upstream bug, kept: the data path in voc-fcn16s and the three pascalcontext nets, "../../data", has one "../" too
# many as seen from the net's folder; the other eleven nets have "../data".
_HIGH = "../../data"

# fmt: off
_PUBLISHED = (
    PublishedNet("voc-fcn32s", "voc", 32, 1e-10, "fcn32s-heavy-pascal.caffemodel", _VGG16),
    PublishedNet("voc-fcn16s", "voc", 16, 1e-12, "fcn16s-heavy-pascal.caffemodel", {"voc-fcn32s": ""}, data=_HIGH),
    PublishedNet("voc-fcn8s", "voc", 8, 1e-14, "fcn8s-heavy-pascal.caffemodel", {"voc-fcn16s": ""}),
    PublishedNet("voc-fcn8s-atonce", "voc", 8, 1e-10, "fcn8s-atonce-pascal.caffemodel", _VGG16,
              at_once=True, solver={"max_iter": 300_000}),
    PublishedNet("voc-fcn-alexnet", "voc", 32, 1e-4, "fcn-alexnet-pascal.caffemodel", _CAFFENET,
              trunk="alexnet", first="conv1", kernel=63, normalize=True, solver={"momentum": 0.9, "iter_size": 20}),
    PublishedNet("nyud-fcn32s-color", "nyud", 32, 1e-10, "nyud-fcn32s-color-heavy.caffemodel", _VGG16),
    PublishedNet("nyud-fcn32s-color-d", "nyud", 32, 1e-10, None, _VGG16, inputs=_COLOR_D, first="conv1_1_bgrd"),
    PublishedNet("nyud-fcn32s-hha", "nyud", 32, 1e-10, "nyud-fcn32s-hha-heavy.caffemodel", _VGG16,
              inputs={"data": "hha"}),
    PublishedNet("nyud-fcn32s-color-hha", "nyud", 32, 1e-12, "nyud-fcn32s-color-hha-heavy.caffemodel",
              {"nyud-fcn32s-color": "color", "nyud-fcn32s-hha": "hha"}, inputs=_COLOR_HHA, late=True),
    PublishedNet("siftflow-fcn32s", "siftflow", 32, 1e-10, "siftflow-fcn32s-heavy.caffemodel", _VGG16),
    PublishedNet("siftflow-fcn16s", "siftflow", 16, 1e-12, "siftflow-fcn16s-heavy.caffemodel", {"siftflow-fcn32s": ""}),
    # The published solver has 1e-12 here, unlike the other staged nets of stride 8, which have 1e-14.
    PublishedNet("siftflow-fcn8s", "siftflow", 8, 1e-12, "siftflow-fcn8s-heavy.caffemodel", {"siftflow-fcn16s": ""}),
    PublishedNet("pascalcontext-fcn32s", "pascalcontext", 32, 1e-10, "pascalcontext-fcn32s-heavy.caffemodel", _VGG16,
              data=_HIGH),
    PublishedNet("pascalcontext-fcn16s", "pascalcontext", 16, 1e-12, "pascalcontext-fcn16s-heavy.caffemodel",
              {"pascalcontext-fcn32s": ""}, data=_HIGH),
    PublishedNet("pascalcontext-fcn8s", "pascalcontext", 8, 1e-14, "pascalcontext-fcn8s-heavy.caffemodel",
              {"pascalcontext-fcn16s": ""}, data=_HIGH),
)
# fmt: on

#: The published nets, by the name of upstream's directory.
NETS: dict[str, PublishedNet] = {row.name: row for row in _PUBLISHED}


def build_net(row: PublishedNet, split: Split) -> NetParameter:
    """Return the net of one split as published: data layer, trunk, heads and losses.

    Args:
        row: The net.
        split: One of ``row.splits``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's net.py.
    """
    n = NetSpec()
    _data(n, row, split)
    trunk = _alexnet if row.trunk == "alexnet" else _vgg16
    if row.late:
        for name in row.inputs:
            trunk(n, row, name, name)
            n[f"score_fr{name}"] = _score(n[f"drop7{name}"], row.heads[0].classes)
        scores = [n[f"score_fr{name}"] for name in row.inputs]
        n["score_fused"] = layer("Eltwise", *scores, operation="SUM", coeff=[1 / len(scores)] * len(scores))
    else:
        trunk(n, row, "data")
    for head in row.heads:
        _head(n, row, head)
    return n.to_proto()


def _data(n: NetSpec, row: PublishedNet, split: Split) -> None:
    source = row.source
    says: dict[str, Any] = {key: f"{row.data}/{folder}" for key, folder in source.folders.items()}
    says |= {"seed": SEED, "split": split.name, "mean": MEAN_BGR} | source.says
    says |= {"tops": [*row.inputs.values(), *(head.label for head in row.heads)]}
    param_str = repr({key: says[key] for key in split.keys})
    blobs = layers("Python", ntop=len(row.tops), module=source.module, layer=split.layer, param_str=param_str)
    for name, blob in zip(row.tops, blobs, strict=True):
        n[name] = blob
    if len(row.inputs) > 1 and not row.late:
        n["data"] = layer("Concat", *(n[name] for name in row.inputs))


def _conv_relu(n: NetSpec, bottom: Top, conv: str, relu: str, **fields: Any) -> Top:
    n[conv] = layer("Convolution", bottom, **fields)
    n[relu] = layer("ReLU", n[conv], in_place=True)
    return n[relu]


def _classifier(n: NetSpec, row: PublishedNet, bottom: Top, kernel: int, suffix: str = "", **fields: Any) -> None:
    """Add fc6 and fc7 as convolutions, each followed by ReLU and dropout."""
    for number, size in ((6, kernel), (7, 1)):
        names = f"fc{number}{suffix}", f"relu{number}{suffix}"
        relu = _conv_relu(n, bottom, *names, num_output=row.width, kernel_size=size, pad=0, stride=1, **fields)
        bottom = n[f"drop{number}{suffix}"] = layer("Dropout", relu, dropout_ratio=row.dropout, in_place=True)


def _pool(bottom: Top, kernel: int = 2) -> Top:
    return layer("Pooling", bottom, pool="MAX", kernel_size=kernel, stride=2)


def vgg16_blocks(n: NetSpec, row: PublishedNet, data: str, suffix: str = "", pad: int = 100, **fields: Any) -> Top:
    """Add VGG16's convolutions and poolings to a net.

    Args:
        n: The net to extend.
        row: The net's entry in the table, for the blocks and the name of the first convolution.
        data: The top to start from.
        suffix: Suffix of the layer names.
        pad: Padding of the first convolution, in pixels.
        fields: Further fields of every convolution, such as ``weight_filler``.

    Returns:
        The top of the last pooling.
    """
    top = n[data]
    for block, (width, depth) in enumerate(row.blocks, 1):
        for number in range(1, depth + 1):
            conv = f"conv{block}_{number}" if (block, number) != (1, 1) else row.first
            relu = f"relu{block}_{number}"
            sizes = {"num_output": width, "kernel_size": 3, "pad": pad, "stride": 1, "param": LEARN}
            top = _conv_relu(n, top, conv + suffix, relu + suffix, **(sizes | fields))
            pad = 1
        top = n[f"pool{block}{suffix}"] = _pool(top)
    return top


def _vgg16(n: NetSpec, row: PublishedNet, data: str, suffix: str = "") -> None:
    _classifier(n, row, vgg16_blocks(n, row, data, suffix), 7, suffix, param=LEARN)


def _alexnet(n: NetSpec, row: PublishedNet, data: str, suffix: str = "") -> None:
    top = n[data]
    for number, (width, kernel, stride, pad, group) in enumerate(ALEXNET_CONVS, 1):
        sizes = {"num_output": width, "kernel_size": kernel, "stride": stride, "pad": pad, "group": group}
        top = _conv_relu(n, top, f"conv{number}{suffix}", f"relu{number}{suffix}", **sizes)
        if number in (1, 2, 5):
            top = n[f"pool{number}{suffix}"] = _pool(top, 3)
        if number in (1, 2):
            top = n[f"norm{number}{suffix}"] = layer("LRN", top, local_size=5, alpha=1e-4, beta=0.75)
    _classifier(n, row, top, 6, suffix, group=1)


def _score(bottom: Top, classes: int) -> Top:
    return layer("Convolution", bottom, num_output=classes, kernel_size=1, pad=0, param=LEARN)


def _upsample(bottom: Top, classes: int, stride: int, kernel: int | None = None) -> Top:
    size = kernel or 2 * stride
    return layer(
        "Deconvolution", bottom, num_output=classes, kernel_size=size, stride=stride, bias_term=False, param=FIXED
    )


def _head(n: NetSpec, row: PublishedNet, head: Head) -> None:
    """Add the layers from the trunk to one task's scores, with the skips that the stride requires, and the loss."""
    end, stride, upscore = head.suffix, 32, "upscore2"
    if row.late:
        coarse = n["score_fused"]
    else:
        coarse = n[f"score_fr{end}"] = _score(n["drop7"], head.classes)
    for finer, pool, scale in SKIPS:
        if finer < row.stride:
            break
        upsampled = n[f"{upscore}{end}"] = _upsample(coarse, head.classes, 2)
        skip = n[pool]
        if row.at_once:
            skip = n[f"scale_{pool}"] = layer("Scale", skip, filler={"type": "constant", "value": scale}, param=FIXED)
        n[f"score_{pool}{end}"] = _score(skip, head.classes)
        n[f"score_{pool}{end}c"] = crop(n[f"score_{pool}{end}"], upsampled)
        coarse = n[f"fuse_{pool}{end}"] = layer("Eltwise", upsampled, n[f"score_{pool}{end}c"], operation="SUM")
        stride, upscore = finer, f"upscore_{pool}"
    last = f"upscore{end}" if stride == 32 else f"upscore{stride}{end}"
    n[last] = _upsample(coarse, head.classes, stride, row.kernel)
    n[head.score] = crop(n[last], n[next(iter(row.inputs))] if row.late else n["data"])
    # Upstream's scoring expects the first loss to be called "loss", whatever the label's name.
    loss = "loss" if head is row.heads[0] else f"loss{end}"
    loss_param = {"normalize": row.normalize, "ignore_label": VOID}
    n[loss] = layer("SoftmaxWithLoss", n[head.score], n[head.label], loss_param=loss_param)


def build_deploy(row: PublishedNet) -> NetParameter:
    """Return the net for inference: an Input layer instead of the data layer, no labels, losses or dropout.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc-fcn8s/deploy.prototxt, the one that is published.
    """
    shapes = [{"dim": [1, CHANNELS[what], EXAMPLE_SIZE, EXAMPLE_SIZE]} for what in row.inputs.values()]
    whole = build_net(row, row.splits[1])
    pictures = LayerParameter(name="input", type="Input", top=list(row.inputs), input_param={"shape": shapes})
    rest = [part for part in whole.layer if part.type not in ("Python", "Dropout", "SoftmaxWithLoss")]
    return NetParameter(layer=[pictures, *rest])


def build_solver(row: PublishedNet) -> SolverParameter:
    """Return the solver as published.

    Args:
        row: The net.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's solver.prototxt.
    """
    source = row.source
    says: dict[str, Any] = {
        "train_net": f"{source.train.file}.prototxt",
        "test_net": [f"{source.test.file}.prototxt"],
        "test_iter": [source.test_iter],
        "test_interval": 999_999_999,  # the solver builds the test net but never runs it
        "test_initialization": False,
        "display": 20,
        "average_loss": 20,
        "lr_policy": "fixed",
        "base_lr": row.base_lr,
        "momentum": 0.99,
        "iter_size": 1,
        "max_iter": source.max_iter,
        "weight_decay": 0.0005,
    }
    if source.snapshot:
        says |= {"snapshot": source.snapshot, "snapshot_prefix": "snapshot/train"}
    return SolverParameter(**says | row.solver)


def build_files(row: PublishedNet) -> dict[str, NetParameter | SolverParameter]:
    """Return every prototxt of a net, by file name: the train and test nets, the deploy net and the solver."""
    written: dict[str, NetParameter | SolverParameter] = {f"{s.file}.prototxt": build_net(row, s) for s in row.splits}
    return written | {"deploy.prototxt": build_deploy(row), "solver.prototxt": build_solver(row)}

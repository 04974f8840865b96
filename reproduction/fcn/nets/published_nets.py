"""The 15 published nets, written as prototxts: what upstream's 15 ``net.py`` say, said once.

``NETS`` is the table; ``net``, ``deploy`` and ``solver`` write messages from it. Nothing here makes a module: that
goes through prototxt.

Source: shelhamer/fcn.berkeleyvision.org@1305c73, each net's net.py, solver.prototxt and solve.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer, layers
from reproduction.caffe.schema import LayerParameter, NetParameter, SolverParameter

VOID = 255  # the label that is neither learned nor scored
SEED = 1337
MEAN_BGR = (104.00699, 116.66877, 122.67892)
CHANNELS = {"color": 3, "depth": 1, "hha": 3}
EXAMPLE_SIZE = 500  # height and width that deploy nets declare; any other will do

LEARN = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]  # weights, and biases at twice the rate
FIXED = [{"lr_mult": 0}]

# Width and number of the convolutions before each of VGG16's five poolings.
VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

# AlexNet's convolutions: width, kernel, stride, pad, groups.
ALEXNET_CONVS = ((96, 11, 4, 100, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2))

# Stride that a skip brings the net to, the pooling that it starts from, and its scale when learned at once.
SKIPS = ((16, "pool4", 0.01), (8, "pool3", 0.0001))


@dataclass(frozen=True)
class Head:
    """One task of a net.

    Attributes:
        label: the top of the data layer that it is trained on.
        classes: how many it tells apart.
        suffix: ends the names of its layers.
    """

    label: str
    classes: int
    suffix: str = ""

    @property
    def score(self) -> str:
        """The blob of its scores, (N, classes, H, W)."""
        return f"score{self.suffix}"


@dataclass(frozen=True)
class Split:
    """One of the two prototxts of a net: its file, the split that it reads, and how its data layer is written.

    Attributes:
        file: name of the prototxt, without its ending; upstream's word for the split in the net's life.
        name: name of the split's list.
        layer: class of the published Python layer.
        keys: the keys of ``param_str``, in the order of Python 2's dict that wrote the published files.
    """

    file: str
    name: str
    layer: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class DataSet:
    """What all nets of one data set share.

    Attributes:
        module: of the published Python layers.
        train: the split to learn from.
        test: the split to be scored on.
        folders: below the data folder, by the key of ``param_str``.
        heads: the tasks.
        test_iter: images in the test split.
        max_iter: iterations of training.
        snapshot: iterations between snapshots; None where the published solver says nothing.
        least_rise_points: what mean IU must gain, in points (percent), from each stage to the next; None where nobody
            says so.
        says: what else its data layers are told, by the key of ``param_str``.
        knows: what its nets can recognize, where that is not photographs; see ``card.Card``.
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
class Published:
    """One published net.

    Attributes:
        name: upstream's directory.
        dataset: key of ``DATASETS``.
        stride: pixels between predictions before the last upsampling.
        base_lr: learning rate of its solver.
        caffemodel: file of its weights, below the weights folder; None where none were published.
        parents: the nets that its training starts from, by their names in the zoo, each with the suffix that its
            layers get here.
        inputs: the pictures of the data layer: blob name, and what is in it (a key of ``CHANNELS``).
        trunk: "vgg16" or "alexnet".
        first: name of the first convolution.
        blocks: width and number of the convolutions before each pooling of VGG16.
        width: of fc6 and fc7.
        dropout: ratio of the values that these two lose while they learn.
        kernel: taps of the last upsampling; None for twice its stride.
        normalize: whether the loss is divided by the number of pixels that are not void.
        late: whether each input has its own trunk, and their scores are averaged.
        at_once: whether the skips are learned together with the trunk, through fixed scales.
        data: the data folder, as the prototxts say it.
        solver: fields of its solver that differ from the other nets of its data set.
        own: the data set where it is somebody's own, and none of ``DATASETS``.
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
        """What it shares with the other nets of its data set."""
        return self.own or DATASETS[self.dataset]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The tasks: one, but for SIFT Flow's two."""
        return self.source.heads

    @property
    def tops(self) -> tuple[str, ...]:
        """The tops of the data layer: pictures, then labels."""
        return (*self.inputs, *(head.label for head in self.heads))

    @property
    def splits(self) -> tuple[Split, Split]:
        """The splits to learn from and to be scored on."""
        return self.source.train, self.source.test


_VGG16, _CAFFENET = {"vgg16": ""}, {"caffenet": ""}
_COLOR_D, _COLOR_HHA = {"color": "color", "depth": "depth"}, {"color": "color", "hha": "hha"}
# Upstream bug, kept: the published data path has one "../" too many as seen from the net's folder; the other eleven
# nets have "../data".
_HIGH = "../../data"

# fmt: off
_PUBLISHED = (
    Published("voc-fcn32s", "voc", 32, 1e-10, "fcn32s-heavy-pascal.caffemodel", _VGG16),
    Published("voc-fcn16s", "voc", 16, 1e-12, "fcn16s-heavy-pascal.caffemodel", {"voc-fcn32s": ""}, data=_HIGH),
    Published("voc-fcn8s", "voc", 8, 1e-14, "fcn8s-heavy-pascal.caffemodel", {"voc-fcn16s": ""}),
    Published("voc-fcn8s-atonce", "voc", 8, 1e-10, "fcn8s-atonce-pascal.caffemodel", _VGG16,
              at_once=True, solver={"max_iter": 300_000}),
    Published("voc-fcn-alexnet", "voc", 32, 1e-4, "fcn-alexnet-pascal.caffemodel", _CAFFENET,
              trunk="alexnet", first="conv1", kernel=63, normalize=True, solver={"momentum": 0.9, "iter_size": 20}),
    Published("nyud-fcn32s-color", "nyud", 32, 1e-10, "nyud-fcn32s-color-heavy.caffemodel", _VGG16),
    Published("nyud-fcn32s-color-d", "nyud", 32, 1e-10, None, _VGG16, inputs=_COLOR_D, first="conv1_1_bgrd"),
    Published("nyud-fcn32s-hha", "nyud", 32, 1e-10, "nyud-fcn32s-hha-heavy.caffemodel", _VGG16, inputs={"data": "hha"}),
    Published("nyud-fcn32s-color-hha", "nyud", 32, 1e-12, "nyud-fcn32s-color-hha-heavy.caffemodel",
              {"nyud-fcn32s-color": "color", "nyud-fcn32s-hha": "hha"}, inputs=_COLOR_HHA, late=True),
    Published("siftflow-fcn32s", "siftflow", 32, 1e-10, "siftflow-fcn32s-heavy.caffemodel", _VGG16),
    Published("siftflow-fcn16s", "siftflow", 16, 1e-12, "siftflow-fcn16s-heavy.caffemodel", {"siftflow-fcn32s": ""}),
    # Not 1e-14, as in the other nets of stride 8: so the published solver has it.
    Published("siftflow-fcn8s", "siftflow", 8, 1e-12, "siftflow-fcn8s-heavy.caffemodel", {"siftflow-fcn16s": ""}),
    Published("pascalcontext-fcn32s", "pascalcontext", 32, 1e-10, "pascalcontext-fcn32s-heavy.caffemodel", _VGG16,
              data=_HIGH),
    Published("pascalcontext-fcn16s", "pascalcontext", 16, 1e-12, "pascalcontext-fcn16s-heavy.caffemodel",
              {"pascalcontext-fcn32s": ""}, data=_HIGH),
    Published("pascalcontext-fcn8s", "pascalcontext", 8, 1e-14, "pascalcontext-fcn8s-heavy.caffemodel",
              {"pascalcontext-fcn16s": ""}, data=_HIGH),
)
# fmt: on

#: The published nets by upstream's directory.
NETS: dict[str, Published] = {row.name: row for row in _PUBLISHED}


def net(row: Published, split: Split) -> NetParameter:
    """Write the net as published: data layer, trunk, heads, losses.

    Args:
        row: which net.
        split: one of ``row.splits``.

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


def _data(n: NetSpec, row: Published, split: Split) -> None:
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


def _classifier(n: NetSpec, row: Published, bottom: Top, kernel: int, suffix: str = "", **fields: Any) -> None:
    """Write VGG16's or AlexNet's fully connected layers as convolutions, with dropout."""
    for number, size in ((6, kernel), (7, 1)):
        names = f"fc{number}{suffix}", f"relu{number}{suffix}"
        relu = _conv_relu(n, bottom, *names, num_output=row.width, kernel_size=size, pad=0, stride=1, **fields)
        bottom = n[f"drop{number}{suffix}"] = layer("Dropout", relu, dropout_ratio=row.dropout, in_place=True)


def _pool(bottom: Top, kernel: int = 2) -> Top:
    return layer("Pooling", bottom, pool="MAX", kernel_size=kernel, stride=2)


def vgg16_blocks(n: NetSpec, row: Published, data: str, suffix: str = "", pad: int = 100, **fields: Any) -> Top:
    """Write VGG16's convolutions and poolings.

    Args:
        n: the net to write them into.
        row: says how wide they are, and what the first is called.
        data: the top that they start from.
        suffix: ends the names of the layers.
        pad: of the first convolution, pixels.
        fields: of every convolution, such as its filler.

    Returns:
        The last pooling.
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


def _vgg16(n: NetSpec, row: Published, data: str, suffix: str = "") -> None:
    _classifier(n, row, vgg16_blocks(n, row, data, suffix), 7, suffix, param=LEARN)


def _alexnet(n: NetSpec, row: Published, data: str, suffix: str = "") -> None:
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


def _head(n: NetSpec, row: Published, head: Head) -> None:
    """Write the way from the trunk to one task's scores, over the skips that the stride asks for, and its loss."""
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
    # The first loss is "loss" whatever its label, as upstream's scoring expects.
    loss = "loss" if head is row.heads[0] else f"loss{end}"
    loss_param = {"normalize": row.normalize, "ignore_label": VOID}
    n[loss] = layer("SoftmaxWithLoss", n[head.score], n[head.label], loss_param=loss_param)


def deploy(row: Published) -> NetParameter:
    """Write the net for pictures alone: an Input layer, no labels, no losses, and no dropout, which does nothing.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc-fcn8s/deploy.prototxt, the one that is published.
    """
    shapes = [{"dim": [1, CHANNELS[what], EXAMPLE_SIZE, EXAMPLE_SIZE]} for what in row.inputs.values()]
    whole = net(row, row.splits[1])
    pictures = LayerParameter(name="input", type="Input", top=list(row.inputs), input_param={"shape": shapes})
    rest = [part for part in whole.layer if part.type not in ("Python", "Dropout", "SoftmaxWithLoss")]
    return NetParameter(layer=[pictures, *rest])


def solver(row: Published) -> SolverParameter:
    """Write the solver as published.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's solver.prototxt.
    """
    source = row.source
    says: dict[str, Any] = {
        "train_net": f"{source.train.file}.prototxt",
        "test_net": [f"{source.test.file}.prototxt"],
        "test_iter": [source.test_iter],
        "test_interval": 999_999_999,  # the test net is made, and never run by the solver
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


def files(row: Published) -> dict[str, NetParameter | SolverParameter]:
    """Write every prototxt of the net, by file name: train and test nets, deploy net, solver."""
    written: dict[str, NetParameter | SolverParameter] = {f"{s.file}.prototxt": net(row, s) for s in row.splits}
    return written | {"deploy.prototxt": deploy(row), "solver.prototxt": solver(row)}

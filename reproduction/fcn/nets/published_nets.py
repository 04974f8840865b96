"""The 15 published nets' prototxts, generated from the nets' records instead of by upstream's 15 ``net.py``.

``NETS`` is the table; ``build_net``, ``build_deploy`` and ``build_solver`` return the messages that follow from it.
Nothing here builds a module; that is done from the prototxt.

Source: shelhamer/fcn.berkeleyvision.org@1305c73, each net's net.py, solver.prototxt and solve.py.
"""

from __future__ import annotations

from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer, layers
from reproduction.caffe.schema import LayerParameter, NetParameter, SolverParameter
from reproduction.fcn import datasets
from reproduction.fcn.datasets.base import SEED, VOID
from reproduction.fcn.datasets.spec import CHANNELS, DataLayer, Head, PublishedNet

EXAMPLE_SIZE = 500  # height and width that deploy nets declare; any other size works too

LEARN = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]  # weights, biases
FIXED = [{"lr_mult": 0}]

# AlexNet's convolutions: (channels, kernel, stride, pad, groups).
ALEXNET_CONVS = ((96, 11, 4, 100, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2))

# The skips: (stride of the net with this skip, the pooling that it starts from, its fixed scale in at-once nets).
SKIPS = ((16, "pool4", 0.01), (8, "pool3", 0.0001))


#: The published nets, by the name of upstream's directory.
NETS: dict[str, PublishedNet] = {name: net for name, net in datasets.NETS.items() if net.dataset.draw is None}


def build_net(published: PublishedNet, data_layer: DataLayer) -> NetParameter:
    """Return a net for training or scoring, as published: data layer, VGG16's or AlexNet's layers, scores, losses.

    Args:
        published: The net.
        data_layer: The data layer to read from, one of ``published.data_layers``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's net.py.
    """
    n = NetSpec()
    _data(n, published, data_layer)
    trunk = _alexnet if published.trunk == "alexnet" else _vgg16
    if published.late:
        for name in published.inputs:
            trunk(n, published, name, name)
            n[f"score_fr{name}"] = _score(n[f"drop7{name}"], len(published.heads[0].classes))
        scores = [n[f"score_fr{name}"] for name in published.inputs]
        n["score_fused"] = layer("Eltwise", *scores, operation="SUM", coeff=[1 / len(scores)] * len(scores))
    else:
        trunk(n, published, "data")
    for head in published.heads:
        _head(n, published, head)
    return n.to_proto()


def _data(n: NetSpec, published: PublishedNet, data_layer: DataLayer) -> None:
    spec = published.dataset
    values: dict[str, Any] = {key: f"{published.data}/{folder}" for key, folder in spec.folders.items()}
    values |= {"seed": SEED, "split": data_layer.split, "mean": tuple(spec.means["color"].tolist())} | dict(spec.params)
    values |= {"tops": [*published.inputs.values(), *(head.label for head in published.heads)]}
    param_str = repr({key: values[key] for key in data_layer.keys})
    kind = data_layer.dataset.layer
    blobs = layers("Python", ntop=len(published.tops), module=spec.module, layer=kind, param_str=param_str)
    for name, blob in zip(published.tops, blobs, strict=True):
        n[name] = blob
    if len(published.inputs) > 1 and not published.late:
        n["data"] = layer("Concat", *(n[name] for name in published.inputs))


def _conv_relu(n: NetSpec, bottom: Top, conv: str, relu: str, **fields: Any) -> Top:
    n[conv] = layer("Convolution", bottom, **fields)
    n[relu] = layer("ReLU", n[conv], in_place=True)
    return n[relu]


def _classifier(n: NetSpec, published: PublishedNet, bottom: Top, kernel: int, suffix: str = "", **fields: Any) -> None:
    """Add fc6 and fc7 as convolutions, each followed by ReLU and dropout."""
    for number, size in ((6, kernel), (7, 1)):
        names = f"fc{number}{suffix}", f"relu{number}{suffix}"
        relu = _conv_relu(n, bottom, *names, num_output=published.width, kernel_size=size, pad=0, stride=1, **fields)
        bottom = n[f"drop{number}{suffix}"] = layer("Dropout", relu, dropout_ratio=published.dropout, in_place=True)


def _pool(bottom: Top, kernel: int = 2) -> Top:
    return layer("Pooling", bottom, pool="MAX", kernel_size=kernel, stride=2)


def vgg16_blocks(
    n: NetSpec, published: PublishedNet, data: str, suffix: str = "", pad: int = 100, **fields: Any
) -> Top:
    """Add VGG16's convolutions and poolings to a net that is being specified.

    Args:
        n: The specification to extend.
        published: The net's entry in the table, for the blocks and the name of the first convolution.
        data: The top that the first convolution reads.
        suffix: Suffix of the layer names, for nets with two inputs.
        pad: Padding of the first convolution, in pixels.
        fields: Further fields of every Convolution layer, such as ``weight_filler``.

    Returns:
        The top of the last pooling, pool5.
    """
    top = n[data]
    for block, (width, depth) in enumerate(published.blocks, 1):
        for number in range(1, depth + 1):
            conv = f"conv{block}_{number}" if (block, number) != (1, 1) else published.first
            relu = f"relu{block}_{number}"
            sizes = {"num_output": width, "kernel_size": 3, "pad": pad, "stride": 1, "param": LEARN}
            top = _conv_relu(n, top, conv + suffix, relu + suffix, **(sizes | fields))
            pad = 1
        top = n[f"pool{block}{suffix}"] = _pool(top)
    return top


def _vgg16(n: NetSpec, published: PublishedNet, data: str, suffix: str = "") -> None:
    _classifier(n, published, vgg16_blocks(n, published, data, suffix), 7, suffix, param=LEARN)


def _alexnet(n: NetSpec, published: PublishedNet, data: str, suffix: str = "") -> None:
    top = n[data]
    for number, (width, kernel, stride, pad, group) in enumerate(ALEXNET_CONVS, 1):
        sizes = {"num_output": width, "kernel_size": kernel, "stride": stride, "pad": pad, "group": group}
        top = _conv_relu(n, top, f"conv{number}{suffix}", f"relu{number}{suffix}", **sizes)
        if number in (1, 2, 5):
            top = n[f"pool{number}{suffix}"] = _pool(top, 3)
        if number in (1, 2):
            top = n[f"norm{number}{suffix}"] = layer("LRN", top, local_size=5, alpha=1e-4, beta=0.75)
    _classifier(n, published, top, 6, suffix, group=1)


def _score(bottom: Top, classes: int) -> Top:
    return layer("Convolution", bottom, num_output=classes, kernel_size=1, pad=0, param=LEARN)


def _upsample(bottom: Top, classes: int, stride: int, kernel: int | None = None) -> Top:
    size = kernel or 2 * stride
    return layer(
        "Deconvolution", bottom, num_output=classes, kernel_size=size, stride=stride, bias_term=False, param=FIXED
    )


def _head(n: NetSpec, published: PublishedNet, head: Head) -> None:
    """Add the layers from the trunk to one task's scores, with the skips that the stride requires, and the loss."""
    end, stride, upscore, classes = head.suffix, 32, "upscore2", len(head.classes)
    if published.late:
        coarse = n["score_fused"]
    else:
        coarse = n[f"score_fr{end}"] = _score(n["drop7"], classes)
    for finer, pool, scale in SKIPS:
        if finer < published.stride:
            break
        upsampled = n[f"{upscore}{end}"] = _upsample(coarse, classes, 2)
        skip = n[pool]
        if published.at_once:
            skip = n[f"scale_{pool}"] = layer("Scale", skip, filler={"type": "constant", "value": scale}, param=FIXED)
        n[f"score_{pool}{end}"] = _score(skip, classes)
        n[f"score_{pool}{end}c"] = crop(n[f"score_{pool}{end}"], upsampled)
        coarse = n[f"fuse_{pool}{end}"] = layer("Eltwise", upsampled, n[f"score_{pool}{end}c"], operation="SUM")
        stride, upscore = finer, f"upscore_{pool}"
    last = f"upscore{end}" if stride == 32 else f"upscore{stride}{end}"
    n[last] = _upsample(coarse, classes, stride, published.kernel)
    n[head.score] = crop(n[last], n[next(iter(published.inputs))] if published.late else n["data"])
    # Upstream's scoring expects the first loss to be called "loss", whatever the label's name.
    loss = "loss" if head == published.heads[0] else f"loss{end}"
    loss_param = {"normalize": published.normalize, "ignore_label": VOID}
    n[loss] = layer("SoftmaxWithLoss", n[head.score], n[head.label], loss_param=loss_param)


def build_deploy(published: PublishedNet) -> NetParameter:
    """Return the net for inference: an Input layer instead of the data layer, and no labels, losses or dropout.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc-fcn8s/deploy.prototxt, the one that is published.
    """
    shapes = [{"dim": [1, CHANNELS[what], EXAMPLE_SIZE, EXAMPLE_SIZE]} for what in published.inputs.values()]
    net_param = build_net(published, published.dataset.test)
    pictures = LayerParameter(name="input", type="Input", top=list(published.inputs), input_param={"shape": shapes})
    rest = [part for part in net_param.layer if part.type not in ("Python", "Dropout", "SoftmaxWithLoss")]
    return NetParameter(layer=[pictures, *rest])


def build_solver(published: PublishedNet) -> SolverParameter:
    """Return the solver prototxt of a net, as published.

    Args:
        published: The net.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's solver.prototxt.
    """
    spec = published.dataset
    fields: dict[str, Any] = {
        "train_net": f"{spec.train.file}.prototxt",
        "test_net": [f"{spec.test.file}.prototxt"],
        "test_iter": [spec.test_iter],
        "test_interval": 999_999_999,  # the solver builds the test net but never runs it
        "test_initialization": False,
        "display": 20,
        "average_loss": 20,
        "lr_policy": "fixed",
        "base_lr": published.base_lr,
        "momentum": 0.99,
        "iter_size": 1,
        "max_iter": spec.max_iter,
        "weight_decay": 0.0005,
    }
    if spec.snapshot:
        fields |= {"snapshot": spec.snapshot, "snapshot_prefix": "snapshot/train"}
    return SolverParameter(**fields | dict(published.solver))


def build_files(published: PublishedNet) -> dict[str, NetParameter | SolverParameter]:
    """Return every prototxt of a net, by file name: the train and test nets, the deploy net and the solver."""
    written: dict[str, NetParameter | SolverParameter] = {
        f"{s.file}.prototxt": build_net(published, s) for s in published.data_layers
    }
    return written | {"deploy.prototxt": build_deploy(published), "solver.prototxt": build_solver(published)}

"""The layers of the 15 published nets, written from the nets' records instead of by upstream's 15 ``net.py``.

``NETS`` is the table of these nets; ``net_files`` builds their prototxts. Nothing here builds a module; that is done
from the prototxt.

Source: shelhamer/fcn.berkeleyvision.org@1305c73, each net's net.py.
"""

from __future__ import annotations

from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer
from reproduction.fcn import datasets
from reproduction.fcn.datasets.spec import Head, PublishedNet
from reproduction.fcn.nets import parts

# AlexNet's convolutions: (channels, kernel, stride, pad, groups).
ALEXNET_CONVS = ((96, 11, 4, 100, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2))

# The skips: (stride of the net with this skip, the pooling that it starts from, its fixed scale in at-once nets). No
# published net has the last two, whose scales continue the series: they gain nothing, see ``fcn.experiments``.
SKIPS = ((16, "pool4", 1e-2), (8, "pool3", 1e-4), (4, "pool2", 1e-6), (2, "pool1", 1e-8))


#: The nets of the paper, by the name of upstream's directory.
NETS: dict[str, PublishedNet] = {name: net for name, net in datasets.NETS.items() if net.dataset.draw is None}


def add_layers(n: NetSpec, published: PublishedNet) -> None:
    """Add the layers of a published net from its images to its losses: VGG16's or AlexNet's, scores, skips.

    Args:
        n: The specification to extend, which has the data layer's tops.
        published: The net.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 each net's net.py.
    """
    trunk = _alexnet if published.trunk == "alexnet" else _vgg16
    if published.late:
        for name in published.inputs:
            trunk(n, published, name, name)
            n[f"score_fr{name}"] = parts.score(n[f"drop7{name}"], len(published.heads[0].classes))
        scores = [n[f"score_fr{name}"] for name in published.inputs]
        n["score_fused"] = layer("Eltwise", *scores, operation="SUM", coeff=[1 / len(scores)] * len(scores))
    else:
        if len(published.inputs) > 1:
            n["data"] = layer("Concat", *(n[name] for name in published.inputs))
        trunk(n, published, "data")
    for head in published.heads:
        _head(n, published, head)


def _classifier(n: NetSpec, published: PublishedNet, bottom: Top, kernel: int, suffix: str = "", **fields: Any) -> None:
    """Add fc6 and fc7 as convolutions, each followed by ReLU and dropout."""
    for number, size in ((6, kernel), (7, 1)):
        names = f"fc{number}{suffix}", f"relu{number}{suffix}"
        relu = parts.conv_relu(
            n, bottom, *names, num_output=published.width, kernel_size=size, pad=0, stride=1, **fields
        )
        bottom = n[f"drop{number}{suffix}"] = layer("Dropout", relu, dropout_ratio=published.dropout, in_place=True)


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
            sizes = {"num_output": width, "kernel_size": 3, "pad": pad, "stride": 1, "param": parts.LEARN}
            top = parts.conv_relu(n, top, conv + suffix, relu + suffix, **(sizes | fields))
            pad = 1
        top = n[f"pool{block}{suffix}"] = parts.pool(top)
    return top


def _vgg16(n: NetSpec, published: PublishedNet, data: str, suffix: str = "") -> None:
    _classifier(n, published, vgg16_blocks(n, published, data, suffix), 7, suffix, param=parts.LEARN)


def _alexnet(n: NetSpec, published: PublishedNet, data: str, suffix: str = "") -> None:
    top = n[data]
    for number, (width, kernel, stride, pad, group) in enumerate(ALEXNET_CONVS, 1):
        sizes = {"num_output": width, "kernel_size": kernel, "stride": stride, "pad": pad, "group": group}
        top = parts.conv_relu(n, top, f"conv{number}{suffix}", f"relu{number}{suffix}", **sizes)
        if number in (1, 2, 5):
            top = n[f"pool{number}{suffix}"] = parts.pool(top, 3)
        if number in (1, 2):
            top = n[f"norm{number}{suffix}"] = layer("LRN", top, local_size=5, alpha=1e-4, beta=0.75)
    _classifier(n, published, top, 6, suffix, group=1)


def _head(n: NetSpec, published: PublishedNet, head: Head) -> None:
    """Add the layers from the trunk to one task's scores, with the skips that the stride requires, and the loss."""
    up, enlarge = ("nearest", parts.repeat) if published.nearest else ("upscore", parts.upsample)
    end, stride, upscore, classes = head.suffix, 32, f"{up}2", len(head.classes)
    if published.late:
        coarse = n["score_fused"]
    else:
        coarse = n[f"score_fr{end}"] = parts.score(n["drop7"], classes)
    for finer, pool, scale in SKIPS:
        if finer < published.stride:
            break
        upsampled = n[f"{upscore}{end}"] = enlarge(coarse, classes, 2)
        skip = n[pool]
        if published.at_once:
            skip = n[f"scale_{pool}"] = layer(
                "Scale",
                skip,
                filler={"type": "constant", "value": published.scales.get(pool, scale)},
                param=parts.FIXED,
            )
        n[f"score_{pool}{end}"] = parts.score(skip, classes)
        n[f"score_{pool}{end}c"] = crop(n[f"score_{pool}{end}"], upsampled)
        coarse = n[f"fuse_{pool}{end}"] = layer("Eltwise", upsampled, n[f"score_{pool}{end}c"], operation="SUM")
        stride, upscore = finer, f"{up}_{pool}"
    # In a net of stride 2, the first upsampling has the name with the number already.
    last = f"{up}{end}" if stride in (32, 2) else f"{up}{stride}{end}"
    n[last] = enlarge(coarse, classes, stride, published.kernel)
    n[head.score] = crop(n[last], n[next(iter(published.inputs))] if published.late else n["data"])
    parts.add_loss(n, head, published)

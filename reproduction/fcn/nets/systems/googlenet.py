"""FCN-GoogLeNet: the third trunk of the paper's Table 1, of which neither a prototxt nor weights were published.

Source: Long, Shelhamer, Darrell, CVPR 2015, Table 1 (22 layers, 6 million parameters, receptive field 907, stride 32),
and section 4.1: the last layer is replaced by one that scores the classes, and upsampled as in the other nets.

The other two nets of Table 1 have the layers of published nets, voc-fcn-alexnet and voc-fcn32s. Only their training
differed: on the 1,112 images of VOC 2011's train, with batches of 20, momentum 0.9, a loss that is a mean, and learning
rates of 1e-3 and 1e-4. FCN-GoogLeNet's, 5e-5, is that of its solver here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, layer
from reproduction.fcn.datasets import voc
from reproduction.fcn.nets import parts
from reproduction.fcn.nets.systems.system import MINIBATCH_SOLVER, System

# The inception modules: (name, channels of 1x1, of 3x3_reduce, 3x3, 5x5_reduce, 5x5, and of pool_proj). Before those
# whose name ends in "a", but for 3a, a pooling halves the resolution.
INCEPTIONS = (
    ("3a", 64, 96, 128, 16, 32, 32),
    ("3b", 128, 128, 192, 32, 96, 64),
    ("4a", 192, 96, 208, 16, 48, 64),
    ("4b", 160, 112, 224, 24, 64, 64),
    ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64),
    ("4e", 256, 160, 320, 32, 128, 128),
    ("5a", 256, 160, 320, 32, 128, 128),
    ("5b", 384, 192, 384, 48, 128, 128),
)
DROPOUT = 0.4


def add_trunk(n: NetSpec, bottom: Top, thin: Callable[[int], int], pad: int = 100, pool: int = 7, **fields: Any) -> Top:
    """Add GoogLeNet from its first convolution to its last pooling and dropout, with the names of bvlc_googlenet.

    The two auxiliary classifiers of its training are left out. The average pooling at the end, over 7 x 7 with stride
    1, stays: only with it the receptive field is that of Table 1, 715 + 6 * 32 = 907 pixels.

    Args:
        n: The specification to extend.
        bottom: The images.
        thin: Returns the number of channels of a layer from that of GoogLeNet, such as ``System.thin``.
        pad: Padding of the first convolution, in pixels: 3 in the classifier.
        pool: Kernel size of the last pooling: the size of its map in the classifier.
        fields: Further fields of every convolution, such as ``weight_filler``.

    Returns:
        The top of the dropout.

    Source: BVLC/caffe@9b89154 models/bvlc_googlenet/train_val.prototxt.
    """

    def conv_relu(bottom: Top, block: str, name: str, channels: int, kernel: int, **sizes: int) -> Top:
        sizes = {"num_output": thin(channels), "kernel_size": kernel, **sizes}
        return parts.conv_relu(n, bottom, f"{block}/{name}", f"{block}/relu_{relu(name)}", **sizes, **learn)

    def relu(name: str) -> str:
        return name.removesuffix("_s2")

    learn = {"param": parts.LEARN, **fields}
    top = conv_relu(bottom, "conv1", "7x7_s2", 64, 7, pad=pad, stride=2)
    top = n["pool1/3x3_s2"] = parts.pool(top, 3)
    top = n["pool1/norm1"] = _normalize(top)
    top = conv_relu(top, "conv2", "3x3_reduce", 64, 1)
    top = conv_relu(top, "conv2", "3x3", 192, 3, pad=1)
    top = n["conv2/norm2"] = _normalize(top)
    top = n["pool2/3x3_s2"] = parts.pool(top, 3)
    for name, *channels in INCEPTIONS:
        block, (one, reduce3, three, reduce5, five, pooled) = f"inception_{name}", channels
        if name in ("4a", "5a"):
            number = int(name[0]) - 1
            top = n[f"pool{number}/3x3_s2"] = parts.pool(top, 3)
        towers = [conv_relu(top, block, "1x1", one, 1)]
        tower = conv_relu(top, block, "3x3_reduce", reduce3, 1)
        towers.append(conv_relu(tower, block, "3x3", three, 3, pad=1))
        tower = conv_relu(top, block, "5x5_reduce", reduce5, 1)
        towers.append(conv_relu(tower, block, "5x5", five, 5, pad=2))
        tower = n[f"{block}/pool"] = layer("Pooling", top, pool="MAX", kernel_size=3, stride=1, pad=1)
        towers.append(conv_relu(tower, block, "pool_proj", pooled, 1))
        top = n[f"{block}/output"] = layer("Concat", *towers)
    top = n["pool5/7x7_s1"] = layer("Pooling", top, pool="AVE", kernel_size=pool, stride=1)
    n["pool5/drop_7x7_s1"] = layer("Dropout", top, dropout_ratio=DROPOUT, in_place=True)
    return n["pool5/drop_7x7_s1"]


def _normalize(bottom: Top) -> Top:
    return layer("LRN", bottom, local_size=5, alpha=1e-4, beta=0.75)


def add_layers(n: NetSpec, net: System, pool: int = 7) -> None:
    """Add the layers of FCN-GoogLeNet from the image to the loss; see ``System.add_layers``.

    The centres of its predictions lie at 32 y + 29 in the image. A kernel of 64 would have to be cropped by 2.5 pixels,
    so the kernel is 63, as in voc-fcn-alexnet, and the offset 2. ``pool`` is that of ``add_trunk``.
    """
    (head,) = net.heads
    top = add_trunk(n, n["data"], net.thin, pool=pool)
    n["score_fr"] = parts.score(top, len(head.classes))
    parts.add_dense_scores(n, head, net, n["score_fr"], 32, 63)


NETS = (
    System(
        name="voc-fcn-googlenet",
        dataset=voc.SPEC,
        stride=32,
        base_lr=5e-5,
        parents={"googlenet": ""},
        first="conv1/7x7_s2",
        normalize=True,
        solver=MINIBATCH_SOLVER,
        add_layers=add_layers,
        new_layers=("score_fr",),
        follows="Long, Shelhamer, Darrell, CVPR 2015, Table 1: FCN-GoogLeNet",
    ),
)

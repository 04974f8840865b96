"""FCNs on VGG as texts for Keras and TensorFlow have them: FCN-8 and FCN-32 in Keras, FCN on VGG19 in TensorFlow.

Their convolutions keep the size of the image, where the published nets pad it by 100 pixels; their upsampling is
learned; and each crops in its own way. docs/systems.md says how they differ from the published nets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer
from reproduction.fcn.datasets import voc
from reproduction.fcn.datasets.custom import own_images
from reproduction.fcn.datasets.spec import VGG16, VGG16_BLOCKS
from reproduction.fcn.images.framing import Framing
from reproduction.fcn.nets import parts
from reproduction.fcn.nets.parts import LEARN
from reproduction.fcn.nets.systems.system import System

# VGG19's blocks up to the layer that the TensorFlow text ends with, conv5_3: (channels, number of convolutions).
VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 3))
WIDTH = 4096  # channels of fc6 and fc7

# Keras crops what is too large at its bottom and right.
_FAR_EDGE: dict[str, Any] = {"axis": 2, "offset": 0}

# The initial weights of new layers: Keras' default, glorot_uniform; and those of the TensorFlow text.
_GLOROT: dict[str, Any] = {"weight_filler": {"type": "xavier", "variance_norm": "AVERAGE"}}
_GAUSSIAN: dict[str, Any] = {"weight_filler": {"type": "gaussian", "std": 0.02}}


def add_keras_fcn8(n: NetSpec, net: System) -> None:
    """Add the layers of Keras' FCN-8 from the image to the loss; see ``System.add_layers``.

    The scores of fc7 pass a ReLU; the deconvolutions are learned, have biases and do not pad, and their results are
    cropped at the bottom and right. A score therefore lies 5 pixels away from the pixel that it is given to. This is
    how the text has it.
    """
    (head,) = net.heads
    classes = len(head.classes)
    _add_vgg(n, net, VGG16_BLOCKS)
    top = _conv_relu(
        n, _add_classifier(n, net, 0), "score_fr", "relu_score_fr", num_output=classes, kernel_size=1, **_GLOROT
    )
    for upsampled, pool in (("score2", "pool4"), ("score4", "pool3")):
        n[upsampled] = _upsample(top, classes, 4, 2, **_GLOROT)
        skip = n[f"score_{pool}"] = layer(
            "Convolution", n[pool], num_output=classes, kernel_size=1, param=LEARN, **_GLOROT
        )
        n[f"{upsampled}c"] = layer("Crop", n[upsampled], skip, **_FAR_EDGE)
        top = n[f"fuse_{pool}"] = layer("Eltwise", skip, n[f"{upsampled}c"], operation="SUM")
    n["upsample"] = _upsample(top, classes, 16, 8, **_GLOROT)
    n[head.score] = layer("Crop", n["upsample"], n["data"], **_FAR_EDGE)
    parts.add_loss(n, head, net)


def add_keras_fcn32(n: NetSpec, net: System) -> None:
    """Add the layers of Keras' FCN-32 from the image to the loss; see ``System.add_layers``.

    The deconvolution is learned, and neither pads nor is cropped: ``score`` is (N, classes, H + 32, W + 32) where H and
    W are multiples of 32, and otherwise as large as for the next such image. The image's first pixel lies at (16, 16).
    """
    (head,) = net.heads
    classes = len(head.classes)
    _add_vgg(n, net, VGG16_BLOCKS)
    n["score_fr"] = layer(
        "Convolution", _add_classifier(n, net, 0.5), num_output=classes, kernel_size=1, param=LEARN, **_GLOROT
    )
    n[head.score] = _upsample(n["score_fr"], classes, 64, 32, bias=False, **_GLOROT)
    parts.add_loss(n, head, net)


def add_tf_fcn_vgg19(n: NetSpec, net: System) -> None:
    """Add the layers of TensorFlow's FCN on VGG19 from the image to the loss; see ``System.add_layers``.

    The first four poolings are averages; the last convolution is conv5_3, before its ReLU; and the deconvolutions have
    as many channels as the poolings that their results are added to, which have no score layers. TensorFlow's padding
    SAME of the deconvolutions is a crop here.
    """
    (head,) = net.heads
    classes = len(head.classes)
    _add_vgg(n, net, VGG19_BLOCKS, ["AVE"] * 4, last_relu=False)
    top = _add_classifier(n, net, 0.15, "conv", "relu_dropout", **_GAUSSIAN)
    top = n["conv8"] = layer("Convolution", top, num_output=classes, kernel_size=1, param=LEARN, **_GAUSSIAN)
    for number, pool in ((1, 4), (2, 3)):
        skip, channels = n[f"pool{pool}"], net.thin(VGG19_BLOCKS[pool - 1][0])
        n[f"conv_t{number}"] = _upsample(top, channels, 4, 2, **_GAUSSIAN)
        n[f"conv_t{number}c"] = crop(n[f"conv_t{number}"], skip)
        top = n[f"fuse_{number}"] = layer("Eltwise", n[f"conv_t{number}c"], skip, operation="SUM")
    n["conv_t3"] = _upsample(top, classes, 16, 8, **_GAUSSIAN)
    n[head.score] = crop(n["conv_t3"], n["data"])
    parts.add_loss(n, head, net)


def _add_vgg(
    n: NetSpec, net: System, blocks: Sequence[tuple[int, int]], pools: Sequence[str] = (), *, last_relu: bool = True
) -> None:
    """Add VGG's blocks up to pool5; ``pools`` are the methods of the first poolings, which are MAX otherwise."""
    top = n["data"]
    for block, (width, depth) in enumerate(blocks, 1):
        for number in range(1, depth + 1):
            is_last = (block, number) == (len(blocks), depth)
            names = f"conv{block}_{number}", f"relu{block}_{number}" if last_relu or not is_last else ""
            top = _conv_relu(n, top, *names, num_output=net.thin(width), kernel_size=3, pad=1)
        method = pools[block - 1] if block <= len(pools) else "MAX"
        top = n[f"pool{block}"] = layer("Pooling", top, pool=method, kernel_size=2, stride=2)


def _add_classifier(
    n: NetSpec, net: System, dropout: float, conv: str = "fc", drop: str = "drop", **fields: Any
) -> Top:
    """Add fc6 and fc7 as convolutions that keep the size of pool5, with ReLU and, unless ``dropout`` is 0, dropout."""
    top = n["pool5"]
    windows: tuple[dict[str, Any], ...] = ({"kernel_size": 7, "pad": 3}, {"kernel_size": 1})
    for number, window in enumerate(windows, 6):
        top = _conv_relu(n, top, f"{conv}{number}", f"relu{number}", num_output=net.thin(WIDTH), **window, **fields)
        if dropout:
            top = n[f"{drop}{number}"] = layer("Dropout", top, dropout_ratio=dropout, in_place=True)
    return top


def _conv_relu(n: NetSpec, bottom: Top, conv: str, relu: str, **fields: Any) -> Top:
    n[conv] = layer("Convolution", bottom, param=LEARN, **fields)
    if relu:
        n[relu] = layer("ReLU", n[conv], in_place=True)
    return n[relu or conv]


def _upsample(bottom: Top, channels: int, kernel: int, stride: int, *, bias: bool = True, **fields: Any) -> Top:
    """Return a deconvolution that is learned."""
    if not bias:
        fields["bias_term"] = False
    fields |= {"num_output": channels, "kernel_size": kernel, "stride": stride, "param": LEARN[: 1 + bias]}
    return layer("Deconvolution", bottom, **fields)


NETS = (
    System(
        name="keras-fcn8",
        dataset=voc.SPEC,
        stride=8,
        base_lr=1e-10,
        parents=VGG16,
        deploy_size=512,
        add_layers=add_keras_fcn8,
        new_layers=("score_fr", "score_pool4", "score_pool3"),
        follows="a port of FCN-8s to Keras",
    ),
    System(
        name="keras-fcn32",
        dataset=voc.SPEC,
        stride=32,
        base_lr=1e-10,
        parents=VGG16,
        framing=Framing(margin=16, multiple=32),
        deploy_size=512,
        add_layers=add_keras_fcn32,
        new_layers=("score_fr",),
        follows="a port of FCN-32s to Keras",
    ),
    System(
        name="tf-fcn-vgg19",
        dataset=own_images.SPEC,
        stride=8,
        base_lr=1e-10,
        parents={"vgg19": ""},
        deploy_size=512,
        add_layers=add_tf_fcn_vgg19,
        new_layers=("conv6", "conv7", "conv8"),
        follows="a port of FCN-8s to TensorFlow, on VGG19",
    ),
)

"""FCN-8s on ResNet-50: a trunk without fully connected layers and without padding, with skips from conv4_x and conv3_x.

Source: Long, Shelhamer, Darrell, CVPR 2015, section 4.2 (skips of stride 16 and 8, which start from zero);
KaimingHe/deep-residual-networks@a7026cb prototxt/ResNet-50-deploy.prototxt (the trunk).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer
from reproduction.fcn.datasets import voc
from reproduction.fcn.nets import parts
from reproduction.fcn.nets.systems.system import MINIBATCH_SOLVER, System

# The stages: (number, names of the blocks, channels of the 3 x 3 convolutions); the output has four times as many.
STAGES = ((2, "abc", 64), (3, "abcd", 128), (4, "abcdef", 256), (5, "abc", 512))
FILLER = {"type": "msra"}  # preserves the variance; replaced by the classifier's weights in fine-tuning


def add_trunk(n: NetSpec, bottom: Top, thin: Callable[[int], int], **fields: Any) -> dict[str, Top]:
    """Add ResNet-50 up to res5c, with the names of its published prototxt.

    Args:
        n: The specification to extend.
        bottom: The images.
        thin: Returns the number of channels of a layer from that of ResNet-50, such as ``System.thin``.
        fields: Further fields of every convolution, such as ``weight_filler``.

    Returns:
        The output of the last block of each stage after its ReLU: ``res2c``, ``res3d``, ``res4f`` and ``res5c``.

    Source: KaimingHe/deep-residual-networks@a7026cb prototxt/ResNet-50-deploy.prototxt.
    """
    fields = {"weight_filler": FILLER, **fields}
    n["conv1"] = layer(
        "Convolution", bottom, num_output=thin(64), kernel_size=7, pad=3, stride=2, param=parts.LEARN, **fields
    )
    top = n["pool1"] = parts.pool(_normalize(n, "conv1", "_conv1"), 3)
    taps = {}
    for stage, blocks, width in STAGES:
        for block in blocks:
            # 1 x 1 convolutions of stride 2 read every other pixel, starting with the first.
            stride = 2 if block == "a" and stage > 2 else 1
            top = _add_block(n, top, f"{stage}{block}", thin(width), thin(4 * width), stride, fields)
        taps[f"res{stage}{blocks[-1]}"] = top
    return taps


def _add_block(n: NetSpec, bottom: Top, name: str, width: int, out: int, stride: int, fields: dict[str, Any]) -> Top:
    """Add a block of three convolutions and a shortcut, which is a convolution in the first block of a stage."""

    def convolve(top: Top, branch: str, channels: int, relu: bool = True, **sizes: Any) -> Top:
        n[f"res{name}_{branch}"] = layer(
            "Convolution", top, num_output=channels, bias_term=False, param=parts.LEARN[:1], **sizes, **fields
        )
        return _normalize(n, f"res{name}_{branch}", f"{name}_{branch}", relu=relu)

    shortcut = bottom
    if name.endswith("a"):
        shortcut = convolve(bottom, "branch1", out, relu=False, kernel_size=1, pad=0, stride=stride)
    top = convolve(bottom, "branch2a", width, kernel_size=1, pad=0, stride=stride)
    top = convolve(top, "branch2b", width, kernel_size=3, pad=1, stride=1)
    top = convolve(top, "branch2c", out, relu=False, kernel_size=1, pad=0, stride=1)
    n[f"res{name}"] = layer("Eltwise", shortcut, top, operation="SUM")
    n[f"res{name}_relu"] = layer("ReLU", n[f"res{name}"], in_place=True)
    return n[f"res{name}_relu"]


def _normalize(n: NetSpec, conv: str, ending: str, *, relu: bool = True) -> Top:
    """Add the BatchNorm, Scale and ReLU of a convolution, all in place."""
    n[f"bn{ending}"] = layer("BatchNorm", n[conv], in_place=True)
    top = n[f"scale{ending}"] = layer("Scale", n[f"bn{ending}"], in_place=True, bias_term=True)
    if relu:
        top = n[f"{conv}_relu"] = layer("ReLU", top, in_place=True)
    return top


def add_layers(n: NetSpec, net: System) -> None:
    """Add the layers of FCN-8s on ResNet-50 from the image to the loss; see ``System.add_layers``.

    A map of stride 32 lies over the first of every two pixels of the map of stride 16, so that kernels are odd: 3 for
    a factor of 2, 15 for 8. The upsampled map is the larger one, and is cropped to the skip.
    """
    (head,) = net.heads
    classes, taps = len(head.classes), add_trunk(n, n["data"], net.thin)
    coarse = n["score_fr"] = parts.score(taps["res5c"], classes)
    upscore = "upscore2"
    for tap in ("res4f", "res3d"):
        n[upscore] = parts.upsample(coarse, classes, 2, 3)
        n[f"score_{tap}"] = parts.score(taps[tap], classes)
        n[f"{upscore}c"] = crop(n[upscore], n[f"score_{tap}"])
        coarse = n[f"fuse_{tap}"] = layer("Eltwise", n[f"{upscore}c"], n[f"score_{tap}"], operation="SUM")
        upscore = f"upscore_{tap}"
    parts.add_dense_scores(n, head, net, coarse, 8, 15, name="upscore8")


NETS = (
    System(
        name="voc-fcn8s-resnet50",
        dataset=voc.SPEC,
        stride=8,
        base_lr=1e-4,
        parents={"resnet50": ""},
        first="conv1",
        normalize=True,
        solver=MINIBATCH_SOLVER,
        add_layers=add_layers,
        new_layers=("score_fr", "score_res4f", "score_res3d"),
        follows="Long et al., CVPR 2015, FCN-8s; He, Zhang, Ren, Sun, CVPR 2016, ResNet-50",
    ),
)

"""FPN's semantic head on ResNet-50: a top-down path that is upsampled by fixed interpolation, and one map of scores.

Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 3 (lateral 1 x 1 convolutions to 256 channels, a
top-down path, 3 x 3 after each sum); Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019, section 3.1 (each
level to 128 channels and to stride 4, their sum, and 1 x 1 to the scores), with one convolution for each level here.
"""

from __future__ import annotations

from dataclasses import replace

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer
from reproduction.fcn.nets import parts
from reproduction.fcn.nets.systems import resnet50
from reproduction.fcn.nets.systems.system import System

WIDTH = 256  # channels of the pyramid
HEAD_WIDTH = 128  # channels of each level before they are summed

# New layers learn from random weights. "xavier" is for a convolution that no ReLU follows.
LINEAR, RECTIFIED = {"type": "xavier"}, {"type": "msra"}


def _convolve(bottom: Top, channels: int, kernel: int, filler: dict[str, str]) -> Top:
    return layer(
        "Convolution",
        bottom,
        num_output=channels,
        kernel_size=kernel,
        pad=kernel // 2,
        param=parts.LEARN,
        weight_filler=filler,
    )


def _enlarge(bottom: Top, channels: int, factor: int) -> Top:
    """Return the top of a bilinear upsampling of each channel for itself, which is not learned."""
    return layer(
        "Deconvolution",
        bottom,
        num_output=channels,
        group=channels,
        kernel_size=2 * factor - 1,
        stride=factor,
        bias_term=False,
        param=parts.FIXED,
        weight_filler={"type": "bilinear"},
    )


def add_pyramid(n: NetSpec, taps: dict[str, Top], width: int) -> dict[int, Top]:
    """Add the feature pyramid to a trunk, and return its levels by number: 2 (stride 4) to 5 (stride 32).

    FPN upsamples by repeating the nearest value; here it is by bilinear interpolation, as in the nets of the paper, and
    each upsampled level is cropped to the finer one.

    Args:
        n: The specification to extend.
        taps: The outputs of the trunk's stages, of the finest first; see ``resnet50.add_trunk``.
        width: The number of channels of each level.
    """
    levels = {}
    merged = None
    for number, tap in zip((5, 4, 3, 2), reversed(taps.values()), strict=True):
        lateral = n[f"lateral{number}"] = _convolve(tap, width, 1, LINEAR)
        if merged is not None:
            n[f"up{number}"] = _enlarge(merged, width, 2)
            n[f"up{number}c"] = crop(n[f"up{number}"], lateral)
            lateral = n[f"merge{number}"] = layer("Eltwise", lateral, n[f"up{number}c"], operation="SUM")
        merged = lateral
        levels[number] = n[f"p{number}"] = _convolve(merged, width, 3, LINEAR)
    return levels


def add_layers(n: NetSpec, net: System) -> None:
    """Add the layers of FPN's semantic head on ResNet-50 from the image to the loss; see ``System.add_layers``."""
    (head,) = net.heads
    levels = add_pyramid(n, resnet50.add_trunk(n, n["data"], net.thin), net.thin(WIDTH))
    width = net.thin(HEAD_WIDTH)
    summed: list[Top] = []
    for number in (2, 3, 4, 5):
        n[f"sem{number}"] = _convolve(levels[number], width, 3, RECTIFIED)
        top = n[f"relu_sem{number}"] = layer("ReLU", n[f"sem{number}"], in_place=True)
        if summed:
            n[f"upsem{number}"] = _enlarge(top, width, 2 ** (number - 2))
            top = n[f"upsem{number}c"] = crop(n[f"upsem{number}"], summed[0])
        summed.append(top)
    n["fuse"] = layer("Eltwise", *summed, operation="SUM")
    n["score_fr"] = parts.score(n["fuse"], len(head.classes))
    parts.add_dense_scores(n, head, net, n["score_fr"], 4, 7, name="upscore4")


NETS = (
    replace(
        resnet50.NETS[0],
        name="voc-fpn-resnet50",
        stride=4,
        add_layers=add_layers,
        new_layers=(*(f"{part}{number}" for part in ("lateral", "p", "sem") for number in (2, 3, 4, 5)), "score_fr"),
        follows="Lin et al., CVPR 2017, Feature Pyramid Networks",
    ),
)

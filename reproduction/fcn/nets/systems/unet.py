"""U-Net: convolutions without padding, and skips that are cropped and concatenated rather than added.

Its names of layers and blobs are those of the prototxt that its authors published for Caffe.

Source: Ronneberger, Fischer, Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation (MICCAI 2015).
"""

from __future__ import annotations

from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop_fields, layer
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.custom import own_images
from reproduction.fcn.images.framing import Framing
from reproduction.fcn.nets import parts
from reproduction.fcn.nets.parts import LEARN
from reproduction.fcn.nets.systems.system import System

#: The number of poolings, and of upsamplings.
DEPTH = 4

#: Pixels by which the scores are smaller than the image, at each border.
MARGIN = 92

_ZERO = {"type": "constant", "value": 0}
_MSRA: dict[str, Any] = {"weight_filler": {"type": "msra"}, "bias_filler": _ZERO, "param": LEARN}
_XAVIER: dict[str, Any] = {"weight_filler": {"type": "xavier"}, "bias_filler": _ZERO, "param": LEARN}


def add_layers(n: NetSpec, net: System) -> None:
    """Add U-Net's layers from the image to the loss; see ``System.add_layers``.

    ``score`` is (N, classes, H - 184, W - 184) if H and W are 12 more than a multiple of 16, as 572 is. For another
    size, a pooling's last window lies partly outside, and ``score`` is up to 15 pixels larger. The image needs at least
    173 pixels in each direction. The labels are cropped to the pixels that have scores.
    """
    (head,) = net.heads
    top = n["data"]
    for level in range(DEPTH + 1):
        width = net.thin(64 << level)
        top = _conv_relu(n, _conv_relu(n, top, f"d{level}", "a-b", width), f"d{level}", "b-c", width)
        if level >= DEPTH - 1:
            top = n[f"drop_d{level}c"] = layer("Dropout", top, dropout_ratio=0.5, in_place=True)
        if level < DEPTH:
            name, below = f"pool_d{level}c-{level + 1}a", f"d{level + 1}a"
            top = n[below] = layer("Pooling", top, name=name, pool="MAX", kernel_size=2, stride=2)
    for level in reversed(range(DEPTH)):
        top = _add_level_up(n, top, f"d{DEPTH}c" if level == DEPTH - 1 else f"u{level + 1}d", level, net)
    n[head.score] = layer(
        "Convolution", top, name=f"conv_u0d-{head.score}", num_output=len(head.classes), kernel_size=1, **_MSRA
    )
    offset = crop_fields(n["data"], n[head.score])
    n["label_c"] = layer("Crop", n[head.label], n[head.score], name="crop_label", **offset)
    loss_param = {"normalize": net.normalize, "ignore_label": VOID}
    # Caffe asks every layer between labels and loss for a gradient, unless the loss says that there is none.
    n["loss"] = layer(
        "SoftmaxWithLoss", n[head.score], n["label_c"], propagate_down=[True, False], loss_param=loss_param
    )


def _add_level_up(n: NetSpec, bottom: Top, source: str, level: int, net: System) -> Top:
    """Add an upsampling, the skip from the same level of the way down, and two convolutions; return the last top."""
    up, skip, width = f"u{level}", f"d{level}c", net.thin(64 << level)
    name = f"upconv_{source}_{up}a"
    n[f"{up}a"] = layer("Deconvolution", bottom, name=name, num_output=width, kernel_size=2, stride=2, **_XAVIER)
    n[f"relu_{up}a"] = layer("ReLU", n[f"{up}a"], in_place=True)
    offset = crop_fields(n[skip], n[f"{up}a"])
    n[f"{skip}c"] = layer("Crop", n[skip], n[f"relu_{up}a"], name=f"crop_{skip}-{skip}c", **offset)
    n[f"{up}b"] = layer("Concat", n[f"relu_{up}a"], n[f"{skip}c"], name=f"concat_{skip}c_{up}a-b")
    return _conv_relu(n, _conv_relu(n, n[f"{up}b"], up, "b-c", width), up, "c-d", width)


def _conv_relu(n: NetSpec, bottom: Top, level: str, step: str, width: int) -> Top:
    """Add a convolution from one blob of a level to the next, such as d0a to d0b, with its ReLU."""
    top, sizes = level + step[-1], {"num_output": width, "kernel_size": 3}
    return parts.conv_relu(n, bottom, top, f"relu_{top}", name=f"conv_{level}{step}", **sizes, **_MSRA)


NETS = (
    System(
        name="unet",
        dataset=own_images.SPEC,
        stride=1,
        base_lr=1e-3,
        parents={},
        first="conv_d0a-b",
        normalize=True,
        grey_mean=128,
        scale=1 / 64,
        framing=Framing(mirror=MARGIN),
        deploy_size=572,
        add_layers=add_layers,
        new_layers=(),
        follows="Ronneberger, Fischer, Brox, MICCAI 2015",
    ),
)

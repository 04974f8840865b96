"""Layers that several nets share, as the functions that add them to a net which is being specified."""

from __future__ import annotations

from typing import Any

from reproduction.caffe.net.netspec import NetSpec, Top, crop, layer
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.spec import Head, NetRecord

LEARN = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]  # weights, biases
FIXED = [{"lr_mult": 0}]


def conv_relu(n: NetSpec, bottom: Top, conv: str, relu: str, **fields: Any) -> Top:
    """Add a convolution and a ReLU in place, and return the ReLU's top.

    Args:
        n: The specification to extend.
        bottom: What the convolution reads.
        conv: Name of the convolution.
        relu: Name of the ReLU.
        fields: Fields of the convolution, such as ``num_output``.
    """
    n[conv] = layer("Convolution", bottom, **fields)
    n[relu] = layer("ReLU", n[conv], in_place=True)
    return n[relu]


def pool(bottom: Top, kernel: int = 2) -> Top:
    """Return the top of a max pooling with stride 2."""
    return layer("Pooling", bottom, pool="MAX", kernel_size=kernel, stride=2)


def score(bottom: Top, classes: int) -> Top:
    """Return the top of a 1 x 1 convolution that computes a score for each class; its weights start from zero."""
    return layer("Convolution", bottom, num_output=classes, kernel_size=1, pad=0, param=LEARN)


def upsample(bottom: Top, classes: int, stride: int, kernel: int | None = None) -> Top:
    """Return the top of a Deconvolution that is not learned, which net surgery sets to bilinear interpolation.

    Args:
        bottom: What it reads.
        classes: The number of channels.
        stride: The factor of the upsampling.
        kernel: Height and width of the kernel; None for twice the stride.
    """
    size = kernel or 2 * stride
    return layer(
        "Deconvolution", bottom, num_output=classes, kernel_size=size, stride=stride, bias_term=False, param=FIXED
    )


def repeat(bottom: Top, classes: int, stride: int, kernel: int | None = None) -> Top:
    """Return the top of a Deconvolution that repeats each score: nearest neighbour upsampling, which is not learned.

    Args:
        bottom: What it reads.
        classes: The number of channels.
        stride: The factor of the upsampling, and the size of the kernel.
        kernel: Ignored; ``upsample`` has it, too.
    """
    return layer(
        "Deconvolution", bottom, num_output=classes, group=classes, kernel_size=stride, stride=stride, bias_term=False,
        weight_filler={"type": "constant", "value": 1}, param=FIXED,
    )  # fmt: skip


def add_dense_scores(
    n: NetSpec,
    head: Head,
    record: NetRecord,
    scores: Top,
    stride: int,
    kernel: int | None = None,
    name: str = "upscore",
) -> None:
    """Add the end of a head: the upsampling of its scores, their crop to the image, and the loss.

    Args:
        n: The specification to extend.
        head: The head.
        record: The net.
        scores: The coarse scores.
        stride: The factor of the upsampling.
        kernel: Height and width of the kernel; None for twice the stride.
        name: Name of the upsampling.
    """
    n[name] = upsample(scores, len(head.classes), stride, kernel)
    n[head.score] = crop(n[name], n["data"])
    add_loss(n, head, record)


def add_loss(n: NetSpec, head: Head, record: NetRecord) -> None:
    """Add the loss of a head, which reads its score blob and its labels; void pixels are ignored.

    Args:
        n: The specification to extend, which has the two tops.
        head: The head.
        record: The net, which states whether the loss is a mean or a sum, and which head is the first.
    """
    # Upstream's scoring expects the first loss to be called "loss", whatever the label's name.
    name = "loss" if head == record.heads[0] else f"loss{head.suffix}"
    loss_param = {"normalize": record.normalize, "ignore_label": VOID}
    n[name] = layer("SoftmaxWithLoss", n[head.score], n[head.label], loss_param=loss_param)

"""Dense outputs of a net that subsamples: shift-and-stitch, and the same by filter rarefaction.

A net that subsamples by f gives one output for every f x f pixels. Shift-and-stitch runs it f^2 times, on the image
shifted by every (y, x) with 0 <= y, x < f, and interlaces the outputs. Filter rarefaction gives the same outputs in one
pass: each layer that subsamples by s gets the stride 1, and all filters after it are spread apart by zeros, s times as
far; today this is called dilation, or à trous. ``RarefiedNet`` and ``shift_and_stitch`` compute both from one net.

Source: Long, Shelhamer, Darrell, CVPR 2015, section 3.2 ("Shift-and-stitch is filter rarefaction").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Window
from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

_UNCHANGED = ("Input", "Dropout", "Split")


def cut_before(net_param: NetParameter, blob: str, pad: int = 0) -> NetParameter:
    """Return the part of a net that computes a blob, with another padding of its first convolution.

    Args:
        net_param: a net with one Input layer.
        blob: the name of the blob.
        pad: the padding of the first convolution, in pixels.

    Raises:
        NetError: If no layer computes the blob.
    """
    needed, layers = {blob}, []
    for layer in reversed(net_param.layer):
        if needed.intersection(layer.top):
            needed.update(layer.bottom)
            layers.append(layer.copy())
    if not layers:
        raise NetError(f"no layer computes the blob {blob!r}")
    layers.reverse()
    next(layer for layer in layers if layer.type == "Convolution").convolution_param.pad = [pad]
    return NetParameter(layer=layers)


def drop_padding(net_param: NetParameter) -> NetParameter:
    """Return a copy of a net whose convolutions pad nothing, so that every output sees pixels of the image alone."""
    net_param = net_param.copy()
    for layer in net_param.layer:
        if layer.type == "Convolution":
            layer.convolution_param.pad = [0]
    return net_param


def shift_and_stitch(compute: Callable[[Tensor], Tensor], image: Tensor, factor: int) -> Tensor:
    """Return the outputs of a net for every pixel, from one pass for each of the ``factor``^2 shifts of the image.

    Args:
        compute: the net: a function from (N, C, H, W) to (N, K, h, w), whose output subsamples its input by ``factor``
            and sees no padding.
        image: (N, C, H, W), of such a size that each shift gives as many outputs as the others.
        factor: f, the stride of the net.

    Returns:
        (N, K, f h, f w): the output of shift (y, x) at row i and column j is at row f i + y and column f j + x.
    """
    height, width = image.shape[2:]
    rows = []
    for y in range(factor):
        # All shifts see as many pixels: the last whole number of cells that fits.
        cut = slice(y, height - factor + 1 + y)
        columns = [compute(image[:, :, cut, x : width - factor + 1 + x]) for x in range(factor)]
        rows.append(torch.stack(columns, -1).flatten(-2))
    return torch.stack(rows, -2).flatten(-3, -2)


@dataclass(frozen=True)
class _Step:
    """One layer of a net without subsampling.

    Attributes:
        compute: the layer: a function from (N, C, H, W) to (N, K, H - loss, W - loss).
        loss: by how many pixels the output is smaller than the input.
        products: the number of products for each pixel of the output.
    """

    compute: Callable[[Tensor], Tensor]
    loss: int = 0
    products: int = 0


class RarefiedNet:
    """A net that computes its outputs for every pixel, by filter rarefaction.

    Call it with an image (N, C, H, W) to get (N, K, H - r + 1, W - r + 1), where r is the receptive field of the net.

    Args:
        net: a net with one input, in phase TEST, whose layers follow one another: convolutions without padding, max
            pooling, ReLU and dropout.

    Raises:
        NetError: If the net has other layers, or one that pads.
    """

    def __init__(self, net: Net):
        self._steps: list[_Step] = []
        spread = 1  # the product of the strides of the layers before: how far apart neighbouring cells now are
        for node in net.graph.nodes:
            param = node.layer_param
            if node.type == "Convolution":
                window = _find_window(net, node)
                self._steps.append(_convolve(net.params[node.name], window, spread, param.convolution_param.group))
            elif node.type == "Pooling" and param.pooling_param.pool.name == "MAX":
                window = _find_window(net, node)
                self._steps.append(_pool(window, spread))
            elif node.type == "ReLU" and not param.relu_param.negative_slope:
                self._steps.append(_Step(torch.relu))
                continue
            elif node.type in _UNCHANGED:
                continue
            else:
                raise NetError("filter rarefaction does not cover this layer").at(param.place)
            spread *= window.stride

    def __call__(self, image: Tensor) -> Tensor:
        """Compute the outputs for every pixel of an image."""
        for step in self._steps:
            image = step.compute(image)
        return image

    def count_products(self, height: int, width: int) -> int:
        """Return how many times a pass multiplies an input by a weight, for an image of a size in pixels."""
        total = 0
        for step in self._steps:
            height, width = height - step.loss, width - step.loss
            total += step.products * height * width
        return total


def _find_window(net: Net, node: Node) -> Window:
    """Return the window of a layer, the same along both axes."""
    layer = net.layer_at(node)
    assert layer is not None
    window, *other = layer.sliding_windows(node.layer_param)
    if window.pad or other not in ([], [window]):
        problem = NetError("filter rarefaction covers square windows without padding", got=[window, *other])
        raise problem.at(node.layer_param.place)
    return window


def _convolve(blobs: Sequence[Tensor], window: Window, spread: int, groups: int) -> _Step:
    weight, *bias = (blob.detach() for blob in blobs)
    dilation = spread * window.dilation

    def compute(image: Tensor) -> Tensor:
        return functional.conv2d(image, weight, bias[0] if bias else None, dilation=dilation, groups=groups)

    return _Step(compute, dilation * (window.kernel - 1), weight.numel())


def _pool(window: Window, spread: int) -> _Step:
    return _Step(
        lambda image: functional.max_pool2d(image, window.kernel, stride=1, dilation=spread),
        spread * (window.kernel - 1),
    )

"""Accumulate gradients as Caffe does, where the backward of some layers overwrites the gradient of a parameter.

Autograd adds gradients over samples and over the layers that share a parameter. In Caffe, if ``Layer.sets_gradient``
returns True, the backward of the layer discards the gradients of earlier samples and those of later layers that share
the parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from torch import Tensor

from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.convolution import Convolution
from reproduction.caffe.layers.quick.borders import AnyBlob
from reproduction.caffe.net.copy_weights import find_base
from reproduction.caffe.net.net import Net


class Accumulation:
    """A context manager that makes autograd accumulate the gradients of a net as Caffe does.

    It concerns layers whose backward pass overwrites the gradient of a parameter in Caffe. Run each forward pass inside
    the ``with`` block, and call ``clear`` before each backward pass.

    Args:
        net: The net to train.
    """

    def __init__(self, net: Net):
        layers = [layer for layer in net.children() if isinstance(layer, Layer)]
        setting = [layer for layer in layers if type(layer).sets_gradient is not Layer.sets_gradient]
        concerned = {id(find_base(blob)) for layer in setting for blob in layer.blobs}
        self._layers = [
            layer for layer in layers if not concerned.isdisjoint(id(find_base(blob)) for blob in layer.blobs)
        ]
        self._overwritten: dict[int, Tensor] = {}

    def __enter__(self) -> None:
        self._overwritten = {}
        for layer in self._layers:
            layer.__dict__["run"] = partial(self._run, layer, layer.run)  # found before the method of the class

    def __exit__(self, *exception: object) -> None:
        for layer in self._layers:
            del layer.__dict__["run"]

    def clear(self) -> None:
        """Discard the gradients that Caffe's next backward pass would overwrite; call it before the backward pass."""
        for parameter in self._overwritten.values():
            parameter.grad = None

    def _run(self, layer: Layer, run: Callable[..., tuple[AnyBlob, ...]], *bottoms: AnyBlob) -> tuple[AnyBlob, ...]:
        """Run a layer with those parameters detached that an earlier layer overwrites; record which it overwrites."""
        shapes = [tuple(bottom.shape) for bottom in bottoms]
        hidden = []
        for i, name in enumerate(layer.blob_names):
            blob = getattr(layer, name)
            owner = find_base(blob)
            if id(owner) in self._overwritten:
                hidden.append(name)
                layer.__dict__[name] = blob.detach()  # attribute lookup finds it before the registered parameter
            elif layer.sets_gradient(i, shapes):
                self._overwritten[id(owner)] = owner
        try:
            return run(*bottoms)
        finally:
            for name in hidden:
                del layer.__dict__[name]


def find_sole_users(net: Net) -> dict[int, Convolution]:
    """Return the convolutions whose weight has a gradient of one term, by the id of the weight.

    No other layer uses such a weight, and the layer has one bottom.
    """
    layers = [layer for layer in net.children() if isinstance(layer, Layer)]
    uses = Counter(id(find_base(blob)) for layer in layers for blob in layer.blobs for _ in layer.layer_param.bottom)
    convolutions = {id(find_base(layer.blobs[0])): layer for layer in layers if isinstance(layer, Convolution)}
    return {key: layer for key, layer in convolutions.items() if uses[key] == 1}

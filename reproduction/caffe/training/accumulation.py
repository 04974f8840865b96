"""Which gradients add up in Caffe: the backward of some layers overwrites the gradient of a parameter.

Autograd adds: over samples, and over the layers that share a parameter. In Caffe what was there before is lost where
``Layer.sets_gradient`` says so: the gradients of earlier samples, and those of the layers behind it that share the
parameter.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.net import Net


class Accumulation:
    """Leaves in the ``grad`` of a net's parameters what Caffe would.

    Run each forward in its context, and call ``clear`` before the backward.

    Args:
        net: the net.
    """

    def __init__(self, net: Net):
        layers = [layer for layer in net.children() if isinstance(layer, Layer)]
        setting = [layer for layer in layers if type(layer).sets_gradient is not Layer.sets_gradient]
        concerned = {id(_owner(blob)) for layer in setting for blob in layer.blobs}
        self._layers = [layer for layer in layers if not concerned.isdisjoint(id(_owner(blob)) for blob in layer.blobs)]
        self._overwritten: dict[int, Tensor] = {}
        self._hidden: dict[str, Any] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        self._overwritten = {}
        for layer in self._layers:
            self._handles.append(layer.register_forward_pre_hook(self._before))
            self._handles.append(layer.register_forward_hook(self._after, always_call=True))

    def __exit__(self, *exception: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def clear(self) -> None:
        """Drop the gradients that the backward of the last forward would overwrite."""
        for parameter in self._overwritten.values():
            parameter.grad = None

    def _before(self, layer: nn.Module, bottoms: tuple[Tensor, ...]) -> None:
        """Find what the layer overwrites, and hide parameters whose gradient an earlier layer will overwrite."""
        assert isinstance(layer, Layer)
        shapes = [tuple(bottom.shape) for bottom in bottoms]
        self._hidden = {}
        for i, name in enumerate(layer.blob_names):
            blob = getattr(layer, name)
            owner = _owner(blob)
            if id(owner) in self._overwritten:
                self._hidden[name] = layer.__dict__.get(name)
                layer.__dict__[name] = blob.detach()  # found before the registered parameter
            elif layer.sets_gradient(i, shapes):
                self._overwritten[id(owner)] = owner

    def _after(self, layer: nn.Module, *_: object) -> None:
        for name, before in self._hidden.items():
            if before is None:
                del layer.__dict__[name]
            else:
                layer.__dict__[name] = before


def _owner(blob: Tensor) -> Tensor:
    """Return the parameter that a blob is, or is a view of."""
    return blob if blob._base is None else blob._base

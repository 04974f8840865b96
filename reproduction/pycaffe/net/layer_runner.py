"""Runs the layers of a pycaffe Net: each reads its bottoms from blobs and writes its tops to blobs.

Autograd records the forward pass of each layer for which Caffe runs a backward pass. The backward pass of a layer
applies this record to the current gradients in the tops' blobs. The recorded tensors share the blobs' memory, so that
values which a program writes to a blob between forward and backward count, as in Caffe.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.blob import Blob, BlobVec
from reproduction.caffe.layers.data import DummyData, Parameter
from reproduction.caffe.layers.python import Python, UserLayer
from reproduction.caffe.net import backward_needs
from reproduction.caffe.net.backward_needs import Need
from reproduction.caffe.net.graph import Node, locate_errors
from reproduction.caffe.net.net import Net

_AGAIN = "Call forward again."


def find_class(module: str, layer: str) -> type[Any]:
    """Import ``module`` and return its class ``layer``, as Caffe does for a Python layer."""
    kind: type[Any] = getattr(importlib.import_module(module), layer)
    return kind


def create_runners(net: Net, blobs: Mapping[str, Blob]) -> list[LayerRunner]:
    """Return the layers of a net in order, each connected to its blobs.

    Parameters that learn get ``requires_grad``.
    """
    layers = [net.layer_at(node) for node in net.graph.nodes]
    needs = backward_needs.find_needs(net.graph, layers, net.loss_weights)
    learnable = {parameter.data_ptr(): parameter for parameter in net.parameters()}
    for layer, needed in zip(layers, needs, strict=True):
        for blob, learns in zip(layer.blobs if layer else (), needed.params, strict=True):
            if learns:
                learnable[blob.data_ptr()].requires_grad_()
    owners: dict[int, Blob] = {}
    return [LayerRunner(net, node, needed, blobs, owners) for node, needed in zip(net.graph.nodes, needs, strict=True)]


@dataclass
class _Record:
    """A recorded forward pass.

    Attributes:
        bottoms: The inputs, as leaves of the autograd graph.
        params: The parameters.
        versions: The autograd versions of the parameters, to detect changes in place.
        tops: The outputs.
    """

    bottoms: list[Tensor]
    params: list[Tensor]
    versions: list[int]
    tops: tuple[Tensor, ...]


class LayerRunner:
    """A layer with the blobs that it reads and writes.

    Args:
        net: The net that contains the layer.
        node: The layer's node in the net's graph.
        needed: What the layer's backward pass computes.
        blobs: The net's blobs by name.
        owners: Parameter blobs by memory address, so that shared parameters share gradients. The layer adds its
            blobs.

    Attributes:
        blobs: The parameter blobs.
        face: The object that ``net.layers`` contains: the program's instance for a Python layer, else a UserLayer.
    """

    def __init__(self, net: Net, node: Node, needed: Need, blobs: Mapping[str, Blob], owners: dict[int, Blob]):
        self.net, self.node, self.need = net, node, needed
        self.layer = net.layer_at(node)
        self.bottoms = [blobs[name] for name in node.bottoms]
        self.tops = [blobs[name] for name in node.tops]
        # Upstream bug, kept: in pycaffe, a Parameter layer's top loses its loss weight, since the first forward
        # replaces the gradient that holds it (parameter_layer.hpp L33). The torch module applies the loss weight.
        weights = {} if isinstance(self.layer, Parameter) else net.loss_weights
        self._weights = [weights.get(name, 0.0) for name in node.tops]
        self._shares = self.layer.shares() if self.layer else (False, False)
        self._constant: tuple[bool, ...] = ()
        self._record: _Record | None = None
        self._device = torch.device("cpu")
        if isinstance(self.layer, Python):
            self.face: Any = self.layer.user
        else:
            self.face = UserLayer(node.layer_param)
            self.face.type = node.type
        self.blobs: BlobVec = self.face.blobs
        self._show_parameters(owners)
        self._begin()

    def _show_parameters(self, owners: dict[int, Blob]) -> None:
        """Create a blob for each parameter, or fill those that a Python layer has created in ``setup``."""
        for i, parameter in enumerate(self.layer.blobs if self.layer else ()):
            if i == len(self.blobs):
                self.blobs.append(Blob())
            self.blobs[i].put(parameter.detach())
            self.blobs[i].share(owners.setdefault(parameter.data_ptr(), self.blobs[i]), diff=True)

    def _begin(self) -> None:
        """Set the tops to the values and gradients that Caffe's setup leaves in them."""
        if isinstance(self.layer, DummyData) and any(self.layer.constant):
            # Caffe: DummyData fills tops with constant fillers once and does not restore them if a script overwrites
            # them (dummy_data_layer.cpp L78-L92).
            tops = self.net.run(self.node, [])
            for blob, top, constant in zip(self.tops, tops, self.layer.constant, strict=True):
                if constant:
                    blob.put(top)
            self._constant = self.layer.constant
        if self._shares[0]:
            self._share([blob.sizes for blob in self.tops])
        self._weigh()

    def use(self, device: torch.device) -> None:
        """Move the layer to a device and point its parameters at the memory of their blobs.

        Raises:
            NetError: If the program has changed the number of values of a parameter's blob.
        """
        layer = self.layer
        if layer is None:
            return
        if device != self._device:
            layer.to(device)
            self._device = device
        for i, (parameter, blob) in enumerate(zip(layer.blobs, self.blobs, strict=True)):
            if not isinstance(parameter, nn.Parameter):
                continue  # a reshaped view of a shared parameter; the net renews it at each forward pass
            values = blob.values(device)
            if values.data_ptr() != parameter.data_ptr():
                with locate_errors(self.node):
                    if blob.count != parameter.numel():
                        raise NetError(f"blob {i} was reshaped", got=blob.sizes, want=tuple(parameter.shape))
                parameter.data = values.reshape(parameter.shape)

    def forget(self) -> None:
        """Discard the record of the last forward pass and free its memory."""
        self._record = None

    # ---- forward

    def forward(self, device: torch.device) -> float:
        """Compute the tops from the current bottoms, and return the weighted loss, 0 if no top is a loss.

        Raises:
            NetError: If the layer rejects its bottoms.
        """
        if isinstance(self.layer, Python):
            with locate_errors(self.node):
                self.layer.compute()
        elif self.layer is not None:
            self._keep(self._compute(device))
        self._weigh()
        return sum(
            float((blob.values(device) * blob.gradient(device)).sum())
            for blob, weight in zip(self.tops, self._weights, strict=True)
            if weight
        )

    def _compute(self, device: torch.device) -> tuple[Tensor, ...]:
        """Run the layer and return its tops; record the pass if the layer runs backward."""
        assert self.layer is not None
        bottoms = [blob.values(device) for blob in self.bottoms]
        if not self.need.layer:
            with torch.no_grad():
                return self.net.run(self.node, bottoms)
        if not self.layer.inplace:
            # An in-place top overwrites the bottom if the program holds the blob's array, and the gradient may need
            # both: clone the bottom first.
            over = [blob in self.tops and blob.is_held for blob in self.bottoms]
            bottoms = [x.clone() if held else x for x, held in zip(bottoms, over, strict=True)]
        leaves = [x.detach().requires_grad_(wanted) for x, wanted in zip(bottoms, self.need.bottoms, strict=True)]
        # Autograd forbids a layer that works in place to overwrite a leaf: pass an alias instead.
        passed = [_Alias.apply(x) for x in leaves] if self.layer.inplace else leaves  # type: ignore[no-untyped-call]
        with torch.enable_grad():
            tops = self.net.run(self.node, list(passed))
        params = self.layer.blobs
        self._record = _Record(leaves, params, self._versions(params), tops)
        return tops

    def _keep(self, tops: tuple[Tensor, ...]) -> None:
        if self._shares[0]:
            self._share([tuple(top.shape) for top in tops])
            return
        # Caffe's blobs have separate memory: a top that shares memory with a bottom or another top is cloned.
        taken = {_address(blob.values(self._device)) for blob in self.bottoms if blob not in self.tops}
        for i, (blob, top) in enumerate(zip(self.tops, tops, strict=True)):
            if not (self._constant and self._constant[i]):
                blob.put(_apart(top.detach(), taken))

    def _share(self, shapes: list[tuple[int, ...]]) -> None:
        for blob, shape in zip(self.tops, shapes, strict=True):
            blob.share((self.bottoms or self.blobs)[0], diff=self._shares[1])
            blob.reshape(*shape)

    def _weigh(self) -> None:
        """Set the gradient of each loss to its loss weight, unless the gradient is already set."""
        # Upstream bug, fixed: Caffe writes the loss weight to a loss's gradient only once, at setup; a top that grows
        # later loses it (layer.hpp L389-L402). Here it is set again at each forward where the gradient is empty.
        for blob, weight in zip(self.tops, self._weights, strict=True):
            if weight and not blob.has_gradient:
                blob.diff[...] = weight

    def reshape(self) -> None:
        """Reshape the tops to fit the current shapes of the bottoms.

        Raises:
            NetError: If the layer cannot take the shapes of its bottoms.
        """
        if self.layer is None or not (self.bottoms or isinstance(self.layer, Python)):
            return  # input and data layers keep the shapes that the program set
        with locate_errors(self.node):
            shapes = self.layer.shapes([blob.sizes for blob in self.bottoms])
        if self._shares[0]:
            self._share(shapes)
        elif not isinstance(self.layer, Python):  # which has reshaped its tops itself
            for blob, shape in zip(self.tops, shapes, strict=True):
                blob.reshape(*shape)

    # ---- backward

    def backward(self, device: torch.device) -> None:
        """Compute the bottoms' gradients from the tops', and accumulate the parameters' gradients.

        Do nothing for a layer that Caffe does not run backward.

        Raises:
            NetError: If there was no forward pass and the gradient needs one, or if parameters or the shape of a top
                have changed since the forward pass.
        """
        if not self.need.layer or self.layer is None or self._shares[1]:
            return
        if isinstance(self.layer, Python):
            with locate_errors(self.node):
                self.layer.pass_back(self.need.bottoms)
            return
        with locate_errors(self.node):
            record = self._recorded(device)
        tops = [(top, blob) for top, blob in zip(record.tops, self.tops, strict=True) if top.requires_grad]
        gradients = [blob.gradient(device) for _, blob in tops]
        bottoms = [(x, blob) for x, blob in zip(record.bottoms, self.bottoms, strict=True) if x.requires_grad]
        params = [i for i, learns in enumerate(self.need.params) if learns]
        sources = [*(x for x, _ in bottoms), *(record.params[i] for i in params)]
        found: list[Tensor | None] = [None] * len(sources)
        shapes = [blob.sizes for blob in self.bottoms]
        set_anew = {i for i in params if self.layer.sets_gradient(i, shapes)}
        totals = self.layer.totals
        # In the order of Caffe's BLAS, products are added to the old gradient one by one: pass it to the layer.
        for i in params if self.layer.in_blas_order else ():
            if i not in set_anew and self.blobs[i].has_gradient:
                totals[i] = self.blobs[i].gradient(device).view(record.params[i].shape)
        offered = set(totals)
        if tops and sources:
            outputs = [top for top, _ in tops]
            # A program may run backward several times after one forward pass, so the graph is retained.
            found = list(torch.autograd.grad(outputs, sources, gradients, retain_graph=True, allow_unused=True))
        taken = {_address(gradient) for gradient in gradients}
        for (_, blob), gradient in zip(bottoms, found, strict=False):
            if gradient is None:
                blob.clear_gradient()
            else:
                blob.put_gradient(_apart(gradient, taken))
        set_anew |= offered - totals.keys()  # the layer has already added the old gradient to these
        totals.clear()
        for i, gradient in zip(params, found[len(bottoms) :], strict=True):
            if gradient is not None and i in set_anew:
                self.blobs[i].put_gradient(_apart(gradient, taken))
            elif gradient is not None:
                self.blobs[i].add_gradient(_apart(gradient, taken))

    def _recorded(self, device: torch.device) -> _Record:
        """Return the record of the last forward pass, after checking that it is still valid.

        As in Caffe, a layer whose gradient depends only on its bottoms and parameters needs no forward pass: if the
        record is missing or stale, compute it here.

        Raises:
            NetError: If another layer has no record, or its parameters or the shape of a top have changed since.
        """
        layer, record = self.layer, self._record
        assert layer is not None
        in_place = any(blob in self.tops for blob in self.bottoms)
        alone = layer.top_is_free or self._shares[0]
        again = alone and not in_place and not (layer.changes_blobs and layer.training)
        if record is not None and not (again and self._is_stale(record, device)):
            if record.versions != self._versions(record.params):
                raise NetError("the parameters have changed since the forward", remedy=_AGAIN)
        elif again:
            self._compute(device)
            record = self._record
        if record is None:
            raise NetError("backward before forward", remedy="Call forward first.")
        for top, blob in zip(record.tops, self.tops, strict=True):
            if tuple(top.shape) != blob.sizes:
                raise NetError("a top was reshaped since the forward", got=blob.sizes, want=tuple(top.shape))
        return record

    def _versions(self, params: list[Tensor]) -> list[int]:
        """Return the autograd versions of the parameters; none for a layer whose gradient does not read them."""
        assert self.layer is not None
        return [] if self.layer.changes_blobs else [p._version for p in params]

    def _is_stale(self, record: _Record, device: torch.device) -> bool:
        return record.versions != self._versions(record.params) or any(
            x.data_ptr() != blob.values(device).data_ptr() or tuple(x.shape) != blob.sizes
            for x, blob in zip(record.bottoms, self.bottoms, strict=True)
        )


def _address(values: Tensor) -> int:
    return values.untyped_storage().data_ptr()


def _apart(values: Tensor, taken: set[int]) -> Tensor:
    """Return ``values`` with dense memory that is not in ``taken``, cloned if necessary, and add its address."""
    dense = values.is_contiguous() or (values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last))
    if not dense or _address(values) in taken:
        values = values.clone(memory_format=torch.contiguous_format)
    taken.add(_address(values))
    return values


class _Alias(Function):
    """The identity, on the same memory; its output is not a leaf of the autograd graph."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]

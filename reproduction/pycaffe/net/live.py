"""One layer of a live net: from blobs into blobs, forward and backward.

A forward is recorded by autograd, layer by layer, wherever Caffe's rules say that the layer goes backward; a backward
plays the record with the gradients that stand in the tops' blobs then. What is recorded is the blobs' own memory, so
that what a program writes into a blob between the two counts, as in Caffe.
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
from reproduction.caffe.net.graph import Node, placed
from reproduction.caffe.net.net import Net

_AGAIN = "Call forward again."


def find_class(module: str, layer: str) -> type[Any]:
    """Import the class of a Python layer, as Caffe does."""
    kind: type[Any] = getattr(importlib.import_module(module), layer)
    return kind


def layers_of(net: Net, blobs: Mapping[str, Blob]) -> list[LiveLayer]:
    """Make the live layers of a net over its blobs."""
    layers = [net.layer_at(node) for node in net.graph.nodes]
    needs = backward_needs.find(net.graph, layers, net.loss_weights)
    learnable = {parameter.data_ptr(): parameter for parameter in net.parameters()}
    for layer, needed in zip(layers, needs, strict=True):
        for blob, learns in zip(layer.blobs if layer else (), needed.params, strict=True):
            if learns:
                learnable[blob.data_ptr()].requires_grad_()
    owners: dict[int, Blob] = {}
    return [LiveLayer(net, node, needed, blobs, owners) for node, needed in zip(net.graph.nodes, needs, strict=True)]


@dataclass
class _Record:
    """A forward: what went in, the parameters and their versions, and what came out."""

    bottoms: list[Tensor]
    params: list[Tensor]
    versions: list[int]
    tops: tuple[Tensor, ...]


class LiveLayer:
    """A layer and its blobs.

    Args:
        net: the net that has the layer.
        node: its place there.
        needed: what its backward has to do.
        blobs: of the net, by name.
        owners: the parameters' blobs by the address of their memory, so that shared parameters share gradients; this
            layer's are added.

    Attributes:
        blobs: the parameters.
        face: the layer as ``net.layers`` has it.
    """

    def __init__(self, net: Net, node: Node, needed: Need, blobs: Mapping[str, Blob], owners: dict[int, Blob]):
        self.net, self.node, self.need = net, node, needed
        self.layer = net.layer_at(node)
        self.bottoms = [blobs[name] for name in node.bottoms]
        self.tops = [blobs[name] for name in node.tops]
        # Upstream bug, kept: the loss weight of a Parameter's top is lost under `import caffe`, since the first forward
        # replaces the gradient that it was written to (parameter_layer.hpp L33). A torch module honours it.
        weights = {} if isinstance(self.layer, Parameter) else net.loss_weights
        self._weights = [weights.get(name, 0.0) for name in node.tops]
        self._shares = self.layer.shares() if self.layer else (False, False)
        self._constant: tuple[bool, ...] = ()
        self._record: _Record | None = None
        self._device = torch.device("cpu")
        if isinstance(self.layer, Python):
            self.face: Any = self.layer.user
        else:
            self.face = UserLayer(node.spec)
            self.face.type = node.type
        self.blobs: BlobVec = self.face.blobs
        self._show_parameters(owners)
        self._begin()

    def _show_parameters(self, owners: dict[int, Blob]) -> None:
        """Make the blobs of the parameters; a Python layer has made its own."""
        for i, parameter in enumerate(self.layer.blobs if self.layer else ()):
            if i == len(self.blobs):
                self.blobs.append(Blob())
            self.blobs[i].put(parameter.detach())
            self.blobs[i].share(owners.setdefault(parameter.data_ptr(), self.blobs[i]), diff=True)

    def _begin(self) -> None:
        """Bring the tops to where Caffe has them before the first forward."""
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
        """Let the layer compute on a device, with its parameters in the memory of their blobs.

        Raises:
            NetError: a parameter's blob was given another number of values.
        """
        layer = self.layer
        if layer is None:
            return
        if device != self._device:
            layer.to(device)
            self._device = device
        for i, (parameter, blob) in enumerate(zip(layer.blobs, self.blobs, strict=True)):
            if not isinstance(parameter, nn.Parameter):
                continue  # shown in another shape than its owner's, from whose memory the net takes it at each forward
            values = blob.values(device)
            if values.data_ptr() != parameter.data_ptr():
                with placed(self.node):
                    if blob.count != parameter.numel():
                        raise NetError(f"blob {i} was reshaped", got=blob.sizes, want=tuple(parameter.shape))
                parameter.data = values.reshape(parameter.shape)

    def forget(self) -> None:
        """Forget the last forward, and free what it kept."""
        self._record = None

    # ---- forward

    def forward(self, device: torch.device) -> float:
        """Compute the tops from the bottoms as they are, and return the loss.

        Raises:
            NetError: the bottoms do not fit, or what the layer refuses.
        """
        if isinstance(self.layer, Python):
            with placed(self.node):
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
        """Run the layer, recorded if it goes backward."""
        assert self.layer is not None
        bottoms = [blob.values(device) for blob in self.bottoms]
        if not self.need.layer:
            with torch.no_grad():
                return self.net.run(self.node, bottoms)
        if not self.layer.inplace:
            # The top will be written over the bottom where somebody holds the blob's array; the gradient may read both.
            over = [blob in self.tops and blob.is_held for blob in self.bottoms]
            bottoms = [x.clone() if held else x for x, held in zip(bottoms, over, strict=True)]
        leaves = [x.detach().requires_grad_(wanted) for x, wanted in zip(bottoms, self.need.bottoms, strict=True)]
        # Where the layer works in place, autograd must not see that it overwrites a leaf.
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
        taken = {_address(blob.values(self._device)) for blob in self.bottoms if blob not in self.tops}
        for i, (blob, top) in enumerate(zip(self.tops, tops, strict=True)):
            if not (self._constant and self._constant[i]):
                blob.put(_apart(top.detach(), taken))

    def _share(self, shapes: list[tuple[int, ...]]) -> None:
        for blob, shape in zip(self.tops, shapes, strict=True):
            blob.share((self.bottoms or self.blobs)[0], diff=self._shares[1])
            blob.reshape(*shape)

    def _weigh(self) -> None:
        """Set the gradient of a loss to its weight."""
        # Upstream bug, fixed: Caffe sets a loss's gradient once, and a top that grows has none (layer.hpp L389-L402).
        for blob, weight in zip(self.tops, self._weights, strict=True):
            if weight and not blob.has_gradient:
                blob.diff[...] = weight

    def reshape(self) -> None:
        """Give the tops the shapes that follow from the bottoms'.

        Raises:
            NetError: the bottoms do not fit.
        """
        if self.layer is None or not (self.bottoms or isinstance(self.layer, Python)):
            return  # what brings data keeps the shapes that its blobs were given
        with placed(self.node):
            shapes = self.layer.shapes([blob.sizes for blob in self.bottoms])
        if self._shares[0]:
            self._share(shapes)
        elif not isinstance(self.layer, Python):  # which has reshaped its tops itself
            for blob, shape in zip(self.tops, shapes, strict=True):
                blob.reshape(*shape)

    # ---- backward

    def backward(self, device: torch.device) -> None:
        """Compute the bottoms' gradients from the tops', and add up the parameters'; nothing where Caffe does nothing.

        Raises:
            NetError: there was no forward, and the gradient depends on what one leaves.
        """
        if not self.need.layer or self.layer is None or self._shares[1]:
            return
        if isinstance(self.layer, Python):
            with placed(self.node):
                self.layer.pass_back(self.need.bottoms)
            return
        with placed(self.node):
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
        for i in params if self.layer.in_blas_order else ():
            if i not in set_anew and self.blobs[i].has_gradient:
                totals[i] = self.blobs[i].gradient(device).view(record.params[i].shape)
        offered = set(totals)
        if tops and sources:
            outputs = [top for top, _ in tops]
            found = list(torch.autograd.grad(outputs, sources, gradients, retain_graph=True, allow_unused=True))
        taken = {_address(gradient) for gradient in gradients}
        for (_, blob), gradient in zip(bottoms, found, strict=False):
            if gradient is None:
                blob.clear_gradient()
            else:
                blob.put_gradient(_apart(gradient, taken))
        set_anew |= offered - totals.keys()  # where the layer has added to the gradient itself
        totals.clear()
        for i, gradient in zip(params, found[len(bottoms) :], strict=True):
            if gradient is not None and i in set_anew:
                self.blobs[i].put_gradient(_apart(gradient, taken))
            elif gradient is not None:
                self.blobs[i].add_gradient(_apart(gradient, taken))

    def _recorded(self, device: torch.device) -> _Record:
        """Return the last forward; where there was none, or not from these blobs, make one if nothing depends on it.

        A layer whose gradient follows from its bottoms and parameters alone needs no forward, as in Caffe.
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
        """Return the versions of the parameters that the gradient reads."""
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
    """Return a tensor whose memory is its own, none of those ``taken``, and add it to them."""
    dense = values.is_contiguous() or (values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last))
    if not dense or _address(values) in taken:
        values = values.clone(memory_format=torch.contiguous_format)
    taken.add(_address(values))
    return values


class _Alias(Function):
    """The same values in the same memory, not a leaf."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]

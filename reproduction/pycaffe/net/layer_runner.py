"""Runs the layers of a pycaffe Net one by one, each on blobs that a program can read and write.

A torch module passes tensors from layer to layer, and autograd runs backward through all of them. pycaffe promises
more: every blob keeps its values and its gradient between calls, and a program may overwrite both before the next
layer runs. Therefore each layer runs by itself here: it reads its bottoms from blobs and writes its tops to blobs, and
its backward pass applies what autograd recorded of its forward pass to the gradients in the tops' blobs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.blob import Blob, BlobVec
from reproduction.caffe.layers.data import DummyData, Parameter
from reproduction.caffe.layers.python import Python, UserLayer
from reproduction.caffe.net import backward_needs
from reproduction.caffe.net.backward_needs import Need
from reproduction.caffe.net.graph import Node, locate_errors
from reproduction.caffe.net.net import Net
from reproduction.pycaffe.net.recorded_pass import RecordedPass


def find_class(module: str, layer: str) -> type[Any]:
    """Import the module of a Python layer and return the layer's class.

    Args:
        module: The field ``python_param.module`` of the layer.
        layer: The field ``python_param.layer``, the name of the class.
    """
    kind: type[Any] = getattr(importlib.import_module(module), layer)
    return kind


def create_runners(net: Net, blobs: Mapping[str, Blob]) -> list[LayerRunner]:
    """Return a ``LayerRunner`` for each layer of a net, in order.

    This also sets ``requires_grad`` of the parameters that a backward pass adds a gradient to.

    Args:
        net: The torch module, built with these blobs.
        blobs: The net's blobs by name.
    """
    layers = [net.layer_at(node) for node in net.graph.nodes]
    needs = backward_needs.find_needs(net.graph, layers, net.loss_weights)
    # A layer may read a shared parameter through a reshaped view, which is not a leaf: find the leaf by its address.
    leaves = {parameter.data_ptr(): parameter for parameter in net.parameters()}
    for layer, need in zip(layers, needs, strict=True):
        for blob, learns in zip(layer.blobs if layer else (), need.params, strict=True):
            if learns:
                leaves[blob.data_ptr()].requires_grad_()
    owners: dict[int, Blob] = {}
    return [LayerRunner(net, node, need, blobs, owners) for node, need in zip(net.graph.nodes, needs, strict=True)]


class LayerRunner:
    """One layer of a pycaffe Net, which it runs forward and backward on the blobs that a program reads and writes.

    Args:
        net: The torch module that contains the layer.
        node: The layer's message and the names of its bottoms and tops.
        need: Which gradients the layer's backward pass computes.
        blobs: The net's blobs by name.
        owners: Parameter blobs by memory address, so that layers with a shared parameter share its gradient. The runner
            adds the blobs of its layer.

    Attributes:
        layer: The torch module of the layer; None for an Input layer, and for a data layer whose tops the program
            fills.
        bottoms: The blobs that the layer reads.
        tops: The blobs that the layer writes.
        blobs: The parameter blobs.
        pycaffe_layer: The object that ``Net.layers`` contains. For a Python layer it is the instance of the class in
            the program's own module.
    """

    def __init__(self, net: Net, node: Node, need: Need, blobs: Mapping[str, Blob], owners: dict[int, Blob]):
        self.net, self.node, self.need = net, node, need
        self.layer = net.layer_at(node)
        self.bottoms = [blobs[name] for name in node.bottoms]
        self.tops = [blobs[name] for name in node.tops]
        # Upstream bug, kept: in pycaffe, a Parameter layer's top loses its loss weight, since the first forward
        # replaces the gradient that holds it (parameter_layer.hpp L33). The torch module applies the loss weight.
        weights = {} if isinstance(self.layer, Parameter) else net.loss_weights
        self._loss_weights = [weights.get(name, 0.0) for name in node.tops]
        self._shares_values, self._shares_gradient = self.layer.shares if self.layer else (False, False)
        self._record: RecordedPass | None = None
        self._device = torch.device("cpu")
        if isinstance(self.layer, Python):
            self.pycaffe_layer: Any = self.layer.user
        else:
            self.pycaffe_layer = UserLayer(node.layer_param)
            self.pycaffe_layer.type = node.type
        self.blobs: BlobVec = self.pycaffe_layer.blobs
        self._connect_parameters(owners)
        self._initialize_tops()

    def _connect_parameters(self, owners: dict[int, Blob]) -> None:
        """Create a blob on the memory of each parameter; a Python layer has created its blobs in ``setup``."""
        for i, parameter in enumerate(self.layer.blobs if self.layer else ()):
            if i == len(self.blobs):
                self.blobs.append(Blob())
            self.blobs[i].put(parameter.detach())
            self.blobs[i].share(owners.setdefault(parameter.data_ptr(), self.blobs[i]), diff=True)

    def _initialize_tops(self) -> None:
        """Set the tops to the values and gradients that Caffe's setup leaves in them."""
        self._is_constant = [False] * len(self.tops)
        if isinstance(self.layer, DummyData) and any(self.layer.constant):
            # Caffe: DummyData fills tops with constant fillers once and does not restore them if a script overwrites
            # them (dummy_data_layer.cpp L78-L92).
            for blob, top, constant in zip(self.tops, self.net.run(self.node, []), self.layer.constant, strict=True):
                if constant:
                    blob.put(top)
            self._is_constant = list(self.layer.constant)
        if self._shares_values:
            self._share_tops([blob.sizes for blob in self.tops])
        self._set_loss_gradients()

    def move_to(self, device: torch.device) -> None:
        """Move the layer to a device, and let its torch parameters use the memory of their blobs on this device.

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
                continue  # a reshaped view of a shared parameter; the layer makes a new view at each access
            values = blob.values(device)
            if values.data_ptr() != parameter.data_ptr():
                with locate_errors(self.node):
                    if blob.count != parameter.numel():
                        raise NetError(f"blob {i} was reshaped", got=blob.sizes, want=tuple(parameter.shape))
                parameter.data = values.reshape(parameter.shape)

    def discard_record(self) -> None:
        """Free what autograd recorded of the last forward pass, before the next forward pass records again."""
        self._record = None

    # ---- forward

    def forward(self, device: torch.device) -> float:
        """Compute the tops from the current bottoms, and store them in their blobs.

        Args:
            device: The device to compute on, to which ``move_to`` has moved the layer.

        Returns:
            The sum of the tops that are losses, each times its loss weight; 0 if none is a loss.

        Raises:
            NetError: If the layer rejects its bottoms.
        """
        if isinstance(self.layer, Python):
            with locate_errors(self.node):
                self.layer.call_forward()
        elif self.layer is not None:
            self._store_tops(self._run(device))
        self._set_loss_gradients()
        return sum(
            float((blob.values(device) * blob.gradient(device)).sum())
            for blob, weight in zip(self.tops, self._loss_weights, strict=True)
            if weight
        )

    def _run(self, device: torch.device) -> tuple[Tensor, ...]:
        """Run the layer and return its tops; record the pass if the layer runs backward."""
        assert self.layer is not None
        bottoms = [blob.values(device) for blob in self.bottoms]
        if not self.need.layer:
            with torch.no_grad():
                return self.net.run(self.node, bottoms)
        if not self.layer.inplace:
            # A top with the name of a bottom replaces the blob's tensor, which the record keeps. But if the program
            # holds the blob's array, the top is copied over these values, and the gradient may need both: clone first.
            bottoms = [
                x.clone() if blob in self.tops and blob.is_held else x
                for x, blob in zip(bottoms, self.bottoms, strict=True)
            ]
        self._record = RecordedPass(self.net, self.node, bottoms, self.need.bottoms)
        return self._record.tops

    def _store_tops(self, tops: tuple[Tensor, ...]) -> None:
        if self._shares_values:
            self._share_tops([tuple(top.shape) for top in tops])
            return
        # torch may return a view of a bottom, such as from Reshape; Caffe's blobs have separate memory.
        used = {_address(blob.values(self._device)) for blob in self.bottoms if blob not in self.tops}
        for blob, top, constant in zip(self.tops, tops, self._is_constant, strict=True):
            if not constant:
                blob.put(_separate(top.detach(), used))

    def _share_tops(self, shapes: Sequence[Shape]) -> None:
        """Make the tops share the memory of the first bottom, or of the first parameter, as Caffe's layer does."""
        for blob, shape in zip(self.tops, shapes, strict=True):
            blob.share((self.bottoms or self.blobs)[0], diff=self._shares_gradient)
            blob.reshape(*shape)

    def _set_loss_gradients(self) -> None:
        """Set the gradient of each loss to its loss weight, unless the gradient is already set."""
        # Upstream bug, fixed: Caffe writes the loss weight to a loss's gradient only once, at setup; a top that grows
        # later loses it (layer.hpp L389-L402). Here it is set again at each forward where the gradient is empty.
        for blob, weight in zip(self.tops, self._loss_weights, strict=True):
            if weight and not blob.has_gradient:
                blob.diff[...] = weight

    def reshape(self) -> None:
        """Reshape the tops' blobs to fit the current shapes of the bottoms, without computing them.

        Raises:
            NetError: If the layer cannot take the shapes of its bottoms.
        """
        if self.layer is None or not (self.bottoms or isinstance(self.layer, Python)):
            return  # input and data layers keep the shapes that the program set
        with locate_errors(self.node):
            shapes = self.layer.shapes([blob.sizes for blob in self.bottoms])
        if self._shares_values:
            self._share_tops(shapes)
        elif not isinstance(self.layer, Python):  # which has reshaped its tops itself
            for blob, shape in zip(self.tops, shapes, strict=True):
                blob.reshape(*shape)

    # ---- backward

    def backward(self, device: torch.device) -> None:
        """Compute the gradients of the bottoms from those of the tops, and add to the gradients of the parameters.

        It does nothing for a layer that Caffe does not run backward, such as a data layer.

        Args:
            device: The device to compute on, to which ``move_to`` has moved the layer.

        Raises:
            NetError: If there was no forward pass and the gradient needs one, or if parameters or the shape of a top
                have changed since the forward pass.
        """
        layer = self.layer
        if layer is None or not self.need.layer or self._shares_gradient:
            return
        with locate_errors(self.node):
            if isinstance(layer, Python):
                layer.call_backward(self.need.bottoms)
                return
            record = self._find_record(device)
        top_gradients = [
            blob.gradient(device) for blob, top in zip(self.tops, record.tops, strict=True) if top.requires_grad
        ]
        learned = [i for i, learns in enumerate(self.need.params) if learns]
        shapes = [blob.sizes for blob in self.bottoms]
        overwritten = {i for i in learned if layer.sets_gradient(i, shapes)}
        # Caffe's BLAS adds products to the old gradient one by one. To add in its order, the layer needs that gradient.
        # The recorded functions refer to this dict; they remove the entries that they have added to their result.
        layer.totals.update(
            (i, self.blobs[i].gradient(device).view(record.params[i].shape))
            for i in learned
            if layer.in_blas_order and i not in overwritten and self.blobs[i].has_gradient
        )
        offered = set(layer.totals)
        bottom_gradients, param_gradients = record.compute_gradients(top_gradients, learned)
        overwritten |= offered - layer.totals.keys()
        layer.totals.clear()

        used = {_address(gradient) for gradient in top_gradients}
        bottoms = [blob for blob, leaf in zip(self.bottoms, record.bottoms, strict=True) if leaf.requires_grad]
        for blob, gradient in zip(bottoms, bottom_gradients, strict=True):
            if gradient is None:
                blob.clear_gradient()
            else:
                blob.put_gradient(_separate(gradient, used))
        for i, gradient in zip(learned, param_gradients, strict=True):
            if gradient is not None:
                store = self.blobs[i].put_gradient if i in overwritten else self.blobs[i].add_gradient
                store(_separate(gradient, used))

    def _find_record(self, device: torch.device) -> RecordedPass:
        """Return the record of the last forward pass, after checking that it is still valid.

        Raises:
            NetError: If there is none, or the parameters or the shape of a top have changed since.
        """
        layer = self.layer
        assert layer is not None
        # In Caffe, a layer whose gradient depends only on its bottoms and parameters needs no forward pass. If it has
        # no valid record, make one here; this must neither overwrite a bottom nor change the layer's blobs.
        depends_on_tops = not (layer.top_is_free or self._shares_values)
        works_in_place = any(blob in self.tops for blob in self.bottoms)
        can_record = not (depends_on_tops or works_in_place or (layer.changes_blobs and layer.training))
        bottoms = [blob.values(device) for blob in self.bottoms]
        if can_record and (self._record is None or not self._record.is_current(bottoms)):
            self._run(device)
        if self._record is None:
            raise NetError("there was no forward pass", remedy="Call forward first.")
        if self._record.params_changed:
            raise NetError("the parameters have changed since the forward pass", remedy="Call forward again.")
        for top, blob in zip(self._record.tops, self.tops, strict=True):
            if tuple(top.shape) != blob.sizes:
                raise NetError("a top was reshaped since the forward pass", got=blob.sizes, want=tuple(top.shape))
        return self._record


def _address(values: Tensor) -> int:
    return values.untyped_storage().data_ptr()


def _separate(values: Tensor, used: set[int]) -> Tensor:
    """Return ``values`` in dense memory that is not in ``used``, cloned if necessary, and add its address to ``used``.

    An expanded tensor, such as the gradient of a sum, is not dense: its elements share memory.
    """
    dense = values.is_contiguous() or (values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last))
    if not dense or _address(values) in used:
        values = values.clone(memory_format=torch.contiguous_format)
    used.add(_address(values))
    return values

"""Records the forward pass of one layer with autograd, and computes the gradients from this record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function

from reproduction.caffe.net.graph import Node
from reproduction.caffe.net.net import Net


class RecordedPass:
    """A forward pass of one layer, recorded by autograd so that the gradients can be computed later.

    The recorded tensors share the memory of the blobs, so that values which a program writes to a blob between forward
    and backward change the gradient, as in Caffe.

    Args:
        net: The torch module that contains the layer.
        node: The layer's message and the names of its bottoms and tops.
        bottoms: The values of the bottoms.
        needs_gradient: For each bottom, whether to compute its gradient.

    Attributes:
        bottoms: The bottoms, as leaves of the autograd graph.
        params: The parameters.
        tops: The computed tops.
    """

    def __init__(self, net: Net, node: Node, bottoms: Sequence[Tensor], needs_gradient: Sequence[bool]):
        layer = net.layer_at(node)
        assert layer is not None
        self._layer = layer
        self.bottoms = [x.detach().requires_grad_(needed) for x, needed in zip(bottoms, needs_gradient, strict=True)]
        arguments = list(self.bottoms)
        if layer.inplace:
            # Autograd forbids a layer that works in place to overwrite a leaf.
            arguments = [_Alias.apply(leaf) for leaf in self.bottoms]  # type: ignore[no-untyped-call]
        with torch.enable_grad():
            self.tops = net.run(node, arguments)
        self.params = layer.blobs
        self._param_versions = self._read_param_versions()

    def _read_param_versions(self) -> list[int]:
        # torch counts the changes in place of each tensor. The backward pass of a layer that changes its own blobs,
        # such as BatchNorm, does not read them.
        return [] if self._layer.changes_blobs else [param._version for param in self.params]

    @property
    def params_changed(self) -> bool:
        """Whether a parameter that the gradient depends on was changed in place since the forward pass."""
        return self._param_versions != self._read_param_versions()

    def is_current(self, bottoms: Sequence[Tensor]) -> bool:
        """Return whether this record is still valid for the values of the bottoms.

        It is if no parameter has changed, and the bottoms have the same memory and shapes.

        Args:
            bottoms: The values of the bottoms now.
        """
        return not self.params_changed and all(
            leaf.data_ptr() == x.data_ptr() and leaf.shape == x.shape
            for leaf, x in zip(self.bottoms, bottoms, strict=True)
        )

    def compute_gradients(
        self, top_gradients: Sequence[Tensor], param_indices: Sequence[int]
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Compute the gradients of the bottoms and parameters from those of the tops.

        Args:
            top_gradients: The gradients of those tops that have ``requires_grad``.
            param_indices: Indices of the parameters whose gradients to compute.

        Returns:
            The gradients of those bottoms that need one, and those of the parameters ``param_indices``. A gradient is
            None if no top depends on the bottom or parameter.
        """
        tops = [top for top in self.tops if top.requires_grad]
        leaves = [leaf for leaf in self.bottoms if leaf.requires_grad]
        sources = [*leaves, *(self.params[i] for i in param_indices)]
        found: Sequence[Tensor | None] = [None] * len(sources)
        if tops and sources:
            # A program may run backward several times after one forward pass, so the graph is retained.
            found = torch.autograd.grad(tops, sources, top_gradients, retain_graph=True, allow_unused=True)
        return list(found[: len(leaves)]), list(found[len(leaves) :])


class _Alias(Function):
    """The identity, on the same memory; its output is not a leaf of the autograd graph."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]

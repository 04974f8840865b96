"""A layer of a net that checks the shapes of its bottoms only when they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from reproduction.caffe.geometry import Shape, check_shapes
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.quick import borders
from reproduction.caffe.net.graph import Node


@dataclass
class CheckedLayer:
    """A layer of a net, which checks the shapes of its bottoms only if they changed since the last run.

    Attributes:
        layer: The layer.
        seen: The shapes of the bottoms in the last run.
    """

    layer: Layer
    seen: list[Shape] = field(default_factory=list)

    def run(self, node: Node, bottoms: Sequence[borders.AnyBlob]) -> tuple[borders.AnyBlob, ...]:
        """Check the shapes of the bottoms, run the layer and return its tops.

        Args:
            node: The node of the layer. Bottoms that ``node.propagate`` excludes from the backward pass are detached.
            bottoms: The values of the bottoms.
        """
        shapes = [tuple(bottom.shape) for bottom in bottoms]
        if torch.compiler.is_exporting():  # comparing symbolic sizes with numbers would specialize them
            self.layer.shapes(list(shapes))
        elif shapes != self.seen:
            check_shapes(self.layer.shapes(list(shapes)))
            self.seen = shapes
        through = zip(bottoms, node.propagate, strict=True)
        return self.layer.run(*(x if gradient else x.detach() for x, gradient in through))

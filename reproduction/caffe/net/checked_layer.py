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
    """A layer and the shapes of its bottoms in the previous run.

    Attributes:
        layer: The layer.
        seen: The shapes that the layer checked last; the same shapes are not checked again.
    """

    layer: Layer
    seen: list[Shape] = field(default_factory=list)

    def run(self, node: Node, bottoms: Sequence[borders.AnyBlob]) -> tuple[borders.AnyBlob, ...]:
        """Run the layer and return its tops; bottoms that ``node`` does not propagate to are detached."""
        shapes = [tuple(bottom.shape) for bottom in bottoms]
        if torch.compiler.is_exporting():  # comparing symbolic sizes with numbers would specialize them
            self.layer.shapes(list(shapes))
        elif shapes != self.seen:
            check_shapes(self.layer.shapes(list(shapes)))
            self.seen = shapes
        through = zip(bottoms, node.propagate, strict=True)
        return self.layer.run(*(x if gradient else x.detach() for x, gradient in through))

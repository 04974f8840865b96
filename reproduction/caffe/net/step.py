"""One layer of a net that runs: its bottoms' shapes are checked when they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from reproduction.caffe.geometry import Shape, check_shapes
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.quick import borders
from reproduction.caffe.net.graph import Node


@dataclass
class Step:
    """A layer of a net, and the shapes of its bottoms at its last run.

    Attributes:
        layer: the layer.
        seen: the shapes that the layer has checked, so that equal ones are not checked again.
    """

    layer: Layer
    seen: list[Shape] = field(default_factory=list)

    def run(self, node: Node, bottoms: Sequence[borders.AnyBlob]) -> tuple[borders.AnyBlob, ...]:
        """Run the layer, without a gradient to the bottoms that ``node`` does not propagate to."""
        shapes = [tuple(bottom.shape) for bottom in bottoms]
        if torch.compiler.is_exporting():  # sizes are symbols; compared with numbers, they would become these
            self.layer.shapes(list(shapes))
        elif shapes != self.seen:
            check_shapes(self.layer.shapes(list(shapes)))
            self.seen = shapes
        through = zip(bottoms, node.propagate, strict=True)
        return self.layer.run(*(x if gradient else x.detach() for x, gradient in through))

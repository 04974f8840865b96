"""What is known of the blobs of a net for one input size, before anything is computed.

The published nets pad the image by 100 pixels. Pixels of a blob that no pixel of the image reaches are the same for
every image, and equal the result for an image of zeros, since the padding is zeros, too. Away from the edges, all
pixels of that result are equal. It can therefore be stored compressed: the margins, and one row and one column of the
equal pixels between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reproduction.caffe.geometry import Shape
from reproduction.fast.ops import Op
from reproduction.fast.regions import EMPTY, EVERYWHERE, Region


@dataclass(frozen=True)
class BlobFacts:
    """Facts about each blob for one input size, by name of the blob.

    Attributes:
        shapes: The shape.
        reached: The region that depends on the inputs.
        uniform: A region whose pixels are all equal if the inputs are zeros.
    """

    shapes: dict[str, Shape]
    reached: dict[str, Region]
    uniform: dict[str, Region]

    @classmethod
    def compute(cls, ops: Sequence[Op], inputs: Mapping[str, Shape]) -> BlobFacts:
        """Compute the facts for inputs of the given shapes.

        Raises:
            NetError: If the inputs do not fit the net.
        """
        shapes = dict(inputs)
        reached = {name: Region.from_shape(shape) for name, shape in inputs.items()}
        uniform = {name: EVERYWHERE if len(shape) == 4 else EMPTY for name, shape in inputs.items()}
        for op in ops:
            bottoms = [shapes[bottom] for bottom in op.bottoms]
            are_images = all(len(bottom) == 4 for bottom in bottoms)
            for top, shape in zip(op.tops, op.top_shapes(bottoms), strict=True):
                shapes[top] = shape
                reached[top] = uniform[top] = EMPTY
                if len(shape) == 4 and are_images:
                    reached[top] = op.reached([reached[bottom] for bottom in op.bottoms], shape)
                    uniform[top] = op.uniform([uniform[bottom] for bottom in op.bottoms], shape)
        return cls(shapes, reached, uniform)

    def distinct_size(self, blob: str) -> tuple[int, ...]:
        """Return how many rows and columns the uncompiled net computes: those that the inputs reach, and the margins.

        Source: ``caffe.layers.quick.borders``, which computes rows that repeat once.
        """
        margins, shape = self.margins(blob), self.shapes[blob][2:]
        if not self.uniform[blob].pixels:
            return shape
        sides = zip(self.reached[blob], shape, margins[::2], margins[1::2], strict=True)
        return tuple(min(size, reached.size + before + after) for reached, size, before, after in sides)

    def margins(self, blob: str) -> tuple[int, ...]:
        """Return the number of pixels outside of ``uniform``, as (top, bottom, left, right)."""
        sides = zip(self.uniform[blob], self.shapes[blob][2:], strict=True)
        return tuple(count for uniform, size in sides for count in (uniform.start, size - uniform.stop))

    def compress(self, values: Tensor, blob: str) -> Tensor:
        """Return the margins of a blob and one uniform row and column between them, from its values for zeros."""
        for axis, (uniform, size) in enumerate(zip(self.uniform[blob], self.shapes[blob][2:], strict=True), 2):
            kept = [*range(uniform.start + 1), *range(uniform.stop, size)]
            values = values.index_select(axis, torch.tensor(kept, device=values.device))
        return values

    def expand(self, compressed: Tensor, blob: str, region: Region) -> Tensor:
        """Return the values of a region of a blob for zeros, ``(1, C, rows, columns)``; the inverse of ``compress``.

        The values may have been compressed for another input size, if the blob has the same margins there.
        """
        for axis, (side, uniform) in enumerate(zip(region, self.uniform[blob], strict=True), 2):
            pixels = torch.arange(side.start, side.stop, device=compressed.device)
            after = pixels - uniform.stop + uniform.start + 1
            index = torch.where(pixels < uniform.stop, pixels.clamp(max=uniform.start), after)
            compressed = compressed.index_select(axis, index)
        return compressed

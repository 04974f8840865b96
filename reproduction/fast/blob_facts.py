"""Facts about the blobs of a net that are known for an input size before anything is computed.

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
    """Facts about every blob of a net for one input size; each attribute maps the blob's name to a fact about it.

    A region is a rectangle of pixels.

    Attributes:
        shapes: The blob's shape.
        reached: The region that pixels of the inputs influence. The pixels around it depend on padding and weights
            only, and are the same for every image.
        uniform: A region whose pixels are all equal if the inputs are zeros. Outside of it are the margins, where
            padding changes the values.
        varying: The names of the blobs whose sizes depend on the values of others, such as a list of detections; they
            are always computed completely.
    """

    shapes: dict[str, Shape]
    reached: dict[str, Region]
    uniform: dict[str, Region]
    varying: frozenset[str] = frozenset()

    @classmethod
    def compute(cls, ops: Sequence[Op], inputs: Mapping[str, Shape]) -> BlobFacts:
        """Compute the facts about all blobs for one input size.

        Args:
            ops: The ops that compute the blobs, in order.
            inputs: Shapes of the inputs by name.

        Raises:
            NetError: If the inputs do not fit the net.
        """
        shapes = dict(inputs)
        reached = {name: Region.from_shape(shape) for name, shape in inputs.items()}
        uniform = {name: EVERYWHERE if len(shape) == 4 else EMPTY for name, shape in inputs.items()}
        varying = set[str]()
        for op in ops:
            bottoms = [shapes[bottom] for bottom in op.bottoms]
            if op.layer.sizes_vary or varying.intersection(op.bottoms):
                varying.update(op.tops)
            are_images = all(len(bottom) == 4 for bottom in bottoms) and not varying.intersection(op.tops)
            for top, shape in zip(op.tops, op.top_shapes(bottoms), strict=True):
                shapes[top] = shape
                reached[top] = uniform[top] = EMPTY
                if len(shape) == 4 and are_images:
                    reached[top] = op.reached([reached[bottom] for bottom in op.bottoms], shape)
                    uniform[top] = op.uniform([uniform[bottom] for bottom in op.bottoms], shape)
        return cls(shapes, reached, uniform, frozenset(varying))

    def margins(self, blob: str) -> tuple[int, ...]:
        """Return how many pixels of a blob lie above, below, left and right of its ``uniform`` region."""
        sides = zip(self.uniform[blob], self.shapes[blob][2:], strict=True)
        return tuple(count for uniform, size in sides for count in (uniform.start, size - uniform.stop))

    def compress(self, values: Tensor, blob: str) -> Tensor:
        """Compress a blob that was computed from an image of zeros: keep one of all equal rows and columns.

        Args:
            values: The values of the complete blob for an image of zeros, ``(1, C, H, W)``.
            blob: The name of the blob.

        Returns:
            ``(1, C, h, w)``: the margins of the blob, with one row and one column of its ``uniform`` region between
            them.
        """
        for axis, (uniform, size) in enumerate(zip(self.uniform[blob], self.shapes[blob][2:], strict=True), 2):
            kept = [*range(uniform.start + 1), *range(uniform.stop, size)]
            values = values.index_select(axis, torch.tensor(kept, device=values.device))
        return values

    def expand(self, compressed: Tensor, blob: str, region: Region) -> Tensor:
        """Return the values that a region of a blob has for an image of zeros; the inverse of ``compress``.

        Args:
            compressed: The result of ``compress``, for this input size or for another one where the blob has the same
                margins.
            blob: The name of the blob.
            region: The pixels to return.

        Returns:
            ``(1, C, rows, columns)``.
        """
        for axis, (side, uniform) in enumerate(zip(region, self.uniform[blob], strict=True), 2):
            pixels = torch.arange(side.start, side.stop, device=compressed.device)
            after = pixels - uniform.stop + uniform.start + 1
            index = torch.where(pixels < uniform.stop, pixels.clamp(max=uniform.start), after)
            compressed = compressed.index_select(axis, index)
        return compressed

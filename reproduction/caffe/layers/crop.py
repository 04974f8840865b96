"""The layer Crop."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import CoordMap, Shape, crop_map
from reproduction.caffe.layers.base import Layer, canonical_axis, register
from reproduction.caffe.layers.compiled_forms import CropForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter


@register
class Crop(Layer):
    """Crop the first bottom to the size of the second in all axes from ``axis`` on.

    ``offset`` is where the crop starts: one value for all of these axes, or one for each; 0 by default.

    Shapes:
        bottom 0: Any shape, e.g. (N, C, H, W).
        bottom 1: The same number of axes; only the sizes are used.
        top: The sizes of bottom 0 before ``axis`` and those of bottom 1 from ``axis`` on. It is a view of bottom 0.

    Raises:
        NetError: If the number of offsets is not 0, 1 or that of the cropped axes, bottom 1 has fewer axes than bottom
            0, or the crop exceeds bottom 0.

    Source: BVLC/caffe@9b89154 src/caffe/layers/crop_layer.cpp L16-L143.
    """

    reads = frozenset({"crop_param.axis", "crop_param.offset"})
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)
    differentiable: ClassVar[tuple[int, ...] | None] = (0,)
    located_bottoms: ClassVar[int | None] = 1

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the map from coordinates of bottom 0 to those of the top, which subtracts the offsets."""
        return crop_map(layer_param.crop_param.axis, layer_param.crop_param.offset or [0])

    def setup(self, bottoms: list[Shape]) -> None:
        self.cuts(*bottoms)

    def cuts(self, data: Shape, size: Shape) -> list[tuple[int, int, int]]:
        """Return ``(axis, offset, length)`` for each axis that is cropped.

        Args:
            data: The shape of bottom 0, which is cropped.
            size: The shape of bottom 1, which has the sizes to crop to.

        Raises:
            NetError: If the shapes and offsets do not fit each other.
        """
        param = self.layer_param.crop_param
        axis = canonical_axis(param.axis, len(data))
        if len(size) < len(data):
            raise NetError("bottom 1 must have as many axes as bottom 0", got=size, want=f"{len(data)} axes")
        axes = range(axis, len(data))
        offsets = list(param.offset) or [0]
        if len(offsets) == 1:
            offsets *= len(axes)
        if len(offsets) != len(axes):
            raise NetError(
                "offset must be given once, or once for each axis cut", got=len(offsets), want=f"1 or {len(axes)}"
            )
        for i, offset in zip(axes, offsets, strict=True):
            if offset + size[i] > data[i]:
                raise NetError(
                    f"the crop is past the end of axis {i}",
                    got=f"offset {offset} + size {size[i]}",
                    want=f"at most {data[i]}",
                )
        return [(i, offset, size[i]) for i, offset in zip(axes, offsets, strict=True)]

    def compiled_form(self, bottoms: list[Shape]) -> CropForm | None:
        """Return a ``CropForm`` if the bottom is (N, C, H, W) and only rows or columns are cropped, otherwise None."""
        offsets = {axis: offset for axis, offset, _ in self.cuts(*bottoms)}
        if len(bottoms[0]) != 4 or min(offsets) < 2:
            return None
        return CropForm((offsets.get(2, 0), offsets[3]))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the sizes of bottom 0 before ``axis`` and those of bottom 1 from there on."""
        cuts = self.cuts(*bottoms)
        return [(*bottoms[0][: cuts[0][0]], *(length for _, _, length in cuts))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        data, size = bottoms
        for axis, offset, length in self.cuts(tuple(data.shape), tuple(size.shape)):
            data = data.narrow(axis, offset, length)
        return (data,)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add operators that slice the first bottom, at the offsets, to the size of the second one from ``axis`` on."""
        (bottom, like), cuts = bottoms, self.cuts(*onnx.shapes)
        offsets = onnx.constant([offset for _, offset, _ in cuts], "offset")
        along = onnx.constant([axis for axis, _, _ in cuts], "axes")
        size = onnx.node("Gather", onnx.node("Shape", like, step="shape"), along, step="size", axis=0)
        return [onnx.node("Slice", bottom, offsets, onnx.node("Add", size, offsets, step="end"), along)]

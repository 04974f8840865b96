"""Reshape of Synopsys Caffe, which may move channels to pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import reshaping
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import ReshapeParameter
from reproduction.caffe.schema.field import int32

PIXELSHUFFLER = ReshapeParameter.add_field("pixelshuffler", int32(4, 1), SYNOPSYS)


@register
class Reshape(reshaping.Reshape):
    """Reshape; with ``pixelshuffler: r``, r * r channels become r x r pixels.

    Shapes:
        bottom  (N, C, H, W), where C is a multiple of r * r
        top     (N, C / (r * r), H * r, W * r)

    Raises:
        NetError: If r is not positive, the bottom has not four axes or its channels are not a multiple of r * r.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/reshape_layer.cpp L95-L163.
    """

    dialect = SYNOPSYS
    reads = reshaping.Reshape.reads | {"reshape_param.pixelshuffler"}

    def setup(self, bottoms: list[Shape]) -> None:
        """Read the factor."""
        self.factor = PIXELSHUFFLER.get(self.layer_param.reshape_param)
        if self.factor < 1:
            raise NetError("pixelshuffler must be positive", got=self.factor)
        if self.factor > 1:
            self.shares = (False, False)  # the top is a copy
        super().setup(bottoms)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        if self.factor == 1:
            return super().shapes(bottoms)
        area = self.factor**2
        if len(bottoms[0]) != 4 or bottoms[0][1] % area:
            raise NetError("such a bottom cannot be shuffled", got=bottoms[0], want=f"4 axes, C a multiple of {area}")
        images, channels, height, width = bottoms[0]
        return [(images, channels // area, height * self.factor, width * self.factor)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Move channels to pixels."""
        return super().forward(*bottoms) if self.factor == 1 else (F.pixel_shuffle(bottoms[0], self.factor),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add DepthToSpace."""
        if self.factor == 1:
            return super().to_onnx(onnx, *bottoms)
        return [onnx.node("DepthToSpace", *bottoms, blocksize=self.factor, mode="CRD")]

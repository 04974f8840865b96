"""The layer Interp of DeepLab and PSPNet: bilinear interpolation whose corner pixels stay at the corners."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.pspnet import PSPNET
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import CoordMap, Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive, legacy_shape
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import int32, nested
from reproduction.caffe.schema.message import Message

_END = np.iinfo(np.int64).max


class InterpParameter(Message):
    """Parameters of Interp layers: the size of the top, in one of five ways, and the number of pixels to crop.

    ``full_zoom_factor`` is a field of Synopsys Caffe alone.
    """

    height = int32(1, 0)
    width = int32(2, 0)
    zoom_factor = int32(3, 1)
    shrink_factor = int32(4, 1)
    pad_beg = int32(5, 0)
    pad_end = int32(6, 0)
    full_zoom_factor = int32(7, 1)


INTERP = LayerParameter.add_field("interp_param", nested(143, InterpParameter), PSPNET)
LayerParameter.add_field("interp_param", nested(163, InterpParameter), SYNOPSYS)


@register
class Interp(Layer):
    """Bilinear interpolation to another size; the corner pixels of bottom and top coincide.

    Pixel ``i`` of the top lies at ``i * (h - 1) / (H - 1)`` of the bottom, and at 0 if ``H`` is 1. Before, ``pad_beg``
    and ``pad_end``, which are at most 0, remove rows and columns at the start and at the end of both axes. The size of
    the top follows from which fields are set, in this order:

    1. ``shrink_factor`` s without ``zoom_factor``: ``(h - 1) / s + 1``, rounded down
    2. ``zoom_factor`` z without ``shrink_factor``: ``h + (h - 1) * (z - 1)``
    3. ``height`` and ``width``
    4. ``shrink_factor`` and ``zoom_factor``: first 1, then 2
    5. ``full_zoom_factor`` f, of Synopsys Caffe: ``h * f``

    Shapes:
        bottom  (N, C, h, w) before cropping; fewer axes count as axes of size 1 at the end
        top     (N, C, H, W)

    Raises:
        NetError: If the padding is positive, no field gives a size, or a size is not positive.

    Source: hszhao/PSPNet@798bdc9 src/caffe/layers/interp_layer.cpp L11-L84, src/caffe/util/interp.cpp L14-L83; for
    ``full_zoom_factor`` foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/interp_layer.cpp
    L55-L59.
    """

    dialect = PSPNET
    reads = frozenset(f"interp_param.{name}" for name in InterpParameter.fields)
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the padding, and that one of the ways to give the size is complete."""
        param = INTERP.get(self.layer_param)
        for name in ("pad_beg", "pad_end"):
            if getattr(param, name) > 0:
                raise NetError(f"{name} can only crop", got=getattr(param, name), want="at most 0")
        check_positive(param, "zoom_factor", "shrink_factor", "full_zoom_factor")
        shrinks, zooms = param.has("shrink_factor"), param.has("zoom_factor")
        self._given = shrinks == zooms and param.has("height") and param.has("width")
        if not (self._given or shrinks or zooms or param.has("full_zoom_factor")):
            raise NetError("no size is given", want="height and width, zoom_factor or shrink_factor")
        # The size of the top is ((h + shrink - 1) / shrink) * zoom + 1 - zoom, or h * full_zoom_factor.
        self._shrink, self._zoom, self._more = param.shrink_factor, param.zoom_factor, 1 - param.zoom_factor
        if not (shrinks or zooms):
            self._zoom, self._more = param.full_zoom_factor, 0

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        param = INTERP.get(self.layer_param)
        images, channels, *sizes = legacy_shape(bottoms[0])
        kept = [size + param.pad_beg + param.pad_end for size in sizes]
        if min(kept) < 1:
            raise NetError("nothing is left after cropping", got=bottoms[0])
        found = [(size + self._shrink - 1) // self._shrink * self._zoom + self._more for size in kept]
        height, width = (param.height, param.width) if self._given else found
        if min(height, width) < 1:
            raise NetError("the size of the top must be positive", got=f"{height} x {width}")
        return [(images, channels, height, width)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top."""
        ((images, channels, *size),) = self.shapes([tuple(bottoms[0].shape)])
        x = bottoms[0].reshape(images, channels, *legacy_shape(tuple(bottoms[0].shape))[2:])
        param = INTERP.get(self.layer_param)
        x = x[:, :, -param.pad_beg : x.shape[2] + param.pad_end, -param.pad_beg : x.shape[3] + param.pad_end]
        if list(x.shape[2:]) == size:
            return (x.clone(),)
        return (F.interpolate(x, size, mode="bilinear", align_corners=True),)

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the map for a layer with only a ``zoom_factor``; otherwise the scale depends on the bottom's size."""
        param = INTERP.get(layer_param)
        if not param.has("zoom_factor") or param.has("shrink_factor"):
            return None
        zoom = Fraction(param.zoom_factor)
        return CoordMap(2, (zoom, zoom), (zoom * param.pad_beg,) * 2)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Resize, after Slice if pixels are cropped, and operators that compute the size."""
        param, bottom = INTERP.get(self.layer_param), bottoms[0]
        if onnx.axes != 4:
            raise NetError("a bottom without four axes cannot be written as ONNX", got=onnx.shapes[0])
        if param.pad_beg or param.pad_end:
            starts, ends = np.full(2, -param.pad_beg), np.full(2, param.pad_end or _END)
            slices = [onnx.constant(starts, "starts"), onnx.constant(ends, "ends"), onnx.constant([2, 3], "axes")]
            bottom = onnx.node("Slice", bottom, *slices, step="cropped")
        if self._given:
            sizes = onnx.constant([param.height, param.width], "size")
        else:
            sizes = onnx.node("Shape", bottom, start=2, step="old_size")
            for operator, number in (
                ("Add", self._shrink - 1),
                ("Div", self._shrink),
                ("Mul", self._zoom),
                ("Add", self._more),
            ):
                sizes = onnx.node(operator, sizes, onnx.constant([number], "number"), step="size")
        sizes = onnx.node("Concat", onnx.node("Shape", bottom, end=2, step="front"), sizes, axis=0, step="sizes")
        aligned = "align_corners"
        return [onnx.node("Resize", bottom, "", "", sizes, mode="linear", coordinate_transformation_mode=aligned)]

"""The layers ResizeBilinear and ResizeNearestNeighbor of Synopsys Caffe, which resize as TensorFlow does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, int32, nested, single, string
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32


class ResizeNearestNeighborParameter(Message):
    """Parameters of ResizeNearestNeighbor layers: the size of the top, and where its pixels lie in the bottom."""

    align_corners = boolean(1, False)
    output_height = int32(2)
    output_width = int32(3)
    data_format = string(4, "NHWC")
    scale_height = single(5, 1)
    scale_width = single(6, 1)
    half_pixel_centers = boolean(7, False)
    half_pixel_onnx = boolean(8, False)


class ResizeBilinearParameter(Message):
    """Parameters of ResizeBilinear layers: the size of the top, and where its pixels lie in the bottom."""

    align_corners = boolean(1, False)
    output_height = int32(2)
    output_width = int32(3)
    data_format = string(4, "NHWC")
    scale_height = single(5, 1)
    scale_width = single(6, 1)
    half_pixel_centers = boolean(7, False)
    pytorch_half_pixel = boolean(8, False)
    output_depth = int32(9)
    scale_depth = single(10, 1)


NEAREST = LayerParameter.add_field(
    "resize_nearest_neighbor_param", nested(210, ResizeNearestNeighborParameter), SYNOPSYS
)
BILINEAR = LayerParameter.add_field("resize_bilinear_param", nested(226, ResizeBilinearParameter), SYNOPSYS)

# The names of the spatial axes in the message, and the index of the first of them in the blob.
_AXES = {"NHWC": (("height", "width"), 1), "NCHW": (("height", "width"), 2), "NCHWD": (("height", "width", "depth"), 2)}


class _Resize(Layer):
    """The base class: the size of the top and where its pixels lie in the bottom.

    Pixel ``i`` of the top lies at ``i * scale`` of the bottom, where ``scale`` is the size of the bottom divided by
    that of the top, or, with ``align_corners``, the same of the sizes minus 1.
    """

    modes: ClassVar[dict[str, tuple[str, str]]]
    formats: ClassVar[tuple[str, ...]]
    message: Callable[[Message], Any]  # returns the layer's message
    top_is_free = True

    @property
    def param(self) -> Any:
        """The layer's message."""
        return self.message(self.layer_param)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the fields, and that the layer does not work in place."""
        refuse_in_place(self.layer_param)
        param = self.param
        modes = [name for name in self.modes if name and getattr(param, name)]
        if len(modes) > 1:
            raise NetError("pixels can lie in one way only", got=modes, want="at most one of them")
        self._mode = modes[0] if modes else ""
        if param.data_format not in self.formats:
            raise NetError("the data format is unknown", got=repr(param.data_format), want=" or ".join(self.formats))
        self._names, self._first = _AXES[param.data_format]

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        param, (bottom,) = self.param, bottoms
        if len(bottom) != 2 + len(self._names):
            raise NetError(f"the bottom must have the axes {param.data_format}", got=bottom)
        top = list(bottom)
        for axis, name in enumerate(self._names, self._first):
            size = getattr(param, f"output_{name}")
            if not param.has(f"output_{name}"):
                size = math.floor(np.float32(bottom[axis]) * np.float32(getattr(param, f"scale_{name}")))
            if size < 1:
                raise NetError(f"the {name} of the top must be positive", got=size)
            top[axis] = size
        return [tuple(top)]

    def _positions(self, old: int, new: int) -> Float32:
        """Return where the pixels of the top lie along an axis of the bottom, in single precision as in the fork."""
        if self._mode == "align_corners" and new > 1:
            scale = np.float32(old - 1) / np.float32(new - 1)
        else:
            scale = np.float32(old) / np.float32(new)
        return self._locate(np.arange(new, dtype=np.float32), scale)

    def _locate(self, index: Float32, scale: np.float32) -> Float32:
        raise NotImplementedError(type(self).__name__)

    def _spatial(self, shape: Shape) -> range:
        return range(self._first, self._first + len(self._names))

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Resize and, for bottoms (N, H, W, C), Transpose before and after it."""
        param = self.param
        (x,), last = bottoms, self._first == 1
        if last:
            x = onnx.node("Transpose", x, perm=[0, 3, 1, 2], step="channels_first")
        sizes = [onnx.node("Shape", x, end=2, step="front")]
        for axis, name in enumerate(self._names, 2):
            if param.has(f"output_{name}"):
                sizes.append(onnx.constant([getattr(param, f"output_{name}")], name))
                continue
            size = onnx.cast(onnx.node("Shape", x, start=axis, end=axis + 1, step=name), np.float32, name)
            scale = onnx.constant(np.array([getattr(param, f"scale_{name}")], np.float32), f"scale_{name}")
            size = onnx.node("Mul", size, scale, step=name)
            sizes.append(onnx.cast(onnx.node("Floor", size, step=name), np.int64, name))
        wanted = onnx.node("Concat", *sizes, axis=0, step="sizes")
        coordinates, rounding = self.modes[self._mode]
        attributes: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": coordinates}
        if rounding:
            attributes |= {"mode": "nearest", "nearest_mode": rounding}
        resized = onnx.node("Resize", x, "", "", wanted, step="resized" if last else "", **attributes)
        return [onnx.node("Transpose", resized, perm=[0, 2, 3, 1]) if last else resized]


@register
class ResizeBilinear(_Resize):
    """Bilinear interpolation along height and width, and depth with ``data_format: "NCHWD"``, as in TensorFlow.

    Pixel ``i`` of the top lies at ``i * scale`` of the bottom, or at ``(i + 0.5) * scale - 0.5`` with
    ``half_pixel_centers`` or ``pytorch_half_pixel``; see ``_Resize``. The size of the top is ``output_height``, or
    that of the bottom times ``scale_height``, rounded down; the other axes are the same.

    Shapes:
        bottom  (N, H, W, C) by default, or (N, C, H, W) or (N, C, H, W, D)
        top     the same with other sizes

    Raises:
        NetError: If the fields do not fit together, the bottom does not fit them, or the layer works in place.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/resize_bilinear_layer.cpp
    L10-L329.
    """

    dialect = SYNOPSYS
    reads = frozenset(f"resize_bilinear_param.{name}" for name in ResizeBilinearParameter.fields)
    formats = ("NHWC", "NCHW", "NCHWD")
    modes: ClassVar[dict[str, tuple[str, str]]] = {
        "": ("asymmetric", ""),
        "align_corners": ("align_corners", ""),
        "half_pixel_centers": ("half_pixel", ""),
        "pytorch_half_pixel": ("pytorch_half_pixel", ""),
    }
    message = staticmethod(BILINEAR.get)

    def _locate(self, index: Float32, scale: np.float32) -> Float32:
        if "half_pixel" not in self._mode:
            return index * scale
        place = (index + np.float32(0.5)) * scale - np.float32(0.5)
        return np.full_like(place, -0.5) if self._mode == "pytorch_half_pixel" and len(index) == 1 else place

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradient is that of the interpolation."""
        x = bottoms[0]
        ((*wanted,),) = self.shapes([tuple(x.shape)])
        for axis in reversed(self._spatial(tuple(x.shape))):
            place = self._positions(x.shape[axis], wanted[axis])
            ends = (np.floor(place).clip(min=0), np.ceil(place).clip(max=x.shape[axis] - 1))
            low, high = (torch.from_numpy(end.astype(np.int64)).to(x.device) for end in ends)
            share = torch.from_numpy(place - np.floor(place)).to(x).view(-1, *(1,) * (x.dim() - 1 - axis))
            near = x.index_select(axis, low.clamp(max=x.shape[axis] - 1))
            x = near + (x.index_select(axis, high.clamp(min=0)) - near) * share
        return (x,)


@register
class ResizeNearestNeighbor(_Resize):
    """The nearest pixel along height and width, as in TensorFlow.

    Pixel ``i`` of the top is the pixel ``floor(i * scale)`` of the bottom, or ``round(i * scale)`` with
    ``align_corners``, ``floor((i + 0.5) * scale)`` with ``half_pixel_centers``, and ``floor((i + 0.5) * scale - 0.5)``
    with ``half_pixel_onnx``; see ``_Resize``. The size of the top is as in ResizeBilinear.

    Shapes:
        bottom  (N, H, W, C) by default, or (N, C, H, W)
        top     the same with another height and width

    Raises:
        NetError: If the fields do not fit together, the bottom does not fit them, or the layer works in place.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36
    src/caffe/layers/resize_nearest_neighbor_layer.cpp L10-L237.
    """

    dialect = SYNOPSYS
    reads = frozenset(f"resize_nearest_neighbor_param.{name}" for name in ResizeNearestNeighborParameter.fields)
    formats = ("NHWC", "NCHW")
    modes: ClassVar[dict[str, tuple[str, str]]] = {
        "": ("asymmetric", "floor"),
        "align_corners": ("align_corners", "round_prefer_ceil"),
        # ONNX has no rounding for (i + 0.5) * scale alone, so this mode is (i + 0.5) * scale - 0.5, rounded up at 0.5.
        "half_pixel_centers": ("half_pixel", "round_prefer_ceil"),
        "half_pixel_onnx": ("half_pixel", "floor"),
    }
    message = staticmethod(NEAREST.get)

    def _locate(self, index: Float32, scale: np.float32) -> Float32:
        half = np.float32(0.5)
        place: Float32 = index * scale if "half" not in self._mode else (index + half) * scale
        if self._mode == "align_corners":
            place = np.floor(place) + (place - np.floor(place) >= half)
        return np.floor(place - half if self._mode == "half_pixel_onnx" else place)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradient goes to the pixels that were read."""
        x = bottoms[0]
        ((*wanted,),) = self.shapes([tuple(x.shape)])
        for axis in self._spatial(tuple(x.shape)):
            place = self._positions(x.shape[axis], wanted[axis]).clip(0, x.shape[axis] - 1)
            x = x.index_select(axis, torch.from_numpy(place.astype(np.int64)).to(x.device))
        return (x,)

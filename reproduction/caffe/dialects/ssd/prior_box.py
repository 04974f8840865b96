"""The layer PriorBox, which computes the boxes relative to which SSD predicts the boxes of objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.ssd import SSD
from reproduction.caffe.dialects.ssd.onnx_operators import DOUBLE, FLOAT, Operators
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, nested, single, singles, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.typing import Float32, Float64


class PriorBoxParameter(Message):
    """The fields of PriorBox layers: sizes and aspect ratios of the boxes of a cell, and where the cells are.

    The fields from ``faceboxes`` on are those of synopsys' fork.
    """

    min_size = singles(1)
    max_size = singles(2)
    aspect_ratio = singles(3)
    flip = boolean(4, True)
    clip = boolean(5)
    variance = singles(6)
    img_size = uint32(7)
    img_h = uint32(8)
    img_w = uint32(9)
    step = single(10)
    step_h = single(11)
    step_w = single(12)
    offset = single(13, 0.5)
    faceboxes = boolean(14)
    box_width = singles(15)
    box_height = singles(16)
    tf = boolean(17)
    yx_order = boolean(18)
    keras = boolean(19)


PRIOR_BOX = LayerParameter.add_field("prior_box_param", nested(203, PriorBoxParameter), SSD)


@dataclass(frozen=True)
class CellBox:
    """A box of a cell.

    Attributes:
        width: The width in pixels.
        height: The height in pixels.
        right: How far its center lies to the right of the cell's, in pixels.
        down: How far its center lies below the cell's, in pixels.
        inset: How far each side moves inwards, as a fraction of the image.
    """

    width: float
    height: float
    right: float = 0
    down: float = 0
    inset: float = 0


@register
class PriorBox(Layer):
    """Prior boxes around the center of each pixel of a feature map, and the variances of their coordinates.

    The boxes depend on nothing but the sizes of the bottoms. They are fractions of the image's width and height. The
    pixels are called cells. A cell has, for each ``min_size``, a square of this size, a square of the size ``sqrt(min *
    max)`` if there are maximum sizes, and a box of the area of the smaller square for each aspect ratio other than 1.
    Minimum and maximum sizes are cut to integers. An aspect ratio that is there already is ignored; with ``flip``, each
    ratio is followed by its reciprocal.

    Of synopsys' fork: ``box_width`` and ``box_height`` list the boxes instead; ``yx_order`` swaps x and y; ``keras``
    and ``tf`` change the order of the boxes and ``tf`` makes those of size 60 smaller, as in the detectors of these
    frameworks; ``faceboxes`` repeats boxes of the sizes 32 and 64 within a cell, as FaceBoxes does.

    Shapes:
        bottom 0  (N, C, H, W)      the feature map
        bottom 1  (N, 3, h, w)      the image
        top       (1, 2, H * W * P * 4)   for P boxes in a cell: row 0 xmin, ymin, xmax, ymax of each box, cells row by
                  row; row 1 the four ``variance`` of each box, 0.1 by default

    Raises:
        NetError: If there is no size, a size is not positive, or fields are given that exclude each other.

    Source: weiliu89/caffe@4817bf8b src/caffe/layers/prior_box_layer.cpp L10-L222;
    foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36a src/caffe/layers/prior_box_layer.cpp L10-L543.
    """

    dialect = SSD
    reads = frozenset(f"prior_box_param.{name}" for name in PriorBoxParameter.fields)
    bottoms = (2, 2)
    differentiable = ()

    def setup(self, bottoms: list[Shape]) -> None:
        """Compute the boxes of a cell, and check the fields."""
        param = PRIOR_BOX.get(self.layer_param)
        _check_positive(param, "min_size", "variance")
        if not param.min_size and not param.box_width:
            raise NetError("min_size is missing", want="a size in pixels")
        if len(param.variance) not in (0, 1, 4):
            raise NetError("there must be one variance or four", got=len(param.variance))
        if len(param.box_width) != len(param.box_height):
            raise NetError(
                "there must be as many box_width as box_height", got=f"{len(param.box_width)}, {len(param.box_height)}"
            )
        if param.max_size and len(param.max_size) != len(param.min_size):
            raise NetError("there must be as many max_size as min_size", got=len(param.max_size))
        if any(most <= least for least, most in zip(param.min_size, param.max_size, strict=False)):
            raise NetError(
                "max_size must be greater than min_size", got=list(param.max_size), want=list(param.min_size)
            )
        self.image_size = _pair(param, "img_size", "img_h", "img_w")
        self.step = _pair(param, "step", "step_h", "step_w")
        self.cell = list_cell_boxes(param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top, ``(1, 2, H * W * P * 4)``."""
        _, _, height, width = legacy_shape(bottoms[0])
        legacy_shape(bottoms[1])
        return [(1, 2, height * width * len(self.cell) * 4)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the boxes from the sizes of the bottoms."""
        feature_map, image = (legacy_shape(tuple(bottom.shape))[2:] for bottom in bottoms)
        boxes = self.compute_boxes(feature_map, image if self.image_size is None else self.image_size)
        top = np.stack([boxes, np.broadcast_to(self._variances(), (len(boxes) // 4, 4)).reshape(-1)])
        return (torch.from_numpy(top)[None].to(bottoms[0]),)

    def compute_boxes(self, feature_map: tuple[int, int], image: tuple[float, float]) -> Float64:
        """Return the first row of the top.

        Args:
            feature_map: Height and width of the feature map.
            image: Height and width of the image.
        """
        param = PRIOR_BOX.get(self.layer_param)
        (top, bottom), (left, right) = (
            self._compute_sides(axis, count, size)
            for axis, (count, size) in enumerate(zip(feature_map, image, strict=True))
        )
        sides = [left[None], top[:, None], right[None], bottom[:, None]]
        if param.yx_order:
            sides = [sides[i] for i in (1, 0, 3, 2)]
        found = np.stack(np.broadcast_arrays(*sides), -1).reshape(-1)
        return found.clip(0, 1) if param.clip else found

    def _compute_sides(self, axis: int, count: int, size: float) -> tuple[Float64, Float64]:
        """Return both sides of the boxes of each row (axis 0) or column, (count, P), as fractions of the image.

        The fork computes the centers in single and the sides in double precision.
        """
        step = np.float32(self.step[axis]) if self.step else np.float32(size) / np.float32(count)
        centers = (np.arange(count, dtype=np.float32) + np.float32(PRIOR_BOX.get(self.layer_param).offset)) * step
        shift, half, inset = self._cell_sides(axis)
        middle = centers[:, None] + shift
        return (middle - half) / size + inset, (middle + half) / size - inset

    def _cell_sides(self, axis: int) -> tuple[Float32, Float64, Float64]:
        """Return shift in pixels, half of the length in pixels, and inset as a fraction, of the boxes of a cell."""
        shift = np.array([(box.down, box.right)[axis] for box in self.cell], np.float32)
        half = np.array([(box.height, box.width)[axis] for box in self.cell], np.float32) / np.float64(2)
        return shift, half, np.array([box.inset for box in self.cell], np.float64)

    def _variances(self) -> Float32:
        return np.array(PRIOR_BOX.get(self.layer_param).variance or [0.1], np.float32)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add operators that compute the boxes from the sizes of the bottoms."""
        param, ops = PRIOR_BOX.get(self.layer_param), Operators(onnx)
        counts = [ops.size(bottoms[0], axis) for axis in (2, 3)]
        (top, bottom), (left, right) = (
            self._add_sides(ops, axis, count, bottoms[1]) for axis, count in enumerate(counts)
        )
        places = ops.vector(*counts, len(self.cell), 1)
        rows, columns = np.array([1, 3]), np.array([0, 3])  # axes that the sides of rows and of columns lack
        sides = [
            ops.Unsqueeze(side, axes) for side, axes in ((left, columns), (top, rows), (right, columns), (bottom, rows))
        ]
        if param.yx_order:
            sides = [sides[i] for i in (1, 0, 3, 2)]
        boxes = ops.Cast(ops.Concat(*(ops.Expand(side, places) for side in sides), axis=3), to=FLOAT)
        if param.clip:
            boxes = ops.Clip(boxes, np.float32(0), np.float32(1))
        variances = ops.Expand(np.broadcast_to(self._variances(), 4), ops.Shape(boxes))
        flat = [ops.Reshape(each, np.array([1, 1, -1])) for each in (boxes, variances)]
        return [onnx.node("Concat", *flat, axis=1)]

    def _add_sides(self, ops: Operators, axis: int, count: str, image: str) -> tuple[str, str]:
        """Add what ``_compute_sides`` computes for an axis; ``count`` is the size of the feature map."""
        size = ops.size(image, axis + 2) if self.image_size is None else np.array([self.image_size[axis]])
        cast = ops.Cast(size, to=FLOAT)
        step = (
            ops.Div(cast, ops.Cast(count, to=FLOAT)) if self.step is None else np.array([self.step[axis]], np.float32)
        )
        index = ops.Cast(ops.Range(np.array(0), ops.Squeeze(count), np.array(1)), to=FLOAT)
        centers = ops.Mul(ops.Add(index, np.float32(PRIOR_BOX.get(self.layer_param).offset)), step)
        shift, half, inset = self._cell_sides(axis)
        middle = ops.Cast(ops.Add(ops.Unsqueeze(centers, np.array([1])), shift), to=DOUBLE)
        length = ops.Cast(cast, to=DOUBLE)
        low, high = (ops.Div(side, length) for side in (ops.Sub(middle, half), ops.Add(middle, half)))
        return ops.Add(low, inset), ops.Sub(high, inset)


def _check_positive(param: PriorBoxParameter, *names: str) -> None:
    for name in names:
        if any(value <= 0 for value in getattr(param, name)):
            raise NetError(f"{name} must be positive", got=list(getattr(param, name)))


def _pair(param: PriorBoxParameter, both: str, rows: str, columns: str) -> tuple[float, float] | None:
    """Return the two values of a setting, for rows and columns; None if it is not set.

    Args:
        param: The message.
        both: The field of one value for both.
        rows: The field of the value for rows.
        columns: The field of the value for columns.

    Raises:
        NetError: If ``both`` and another field are set, only one of the others is, or a value is not positive.
    """
    names = [name for name in (rows, columns) if param.has(name)]
    if names and param.has(both):
        raise NetError(f"{both} and {names[0]} are both set", want=f"either {both} or {rows} and {columns}")
    if not names and not param.has(both):
        return None
    pair = (getattr(param, rows), getattr(param, columns)) if names else (getattr(param, both),) * 2
    if min(pair) <= 0:
        raise NetError(f"{rows} and {columns} must be positive" if names else f"{both} must be positive", got=pair)
    return pair


def list_cell_boxes(param: PriorBoxParameter) -> list[CellBox]:
    """Return the boxes of a cell in their order."""
    if param.box_width:
        return [CellBox(*sides) for sides in zip(param.box_width, param.box_height, strict=True)]
    boxes = []
    roots = [np.sqrt(ratio, dtype=np.float32) for ratio in list_aspect_ratios(param)[1:]]
    for i, least in enumerate(map(int, param.min_size)):
        small = _list_squares(least, param)
        large = [CellBox(*(math.sqrt(least * int(most)),) * 2) for most in param.max_size[i : i + 1]]
        others = [CellBox(float(least * root), float(least / root)) for root in roots]
        if param.keras:
            boxes += [*large, *small, *others]
        else:
            boxes += [*small, *others, *large] if param.tf else [*small, *large, *others]
    return boxes


def _list_squares(size: int, param: PriorBoxParameter) -> list[CellBox]:
    """Return the squares of a minimum size: one, or several side by side for ``faceboxes``."""
    if param.keras or not param.faceboxes:
        return [CellBox(size, size, inset=0.05 if param.tf and size == 60 and not param.keras else 0)]
    shifts = {32: range(-16, 16, 8), 64: range(-16, 16, 16)}.get(size, (0,))
    return [CellBox(size - 1, size - 1, right, down) for down in shifts for right in shifts]


def list_aspect_ratios(param: PriorBoxParameter) -> list[np.float32]:
    """Return the different aspect ratios, width by height, in their order; the first one is 1."""
    given = [np.float32(ratio) for ratio in param.aspect_ratio]
    found = [np.float32(1)]

    def is_new(ratio: np.float32) -> bool:
        return all(abs(ratio - other) >= 1e-6 for other in found)

    if param.keras:
        for ratio in [*given, *(np.float32(1 / float(ratio)) for ratio in given if param.flip)]:
            found += [ratio] if is_new(ratio) else []
        return found
    for ratio in given:
        if is_new(ratio):
            found += [ratio, np.float32(1 / float(ratio))] if param.flip else [ratio]
    return found

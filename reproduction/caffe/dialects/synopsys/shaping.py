"""The layers Pad, Squeeze, SpaceToBatchND, BatchToSpaceND and DepthToSpace of Synopsys Caffe."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import int32, integers, nested, single, string
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32, UINT32


class PadParameter(Message):
    """Parameters of Pad layers: how much to add before and after each axis, and the value that is added."""

    paddings = integers(1, UINT32)
    constant_values = single(2, 0)


class SqueezeParameter(Message):
    """Parameters of Squeeze layers: the axes of size 1 that are removed; none stands for all of them."""

    axis = integers(1, INT32)


class SpaceToBatchNDParameter(Message):
    """Parameters of SpaceToBatchND layers: the size of blocks on each axis after the first, and paddings before it."""

    block_shape = integers(1, UINT32)
    paddings = integers(2, UINT32)


class BatchToSpaceNDParameter(Message):
    """Parameters of BatchToSpaceND layers: the size of blocks on each axis after the first, and crops after it."""

    block_shape = integers(1, UINT32)
    crops = integers(2, UINT32)


class DepthToSpaceParameter(Message):
    """Parameters of DepthToSpace layers: the size of blocks, and the order of the axes."""

    block_size = int32(1)
    data_format = string(2, "NHWC")


PAD = LayerParameter.add_field("pad_param", nested(224, PadParameter), SYNOPSYS)
SQUEEZE = LayerParameter.add_field("squeeze_param", nested(241, SqueezeParameter), SYNOPSYS)
SPACE_TO_BATCH = LayerParameter.add_field("space_to_batch_nd_param", nested(236, SpaceToBatchNDParameter), SYNOPSYS)
BATCH_TO_SPACE = LayerParameter.add_field("batch_to_space_nd_param", nested(235, BatchToSpaceNDParameter), SYNOPSYS)
DEPTH_TO_SPACE = LayerParameter.add_field("depth_to_space_param", nested(208, DepthToSpaceParameter), SYNOPSYS)


def _pairs(values: list[int]) -> list[tuple[int, int]]:
    """Return the values two by two: before and after each axis."""
    return list(zip(values[::2], values[1::2], strict=True))


@register
class Pad(Layer):
    """Add a constant before and after each axis.

    Shapes:
        bottom  (A, B, ...)
        top     (before + A + after, ...)

    Raises:
        NetError: If there are not two ``paddings`` for each axis.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/pad_layer.cpp L11-L76.
    """

    dialect = SYNOPSYS
    reads = frozenset({"pad_param.paddings", "pad_param.constant_values"})
    top_is_free = True

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        paddings = PAD.get(self.layer_param).paddings
        if len(paddings) != 2 * len(bottoms[0]):
            raise NetError("there must be two paddings for each axis", got=len(paddings), want=2 * len(bottoms[0]))
        pairs = _pairs(paddings)
        return [tuple(size + sum(pair) for size, pair in zip(bottoms[0], pairs, strict=True))]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradient of the bottom is that of its values."""
        param = PAD.get(self.layer_param)
        widths = [width for pair in reversed(_pairs(param.paddings)) for width in pair]
        return (F.pad(bottoms[0], widths, value=param.constant_values),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Pad."""
        param = PAD.get(self.layer_param)
        before, after = zip(*_pairs(param.paddings), strict=True)
        value = onnx.constant(np.float32(param.constant_values), "value")
        return [onnx.node("Pad", *bottoms, onnx.constant([*before, *after], "pads"), value)]


@register
class Squeeze(Layer):
    """Remove axes of size 1: those of ``axis``, or all of them.

    Shapes:
        bottom  (..., 1, ...)
        top     the bottom's shape without these axes

    Raises:
        NetError: If an axis does not exist or has another size, or the layer works in place.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/squeeze_layer.cpp L8-L58.
    """

    dialect = SYNOPSYS
    reads = frozenset({"squeeze_param.axis"})
    shares = (True, True)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place."""
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        (bottom,), wanted = bottoms, SQUEEZE.get(self.layer_param).axis
        axes = {canonical_axis(axis, len(bottom)) for axis in wanted} if wanted else range(len(bottom))
        for axis in axes if wanted else ():
            if bottom[axis] != 1:
                raise NetError("only an axis of size 1 can be removed", got=f"axis {axis} of {bottom}")
        return [tuple(size for axis, size in enumerate(bottom) if size != 1 or axis not in axes)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return a view of the bottom."""
        return (bottoms[0].reshape(self.shapes([tuple(bottoms[0].shape)])[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Squeeze."""
        axes = SQUEEZE.get(self.layer_param).axis
        return [onnx.node("Squeeze", *bottoms, *([onnx.constant(axes, "axes")] if axes else []))]


@register
class SpaceToBatchND(Layer):
    """Move blocks of the axes after the first to the first axis, as TensorFlow's ``space_to_batch_nd``.

    Axis ``i + 1`` is padded with zeros by ``paddings``, and divided into blocks of ``block_shape[i]``. Each place in a
    block becomes a part of the batch.

    Shapes:
        bottom  (N, A, B, ...)
        top     (N * product of block_shape, (A + paddings) / block_shape[0], ...)

    Raises:
        NetError: If the fields do not fit together or the bottom.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/space_to_batch_nd_layer.cpp
    L13-L120.
    """

    dialect = SYNOPSYS
    reads = frozenset({"space_to_batch_nd_param.block_shape", "space_to_batch_nd_param.paddings"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the fields."""
        param = SPACE_TO_BATCH.get(self.layer_param)
        self._blocks, self._pads = _check_blocks(param.block_shape, param.paddings, "paddings")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        shape = _check_axes(bottoms[0], self._blocks)
        for axis, (block, pad) in enumerate(zip(self._blocks, self._pads, strict=True), 1):
            if (shape[axis] + sum(pad)) % block:
                raise NetError(
                    f"blocks do not divide axis {axis}",
                    got=f"{shape[axis]} + {sum(pad)}",
                    want=f"a multiple of {block}",
                )
            shape[0] *= block
            shape[axis] = (shape[axis] + sum(pad)) // block
        return [tuple(shape)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradient of the bottom is that of its values."""
        x, count = bottoms[0], len(self._blocks)
        (shape,) = self.shapes([tuple(x.shape)])
        rest = x.dim() - 1 - count
        widths = [0, 0] * rest + [width for pair in reversed(self._pads) for width in pair]
        x = F.pad(x, widths)
        split = [size for block, size in zip(self._blocks, shape[1:], strict=False) for size in (size, block)]
        x = x.reshape(x.shape[0], *split, *x.shape[1 + count :])
        order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count, 2), *range(2 * count + 1, x.dim())]
        return (x.permute(order).reshape(shape),)


@register
class BatchToSpaceND(Layer):
    """Move parts of the first axis to blocks of the axes after it, as TensorFlow's ``batch_to_space_nd``.

    It is the inverse of SpaceToBatchND; ``crops`` are removed from each axis afterwards.

    Shapes:
        bottom  (N * product of block_shape, A, B, ...)
        top     (N, A * block_shape[0] - crops, ...)

    Raises:
        NetError: If the fields do not fit together or the bottom.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/batch_to_space_nd_layer.cpp
    L13-L118.
    """

    dialect = SYNOPSYS
    reads = frozenset({"batch_to_space_nd_param.block_shape", "batch_to_space_nd_param.crops"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the fields."""
        param = BATCH_TO_SPACE.get(self.layer_param)
        self._blocks, self._crops = _check_blocks(param.block_shape, param.crops, "crops")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        shape = _check_axes(bottoms[0], self._blocks)
        parts = math.prod(self._blocks)
        if shape[0] % parts:
            raise NetError("blocks do not divide the batch", got=shape[0], want=f"a multiple of {parts}")
        shape[0] //= parts
        for axis, (block, crop) in enumerate(zip(self._blocks, self._crops, strict=True), 1):
            shape[axis] = shape[axis] * block - sum(crop)
            if shape[axis] < 1:
                raise NetError(f"the crops remove all of axis {axis}", got=crop)
        return [tuple(shape)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradient of the bottom is that of its values."""
        x, count = bottoms[0], len(self._blocks)
        (shape,) = self.shapes([tuple(x.shape)])
        sizes = [size * block for size, block in zip(x.shape[1:], self._blocks, strict=False)]
        x = x.reshape(*self._blocks, shape[0], *x.shape[1:])
        pairs = [axis for i in range(count) for axis in (count + 1 + i, i)]
        x = x.permute([count, *pairs, *range(2 * count + 1, x.dim())])
        x = x.reshape(shape[0], *sizes, *x.shape[2 * count + 1 :])
        for axis, (before, _) in enumerate(self._crops, 1):
            x = x.narrow(axis, before, shape[axis])
        return (x,)


def _check_blocks(blocks: list[int], pairs: list[int], name: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Check that blocks are positive and have two numbers each, and return them with the numbers two by two."""
    if not blocks or min(blocks) < 1:
        raise NetError("block_shape must be positive", got=blocks)
    if len(pairs) != 2 * len(blocks):
        raise NetError(f"there must be two {name} for each block", got=len(pairs), want=2 * len(blocks))
    return blocks, _pairs(pairs)


def _check_axes(bottom: Shape, blocks: list[int]) -> list[int]:
    if len(bottom) <= len(blocks):
        raise NetError("the bottom has too few axes for the blocks", got=bottom, want=f"at least {len(blocks) + 1}")
    return list(bottom)


@register
class DepthToSpace(Layer):
    """Move channels to blocks of ``block_size`` x ``block_size`` pixels, as TensorFlow's ``depth_to_space``.

    The channels of the bottom are row and column in the block and then the channel of the top; with ``data_format:
    "CRD"``, the channel of the top is first. ``"DCR"`` is another name of ``"NCHW"``.

    Shapes:
        bottom  (N, H, W, C * block_size^2) by default, or (N, C * block_size^2, H, W)
        top     (N, H * block_size, W * block_size, C), or (N, C, H * block_size, W * block_size)

    Raises:
        NetError: If the fields or the number of channels do not fit, or the layer works in place.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/depth_to_space_layer.cpp
    L8-L144.
    """

    dialect = SYNOPSYS
    reads = frozenset({"depth_to_space_param.block_size", "depth_to_space_param.data_format"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the fields, and that the layer does not work in place."""
        refuse_in_place(self.layer_param)
        param = DEPTH_TO_SPACE.get(self.layer_param)
        self._block, self._format = param.block_size, param.data_format
        if self._block < 1:
            raise NetError("block_size must be positive", got=self._block)
        if self._format not in ("NHWC", "NCHW", "DCR", "CRD"):
            raise NetError("the data format is unknown", got=repr(self._format), want="NHWC, NCHW, DCR or CRD")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top."""
        if len(bottoms[0]) != 4:
            raise NetError("the bottom must have four axes", got=bottoms[0])
        last, shape = self._format == "NHWC", list(bottoms[0])
        channels, rows, columns = (3, 1, 2) if last else (1, 2, 3)
        if shape[channels] % self._block**2:
            raise NetError(
                "blocks do not divide the channels", got=shape[channels], want=f"a multiple of {self._block**2}"
            )
        shape[channels] //= self._block**2
        shape[rows] *= self._block
        shape[columns] *= self._block
        return [tuple(shape)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top. The fork has no backward pass; here the gradient of the bottom is that of its values."""
        x, last = bottoms[0], self._format == "NHWC"
        self.shapes([tuple(x.shape)])
        if last:
            x = x.movedim(3, 1)
        if self._format != "CRD":
            x = x.reshape(x.shape[0], self._block**2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        x = torch.pixel_shuffle(x, self._block)
        return (x.movedim(1, 3) if last else x,)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator DepthToSpace and, for bottoms (N, H, W, C), Transpose before and after it."""
        options: dict[str, Any] = {"blocksize": self._block, "mode": "CRD" if self._format == "CRD" else "DCR"}
        if self._format != "NHWC":
            return [onnx.node("DepthToSpace", *bottoms, **options)]
        first = onnx.node("Transpose", *bottoms, perm=[0, 3, 1, 2], step="channels_first")
        return [onnx.node("Transpose", onnx.node("DepthToSpace", first, step="space", **options), perm=[0, 2, 3, 1])]

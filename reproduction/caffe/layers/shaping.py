"""The layers Concat, Slice, Tile, Silence and Split."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import CoordMap, Shape
from reproduction.caffe.layers.base import Layer, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import check_positive, refuse_in_place
from reproduction.caffe.layers.compiled_forms import IdentityForm, PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.quick.borders import AnyBlob
from reproduction.caffe.layers.quick.normalize import NormalizedBlob
from reproduction.caffe.schema import ConcatParameter, LayerParameter, SliceParameter


def _axis(param: ConcatParameter | SliceParameter, legacy: str, axes: int) -> int:
    """Return the index of ``axis`` or of its older field ``legacy``, which does not allow negative numbers."""
    if param.has(legacy):
        if param.has("axis"):
            raise NetError(f"axis and {legacy} are both set", want="one of them")
        axis: int = getattr(param, legacy)
        if axis >= axes:
            raise NetError(f"{legacy} is out of range", got=axis, want=f"0 to {axes - 1}")
        return axis
    return canonical_axis(param.axis, axes)


@register
class Concat(Layer):
    """Concatenate the bottoms along ``axis``.

    Shapes:
        bottoms  (..., C_i, ...), one or more, of the same sizes except on ``axis``
        top      (..., sum of C_i, ...)

    Source: BVLC/caffe@9b89154 src/caffe/layers/concat_layer.cpp L9-L98.
    """

    reads = frozenset({"concat_param.axis", "concat_param.concat_dim"})
    bottoms = (1, None)

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the identity if channels are concatenated, as pixels stay where they are; otherwise None."""
        param = layer_param.concat_param
        return CoordMap() if param.axis == 1 and param.concat_dim == 1 else None

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: that of the bottoms, with the sum of their sizes on ``axis``."""
        first = bottoms[0]
        axis = _axis(self.layer_param.concat_param, "concat_dim", len(first))
        for i, bottom in enumerate(bottoms):
            if len(bottom) != len(first) or bottom[:axis] + bottom[axis + 1 :] != first[:axis] + first[axis + 1 :]:
                raise NetError(f"bottom {i} differs in shape from bottom 0 outside axis {axis}", got=bottom, want=first)
        return [(*first[:axis], sum(bottom[axis] for bottom in bottoms), *first[axis + 1 :])]

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``shares``: the top uses the memory of a single bottom in Caffe."""
        self.shares = (True, True) if len(self.layer_param.bottom) == 1 else (False, False)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Concatenate the bottoms; a single bottom is returned unchanged."""
        if len(bottoms) == 1:
            return bottoms
        return (torch.cat(bottoms, _axis(self.layer_param.concat_param, "concat_dim", bottoms[0].dim())),)

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return a ``PointwiseForm`` if channels are concatenated, otherwise None."""
        param = self.layer_param.concat_param
        return PointwiseForm(is_concatenation=True) if param.axis == 1 and not param.has("concat_dim") else None

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Concat."""
        param = self.layer_param.concat_param
        return [onnx.node("Concat", *bottoms, axis=param.concat_dim if param.has("concat_dim") else param.axis)]


@register
class Slice(Layer):
    """Split the bottom along ``axis`` before each ``slice_point``, or into equal parts. The tops are views.

    Shapes:
        bottom  (..., C, ...)
        tops    (..., C_i, ...), where the sum of all C_i is C

    Source: BVLC/caffe@9b89154 src/caffe/layers/slice_layer.cpp L9-L114.
    """

    reads = frozenset({"slice_param.axis", "slice_param.slice_dim", "slice_param.slice_point"})
    tops = (1, None)

    @classmethod
    def coord_map(cls, layer_param: LayerParameter) -> CoordMap | None:
        """Return the identity if channels are split, as pixels stay where they are; otherwise None."""
        param = layer_param.slice_param
        return CoordMap() if param.axis == 1 and param.slice_dim == 1 else None

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        axis, sizes = self._cuts(bottoms[0])
        return [(*bottoms[0][:axis], size, *bottoms[0][axis + 1 :]) for size in sizes]

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``shares``: a single top uses the memory of the bottom in Caffe."""
        self.shares = (True, True) if len(self.layer_param.top) == 1 else (False, False)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        axis, sizes = self._cuts(tuple(bottoms[0].shape))
        return torch.split(bottoms[0], sizes, axis)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add an operator Slice for each top; equal parts have the length of the net's own shapes."""
        axis, sizes = self._cuts(onnx.shapes[0])
        if not self.layer_param.slice_param.slice_point:
            if axis == 0:
                onnx.fix_batch()
            elif axis > 1:
                onnx.fix_sizes()
        ends = [*np.cumsum(sizes)[:-1], np.iinfo(np.int64).max]  # the last part extends to the end
        along = onnx.constant([axis], "axis")
        bounds = [onnx.constant([bound], f"bound{i}") for i, bound in enumerate([0, *ends])]
        return [onnx.node("Slice", *bottoms, bounds[i], bounds[i + 1], along, top=i) for i in range(len(sizes))]

    def _cuts(self, bottom: Shape) -> tuple[int, list[int]]:
        param, parts = self.layer_param.slice_param, len(self.layer_param.top)
        axis = _axis(param, "slice_dim", len(bottom))
        length, points = bottom[axis], param.slice_point
        if not points:
            if length % parts:
                raise NetError(f"axis {axis} of {bottom} cannot be cut into {parts} equal parts", got=length)
            return axis, [length // parts] * parts
        if len(points) != parts - 1:
            raise NetError("there must be one slice_point less than there are tops", got=len(points), want=parts - 1)
        ends = [0, *points, length]
        sizes = [end - start for start, end in pairwise(ends)]
        if min(sizes[:-1]) < 1 or sizes[-1] < 0 or parts > length:
            raise NetError("slice_point must increase within the axis", got=list(points), want=f"1 to {length}")
        return axis, sizes


@register
class Tile(Layer):
    """Concatenate ``tiles`` copies of the bottom along ``axis``.

    Shapes:
        bottom  (..., C, ...)
        top     (..., C * tiles, ...)

    Source: BVLC/caffe@9b89154 src/caffe/layers/tile_layer.cpp L9-L56.
    """

    reads = frozenset({"tile_param.axis", "tile_param.tiles"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that ``tiles`` is positive."""
        check_positive(self.layer_param.tile_param, "tiles")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's with the size of ``axis`` multiplied by ``tiles``."""
        axis = canonical_axis(self.layer_param.tile_param.axis, len(bottoms[0]))
        return [(*bottoms[0][:axis], bottoms[0][axis] * self.layer_param.tile_param.tiles, *bottoms[0][axis + 1 :])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        repeats = [1] * bottoms[0].dim()
        repeats[self.layer_param.tile_param.axis] = self.layer_param.tile_param.tiles
        return (bottoms[0].repeat(repeats),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Tile."""
        repeats = np.ones(onnx.axes, np.int64)
        repeats[self.layer_param.tile_param.axis] = self.layer_param.tile_param.tiles
        return [onnx.node("Tile", *bottoms, onnx.constant(repeats, "repeats"))]


@register
class Silence(Layer):
    """A layer without tops, which does nothing with its bottoms.

    With it, blobs that no other layer reads are not outputs of the net.

    Source: BVLC/caffe@9b89154 src/caffe/layers/silence_layer.cpp L8-L18.
    """

    bottoms = (1, None)
    tops = (0, 0)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add nothing, since there are no tops."""
        return []


@register
class Split(Layer):
    """Return the bottom as several tops; its gradient is the sum of theirs.

    Caffe inserts these layers wherever several layers read a blob, and so does ``graph.build_graph``.

    Shapes:
        bottom and tops: any shape; the tops share the memory of the bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/split_layer.cpp L9-L49.
    """

    tops: ClassVar[tuple[int, int | None]] = (1, None)
    keeps_coordinates = True
    shares = (True, False)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place.

        Raises:
            NetError: If a top has the name of the bottom.
        """
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return [bottoms[0]] * len(self.layer_param.top)

    def compiled_form(self, bottoms: list[Shape]) -> IdentityForm:
        """Return an ``IdentityForm``: each top equals the bottom."""
        return IdentityForm()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if not self.in_blas_order:
            return bottoms * len(self.layer_param.top)
        return _HandOn.apply(bottoms[0], len(self.layer_param.top))  # type: ignore[no-any-return, no-untyped-call]

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Return the bottom once for each top; None if ``in_blas_order`` is set, as full tensors are then needed."""
        if self.in_blas_order or isinstance(bottoms[0], NormalizedBlob):  # the latter is computed only once
            return None
        return bottoms * len(self.layer_param.top)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add nothing and return the bottom once for each top."""
        return list(bottoms) * len(self.layer_param.top)


class _HandOn(torch.autograd.Function):
    """Views of a tensor. The backward pass adds their gradients from first to last; torch starts at the last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for _ in range(count))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        first, *rest = (grad for grad in grads if grad is not None)
        for grad in rest:
            first = first + grad
        return first, None

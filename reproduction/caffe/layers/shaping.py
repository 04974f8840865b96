"""The layers Concat, Slice, Reshape, Flatten, Tile, Filter, BatchReindex and Silence."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import CoordMap, Shape
from reproduction.caffe.layers.base import Layer, canonical_axis, register
from reproduction.caffe.layers.compiled_forms import IdentityForm, PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.quick.borders import AnyBlob
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

    def shares(self) -> tuple[bool, bool]:
        """Return (True, True) for a single bottom, whose memory the top uses in Caffe; otherwise (False, False)."""
        alone = len(self.layer_param.bottom) == 1
        return alone, alone

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Concatenate the bottoms; a single bottom is returned unchanged."""
        if len(bottoms) == 1:
            return bottoms
        return (torch.cat(bottoms, _axis(self.layer_param.concat_param, "concat_dim", bottoms[0].dim())),)

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return a ``PointwiseForm`` if channels are concatenated, otherwise None."""
        param = self.layer_param.concat_param
        return PointwiseForm() if param.axis == 1 and not param.has("concat_dim") else None

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

    def shares(self) -> tuple[bool, bool]:
        """Return (True, True) for a single top, which uses the bottom's memory in Caffe; otherwise (False, False)."""
        alone = len(self.layer_param.top) == 1
        return alone, alone

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        axis, sizes = self._cuts(tuple(bottoms[0].shape))
        return torch.split(bottoms[0], sizes, axis)

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


def _check_not_in_place(layer: Layer) -> None:
    if layer.layer_param.top[:1] == layer.layer_param.bottom[:1]:
        raise NetError(
            f"{layer.layer_param.type} layers cannot work in place", got=f"top {layer.layer_param.top[0]!r} for both"
        )


@register
class Reshape(Layer):
    """Change the shape of a blob; values and their order stay the same.

    ``shape`` replaces the ``num_axes`` axes (-1: all) from ``axis`` on. In it, 0 stands for the bottom's size of the
    axis at that position, and a single -1 is computed from the number of values.

    Shapes:
        bottom  any shape
        top     the new shape; a view if torch can make one

    Source: BVLC/caffe@9b89154 src/caffe/layers/reshape_layer.cpp L8-L88.
    """

    reads = frozenset({"reshape_param.shape", "reshape_param.axis", "reshape_param.num_axes"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that ``shape`` is valid and that the layer does not work in place."""
        _check_not_in_place(self)
        dims = self.layer_param.reshape_param.shape.dim
        if dims.count(-1) > 1 or min(dims, default=0) < -1:
            raise NetError("shape may hold sizes, zeros, and one -1", got=list(dims))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the new shape, with its zeros and -1 replaced by sizes."""
        param, bottom = self.layer_param.reshape_param, bottoms[0]
        start = param.axis if param.axis >= 0 else len(bottom) + param.axis + 1
        end = len(bottom) if param.num_axes == -1 else start + param.num_axes
        if param.num_axes < -1 or not 0 <= start <= end <= len(bottom):
            raise NetError(
                "axis and num_axes reach outside the bottom",
                got=f"axis {param.axis}, num_axes {param.num_axes}",
                want=f"within {len(bottom)} axes",
            )
        dims = list(param.shape.dim)
        for i, size in enumerate(dims):
            if size == 0:
                if start + i >= len(bottom):
                    raise NetError(f"the zero at place {i} of shape has no axis of the bottom to copy", got=bottom)
                dims[i] = bottom[start + i]
        top = (*bottom[:start], *dims, *bottom[end:])
        if -1 in dims:
            known = -math.prod(top)
            if known == 0 or math.prod(bottom) % known:
                raise NetError(
                    f"the -1 in {tuple(dims)} cannot be worked out", got=f"{bottom}, {math.prod(bottom)} values"
                )
            dims[dims.index(-1)] = math.prod(bottom) // known
            top = (*bottom[:start], *dims, *bottom[end:])
        if math.prod(top) != math.prod(bottom):
            raise NetError("the new shape must hold as many values as the old", got=top, want=f"as {bottom}")
        return [top]

    def shares(self) -> tuple[bool, bool]:
        """Return (True, True): in Caffe, the top uses the memory of the bottom, for values and gradient."""
        return True, True

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].reshape(self.shapes([tuple(bottoms[0].shape)])[0]),)


@register
class Flatten(Layer):
    """Flatten the axes from ``axis`` to ``end_axis``, both included, to one.

    Shapes:
        bottom  (A..., B..., C...)
        top     (A..., product of B, C...); a view if torch can make one

    Source: BVLC/caffe@9b89154 src/caffe/layers/flatten_layer.cpp L8-L40.
    """

    reads = frozenset({"flatten_param.axis", "flatten_param.end_axis"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place, as Caffe does."""
        _check_not_in_place(self)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's with the product of the flattened axes in their place."""
        param, bottom = self.layer_param.flatten_param, bottoms[0]
        start, end = (canonical_axis(axis, len(bottom)) for axis in (param.axis, param.end_axis))
        if start > end + 1:
            raise NetError("axis must not come after end_axis", got=f"axis {start}, end_axis {end}")
        return [(*bottom[:start], math.prod(bottom[start : end + 1]), *bottom[end + 1 :])]

    def shares(self) -> tuple[bool, bool]:
        """Return (True, False): in Caffe, the top uses the memory of the bottom's values from the start.

        The memory of the gradient is shared only when the backward pass runs.
        """
        return True, False

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].reshape(self.shapes([tuple(bottoms[0].shape)])[0]),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Flatten."""
        param = self.layer_param.flatten_param
        if (param.axis, param.end_axis) != (1, -1):
            raise NetError("only one vector for each image can be written as ONNX", got=f"axis {param.axis}")
        return [onnx.node("Flatten", *bottoms, axis=1)]


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
        if self.layer_param.tile_param.tiles < 1:
            raise NetError("tiles must be set and positive", got=self.layer_param.tile_param.tiles)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's with the size of ``axis`` multiplied by ``tiles``."""
        axis = canonical_axis(self.layer_param.tile_param.axis, len(bottoms[0]))
        return [(*bottoms[0][:axis], bottoms[0][axis] * self.layer_param.tile_param.tiles, *bottoms[0][axis + 1 :])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        repeats = [1] * bottoms[0].dim()
        repeats[self.layer_param.tile_param.axis] = self.layer_param.tile_param.tiles
        return (bottoms[0].repeat(repeats),)


@register
class Filter(Layer):
    """Select the instances whose selector is not zero.

    ``shapes`` returns the shapes for M = N, as Caffe does before it has data.

    Shapes:
        bottoms  (N, ...), one or more, and the selector as the last one: (N,), (N, 1), (N, 1, 1) ...
        tops     (M, ...), where M is the number of nonzero selectors; one for each bottom except the selector

    Source: BVLC/caffe@9b89154 src/caffe/layers/filter_layer.cpp L8-L116.
    """

    bottoms = (2, None)
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that there is one top for each bottom except the selector."""
        if len(self.layer_param.top) != len(bottoms) - 1:
            raise NetError(
                "there must be a top for each bottom but the selector",
                got=len(self.layer_param.top),
                want=len(bottoms) - 1,
            )

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops for the case that all instances are selected."""
        *blobs, selector = bottoms
        if not selector or math.prod(selector[1:]) != 1:
            raise NetError("the selector must have one value for each instance", got=selector, want="(N,) or (N, 1, 1)")
        for i, bottom in enumerate(blobs):
            if bottom[:1] != selector[:1]:
                raise NetError(f"bottom {i} and the selector differ in their first axis", got=bottom, want=selector)
        return blobs

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        *blobs, selector = bottoms
        kept = selector.detach().flatten().nonzero().flatten()
        return tuple(bottom.index_select(0, kept) for bottom in blobs)


@register
class BatchReindex(Layer):
    """Select instances by index; an index may occur several times or not at all.

    Shapes:
        bottom 0  (N, ...)
        bottom 1  (M,)       integers 0..N-1
        top       (M, ...)

    Raises:
        NetError: If an index is out of range.

    Source: BVLC/caffe@9b89154 src/caffe/layers/batch_reindex_layer.cpp L8-L75.
    """

    bottoms = (2, 2)
    differentiable = (0,)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: that of bottom 0 with the number of indices as its first size."""
        blob, index = bottoms
        if len(index) != 1 or not blob:
            raise NetError("the second bottom must be a vector of indices into the first", got=f"{index} into {blob}")
        return [(*index, *blob[1:])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        blob, index = bottoms[0], bottoms[1].detach()
        outside = ~((index >= 0) & (index < blob.shape[0]))
        if outside.any():
            raise NetError("an index is out of range", got=f"{index[outside][0]:g}", want=f"0..{blob.shape[0] - 1}")
        return (blob.index_select(0, index.long()),)


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

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place.

        Raises:
            NetError: If a top has the name of the bottom.
        """
        if self.layer_param.bottom[0] in self.layer_param.top:
            raise NetError("a top must not be the bottom", got=repr(self.layer_param.bottom[0]))

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return [bottoms[0]] * len(self.layer_param.top)

    def compiled_form(self, bottoms: list[Shape]) -> IdentityForm:
        """Return an ``IdentityForm``: each top equals the bottom."""
        return IdentityForm()

    def shares(self) -> tuple[bool, bool]:
        """Return (True, False): in Caffe, the tops use the memory of the bottom's values, not of its gradient."""
        return True, False

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if not self.in_blas_order:
            return bottoms * len(self.layer_param.top)
        tops: tuple[Tensor, ...] = _HandOn.apply(bottoms[0], len(self.layer_param.top))  # type: ignore[no-untyped-call]
        return tops

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Return the bottom once for each top; None if ``in_blas_order`` is set, as full tensors are then needed."""
        return None if self.in_blas_order else bottoms * len(self.layer_param.top)

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

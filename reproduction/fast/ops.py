"""The layers of a net as ops: which part of the bottoms each part of the top depends on, and which kernel computes it.

A layer without a compiled form is a plain ``Op``: it reads whole blobs and runs the layer's own forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape, Window, pool_windows
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.convolution import Convolution, Deconvolution
from reproduction.caffe.layers.crop import Crop
from reproduction.caffe.layers.pooling import Pooling
from reproduction.caffe.net.graph import Node, layer_place
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import PoolMethod, RoundMode
from reproduction.fast import kernels
from reproduction.fast.forms import Form
from reproduction.fast.kernels import Kernel
from reproduction.fast.regions import EVERYWHERE, NOTHING, POINT, Region, Span, inside, reached, read_by, whole

_DECONVOLUTION = 4  # time of a product in torch's deconvolution, relative to one in its convolution
PRECISIONS = ("exact", "winograd", "tf32", "bf16")  # the most exact first


def in_effect(precision: str, device: str) -> str:
    """Return ``precision`` if the device supports it, otherwise the next more exact precision that it supports.

    Args:
        precision: One of ``PRECISIONS``.
        device: Type of the device, ``cpu`` or ``cuda``.
    """
    has = {"exact", "tf32", "bf16"} if device == "cuda" else {"exact", "winograd"}
    if device == "cpu" and kernels.multiplies_bf16():
        has.add("bf16")
    return next(p for p in reversed(PRECISIONS[: PRECISIONS.index(precision) + 1]) if p in has)


def arithmetic(device: torch.device, precision: str, *, tune: bool) -> AbstractContextManager[None]:
    """Return a context manager that sets cuDNN's flags for a precision.

    Args:
        device: The device to compute on; on the CPU the context manager does nothing.
        precision: One of ``PRECISIONS``.
        tune: Let cuDNN benchmark its algorithms and use the fastest. This takes time, and the last digits of the
            results may change.
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=tune, deterministic=not tune, allow_tf32=precision == "tf32"
    )


def spatial(shape: Shape) -> Region:
    """Return the region of all pixels of a blob ``(N, C, H, W)``."""
    return whole(shape[2]), whole(shape[3])


@dataclass(frozen=True)
class Op:
    """A layer that runs its own forward over whole blobs.

    Attributes:
        name: Name of the layer.
        layer: The layer.
        bottoms: Names of the blobs that it reads, with a version number (``#2``) if a layer overwrites a blob in place.
        tops: Names of the blobs that it computes, versioned in the same way.
        how: Description of how it is computed.
    """

    name: str
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    how: str

    partial: ClassVar[bool] = False  # whether a part of the (only) top can be computed; if not, all tops are computed

    @property
    def shrinks(self) -> bool:
        """Whether the top is smaller than the bottoms, so that borders are cheaper to add to the top."""
        return False

    @property
    def fills(self) -> bool:
        """Whether the kernel writes the top directly into a buffer, so that borders around it need no extra copy."""
        return False

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the tops.

        Raises:
            NetError: If the bottoms do not fit the layer.
        """
        try:
            return self.layer.shapes(list(bottoms))
        except NetError as error:
            raise error.at(layer_place(self.layer.layer_param)) from None

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the part of the top that depends on any of the given parts of the bottoms."""
        return spatial(top)

    def steady(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return a part of the top with equal pixels, given parts of the bottoms with equal pixels."""
        return NOTHING, NOTHING

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the part of each bottom that ``top`` needs, padding included; None if only the shape is read."""
        return [spatial(bottom) if len(bottom) == 4 else (NOTHING, NOTHING) for bottom in bottoms]

    def slack(self, top: Region) -> tuple[int, int]:
        """Return how many extra rows and columns the kernel reads; they may hold zeros."""
        return 0, 0

    def products(self, bottoms: Sequence[Shape]) -> int:
        """Return the number of products per pixel of the top; 0 if they are not counted."""
        return 0

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that computes the part ``top`` from the parts ``bottoms``."""
        return kernels.Plain(self.layer)

    def pays(self, made: Region, top: Region) -> bool:
        """Return whether this op is faster than ``as_it_is`` for the part ``made`` of the top."""
        return True

    def time(self, made: Region) -> float:
        """Estimate the time per pixel of the top, relative to that of the layer's own forward."""
        return 1.0

    def effort(self, bottoms: Sequence[Shape]) -> float:
        """Estimate the time of the layer's own forward per pixel of the top, in products of a convolution."""
        return self.products(bottoms)

    def told(self, made: Region) -> str:
        """Return a description of how a part of the top is computed."""
        return self.how

    def as_it_is(self) -> Op:
        """Return the op that runs the layer's own forward over whole blobs."""
        return Op(self.name, self.layer, self.bottoms, self.tops, "as it is")


@dataclass(frozen=True)
class Local(Op):
    """A layer that slides windows over its bottoms and has the same weights, if any, at every position.

    Attributes:
        windows: The windows along rows and columns.
        runs: The kernel for every part of the top; None means the layer's own forward.
        clipped: Whether windows are clipped at the end of the blob, as in pooling, rather than reading padding.
        weights: Number of products per pixel of the top.
    """

    windows: tuple[Window, Window] = (POINT, POINT)
    runs: Kernel | None = None
    clipped: bool = False
    weights: int = 0

    partial: ClassVar[bool] = True

    @property
    def shrinks(self) -> bool:
        """Whether the stride along rows or columns is greater than 1."""
        return max(window.stride for window in self.windows) > 1

    @property
    def fills(self) -> bool:
        """Whether the kernel writes the top directly into a buffer."""
        return self.runs is not None and self.runs.fills

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the smallest part that contains all outputs whose windows read the given part of any bottom."""
        parts = [tuple(map(reached, self.windows, bottom, top[2:])) for bottom in bottoms]
        rows, columns = parts[0]
        for part in parts[1:]:
            rows, columns = rows | part[0], columns | part[1]
        return rows, columns

    def steady(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the outputs whose windows read only pixels of the given parts."""
        rows, columns = EVERYWHERE, EVERYWHERE
        for bottom in bottoms:
            part = tuple(map(inside, self.windows, bottom, top[2:]))
            rows, columns = rows & part[0], columns & part[1]
        return rows, columns

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels that the windows read."""
        found: list[Region | None] = []
        for bottom in bottoms:
            rows, columns = map(read_by, self.windows, top)
            if self.clipped:
                rows, columns = rows & whole(bottom[2]), columns & whole(bottom[3])
            found.append((rows, columns))
        return found

    def products(self, bottoms: Sequence[Shape]) -> int:
        """Return the number of products per pixel of the top."""
        return self.weights

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return ``runs`` or the layer's own forward, for every part of the top."""
        return self.runs or kernels.Plain(self.layer)


@dataclass(frozen=True)
class Conv(Local):
    """A convolution with kernels that may be faster than the layer's own forward.

    Attributes:
        form: The kernels and their forms of the weights; always set.
    """

    form: Form | None = None

    @property
    def quick(self) -> Form:
        """The attribute ``form``, which is never None."""
        assert self.form is not None
        return self.form

    @property
    def fills(self) -> bool:
        """Whether Winograd's method is available, which writes tiles directly into a buffer."""
        return self.quick.tile is not None

    def slack(self, top: Region) -> tuple[int, int]:
        """Return how many extra rows and columns the kernel reads, because Winograd's tiles reach past the end."""
        return self.quick.slack(top)

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that ``form`` chooses for the part ``top``."""
        return self.quick.kernel(top)

    def pays(self, made: Region, top: Region) -> bool:
        """Return whether the kernel is faster than the layer's own forward, or the only one with weights."""
        return self.quick.pays(made, top)

    def time(self, made: Region) -> float:
        """Estimate the time of the kernel relative to the layer's own forward."""
        return self.quick.time(made)

    def told(self, made: Region) -> str:
        """Return a description of the kernel."""
        return self.quick.how(made)

    def as_it_is(self) -> Op:
        """Return the op that runs the layer's own forward, followed by the fused ReLU if there is one."""
        how = "as it is" + (" with ReLU" if self.quick.relu else "")
        return Kept(
            self.name, self.layer, self.bottoms, self.tops, how,
            windows=self.windows, weights=self.weights, relu=self.quick.relu,
        )  # fmt: skip


@dataclass(frozen=True)
class Kept(Local):
    """A convolution that runs the layer's own forward over whole blobs.

    Unlike a plain ``Op``, it has windows, so that parts of the layers around it can still be computed.

    Attributes:
        relu: Whether a ReLU follows, which the kernel applies.
    """

    relu: bool = False

    partial: ClassVar[bool] = False

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the whole bottom, without padding, since the layer pads it."""
        return Op.reads(self, top, bottoms)

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the layer's own forward."""
        return kernels.Plain(self.layer, relu=self.relu)

    def as_it_is(self) -> Op:
        """Return this op."""
        return self


@dataclass(frozen=True)
class Cut(Op):
    """A Crop layer along rows or columns, as a view of the bottom."""

    partial: ClassVar[bool] = True

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the part shifted by the crop's offsets; only the shape of the second bottom is read."""
        assert isinstance(self.layer, Crop)
        moved = {axis: offset for axis, offset, _ in self.layer.cuts(*bottoms)}
        rows, columns = (
            Span(span.start + moved.get(axis, 0), span.stop + moved.get(axis, 0))
            for axis, span in zip((2, 3), top, strict=True)
        )
        return [(rows, columns), None]

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return a kernel that returns its bottom, since ``reads`` selects the cropped part."""
        return kernels.Same()


@dataclass(frozen=True)
class Up(Op):
    """A depthwise deconvolution with one separable kernel for all channels.

    Attributes:
        windows: The windows along rows and columns.
        taps: The factors of the kernel along rows and columns.
        bias: ``(C,)``, or None.
    """

    windows: tuple[Window, Window] = (POINT, POINT)
    taps: tuple[Tensor, Tensor] | None = None
    bias: Tensor | None = None

    partial: ClassVar[bool] = True

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels of the bottom that contribute to the part ``top``."""
        rows, columns = map(reached, self.windows, top, bottoms[0][2:])
        return [(rows, columns)]

    def effort(self, bottoms: Sequence[Shape]) -> float:
        """Estimate the time of the layer: a product takes torch several times as long as in a convolution."""
        return _DECONVOLUTION * self.layer.blobs[0].numel() / math.prod(window.stride for window in self.windows)

    def time(self, made: Region) -> float:
        """Return 0, since the time of the matrix products is negligible compared with that of the layer."""
        return 0.0

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel with the matrices for this part."""
        assert self.taps is not None
        return kernels.Upsample(self.taps, self.windows, bottoms[0], top, self.bias)


def build(net: Net, precision: str) -> tuple[list[Op], dict[str, str]]:
    """Convert the layers of a net to ops.

    The tops of Dropout and Split are aliases of their bottoms. An in-place ReLU is fused into a convolution before it.

    Args:
        net: The net, in phase TEST.
        precision: One of ``PRECISIONS``.

    Returns:
        The ops in order, and the versioned name of each blob's last values by the blob's name.
    """
    made: list[Op] = []
    now: dict[str, str] = {name: name for name in net.inputs}
    versions: dict[str, int] = {}
    nodes = [(node, layer) for node in net.graph.nodes if (layer := net.layer_at(node))]
    relus = _relus(nodes)
    for node, layer in nodes:
        if node.type in ("Dropout", "Split") or node.index in relus.values():
            source = now[node.bottoms[0]]
            now.update(dict.fromkeys(node.tops, source))
            continue
        bottoms = tuple(now[bottom] for bottom in node.bottoms)
        for top in node.tops:
            versions[top] = versions.get(top, 0) + 1
            now[top] = top if versions[top] == 1 and top not in net.inputs else f"{top}#{versions[top]}"
        op = Op(node.name, layer, bottoms, tuple(now[top] for top in node.tops), "as it is")
        made.append(_special(op, node, precision, relu=node.index in relus))
    return made, now


def _relus(nodes: list[tuple[Node, Layer]]) -> dict[int, int]:
    """Return the convolutions followed by an in-place ReLU: index of the convolution's node -> index of the ReLU's."""
    found = {}
    for i, (node, _) in enumerate(nodes):
        if node.type != "Convolution" or len(node.tops) != 1:
            continue
        reader = next((other for other in nodes[i + 1 :] if node.tops[0] in other[0].bottoms), None)
        if reader is None or reader[0].type != "ReLU" or reader[0].tops != reader[0].bottoms:
            continue
        if reader[1].layer_param.relu_param.negative_slope == 0:
            found[node.index] = reader[0].index
    return found


def _special(op: Op, node: Node, precision: str, *, relu: bool) -> Op:
    """Return a faster equivalent of the op if one exists, otherwise the op."""
    layer = op.layer
    plain = Local(op.name, layer, op.bottoms, op.tops, op.how)
    if isinstance(layer, Convolution) and len(op.bottoms) == 1 and layer.axis == 1 and len(layer.windows) == 2:
        return _convolution(op, layer, precision, relu=relu)
    if isinstance(layer, Deconvolution) and len(op.bottoms) == 1 and layer.axis == 1 and len(layer.windows) == 2:
        weight, *bias = layer.blobs
        taps = kernels.separable(weight, layer.group)
        if taps is None:
            return op
        rows, columns = layer.windows
        fields = (op.name, layer, op.bottoms, op.tops, "two products of matrices")
        return Up(*fields, windows=(rows, columns), taps=taps, bias=bias[0] if bias else None)
    if isinstance(layer, Pooling) and len(op.tops) == 1:
        return _pooling(op, plain, layer)
    if isinstance(layer, Crop) and layer.layer_param.crop_param.axis >= 2:
        return Cut(op.name, layer, op.bottoms, op.tops, "a view")
    return plain if layer.is_pointwise() else op


def _pooling(op: Op, plain: Local, layer: Pooling) -> Op:
    param = layer.layer_param.pooling_param
    if param.global_pooling:
        return op
    rows, columns = pool_windows(param, 1, 1)
    known = layer.method is PoolMethod.MAX and param.round_mode is RoundMode.CEIL
    if not known or rows.pad or columns.pad or rows.kernel < rows.stride or columns.kernel < columns.stride:
        return op
    runs = kernels.MaxPool((rows, columns))
    return replace(plain, windows=(rows, columns), runs=runs, clipped=True, how="maxima of a part")


def _convolution(op: Op, layer: Convolution, precision: str, *, relu: bool) -> Conv:
    rows, columns = layer.windows
    form = Form(layer, precision, relu=relu)
    return Conv(
        op.name, layer, op.bottoms, op.tops, op.how,
        windows=(rows, columns), weights=layer.blobs[0].numel(), form=form,
    )  # fmt: skip

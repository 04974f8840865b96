"""The layers of a net in the form that is compiled: what each reads for a part of its top, and by which kernel.

What nothing is known of is an ``Op``: it reads whole blobs and runs the layer's own forward.
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
from reproduction.caffe.layers.pooling import Pooling
from reproduction.caffe.layers.vision import Crop
from reproduction.caffe.net.graph import Node, place
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NormRegion, PoolMethod, RoundMode
from reproduction.fast import kernels
from reproduction.fast.forms import Form
from reproduction.fast.kernels import Kernel
from reproduction.fast.regions import EVERYWHERE, NOTHING, POINT, Region, Span, inside, reached, read_by, whole

_DECONVOLUTION = 4  # products of a convolution in the time of one product of a deconvolution
PRECISIONS = ("exact", "winograd", "tf32", "bf16")  # the most exact first

# Layers whose every output depends on its own pixel alone, whatever their bottoms.
_POINTWISE = frozenset(
    {"ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "Power", "Exp", "Log", "BNLL", "Clip", "Swish", "Eltwise"}
)


def in_effect(precision: str, device: str) -> str:
    """Give the precision that a device has: the one asked for, or the next more exact one.

    Args:
        precision: one of ``PRECISIONS``.
        device: the type of it, ``cpu`` or ``cuda``.
    """
    has = {"exact", "tf32", "bf16"} if device == "cuda" else {"exact", "winograd"}
    if device == "cpu" and kernels.multiplies_bf16():
        has.add("bf16")
    return next(p for p in reversed(PRECISIONS[: PRECISIONS.index(precision) + 1]) if p in has)


def arithmetic(device: torch.device, precision: str, *, tune: bool) -> AbstractContextManager[None]:
    """Let cuDNN compute in a precision.

    Args:
        device: that is computed on; on the CPU there is nothing to set.
        precision: one of ``PRECISIONS``.
        tune: whether cuDNN may try which of its ways is the quickest: it takes long, and the last digits may change.
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=tune, deterministic=not tune, allow_tf32=precision == "tf32"
    )


def spatial(shape: Shape) -> Region:
    """The whole of a blob (N, C, H, W)."""
    return whole(shape[2]), whole(shape[3])


@dataclass(frozen=True)
class Op:
    """A layer that is run as it is, over whole blobs.

    Attributes:
        name: of the layer, or of the layers that are run as one.
        layer: it.
        bottoms: what it reads: names of blobs, numbered where a layer overwrites one in place.
        tops: what it makes.
        how: how it is computed, in words.
    """

    name: str
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    how: str

    partial: ClassVar[bool] = False  # whether any part of the one top can be computed; if not, all tops are, whole

    @property
    def shrinks(self) -> bool:
        """Whether the top is smaller than the bottoms: there borders are cheapest put together."""
        return False

    @property
    def fills(self) -> bool:
        """Whether the kernel writes the top to its place, so that borders around it cost no copy."""
        return False

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Give the shapes of the tops.

        Raises:
            NetError: the bottoms do not fit the layer.
        """
        try:
            return self.layer.shapes(list(bottoms))
        except NetError as error:
            raise error.at(place(self.layer.spec)) from None

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Give the part of the top that sees any of these parts of the bottoms."""
        return spatial(top)

    def steady(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Give a part of the top that is the same everywhere, where these parts of the bottoms are so."""
        return NOTHING, NOTHING

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Give what a part of the top needs of each bottom, padding included; None where only the shape is read."""
        return [spatial(bottom) if len(bottom) == 4 else (NOTHING, NOTHING) for bottom in bottoms]

    def slack(self, top: Region) -> tuple[int, int]:
        """Give rows and columns that the kernel reads past what it needs; zeros do."""
        return 0, 0

    def products(self, bottoms: Sequence[Shape]) -> int:
        """Count the products for each pixel of the top."""
        return 0

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Give what computes a part of the top from parts of the bottoms."""
        return kernels.Plain(self.layer)

    def pays(self, made: Region, top: Region) -> bool:
        """Return whether this form is quicker than ``as_it_is`` for a part of the top."""
        return True

    def time(self, made: Region) -> float:
        """Estimate the time for each product against that of the layer's own forward."""
        return 1.0

    def effort(self, bottoms: Sequence[Shape]) -> float:
        """Estimate the time of the layer's own forward for each pixel of the top, in products of a convolution."""
        return self.products(bottoms)

    def told(self, made: Region) -> str:
        """Return how a part of the top is computed, in words."""
        return self.how

    def as_it_is(self) -> Op:
        """Return the op that runs the layer's own forward over whole blobs."""
        return Op(self.name, self.layer, self.bottoms, self.tops, "as it is")


@dataclass(frozen=True)
class Local(Op):
    """A layer of windows with weights that are everywhere the same, or without any.

    Attributes:
        windows: of the rows and the columns.
        runs: computes any part.
        clipped: whether windows stop at the end of the blob, as in pooling, instead of seeing padding.
        weights: products of each output pixel.
    """

    windows: tuple[Window, Window] = (POINT, POINT)
    runs: Kernel | None = None
    clipped: bool = False
    weights: int = 0

    partial: ClassVar[bool] = True

    @property
    def shrinks(self) -> bool:
        """Whether the windows move by more than a pixel."""
        return max(window.stride for window in self.windows) > 1

    @property
    def fills(self) -> bool:
        """Whether its kernel does."""
        return self.runs is not None and self.runs.fills

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Join what the windows make of each bottom."""
        parts = [tuple(map(reached, self.windows, bottom, top[2:])) for bottom in bottoms]
        rows, columns = parts[0]
        for part in parts[1:]:
            rows, columns = rows | part[0], columns | part[1]
        return rows, columns

    def steady(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Take the windows that see steady pixels alone."""
        rows, columns = EVERYWHERE, EVERYWHERE
        for bottom in bottoms:
            part = tuple(map(inside, self.windows, bottom, top[2:]))
            rows, columns = rows & part[0], columns & part[1]
        return rows, columns

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Give what the windows see."""
        found: list[Region | None] = []
        for bottom in bottoms:
            rows, columns = map(read_by, self.windows, top)
            if self.clipped:
                rows, columns = rows & whole(bottom[2]), columns & whole(bottom[3])
            found.append((rows, columns))
        return found

    def products(self, bottoms: Sequence[Shape]) -> int:
        """Count the products for each pixel of the top."""
        return self.weights

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """The same for all parts."""
        return self.runs or kernels.Plain(self.layer)


@dataclass(frozen=True)
class Conv(Local):
    """A convolution whose weights have forms that are quick for parts of its top, or for all of it.

    Attributes:
        form: of the weights.
    """

    form: Form | None = None

    @property
    def quick(self) -> Form:
        """The form."""
        assert self.form is not None
        return self.form

    @property
    def fills(self) -> bool:
        """Whether there is Winograd's method, which writes tiles to their place."""
        return self.quick.tile is not None

    def slack(self, top: Region) -> tuple[int, int]:
        """Give those of the form."""
        return self.quick.slack(top)

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Give that of the form."""
        return self.quick.kernel(top)

    def pays(self, made: Region, top: Region) -> bool:
        """Return whether the form is quicker than the layer, or all there is."""
        return self.quick.pays(made, top)

    def time(self, made: Region) -> float:
        """Estimate that of the form."""
        return self.quick.time(made)

    def told(self, made: Region) -> str:
        """Return how the form computes, in words."""
        return self.quick.how(made)

    def as_it_is(self) -> Op:
        """Return the layer, with the ReLU that is part of the form."""
        how = "as it is" + (" with ReLU" if self.quick.relu else "")
        return Kept(
            self.name, self.layer, self.bottoms, self.tops, how,
            windows=self.windows, weights=self.weights, relu=self.quick.relu,
        )  # fmt: skip


@dataclass(frozen=True)
class Kept(Local):
    """A convolution that the layer itself computes, all of it: parts of other layers can still be computed alone.

    Attributes:
        relu: whether a ReLU follows.
    """

    relu: bool = False

    partial: ClassVar[bool] = False

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Give all of the bottom; the layer pads it."""
        return Op.reads(self, top, bottoms)

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Give the layer."""
        return kernels.Plain(self.layer, relu=self.relu)

    def as_it_is(self) -> Op:
        """Return the op."""
        return self


@dataclass(frozen=True)
class Cut(Op):
    """Crop along rows and columns."""

    partial: ClassVar[bool] = True

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Give the same part, moved by the offsets."""
        assert isinstance(self.layer, Crop)
        moved = {axis: offset for axis, offset, _ in self.layer.cuts(*bottoms)}
        rows, columns = (
            Span(span.start + moved.get(axis, 0), span.stop + moved.get(axis, 0))
            for axis, span in zip((2, 3), top, strict=True)
        )
        return [(rows, columns), None]

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """What was read is the cut."""
        return kernels.Same()


@dataclass(frozen=True)
class Up(Op):
    """Deconvolution of each channel by itself with one separable kernel.

    Attributes:
        windows: of the rows and the columns.
        taps: the kernel's factors.
        bias: (C,) or None.
    """

    windows: tuple[Window, Window] = (POINT, POINT)
    taps: tuple[Tensor, Tensor] | None = None
    bias: Tensor | None = None

    partial: ClassVar[bool] = True

    def reads(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Give the pixels that are spread over this part."""
        rows, columns = map(reached, self.windows, top, bottoms[0][2:])
        return [(rows, columns)]

    def effort(self, bottoms: Sequence[Shape]) -> float:
        """Estimate the time of the layer: torch takes a few times as long for a product as in a convolution."""
        return _DECONVOLUTION * self.layer.blobs[0].numel() / math.prod(window.stride for window in self.windows)

    def time(self, made: Region) -> float:
        """Return 0: against the layer the products of matrices are nothing."""
        return 0.0

    def kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Make the matrices for this part."""
        assert self.taps is not None
        return kernels.Upsample(self.taps, self.windows, bottoms[0], top, self.bias)


def build(net: Net, precision: str) -> tuple[list[Op], dict[str, str]]:
    """List the net's layers as ops.

    Dropout and Split are names for their bottoms; a ReLU that works in place is part of the convolution before it.

    Args:
        net: in phase TEST.
        precision: one of ``PRECISIONS``.

    Returns:
        The ops in order, and for each blob's name that of its last values.
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
    """Find the convolutions whose only reader is a ReLU that works in place: index of the node -> that of the ReLU."""
    found = {}
    for i, (node, _) in enumerate(nodes):
        if node.type != "Convolution" or len(node.tops) != 1:
            continue
        reader = next((other for other in nodes[i + 1 :] if node.tops[0] in other[0].bottoms), None)
        if reader is None or reader[0].type != "ReLU" or reader[0].tops != reader[0].bottoms:
            continue
        if reader[1].spec.relu_param.negative_slope == 0:
            found[node.index] = reader[0].index
    return found


def _special(op: Op, node: Node, precision: str, *, relu: bool) -> Op:
    """Take a faster form of the op, if it is sure to be the same."""
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
    if isinstance(layer, Crop) and layer.spec.crop_param.axis >= 2:
        return Cut(op.name, layer, op.bottoms, op.tops, "a view")
    spec = layer.spec
    alone = (
        node.type in _POINTWISE
        or (node.type == "LRN" and spec.lrn_param.norm_region is NormRegion.ACROSS_CHANNELS)
        or (node.type == "Concat" and spec.concat_param.axis == 1 and not spec.concat_param.has("concat_dim"))
        or (node.type == "Scale" and len(op.bottoms) == 1 and spec.scale_param.axis == 1 and layer.blobs[0].dim() < 2)
    )
    return plain if alone else op


def _pooling(op: Op, plain: Local, layer: Pooling) -> Op:
    param = layer.spec.pooling_param
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

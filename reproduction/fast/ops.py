"""The layers of a net as ops: which pixels of the bottoms a region of the top depends on, and how it is computed.

An op is a layer of a compiled net. Most ops compute only a region of their top; an ``Op`` of the base class, for layers
about which nothing more is known, reads complete blobs and runs the layer's own forward. Methods take a region of the
top or of each bottom: a rectangle of pixels, which may extend into the padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_, or_

import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.compiled_forms import CompiledForm, PointwiseForm
from reproduction.fast.deconvolution import Upsampling
from reproduction.fast.kernels import (
    Affine,
    Kernel,
    LayerForward,
    MaxPool,
    PassThrough,
)
from reproduction.fast.regions import EMPTY, EVERYWHERE, POINT, PixelRange, Region, Windows


@dataclass(eq=False)
class Op:
    """A layer of a compiled net; this base class runs the layer's own forward over complete blobs.

    Attributes:
        name: Name of the layer.
        layer: The layer.
        bottoms: Versioned names of the blobs that it reads: ``conv1#2`` has the second values of ``conv1``, after a
            layer has overwritten the first ones in place.
        tops: Versioned names of the blobs that it computes.
        form: What the layer computes, if ``fast`` can use that; otherwise None.
        how: How it is computed, in words for the table of ``explain.format_plan``.
        kernel: The kernel for every region of the top; None means the layer's own forward.
        products_per_pixel: The number of multiplications per pixel of the top; 0 if they are not counted.
        computes_regions: Whether it can compute a region of its (only) top, rather than complete tops only.
        shrinks: Whether the top is smaller than the bottoms, so that borders are cheaper to add to the top.
        writes_to_buffer: Whether the kernel writes the top directly into a buffer, so that borders around it need no
            extra copy.
    """

    name: str
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    how: str = "as it is"
    form: CompiledForm | None = field(default=None, kw_only=True)
    kernel: Kernel | None = field(default=None, kw_only=True)
    products_per_pixel: int = field(default=0, kw_only=True)
    computes_regions: bool = field(default=False, kw_only=True)
    shrinks: bool = field(default=False, init=False)
    writes_to_buffer: bool = field(default=False, init=False)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the tops for bottoms of the given shapes.

        Raises:
            NetError: If the bottoms do not fit the layer.
        """
        try:
            return self.layer.shapes(list(bottoms))
        except NetError as error:
            raise error.at(self.layer.layer_param.place) from None

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the region of a top that the image influences; for this class, the complete top.

        Args:
            bottoms: For each bottom, the region that the image influences.
            top: The shape of the top.
        """
        return Region.from_shape(top)

    def uniform(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return a region of a top whose pixels are all equal; for this class, an empty one.

        Args:
            bottoms: For each bottom, a region whose pixels are all equal.
            top: The shape of the top.
        """
        return EMPTY

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return which region of each bottom is read to compute a region of the top; for this class, all of it.

        Args:
            top: The region of the top to compute.
            bottoms: The shapes of the bottoms.

        Returns:
            A region for each bottom, which may extend into its padding; None if only the shape of the bottom is read.
        """
        return [Region.from_shape(bottom) for bottom in bottoms]

    def overread(self, top: Region) -> tuple[int, int]:
        """Return how many rows and columns of the bottom the kernel reads beyond those of ``regions_read``.

        They lie below and to the right, do not affect the result, and may be zeros. For this class there are none.
        """
        return 0, 0

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that computes a region of the top; for this class, ``kernel`` or the layer's own forward.

        Args:
            bottoms: The regions of the bottoms that the kernel will receive.
            top: The region of the top to compute.
        """
        is_simple = isinstance(self.form, PointwiseForm) and (self.form.is_relu or self.form.is_sum)
        return self.kernel or LayerForward(self.layer, is_recordable=is_simple)

    def describe(self, computed: Region) -> str:
        """Return in words how a region of the top is computed, such as "as it is" for the layer's own forward."""
        return self.how


@dataclass(eq=False, kw_only=True)
class WindowOp(Op):
    """A layer that slides windows over its bottoms, such as a pooling.

    It has the same weights, if any, at every position.

    Attributes:
        windows: The window along rows and the one along columns: kernel size, stride, pad and dilation.
    """

    windows: Windows = POINT
    computes_regions: bool = True

    def __post_init__(self) -> None:
        self.shrinks = max(window.stride for window in self.windows) > 1

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the region of the top whose windows read a pixel that the image influences, in any bottom.

        Args:
            bottoms: For each bottom, the region that the image influences.
            top: The shape of the top.
        """
        return reduce(or_, (bottom.outputs_reached(self.windows, top) for bottom in bottoms))

    def uniform(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the region of the top whose windows read only equal pixels, so that its pixels are equal, too.

        Args:
            bottoms: For each bottom, a region whose pixels are all equal.
            top: The shape of the top.
        """
        return reduce(and_, (bottom.outputs_inside(self.windows, top) for bottom in bottoms), EVERYWHERE)

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels of each bottom that the windows read to compute the region ``top``."""
        return [top.read_by(self.windows)] * len(bottoms)


def channel_factors(layers: Sequence[Layer], channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset that affine layers, one after the other, have for each channel.

    Args:
        layers: Layers whose form is an affine ``PointwiseForm``.
        channels: C, the number of channels.
        device: The device of the layers.

    Returns:
        Two tensors ``(C,)`` in double precision.
    """
    # The top for 0 is the offset, and the top for 1 is the sum of factor and offset.
    x = torch.tensor([0.0, 1.0], dtype=torch.float64, device=device).view(2, 1, 1, 1).expand(2, channels, 1, 1)
    for layer in layers:
        (x,) = layer(x)
    zero, one = x.detach().view(2, channels)
    return one - zero, zero


@dataclass(eq=False, kw_only=True)
class AffineOp(WindowOp):
    """A layer that multiplies each channel by a factor and adds an offset, with layers of the same kind after it.

    Attributes:
        folded: The ops that were folded into this one; see ``folding.fold``.
        relu: Whether the last of them is a ReLU.
    """

    folded: tuple[Op, ...] = ()
    relu: bool = False

    def extend(self, follower: Op) -> "AffineOp":
        """Return this op with one more op folded into it."""
        relu = isinstance(follower.form, PointwiseForm) and follower.form.is_relu
        return replace(self, tops=follower.tops, folded=(*self.folded, follower), relu=relu)

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that multiplies and adds; the layer's own forward if no other layer was folded."""
        if not self.folded:
            return super().make_kernel(bottoms, top)
        layers = [self.layer, *(op.layer for op in (self.folded[:-1] if self.relu else self.folded))]
        blob = self.layer.blobs[0]
        channels = max(blob.numel() for layer in layers for blob in layer.blobs)
        factor, offset = channel_factors(layers, channels, blob.device)
        return Affine(factor.to(blob.dtype), offset.to(blob.dtype), relu=self.relu)

    def describe(self, computed: Region) -> str:
        """Return in words how it is computed, with the types of the folded layers."""
        return describe_folded("one pass" if self.folded else self.how, self.folded)


def describe_folded(text: str, folded: Sequence[Op]) -> str:
    """Return ``text`` and the types of folded layers, such as "as torch does it with BatchNorm, Scale, ReLU"."""
    names = ", ".join(op.layer.layer_param.type for op in folded)
    return f"{text} with {names}" if names else text


@dataclass(eq=False, kw_only=True)
class MaxPoolOp(WindowOp):
    """Max pooling; its windows are clipped at the borders of the bottom."""

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels of the bottom, without padding, that the windows read to compute the region ``top``."""
        return [top.read_by(self.windows) & Region.from_shape(bottoms[0])]

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that computes the region ``top`` from the region ``bottoms[0]``."""
        return MaxPool(self.windows, bottoms[0], top)


@dataclass(eq=False, kw_only=True)
class CropOp(Op):
    """A Crop layer along rows or columns, computed as a view of its first bottom, without a copy.

    Attributes:
        offsets: The first row and the first column of the bottom that the top contains.
    """

    offsets: tuple[int, int]
    computes_regions: bool = True

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the region ``top``, shifted by the crop's offsets, for the first bottom; None for the second.

        Of the second bottom only the shape is read.
        """
        rows, columns = (
            PixelRange(side.start + offset, side.stop + offset) for side, offset in zip(top, self.offsets, strict=True)
        )
        return [Region(rows, columns), None]

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return a kernel that returns its bottom, which is already cut to the region of ``regions_read``."""
        return PassThrough()


@dataclass(eq=False, kw_only=True)
class UpsamplingOp(Op):
    """A Deconvolution layer that upsamples each channel by the same separable kernel, such as a bilinear one.

    A kernel is separable if it is the outer product of one factor along rows and one along columns.

    Attributes:
        windows: The window along rows and the one along columns: kernel size, stride, pad and dilation.
        factors: The factors of the kernel, ``(kernel_h,)`` and ``(kernel_w,)``.
        bias: ``(C,)``, or None.
    """

    windows: Windows
    factors: tuple[Tensor, Tensor]
    bias: Tensor | None
    computes_regions: bool = True

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels of the bottom that contribute to the region ``top`` of the top."""
        return [top.outputs_reached(self.windows, bottoms[0])]  # it is the transpose of a convolution

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return a kernel with the two matrices that compute the region ``top`` from the region ``bottoms[0]``."""
        return Upsampling(self.factors, self.windows, bottoms[0], top, self.bias)

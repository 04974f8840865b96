"""The layers of a net as ops: which pixels of the bottoms a region of the top depends on, and how it is computed.

A layer without a compiled form is a plain ``Op``: it reads complete blobs and runs the layer's own forward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import and_, or_

from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.graph import layer_place
from reproduction.fast.kernels import Kernel, LayerForward, PassThrough, Upsampling
from reproduction.fast.regions import EMPTY, EVERYWHERE, POINT, PixelRange, Region, Windows

_DECONVOLUTION_TIME = 4  # time of a product in torch's deconvolution, relative to one in its convolution


@dataclass(eq=False)
class Op:
    """A layer that runs its own forward over complete blobs.

    Attributes:
        name: Name of the layer.
        layer: The layer.
        bottoms: Names of the blobs that it reads, with a version number (``#2``) if a layer overwrites a blob in place.
        tops: Names of the blobs that it computes, versioned in the same way.
        how: Description of how it is computed.
        products_per_pixel: The number of products per pixel of the top; 0 if they are not counted.
        layer_cost: The estimated time of the layer's own forward per pixel of the top, in products of a convolution; 0
            if it is not compared.
        computes_regions: Whether it can compute a region of its (only) top.
        shrinks: Whether the top is smaller than the bottoms, so that borders are cheaper to add to the top.
        writes_to_buffer: Whether the kernel writes the top directly into a buffer, so that borders around it need no
            extra copy.
    """

    name: str
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    how: str = "as it is"
    products_per_pixel: int = field(default=0, kw_only=True)
    layer_cost: float = field(default=0.0, kw_only=True)
    computes_regions: bool = field(default=False, kw_only=True)
    shrinks: bool = field(default=False, init=False)
    writes_to_buffer: bool = field(default=False, init=False)

    def top_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the tops.

        Raises:
            NetError: If the bottoms do not fit the layer.
        """
        try:
            return self.layer.shapes(list(bottoms))
        except NetError as error:
            raise error.at(layer_place(self.layer.layer_param)) from None

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the region of the top that depends on any of the given regions of the bottoms."""
        return Region.from_shape(top)

    def uniform(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return a region of the top with equal pixels, given regions of the bottoms with equal pixels."""
        return EMPTY

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the region of each bottom that ``top`` needs, padding included; None if only its shape is read."""
        return [Region.from_shape(bottom) for bottom in bottoms]

    def overread(self, top: Region) -> tuple[int, int]:
        """Return how many more rows and columns the kernel reads; they may hold zeros."""
        return 0, 0

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel that computes the region ``top`` from the regions ``bottoms``."""
        return LayerForward(self.layer)

    def is_faster(self, computed: Region, top: Region) -> bool:
        """Return whether this op computes the region ``computed`` of the top faster than ``uncompiled()`` the top."""
        return True

    def relative_time(self, computed: Region) -> float:
        """Estimate the time per pixel of the top, relative to that of the layer's own forward."""
        return 1.0

    def describe(self, computed: Region) -> str:
        """Return a description of how a region of the top is computed."""
        return self.how

    def uncompiled(self) -> Op:
        """Return the op that runs the layer's own forward over complete blobs."""
        return Op(self.name, self.layer, self.bottoms, self.tops)


@dataclass(eq=False, kw_only=True)
class WindowOp(Op):
    """A layer that slides windows over its bottoms and has the same weights, if any, at every position.

    Attributes:
        windows: The windows along rows and columns.
        kernel: The kernel for every region of the top; None means the layer's own forward.
        is_clipped: Whether windows are clipped at the end of the blob, as in pooling, rather than reading padding.
        computes_regions: Whether it can compute a region of its top. If not, the windows still say which pixels of the
            top depend on a region of the bottoms.
    """

    windows: Windows = POINT
    kernel: Kernel | None = None
    is_clipped: bool = False
    computes_regions: bool = True

    def __post_init__(self) -> None:
        self.shrinks = max(window.stride for window in self.windows) > 1

    def reached(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the smallest region that contains all outputs whose windows read the given region of any bottom."""
        return reduce(or_, (bottom.outputs_reached(self.windows, top) for bottom in bottoms))

    def uniform(self, bottoms: Sequence[Region], top: Shape) -> Region:
        """Return the outputs whose windows read only pixels of the given regions."""
        return reduce(and_, (bottom.outputs_inside(self.windows, top) for bottom in bottoms), EVERYWHERE)

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels that the windows read."""
        if not self.computes_regions:
            return super().regions_read(top, bottoms)
        read = top.read_by(self.windows)
        return [read & Region.from_shape(bottom) if self.is_clipped else read for bottom in bottoms]

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return ``kernel`` or the layer's own forward, for every region of the top."""
        return self.kernel or LayerForward(self.layer)

    def uncompiled(self) -> Op:
        """Return the op that runs the layer's own forward over complete blobs; itself if it does."""
        return super().uncompiled() if self.computes_regions else self


@dataclass(eq=False, kw_only=True)
class CropOp(Op):
    """A crop along rows or columns, as a view of the bottom.

    Attributes:
        offsets: The first row and the first column of the crop.
    """

    offsets: tuple[int, int]
    computes_regions: bool = True

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the region shifted by the crop's offsets; only the shape of the second bottom is read."""
        rows, columns = (
            PixelRange(side.start + offset, side.stop + offset) for side, offset in zip(top, self.offsets, strict=True)
        )
        return [Region(rows, columns), None]

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return a kernel that returns its bottom, since ``regions_read`` selects the cropped region."""
        return PassThrough()


@dataclass(eq=False, kw_only=True)
class UpsamplingOp(Op):
    """A depthwise deconvolution with one separable kernel for all channels.

    Attributes:
        windows: The windows along rows and columns.
        factors: The factors of the kernel along rows and columns.
        bias: ``(C,)``, or None.
    """

    windows: Windows
    factors: tuple[Tensor, Tensor]
    bias: Tensor | None
    computes_regions: bool = True

    def __post_init__(self) -> None:
        # A product takes torch several times as long as in a convolution.
        products = self.layer.blobs[0].numel() / math.prod(window.stride for window in self.windows)
        self.layer_cost = _DECONVOLUTION_TIME * products

    def regions_read(self, top: Region, bottoms: Sequence[Shape]) -> list[Region | None]:
        """Return the pixels of the bottom that contribute to the region ``top``."""
        return [top.outputs_reached(self.windows, bottoms[0])]  # it is the transpose of a convolution

    def make_kernel(self, bottoms: Sequence[Region], top: Region) -> Kernel:
        """Return the kernel with the matrices for this region."""
        return Upsampling(self.factors, self.windows, bottoms[0], top, self.bias)

    def relative_time(self, computed: Region) -> float:
        """Return 0, since the time of the matrix products is negligible compared with that of the layer."""
        return 0.0

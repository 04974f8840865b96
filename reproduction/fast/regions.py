"""Rectangles of pixels: which pixels a convolution or pooling reads, and which outputs depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from reproduction.caffe.geometry import Shape, Window

Windows = tuple[Window, Window]  # along rows and columns
Slices = tuple[slice, slice]

POINT = (Window(1), Window(1))
_FAR = 1 << 40


@dataclass(frozen=True)
class PixelRange:
    """A half-open range ``[start, stop)`` of pixels along one axis; it may extend into the padding of the blob.

    ``a & b`` is the intersection of two ranges, ``a | b`` the shortest range that contains both, and ``a in b`` is True
    if ``b`` contains every pixel of ``a``.

    Attributes:
        start: The first pixel; negative in the padding before the blob.
        stop: The pixel after the last one; the range is empty if ``stop <= start``.
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of pixels in the range."""
        return max(0, self.stop - self.start)

    def __and__(self, other: PixelRange) -> PixelRange:
        """Return the intersection of both ranges."""
        return PixelRange(max(self.start, other.start), min(self.stop, other.stop))

    def __or__(self, other: PixelRange) -> PixelRange:
        """Return the shortest range that contains both."""
        if not self.size or not other.size:
            return self if self.size else other
        return PixelRange(min(self.start, other.start), max(self.stop, other.stop))

    def __contains__(self, other: PixelRange) -> bool:
        """Return whether every pixel of ``other`` is in this range."""
        return not other.size or (self.start <= other.start and other.stop <= self.stop)

    def read_by(self, window: Window) -> PixelRange:
        """Return the pixels of a bottom, padding included, on which the pixels in this range of a top depend.

        Args:
            window: The window that the layer slides along the axis.
        """
        if not self.size:
            return PixelRange(0, 0)
        first, last = (output * window.stride - window.pad for output in (self.start, self.stop - 1))
        return PixelRange(first, last + window.extent)

    def outputs_reached(self, window: Window, count: int) -> PixelRange:
        """Return the pixels of a top that depend on any pixel in this range of a bottom.

        Args:
            window: The window that the layer slides along the axis.
            count: The number of pixels of the top.
        """
        if not self.size:
            return PixelRange(0, 0)
        first = -(-(self.start + window.pad - window.extent + 1) // window.stride)
        last = (self.stop - 1 + window.pad) // window.stride
        return PixelRange(first, last + 1) & PixelRange(0, count)

    def outputs_inside(self, window: Window, count: int) -> PixelRange:
        """Return the pixels of a top that depend only on pixels in this range of a bottom.

        Args:
            window: The window that the layer slides along the axis.
            count: The number of pixels of the top.
        """
        first = -(-(self.start + window.pad) // window.stride)
        last = (self.stop - window.extent + window.pad) // window.stride
        return PixelRange(first, last + 1) & PixelRange(0, count)


class Region(NamedTuple):
    """A rectangle of pixels of a blob; it may extend into the padding of the blob.

    ``a & b`` is the intersection of two regions, ``a | b`` the smallest region that contains both.

    Attributes:
        rows: The range of its rows.
        columns: The range of its columns.
    """

    rows: PixelRange
    columns: PixelRange

    @classmethod
    def from_shape(cls, shape: Shape) -> Region:
        """Return the region of all pixels of a blob of shape ``(N, C, H, W)``; ``EMPTY`` for other numbers of axes."""
        return cls(PixelRange(0, shape[2]), PixelRange(0, shape[3])) if len(shape) == 4 else EMPTY

    @property
    def pixels(self) -> int:
        """The number of pixels in the region."""
        return self.rows.size * self.columns.size

    def __and__(self, other: Region) -> Region:
        """Return the intersection of both regions."""
        return Region(self.rows & other.rows, self.columns & other.columns)

    def __or__(self, other: Region) -> Region:
        """Return the smallest region that contains both."""
        return Region(self.rows | other.rows, self.columns | other.columns)

    def contains(self, other: Region) -> bool:
        """Return whether every pixel of ``other`` is in this region."""
        return other.rows in self.rows and other.columns in self.columns

    def read_by(self, windows: Windows) -> Region:
        """Return the pixels of a bottom, padding included, on which the pixels in this region of a top depend.

        Args:
            windows: The windows that the layer slides along rows and columns.
        """
        return Region(*map(PixelRange.read_by, self, windows))

    def outputs_reached(self, windows: Windows, top: Shape) -> Region:
        """Return the pixels of a top that depend on any pixel in this region of a bottom.

        Args:
            windows: The windows that the layer slides along rows and columns.
            top: The shape of the top, ``(N, C, H, W)``.
        """
        return Region(*map(PixelRange.outputs_reached, self, windows, top[2:]))

    def outputs_inside(self, windows: Windows, top: Shape) -> Region:
        """Return the pixels of a top that depend only on pixels in this region of a bottom.

        Args:
            windows: The windows that the layer slides along rows and columns.
            top: The shape of the top, ``(N, C, H, W)``.
        """
        return Region(*map(PixelRange.outputs_inside, self, windows, top[2:]))

    def extend(self, rows: int, columns: int) -> Region:
        """Return this region with ``rows`` more rows below it and ``columns`` more columns to the right."""
        (top, bottom), (left, right) = ((side.start, side.stop) for side in self)
        return Region(PixelRange(top, bottom + rows), PixelRange(left, right + columns))

    def slices_in(self, outer: Region) -> Slices:
        """Return the slices that select this region in an array that stores the pixels of the region ``outer``."""
        rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(self, outer, strict=True))
        return rows, columns

    def strips_around(self, inner: Region) -> list[Region]:
        """Divide the pixels of this region around ``inner`` into rectangles: above, below, left and right of it."""
        strips = (
            Region(PixelRange(self.rows.start, inner.rows.start), self.columns),
            Region(PixelRange(inner.rows.stop, self.rows.stop), self.columns),
            Region(inner.rows, PixelRange(self.columns.start, inner.columns.start)),
            Region(inner.rows, PixelRange(inner.columns.stop, self.columns.stop)),
        )
        return [strip for strip in strips if strip.pixels]


EMPTY = Region(PixelRange(0, 0), PixelRange(0, 0))
EVERYWHERE = Region(PixelRange(-_FAR, _FAR), PixelRange(-_FAR, _FAR))

"""Ranges of pixels along an axis: which pixels a window reads, and which outputs depend on given pixels."""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.caffe.geometry import Window

POINT = Window(1)
_FAR = 1 << 40


@dataclass(frozen=True)
class Span:
    """A half-open range ``[start, stop)`` of pixels along one axis; it may extend into the padding of the blob.

    Attributes:
        start: The first pixel.
        stop: The pixel after the last one; the span is empty if ``stop <= start``.
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of pixels in the span."""
        return max(0, self.stop - self.start)

    def __and__(self, other: Span) -> Span:
        return Span(max(self.start, other.start), min(self.stop, other.stop))

    def __or__(self, other: Span) -> Span:
        """Return the shortest span that contains both."""
        if not self.size or not other.size:
            return self if self.size else other
        return Span(min(self.start, other.start), max(self.stop, other.stop))

    def __contains__(self, other: Span) -> bool:
        return not other.size or (self.start <= other.start and other.stop <= self.stop)

    def within(self, other: Span) -> slice:
        """Return the slice of an array with the pixels of ``other`` that selects this span."""
        return slice(self.start - other.start, self.stop - other.start)


Region = tuple[Span, Span]

NOTHING = Span(0, 0)
EVERYWHERE = Span(-_FAR, _FAR)


def whole(size: int) -> Span:
    """Return the span of an axis with ``size`` pixels."""
    return Span(0, size)


def read_by(window: Window, top: Span) -> Span:
    """Return the pixels, padding included, that the windows of the outputs ``top`` read."""
    if not top.size:
        return NOTHING
    first, last = (place * window.stride - window.pad for place in (top.start, top.stop - 1))
    return Span(first, last + window.extent)


def reached(window: Window, bottom: Span, count: int) -> Span:
    """Return the outputs, among ``count``, whose windows read at least one pixel of ``bottom``."""
    if not bottom.size:
        return NOTHING
    first = -(-(bottom.start + window.pad - window.extent + 1) // window.stride)
    last = (bottom.stop - 1 + window.pad) // window.stride
    return Span(first, last + 1) & whole(count)


def inside(window: Window, bottom: Span, count: int) -> Span:
    """Return the outputs, among ``count``, whose windows read only pixels of ``bottom``."""
    first = -(-(bottom.start + window.pad) // window.stride)
    last = (bottom.stop - window.extent + window.pad) // window.stride
    return Span(first, last + 1) & whole(count)

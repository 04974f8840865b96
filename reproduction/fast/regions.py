"""Parts of an axis: which pixels a window reads, which it writes, and how far an image reaches."""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.caffe.geometry import Window

POINT = Window(1)
_FAR = 1 << 40


@dataclass(frozen=True)
class Span:
    """Pixels of one axis, from ``start`` up to but without ``stop``; they may lie outside of the blob, in its padding.

    Attributes:
        start: the first pixel.
        stop: the first pixel that is not of the span; the span is empty where it is not after ``start``.
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Pixels in the span."""
        return max(0, self.stop - self.start)

    def __and__(self, other: Span) -> Span:
        return Span(max(self.start, other.start), min(self.stop, other.stop))

    def __or__(self, other: Span) -> Span:
        """The shortest span that holds both."""
        if not self.size or not other.size:
            return self if self.size else other
        return Span(min(self.start, other.start), max(self.stop, other.stop))

    def __contains__(self, other: Span) -> bool:
        return not other.size or (self.start <= other.start and other.stop <= self.stop)

    def within(self, other: Span) -> slice:
        """Where the span lies in an array that holds ``other``."""
        return slice(self.start - other.start, self.stop - other.start)


Region = tuple[Span, Span]

NOTHING = Span(0, 0)
EVERYWHERE = Span(-_FAR, _FAR)


def whole(size: int) -> Span:
    """All pixels of an axis."""
    return Span(0, size)


def read_by(window: Window, top: Span) -> Span:
    """The pixels, padding among them, that the windows of these outputs see."""
    if not top.size:
        return NOTHING
    first, last = (place * window.stride - window.pad for place in (top.start, top.stop - 1))
    return Span(first, last + window.extent)


def reached(window: Window, bottom: Span, count: int) -> Span:
    """The outputs, of ``count``, that see any of these pixels."""
    if not bottom.size:
        return NOTHING
    first = -(-(bottom.start + window.pad - window.extent + 1) // window.stride)
    last = (bottom.stop - 1 + window.pad) // window.stride
    return Span(first, last + 1) & whole(count)


def inside(window: Window, bottom: Span, count: int) -> Span:
    """The outputs, of ``count``, that see these pixels and no others."""
    first = -(-(bottom.start + window.pad) // window.stride)
    last = (bottom.stop - window.extent + window.pad) // window.stride
    return Span(first, last + 1) & whole(count)

"""The shapes of a drawing in pixels, y downwards, and estimates of how wide texts are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

FONT, LINE = 13.0, 16.0  # size of the captions, and from one line to the next
_LETTER, _BOLD = 0.6, 0.68  # mean width of a letter, as a fraction of the font size
_WIDTHS = {  # of letters that are far from the mean, relative to it; fonts differ, these are of a wide one
    **dict.fromkeys("ijl.,:/'|", 0.55), **dict.fromkeys("frt-() ", 0.7), **dict.fromkeys("mwMW", 1.5),
    **dict.fromkeys("0123456789_", 1.08), "\N{MULTIPLICATION SIGN}": 1.4, "\N{SUPERSCRIPT TWO}": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Rect:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Rect) -> bool:
        """Return whether two rectangles have an area in common."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True)
class Box:
    """A filled rectangle with rounded corners, and the CSS class that colours it."""

    rect: Rect
    style: str
    radius: float = 1.5


@dataclass(frozen=True)
class Text:
    """A line of text.

    Attributes:
        x: Where the anchor is.
        y: The baseline.
        text: The text.
        anchor: ``start``, ``middle`` or ``end``.
        style: The CSS class.
    """

    x: float
    y: float
    text: str
    anchor: str = "middle"
    style: str = "soft"

    @property
    def rect(self) -> Rect:
        """The estimated rectangle of the text."""
        width = measure(self.text, bold=self.style != "soft")
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return Rect(left, self.y - 0.75 * FONT, left + width, self.y + 0.2 * FONT)


@dataclass(frozen=True)
class Line:
    """A wire with an arrow at its end: the points where it bends, and whether values are upsampled on the way."""

    points: tuple[tuple[float, float], ...]
    is_up: bool = False

    @property
    def rects(self) -> list[Rect]:
        """The rectangles of its straight parts."""
        return [
            Rect(min(x1, x2) - 0.5, min(y1, y2) - 0.5, max(x1, x2) + 0.5, max(y1, y2) + 0.5)
            for (x1, y1), (x2, y2) in zip(self.points, self.points[1:], strict=False)
        ]


@dataclass(frozen=True)
class Drawing:
    """All shapes of a drawing, with its size; the bands are behind the others."""

    width: float
    height: float
    bands: list[Box]
    boxes: list[Box]
    texts: list[Text]
    lines: list[Line]


def measure(text: str, *, bold: bool = False) -> float:
    """Return the estimated width of a text in pixels."""
    return sum(_WIDTHS.get(letter, 1.0) for letter in text) * FONT * (_BOLD if bold else _LETTER)


def measure_lines(lines: Iterable[str]) -> float:
    """Return the estimated width of a caption, whose first line is bold."""
    return max((measure(line, bold=number == 0) for number, line in enumerate(lines)), default=0.0)


def slab_width(channels: int) -> float:
    """Return the width of the box of a blob with this many channels."""
    return max(7.0, 2.0 + 0.6 * math.sqrt(channels))


def slab_height(stride: Fraction | None) -> float:
    """Return the height of the boxes of a stride, which falls by a fifth where the resolution is halved."""
    return 26.0 if stride is None else max(84.0 * 0.82 ** math.log2(max(float(stride), 0.25)), 26.0)

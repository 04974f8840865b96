"""Place the parts of a drawing from left to right: each resolution has a lane, and wires between lanes are vertical.

Parts are placed one after the other. A lane knows the right ends of its boxes and of its captions; a new part, or a
wire that crosses the lane, is placed to the right of both. So boxes, captions and vertical wires never meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from reproduction.figure.parts import Part, Wire
from reproduction.figure.shapes import measure, measure_lines, slab_height, slab_width

LEFT = 84.0  # left end of all parts; the names of the lanes are there
GAP, TURN = 22.0, 11.0  # between boxes, and between a box and a wire next to it
JOIN, PILL = 11.0, 24.0  # radius of the circle of a join, and height of boxes that contain text
MOST_SLABS = 8  # boxes of a group that are drawn
_SPACE = 8.0  # between captions


@dataclass(eq=False)
class Placed:
    """A part at its place.

    Attributes:
        part: The part.
        lane: The number of its lane.
        width: The width of its boxes together.
        height: Their height.
        text: The width of the caption below them; 0 if it is next to a wire.
        x: The horizontal centre.
    """

    part: Part
    lane: int
    width: float
    height: float
    text: float
    x: float = 0.0

    @property
    def left(self) -> float:
        """The left end of the boxes."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """The right end of the boxes."""
        return self.x + self.width / 2


@dataclass(eq=False)
class Route:
    """The way of a wire: across the lane of its source to ``x``, up or down to the lane of its target, and into it.

    Attributes:
        wire: The wire.
        source: Where it begins.
        target: Where it ends.
        x: Where it rises or falls.
        entry: The side of the target that it enters: ``left``, ``top`` or ``bottom``.
        track: The number of the track above the boxes on which it crosses the lane of its source; None if no box is in
            its way.
        label: Whether its caption is to the ``left`` or to the ``right`` of the vertical part.
    """

    wire: Wire
    source: Placed
    target: Placed
    x: float
    entry: str
    track: int | None = None
    label: str = "left"


@dataclass
class Lane:
    """What a lane contains: its parts, the right ends of boxes and of captions, and of the last wire on each track."""

    stride: Fraction | None
    boxes: float = LEFT
    texts: float = LEFT
    placed: list[Placed] = field(default_factory=list)
    tracks: list[float] = field(default_factory=list)

    @property
    def end(self) -> float:
        """The right end of all that is in the lane."""
        return max(self.boxes, self.texts)

    def extend(self, boxes: float = 0.0, texts: float = 0.0) -> None:
        """Add something whose right ends are given."""
        self.boxes, self.texts = max(self.boxes, boxes), max(self.texts, texts)

    def is_free(self, left: float, right: float) -> bool:
        """Return whether there is no box between two places."""
        return not any(other.left < right and left < other.right for other in self.placed)

    def take_track(self, left: float, right: float) -> int:
        """Return the number of the lowest track that is free from ``left`` on, and occupy it up to ``right``."""
        number = next((n for n, end in enumerate(self.tracks) if end < left), len(self.tracks))
        self.tracks[number : number + 1] = [right]
        return number


def label_width(wire: Wire) -> float:
    """Return the width of the caption of what happens on a wire."""
    return measure_lines([line for step in wire.steps for line in step.lines])


class Placement:
    """The lanes of a drawing, from the finest resolution to vectors, and the places of all parts and wires.

    Args:
        parts: The parts, each after those that it reads.
    """

    def __init__(self, parts: Sequence[Part]):
        strides = {part.stride for part in parts}
        ordered = [*sorted(stride for stride in strides if stride is not None), *([None] if None in strides else [])]
        self.lanes = [Lane(stride) for stride in ordered]
        self.placed: dict[Part, Placed] = {}
        self.routes: list[Route] = []
        for part in parts:
            self._place(part, ordered.index(part.stride))

    def _place(self, part: Part, lane: int) -> None:
        own = self.lanes[lane]
        sources = [(wire, self.placed[wire.source]) for wire in part.wires]
        across = [(wire, source) for wire, source in sources if source.lane == lane]
        down = [(wire, source) for wire, source in sources if source.lane < lane]
        up = sorted(((wire, source) for wire, source in sources if source.lane > lane), key=lambda pair: pair[1].lane)
        placed = _measure_part(part, lane, [label_width(wire) for wire, _ in up])
        if part.kind == "pool" and len(down) == 1 == len(sources):
            placed.text = 0.0
        half = _half_above(placed)
        x = max(own.boxes + GAP * bool(own.placed) + half, own.texts + _SPACE + placed.text / 2)
        for wire, source in across:
            x = max(x, source.right + GAP + half + label_width(wire))
        for _, source in down:
            x = max(x, source.right + TURN, *(each.end + _SPACE for each in self.lanes[source.lane : lane]))
        if up and part.kind == "join":
            x = self._find_x_above(up, lane, x - placed.width / 2 + JOIN) + placed.width / 2 - JOIN
        elif up:
            at = max(x - max(placed.width, placed.text) / 2 - TURN, own.texts + label_width(up[0][0]) + TURN)
            x = self._find_x_above(up, lane, at) + TURN + max(placed.width, placed.text) / 2
        placed.x = x
        self._add_routes(placed, across, down, up)
        self.placed[part] = placed
        own.placed.append(placed)
        own.extend(placed.right, x + placed.text / 2)

    def _add_routes(
        self,
        placed: Placed,
        across: Sequence[tuple[Wire, Placed]],
        down: Sequence[tuple[Wire, Placed]],
        up: Sequence[tuple[Wire, Placed]],
    ) -> None:
        is_join = placed.part.kind == "join"
        nearest = max(across, key=lambda pair: pair[1].right, default=None)
        for wire, source in across:
            enters = wire is nearest[0] and (is_join or not up) if nearest else False
            self._add_across(wire, source, placed, "left" if enters else "top")
        for wire, source in down:
            self._add_vertical(wire, source, placed, placed.x, "top")
        pitch = (placed.width - 2 * JOIN) / (len(up) - 1) if len(up) > 1 else 0.0
        for number, (wire, source) in enumerate(up):
            at = (
                placed.left + JOIN + number * pitch if is_join else placed.x - max(placed.width, placed.text) / 2 - TURN
            )
            self._add_vertical(wire, source, placed, at, "bottom" if is_join else "left")

    def _find_x_above(self, up: Sequence[tuple[Wire, Placed]], lane: int, x: float) -> float:
        """Return where the first of the wires from below can rise, not left of ``x``."""
        for _, source in up:
            name = source.text / 2 if source.part.kind == "join" else 0.0  # the name of a join is above it
            x = max(x, source.right + TURN, source.x + name + 4.0)
            x = max([x, *(between.end + TURN for between in self.lanes[lane + 1 : source.lane])])
        return x

    def _add_across(self, wire: Wire, source: Placed, target: Placed, entry: str) -> None:
        lane = self.lanes[source.lane]
        x = target.x - max(target.width / 2 + TURN, _half_above(target) + 4.0) if entry == "left" else target.x
        track = None if lane.is_free(source.right, target.left) else lane.take_track(source.right, x)
        self.routes.append(Route(wire, source, target, x, entry, track))

    def _add_vertical(self, wire: Wire, source: Placed, target: Placed, x: float, entry: str) -> None:
        begin, own = self.lanes[source.lane], self.lanes[target.lane]
        track = None if begin.is_free(source.right, x) else begin.take_track(source.right, x)
        route = Route(wire, source, target, x, entry, track)
        self.routes.append(route)
        low, high = sorted((source.lane, target.lane))
        for lane in self.lanes[low : high + 1]:
            if lane is not own:
                lane.extend(x + 4.0, x + 4.0)
        if target.part.kind == "pool" and not target.text:
            begin.extend(texts=x + TURN + measure_lines(target.part.lines))
        if entry == "bottom" and wire.steps:
            fits = own.texts + label_width(wire) + TURN <= x
            route.label = "left" if fits else "right"
            own.extend(texts=x + 4.0 if fits else x + TURN + label_width(wire))


def _half_above(placed: Placed) -> float:
    """Return half the width of what is in the height of the boxes: the name of a join is above it, others below."""
    return max(placed.width, placed.text if placed.part.kind == "join" else 0.0) / 2


def _measure_part(part: Part, lane: int, ups: Sequence[float]) -> Placed:
    """Return a part with its sizes; ``ups`` are the widths of the captions of the wires that rise to it."""
    text = measure_lines(part.lines)
    if part.kind == "join":
        width = 2 * JOIN if part.sign == "+" else measure(part.sign, bold=True) + 16.0
        if len(ups) > 1:
            width = max(width, (len(ups) - 1) * (max(ups) + 2 * TURN) + 2 * JOIN)
        return Placed(part, lane, width, 2 * JOIN, text)
    if part.sign:
        return Placed(part, lane, measure(part.sign, bold=True) + 18.0, PILL, text)
    shown = part.slabs[:MOST_SLABS]
    return Placed(part, lane, sum(map(slab_width, shown)) + 2.0 * (len(shown) - 1), slab_height(part.stride), text)

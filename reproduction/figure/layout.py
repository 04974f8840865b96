"""Compute the shapes of a drawing from the places of its parts: heights of lanes, boxes, captions and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reproduction.figure.lanes import JOIN, MOST_SLABS, TURN, Lane, Placed, Placement, Route
from reproduction.figure.parts import Part
from reproduction.figure.shapes import FONT, LINE, Box, Drawing, Line, Rect, Text, measure, slab_width

_MARGIN, _TOP = 12.0, 58.0  # at the sides, and above the lanes for the title
_TRACK = 17.0  # from one track to the next
_NAME_OF_JOIN = 28.0  # from the middle of a lane to the top of a join's name
_CENTRE = 0.35 * FONT  # from the middle of a text to its baseline


@dataclass(frozen=True)
class _Heights:
    """Where a lane is: its top, its middle line, the top of its boxes, the first baseline of captions, its bottom."""

    top: float
    middle: float
    head: float
    captions: float
    bottom: float


def find_drawing(parts: Sequence[Part], title: str, about: str, legend: Sequence[tuple[str, str]]) -> Drawing:
    """Return the shapes of a drawing.

    Args:
        parts: The parts, each after those that it reads.
        title: The name of the net.
        about: A line below it.
        legend: The CSS class and the meaning of each kind of shape; an empty class is a remark.
    """
    places = Placement(parts)
    heights: list[_Heights] = []
    for number, lane in enumerate(places.lanes):
        heights.append(_find_heights(lane, number, places.routes, heights[-1].bottom if heights else _TOP))
    boxes, texts, lines = [], [], []
    for placed in places.placed.values():
        boxes += _find_boxes(placed, heights[placed.lane])
        texts += _find_captions(placed, heights, places.routes)
    for route in places.routes:
        lines.append(_find_line(route, heights))
        texts += _find_step_texts(route, heights)
    width = (
        max([*(text.rect.right for text in texts), *(box.rect.right for box in boxes), measure(about)]) + 2 * _MARGIN
    )
    bands = [
        Box(Rect(0, place.top, width, place.bottom), "odd" if number % 2 else "even", 0)
        for number, place in enumerate(heights)
    ]
    for lane, place in zip(places.lanes, heights, strict=True):
        name = "vectors" if lane.stride is None else f"stride {lane.stride}"
        texts.append(Text(_MARGIN, place.middle + _CENTRE, name, "start"))
    texts += [Text(_MARGIN, 26.0, title, "start", "title"), Text(_MARGIN, 46.0, about, "start")]
    bottom = _add_legend(legend, width, heights[-1].bottom + 22.0, boxes, texts, lines)
    return Drawing(width, bottom + _MARGIN, bands, boxes, texts, lines)


def _find_heights(lane: Lane, number: int, routes: Sequence[Route], top: float) -> _Heights:
    lines = [len(placed.part.lines) for placed in lane.placed if placed.text]
    for route in routes:
        if route.target.lane == number < route.source.lane:
            lines.append(sum(len(step.lines) for step in route.wire.steps))
        if route.source.lane == number and route.target.part.kind == "pool" and not route.target.text:
            lines.append(len(route.target.part.lines))
    half = max(placed.height for placed in lane.placed) / 2
    has_join = any(placed.part.kind == "join" and placed.part.lines for placed in lane.placed)
    head = max(half, _NAME_OF_JOIN if has_join else 0.0)
    middle = top + 10.0 + _TRACK * len(lane.tracks) + head
    captions = middle + half + FONT + 3.0
    return _Heights(top, middle, middle - head, captions, captions + LINE * (max(lines, default=1) - 1) + 10.0)


def _find_boxes(placed: Placed, place: _Heights) -> list[Box]:
    top, bottom = place.middle - placed.height / 2, place.middle + placed.height / 2
    if placed.part.sign:
        radius = JOIN if placed.part.kind == "join" else 6.0
        return [Box(Rect(placed.left, top, placed.right, bottom), placed.part.kind, radius)]
    boxes, x = [], placed.left
    for channels in placed.part.slabs[:MOST_SLABS]:
        boxes.append(Box(Rect(x, top, x + slab_width(channels), bottom), placed.part.kind))
        x += slab_width(channels) + 2.0
    return boxes


def _find_captions(placed: Placed, heights: Sequence[_Heights], routes: Sequence[Route]) -> list[Text]:
    part, place = placed.part, heights[placed.lane]
    texts = [Text(placed.x, place.middle + _CENTRE, part.sign, style="sign")] if part.sign else []
    if part.kind == "join":
        from_above = any(route.target is placed and route.entry == "top" for route in routes)
        y = place.captions if from_above else place.middle - JOIN - 6.0
        return texts + [Text(placed.x, y, line) for line in part.lines[:1]]
    x, anchor, y = placed.x, "middle", place.captions
    if not placed.text and part.lines:
        (route,) = (route for route in routes if route.target is placed)
        x, anchor, y = route.x + TURN - 4.0, "start", heights[route.source.lane].captions
    for number, line in enumerate(part.lines):
        style = "name" if number == 0 and part.kind != "loss" else "soft"
        texts.append(Text(x, y + number * LINE, line, anchor, style))
    return texts


def _find_line(route: Route, heights: Sequence[_Heights]) -> Line:
    source, target = route.source, route.target
    begin, end = heights[source.lane].middle, heights[target.lane].middle
    points = [(source.right, begin)]
    if route.track is not None:
        begin = heights[source.lane].head - 6.0 - _TRACK * route.track
        points += [(source.right + TURN, points[0][1]), (source.right + TURN, begin)]
    points.append((route.x, begin))
    if route.entry == "left":
        points += [(route.x, end), (target.left, end)]
    else:
        points.append((route.x, end + (-0.5 if route.entry == "top" else 0.5) * target.height))
    return Line(_without_middles(points), any(step.kind == "up" for step in route.wire.steps))


def _without_middles(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the points of a line without those at which it does not bend."""
    kept = [points[0]]
    for point in points[1:]:
        if point == kept[-1]:
            continue
        if len(kept) > 1 and any(kept[-2][axis] == kept[-1][axis] == point[axis] for axis in (0, 1)):
            kept.pop()
        kept.append(point)
    return tuple(kept)


def _find_step_texts(route: Route, heights: Sequence[_Heights]) -> list[Text]:
    """Return the caption of what happens on a wire: above it in a lane, else next to it in the lane of its target."""
    steps, source, target = route.wire.steps, route.source, route.target
    if source.lane == target.lane:
        line = ", ".join(line for step in steps for line in step.lines)
        place = heights[source.lane]
        y = place.middle if route.track is None else place.head - 6.0 - _TRACK * route.track
        return [Text((source.right + target.left) / 2, y - 4.0, line, style="step")] if line else []
    x, anchor = (route.x - TURN + 4.0, "end") if route.label == "left" else (route.x + TURN - 4.0, "start")
    texts, y = [], heights[target.lane].captions
    for step in steps:
        for number, line in enumerate(step.lines):
            style = "step" if step.kind != "up" else "name" if step.is_named and number == 0 else "soft"
            texts.append(Text(x, y, line, anchor, style))
            y += LINE
    return texts


def _add_legend(
    legend: Sequence[tuple[str, str]], width: float, y: float, boxes: list[Box], texts: list[Text], lines: list[Line]
) -> float:
    """Add the legend to the shapes, in as many rows as it needs, and return the baseline of the last one."""
    x = _MARGIN
    for style, text in legend:
        sign = {"": 0.0, "crop": 0.0, "up": 28.0}.get(style, 20.0)
        if x > _MARGIN and x + sign + measure(text) > width - _MARGIN:
            x, y = _MARGIN, y + 20.0
        if style == "up":
            lines.append(Line(((x, y - _CENTRE), (x + sign - 6.0, y - _CENTRE)), is_up=True))
        elif sign:
            boxes.append(Box(Rect(x, y - 11.0, x + sign - 6.0, y + 1.0), style))
        texts.append(Text(x + sign, y, text, "start", "step" if style == "crop" else "soft"))
        x += sign + measure(text) + 18.0
    return y

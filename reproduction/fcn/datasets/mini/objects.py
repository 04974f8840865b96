"""The objects of Mini-VOC: six classes, each with a characteristic shape, texture and thin parts.

An object is drawn from signed distances: each part (a leg, a fin) is an array of the distance of every pixel to the
part's edge, negative inside, in units of the object's radius. All numbers are in double precision, so that rounding
differences between machines change no pixel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable

import numpy as np

from reproduction.caffe.typing import Float64

Random = np.random.RandomState  # NumPy guarantees the same numbers in every version
Colour = tuple[float, float, float]
Paint = Colour | Float64  # one colour, or one for each pixel, (3, H, W)
Point = tuple[float, float]

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
_REACH = 1.12  # half the side of an object's patch, in radii
_LEAST_PX = 0.9  # half the width of the thinnest part, in pixels


class DrawnObject:
    """A square patch of S x S pixels with an object in its middle, drawn part by part, each over the previous ones.

    Args:
        radius: Radius of the object, in pixels.
        angle: Rotation, in radians.
        mirror: If True, the object is mirrored.
        light: Direction of the light, as a unit vector (right, down).

    Attributes:
        x: Coordinate of each pixel towards the object's right, (S, S), in radii; 0 in the middle.
        y: Coordinate of each pixel towards the object's bottom, (S, S), in radii; 0 in the middle.
        pixel: Size of a pixel, in radii.
        distance: Signed distance of each pixel to the edge of the whole object, (S, S), in radii; negative inside.
        rgb: Colours, (3, S, S), nominally 0 to 1; 0 outside the object.
    """

    def __init__(self, radius: float, angle: float, mirror: bool, light: Point):
        half = math.ceil(_REACH * radius)
        axis = np.arange(-half, half + 1) / radius
        right, down = axis[None, :], axis[:, None]
        cos, sin = math.cos(angle), math.sin(angle)
        self.x = (cos * right + sin * down) * (-1 if mirror else 1)
        self.y = cos * down - sin * right
        self.pixel = 1 / radius
        self.distance = np.full(self.x.shape, np.inf)
        self.rgb = np.zeros((3, *self.x.shape))
        self._lit = 1 + 0.25 * (right * light[0] + down * light[1])

    @property
    def alpha(self) -> Float64:
        """The fraction of each pixel that the object covers, (S, S), 0 to 1; between 0 and 1 on the edge."""
        return self._cover(self.distance)

    def add(self, distance: Float64, colour: Paint, rounding: float = 0.0) -> None:
        """Draw a part of the object over the parts that were drawn before.

        Args:
            distance: Signed distance of each pixel to the part's edge, (S, S), in radii.
            colour: One colour, or one for each pixel, (3, S, S).
            rounding: Width of the zone inside the edge in which the part gets darker, in radii, so that it looks round;
                0 for a flat part.
        """
        cover = self._cover(distance)
        light = self._lit
        if rounding:
            light = light * (1 - 0.5 * np.clip(1 + distance / rounding, 0, 1) ** 2)
        self.rgb += (solid(colour) * light - self.rgb) * cover
        np.minimum(self.distance, distance, out=self.distance)

    def thin(self, width: float) -> float:
        """Return ``width``, the half width of a part, but at least that of the thinnest visible part; in radii."""
        return max(width, _LEAST_PX * self.pixel)

    def _cover(self, distance: Float64) -> Float64:
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    # ---- distances

    def disc(self, x: float, y: float, r: float) -> Float64:
        """Return the signed distance of each pixel to a disc of centre (x, y) and radius r, (S, S), all in radii."""
        return self.to(x, y) - r

    def to(self, x: float, y: float) -> Float64:
        """Return the distance of each pixel to the point (x, y), (S, S), in radii."""
        return np.sqrt((self.x - x) ** 2 + (self.y - y) ** 2)

    def ellipse(self, x: float, y: float, a: float, b: float) -> Float64:
        """Return each pixel's approximate signed distance to an ellipse, centre (x, y), half axes a and b; (S, S)."""
        return (np.sqrt(((self.x - x) / a) ** 2 + ((self.y - y) / b) ** 2) - 1) * min(a, b)

    def bar(self, start: Point, end: Point, r: float, r_end: float | None = None) -> Float64:
        """Return the signed distance of each pixel to a bar with round ends.

        Args:
            start: Centre of one end, (x, y).
            end: Centre of the other end, (x, y).
            r: Half width.
            r_end: Half width at ``end``, if the bar tapers.

        Returns:
            (S, S), in radii; approximate for a tapering bar.
        """
        (x0, y0), (x1, y1) = start, end
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        away = np.sqrt((self.x - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2)
        return away - r if r_end is None else away - (r + (r_end - r) * along)

    def corners(self, *points: Point) -> Float64:
        """Return each pixel's approximate signed distance to a convex polygon, corners clockwise on the screen."""
        distance = np.full(self.x.shape, -np.inf)
        for (x0, y0), (x1, y1) in zip(points, (*points[1:], points[0]), strict=True):
            dx, dy = x1 - x0, y1 - y0
            length = math.sqrt(dx * dx + dy * dy)
            np.maximum(distance, ((self.x - x0) * dy - (self.y - y0) * dx) / length, out=distance)
        return distance


def hue(rng: Random, centre: float, spread: float, saturation: Point, value: Point) -> Colour:
    """Return a random colour of about a given hue; 0 turns is red, 1/3 green and 2/3 blue.

    Args:
        rng: The random generator.
        centre: Mean of the hue, in turns.
        spread: Largest deviation of the hue from ``centre``, in turns.
        saturation: Range of the saturation, 0 to 1.
        value: Range of the value, 0 to 1.

    Returns:
        R, G, B, 0 to 1.
    """
    turn = (centre + rng.uniform(-spread, spread)) % 1 * 6
    s, high = rng.uniform(*saturation), rng.uniform(*value)
    red, green, blue = (high * (1 - s + s * min(max(abs((turn + k) % 6 - 3) - 1, 0), 1)) for k in (0, 4, 2))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """Return a colour with its channels multiplied by ``share``, 0 to 1."""
    red, green, blue = colour
    return share * red, share * green, share * blue


def mix(share: Float64 | float, one: Paint, other: Paint) -> Float64:
    """Blend two colours, pixel by pixel: ``one`` where the share is 0, ``other`` where it is 1; (3, H, W)."""
    a, b = solid(one), solid(other)
    return np.asarray(a + (b - a) * share)


def solid(paint: Paint) -> Float64:
    """Return one colour as an array (3, 1, 1), to broadcast; return an array of colours (3, H, W) unchanged."""
    return paint if isinstance(paint, np.ndarray) else np.array(paint)[:, None, None]


def union(distances: Iterable[Float64]) -> Float64:
    """Return the signed distance to the union of several parts, from the signed distance to each."""
    return functools.reduce(np.minimum, distances)


def _step(values: Float64, sharp: float) -> Float64:
    return np.clip(0.5 + values * sharp, 0, 1)


def _fold(values: Float64) -> Float64:
    """Return a triangle wave of period 1: 1 at integers, 0 halfway between them."""
    return np.abs(2 * (values - np.floor(values)) - 1)


def beetle(t: DrawnObject, rng: Random) -> None:
    """Draw a beetle into the patch ``t``: a striped oval body on six bent legs, with feelers."""
    dark = hue(rng, 0.05, 0.1, (0.3, 0.7), (0.08, 0.22))
    bright = hue(rng, 0.12, 0.06, (0.7, 0.95), (0.75, 1.0))
    leg = t.thin(rng.uniform(0.035, 0.05))
    legs = []
    for side in (-1, 1):
        for y, out, down in ((-0.22, 0.78, -0.62), (0.08, 0.92, 0.12), (0.34, 0.66, 0.8)):
            knee = (side * (out - rng.uniform(0.2, 0.32)), y + (down - y) * rng.uniform(0.1, 0.4) - 0.1)
            legs += [t.bar((0.2 * side, y), knee, leg * 1.3, leg), t.bar(knee, (side * out, down), leg, leg * 0.7)]
        legs.append(t.bar((0.07 * side, -0.72), (side * rng.uniform(0.2, 0.4), -1.0), leg * 0.6))
    t.add(union(legs), dark)
    t.add(t.disc(0, -0.6, 0.2), dark, 0.15)
    stripes = _fold(t.y * rng.uniform(2.6, 3.4) + rng.uniform(0, 1) + 0.25 * t.x**2) - 0.45
    shell = mix(_step(stripes, 0.18 / t.pixel), dark, bright)
    t.add(t.ellipse(0, 0.08, 0.4, 0.58), shell, 0.3)
    t.add(np.maximum(np.abs(t.x) - 0.6 * t.pixel, t.ellipse(0, 0.08, 0.4, 0.56)), dark)


def fish(t: DrawnObject, rng: Random) -> None:
    """Draw a fish into the patch ``t``: a body of scales with a notched tail, fins of rays, and an eye."""
    body = hue(rng, 0.56, 0.09, (0.45, 0.9), (0.55, 0.95))
    edge = darker(body, 0.45)
    fin = hue(rng, 0.04, 0.05, (0.6, 0.95), (0.7, 1.0))
    fins = mix(_step(_fold(t.y * 9 + t.x * 3) - 0.7, 4), fin, darker(fin, 0.6))
    flare = rng.uniform(0.55, 0.75)
    tail = np.maximum(np.abs(t.y) + flare * (t.x + 0.42) - 0.05, -0.82 - t.x - 0.3 * np.abs(t.y))
    t.add(np.maximum(np.maximum(tail, t.x + 0.3), -t.disc(-1.04, 0, 0.33)), fins)
    t.add(t.corners((-0.25, -0.2), (0.02, -0.68), (0.4, -0.2)), fins)
    t.add(t.corners((-0.1, 0.25), (0.2, 0.2), (-0.12, 0.62)), fins)
    size = rng.uniform(4.2, 5.2)
    u, v = t.x * size, t.y * size * 1.15
    column = np.floor(u)
    v = v + 0.5 * (column - 2 * np.floor(column / 2))
    across, up = u - column - 0.15, v - np.floor(v) - 0.5
    scales = np.clip(1.35 - 1.5 * np.sqrt(across**2 + up**2), 0, 1)
    belly = _step(t.y, 1.2) * 0.35
    t.add(t.ellipse(0.2, 0, 0.72, 0.36), mix(belly, mix(scales, edge, body), WHITE), 0.22)
    t.add(t.disc(0.62, -0.08, 0.085), (0.97, 0.97, 0.92))
    t.add(t.disc(0.64, -0.08, 0.045), (0.03, 0.03, 0.05))


def flower(t: DrawnObject, rng: Random) -> None:
    """Draw a flower into the patch ``t``: petals around a dotted disc, on a thin stem with leaves."""
    petal = hue(rng, 0.9, 0.09, (0.35, 0.85), (0.75, 1.0))
    heart = hue(rng, 0.13, 0.03, (0.7, 0.95), (0.75, 0.95))
    green = hue(rng, 0.3, 0.05, (0.5, 0.85), (0.3, 0.6))
    lean = rng.uniform(-0.2, 0.2)
    stem = t.thin(rng.uniform(0.04, 0.055))
    for start, end in (((0.0, -0.4), (lean, 0.3)), ((lean, 0.3), (lean * 0.6, 1.02))):
        t.add(t.bar(start, end, stem), green)
    for side in (-1, 1):
        node = rng.uniform(0.3, 0.6)
        tip = (lean + side * rng.uniform(0.42, 0.55), node - rng.uniform(0.12, 0.3))
        t.add(t.bar((lean, node), tip, 0.1, 0.02), green, 0.1)
    x, y = t.x, t.y + 0.45
    r = np.sqrt(x * x + y * y)
    count = rng.randint(5, 9)
    wave = np.cos(count * np.arctan2(y, x) + rng.uniform(0, 6))
    shade = np.clip(0.35 + r * 1.4, 0, 1) * (0.85 + 0.15 * wave)
    t.add((r - 0.38 - 0.15 * wave) * 0.75, mix(shade, darker(petal, 0.45), petal), 0.12)
    dots = (x * 15 - np.floor(x * 15) - 0.5) ** 2 + (y * 15 - np.floor(y * 15) - 0.5) ** 2
    t.add(r - 0.17, mix(_step(0.09 - dots, 12), heart, darker(heart, 0.4)), 0.12)


def jellyfish(t: DrawnObject, rng: Random) -> None:
    """Draw a jellyfish into the patch ``t``: a glowing bell with rings, and thin wavy arms below it."""
    glow = hue(rng, 0.8, 0.1, (0.15, 0.45), (0.8, 1.0))
    deep = hue(rng, 0.75, 0.1, (0.5, 0.9), (0.4, 0.7))
    width = t.thin(rng.uniform(0.035, 0.05))
    speed = rng.uniform(5, 8)
    taper = width * np.clip(1.3 - 0.6 * t.y, 0.6, 1.5)
    arms = []
    for x in np.linspace(-0.5, 0.5, rng.randint(5, 7)):
        curve = x * (1 - 0.25 * t.y) + 0.07 * np.sin(speed * t.y + rng.uniform(0, 6))
        arms.append(np.maximum(np.abs(t.x - curve) * 0.92 - taper, t.y - rng.uniform(0.65, 1.0)))
    t.add(np.maximum(union(arms), -0.2 - t.y), mix(np.clip(t.y, 0, 1), deep, glow))
    bell = t.ellipse(0, -0.2, 0.72, 0.68)
    rim = -0.12 + 0.05 * np.cos(t.x * rng.randint(14, 20))
    height = np.sqrt((t.x / 0.72) ** 2 + ((t.y + 0.1) / 0.68) ** 2)
    rings = _step(_fold(height * 3.4 + rng.uniform(0, 1)) - 0.6, 5)
    colours = mix(np.clip(0.25 + 0.75 * height, 0, 1), glow, deep)
    t.add(np.maximum(bell, t.y - rim), mix(0.3 * rings, colours, WHITE), 0.1)


def kite(t: DrawnObject, rng: Random) -> None:
    """Draw a kite into the patch ``t``: checkered, with a long thin tail of bows."""
    one = hue(rng, 0.0, 0.06, (0.7, 0.95), (0.7, 0.95))
    other = hue(rng, 0.15, 0.05, (0.1, 0.6), (0.9, 1.0))
    wide, top, low = rng.uniform(0.5, 0.62), -1.0, 0.22
    tail = t.thin(rng.uniform(0.025, 0.035))
    swing, speed = rng.uniform(0.08, 0.16), rng.uniform(6, 9)

    string = np.abs(t.x - swing * np.sin(speed * (t.y - low))) * 0.75 - tail
    t.add(np.maximum(string, np.maximum(low - 0.1 - t.y, t.y - 0.96)), (0.2, 0.15, 0.15))
    for side, colour in ((-1, one), (1, other)):
        knots = [(swing * math.sin(speed * (y - low)), y) for y in (0.48, 0.71, 0.94)]
        bows = [t.bar((x, y), (x + 0.13 * side, y + rng.uniform(-0.05, 0.05)), 0.02, 0.085) for x, y in knots]
        t.add(union(bows), colour)
    size = rng.uniform(3.2, 4.2)
    u, v = (t.x + t.y) * size, (t.y - t.x) * size
    checks = np.minimum(np.abs(_fold(u * 0.5) - 0.5), np.abs(_fold(v * 0.5) - 0.5))
    checks *= np.sign((_fold(u * 0.5) - 0.5) * (_fold(v * 0.5) - 0.5))
    sail = t.corners((0, top), (wide, -0.4), (0, low), (-wide, -0.4))
    t.add(sail, mix(_step(checks, 12), one, other), 0.05)
    for start, end in (((0.0, top), (0.0, low)), ((-wide, -0.4), (wide, -0.4))):
        t.add(np.maximum(t.bar(start, end, t.thin(0.02)), sail), (0.25, 0.18, 0.12))


def wheel(t: DrawnObject, rng: Random) -> None:
    """Draw a wheel into the patch ``t``: a tyre with treads, a rim, a hub, and thin spokes with nothing in between."""
    rubber = hue(rng, 0.6, 0.3, (0.0, 0.2), (0.12, 0.3))
    metal = hue(rng, 0.1, 0.5, (0.0, 0.3), (0.7, 0.95))
    r = t.to(0, 0)
    angle = np.arctan2(t.y, t.x) / (2 * math.pi)
    count, spoke = rng.randint(6, 10), t.thin(rng.uniform(0.03, 0.045))
    place = angle * count + rng.uniform(0, 1)
    between = (place - np.floor(place) - 0.5) * (2 * math.pi / count)
    t.add(np.maximum(np.abs(r * np.sin(between)) - spoke, r - 0.76), metal)
    tread = _step(_fold(angle * rng.randint(22, 30) + r * 3) - 0.6, 4)
    width = rng.uniform(0.1, 0.15)
    t.add(np.abs(r - 1 + width) - width, mix(tread * 0.5, rubber, metal), width)
    t.add(np.abs(r - 0.98 + 2 * width) - t.thin(0.035), metal)
    t.add(r - 0.16, metal, 0.12)
    t.add(r - 0.06, rubber)


#: The drawing function of each class except background, by name, in the order of the labels.
DRAWERS: dict[str, Callable[[DrawnObject, Random], None]] = {
    draw.__name__: draw for draw in (beetle, fish, flower, jellyfish, kite, wheel)
}

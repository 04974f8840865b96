"""The images of Mini-VOC and their label maps: objects in front of a background.

An image depends only on the random generator. All numbers are in double precision, drawn by NumPy's frozen RandomState
and summed in a fixed order, so that every machine draws the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reproduction.caffe.typing import Bool, Float64, UInt8
from reproduction.fcn.datasets.mini.objects import (
    BLACK,
    DRAWERS,
    WHITE,
    DrawnObject,
    Point,
    Random,
    darker,
    hue,
    mix,
    solid,
)

_EDGE = 0.2  # a pixel is void if an object covers between this and 1 minus this of it


@dataclass(frozen=True)
class Scene:
    """A drawn image of Mini-VOC and its labels.

    Attributes:
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8; 0 for background, then the classes in the order of ``DRAWERS``.
        void: (H, W) bool; True for pixels on the edge of an object.
    """

    rgb: UInt8
    labels: UInt8
    void: Bool


def draw_scene(
    rng: Random, height: int, width: int, kinds: Sequence[int], radii: tuple[float, float], inside: float
) -> Scene:
    """Draw an image of objects in front of a random background, with its labels.

    Args:
        rng: The random generator.
        height: Height in pixels.
        width: Width in pixels.
        kinds: The class of each object, 1 to the number of classes, the farthest first.
        radii: Smallest and largest radius of an object, in pixels.
        inside: Smallest distance of an object's centre from the image's border, in the object's radii, if the image is
            large enough.
    """
    angle = rng.uniform(0, 2 * math.pi)
    light = math.cos(angle), math.sin(angle)
    picture = GROUNDS[rng.randint(len(GROUNDS))](rng, height, width)
    labels = np.zeros((height, width), np.uint8)
    void = np.zeros((height, width), bool)
    taken: list[tuple[int, int]] = []
    for kind in kinds:
        radius = radii[0] * (radii[1] / radii[0]) ** rng.uniform(0, 1)
        where = _place(rng, inside * radius, height, width, taken)
        taken.append(where)
        drawn = DrawnObject(radius, rng.uniform(-math.pi, math.pi), rng.uniform() < 0.5, light)
        list(DRAWERS.values())[kind - 1](drawn, rng)
        _lay(picture, labels, void, drawn, kind, where, light)
    return Scene(_expose(rng, picture), labels, void)


def _place(rng: Random, inside: float, height: int, width: int, taken: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Choose the centre of an object: of four random positions, the one farthest from the other objects."""
    places = []
    for _ in range(4):
        spare = [max(size - 2 * inside, 0) for size in (height, width)]
        down, right = (
            size / 2 + rng.uniform(-0.5, 0.5) * room for size, room in zip((height, width), spare, strict=True)
        )
        places.append((int(down), int(right)))
    return max(places, key=lambda here: min(((here[0] - y) ** 2 + (here[1] - x) ** 2 for y, x in taken), default=0))


def _lay(
    picture: Float64,
    labels: UInt8,
    void: Bool,
    drawn: DrawnObject,
    kind: int,
    where: tuple[int, int],
    light: Point,
) -> None:
    """Draw an object and its shadow over the image, and update the labels."""
    alpha = drawn.alpha
    reach = alpha.shape[0] // 2
    shift = max(2, round(reach / 9))
    shadow = _blurred(alpha, shift) * 0.45
    down, right = round(-light[1] * shift), round(-light[0] * shift)
    there, here = _overlap(picture.shape[1:], shadow.shape, (where[0] + down - reach, where[1] + right - reach))
    picture[(slice(None), *there)] *= 1 - shadow[here]
    there, here = _overlap(picture.shape[1:], alpha.shape, (where[0] - reach, where[1] - reach))
    part, cover = picture[(slice(None), *there)], alpha[here]
    part += (drawn.rgb[(slice(None), *here)] - part) * cover
    mine = cover >= 0.5
    labels[there][mine] = kind
    # Where the object covers a pixel almost completely, it hides the edges of the objects behind it.
    void[there] = np.where(cover > 1 - _EDGE, False, void[there] | (cover > _EDGE))


def _overlap(
    size: tuple[int, ...], patch: tuple[int, ...], corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the image and of a patch at ``corner`` in which they overlap."""
    there, here = [], []
    for length, side, start in zip(size, patch, corner, strict=True):
        low, high = max(start, 0), max(min(start + side, length), start, 0)
        there.append(slice(low, high))
        here.append(slice(low - start, high - start))
    return (there[0], there[1]), (here[0], here[1])


def _blurred(values: Float64, reach: int) -> Float64:
    """Blur with a box filter, twice along each axis."""
    width = 2 * reach + 1
    for axis in (0, 1, 0, 1):
        before = [(0, 0), (0, 0)]
        before[axis] = (reach + 1, reach)
        sums = np.moveaxis(np.cumsum(np.pad(values, before), axis), axis, 0)
        values = np.moveaxis(sums[width:] - sums[:-width], 0, axis) / width
    return values


def _expose(rng: Random, picture: Float64) -> UInt8:
    """Apply uneven lighting, a colour cast, an exposure and noise; return (H, W, 3) uint8."""
    _, height, width = picture.shape
    across = np.linspace(-1, 1, width)[None, :] * rng.uniform(-0.18, 0.18)
    down = np.linspace(-1, 1, height)[:, None] * rng.uniform(-0.18, 0.18)
    gain = rng.uniform(0.75, 1.15) * np.array([rng.uniform(0.9, 1.1) for _ in range(3)])
    picture = picture * (1 + across + down) * gain[:, None, None] + rng.uniform(-0.04, 0.06)
    noise = rng.randint(-4, 5, (1, height, width)) + rng.randint(-3, 4, picture.shape)
    return np.clip(np.rint(picture * 255 + noise), 0, 255).astype(np.uint8).transpose(1, 2, 0)


# ---- grounds


def noise(rng: Random, height: int, width: int, cell: Point, octaves: int = 3) -> Float64:
    """Return smooth random noise with patches of several sizes, (H, W), around 0, mostly within -1 to 1.

    Args:
        rng: The random generator.
        height: Height in pixels.
        width: Width in pixels.
        cell: Height and width of the largest patches, in pixels.
        octaves: Number of layers that are added up; each has patches of half the size of the previous one.
    """
    total = np.zeros((height, width))
    for octave in range(octaves):
        high, wide = (max(size / 2**octave, 1.5) for size in cell)
        lattice = rng.uniform(-1, 1, (int(height / high) + 2, int(width / wide) + 2))
        rows, down = _between(height, high)
        columns, right = _between(width, wide)
        upper, lower = lattice[rows], lattice[rows + 1]
        lines = upper + (lower - upper) * down[:, None]
        left = lines[:, columns]
        total += (left + (lines[:, columns + 1] - left) * right) * 0.6**octave
    return total


def _between(size: int, cell: float) -> tuple[npt.NDArray[np.intp], Float64]:
    place = np.arange(size) / cell
    first = np.floor(place).astype(np.intp)
    share = place - first
    return first, share * share * (3 - 2 * share)


def _meadow(rng: Random, height: int, width: int) -> Float64:
    blades = noise(rng, height, width, (9, 3), 2) + 0.5 * noise(rng, height, width, (40, 40), 2)
    dark, light = hue(rng, 0.28, 0.06, (0.4, 0.7), (0.15, 0.3)), hue(rng, 0.24, 0.06, (0.4, 0.7), (0.45, 0.7))
    return mix(np.clip(0.5 + 0.45 * blades, 0, 1), dark, light)


def _sky(rng: Random, height: int, width: int) -> Float64:
    horizon = rng.uniform(0.45, 0.85) * height + 9 * noise(rng, 1, width, (1, 45), 2)
    rows = np.arange(height)[:, None]
    blue, haze = hue(rng, 0.58, 0.04, (0.35, 0.7), (0.6, 0.9)), hue(rng, 0.56, 0.1, (0.05, 0.25), (0.8, 1.0))
    clouds = np.clip(noise(rng, height, width, (26, 60), 4) - 0.1, 0, 1)
    above = mix(rows / height, blue, haze)
    above = mix(clouds, above, WHITE)
    earth = hue(rng, 0.2, 0.12, (0.25, 0.6), (0.3, 0.55))
    shade = 0.35 + 0.3 * noise(rng, height, width, (8, 22), 3)
    below = mix(np.clip(shade, 0, 1), earth, (0.12, 0.13, 0.1))
    return mix(np.clip(rows - horizon, 0, 1), above, below)


def _sand(rng: Random, height: int, width: int) -> Float64:
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    bend = noise(rng, height, width, (40, 50), 2)
    a = rng.uniform(-0.6, 0.6)
    ripples = np.sin((y * math.cos(a) + x * math.sin(a)) / rng.uniform(1.6, 3.2) + 4 * bend)
    grain = noise(rng, height, width, (2.5, 2.5), 1)
    light = hue(rng, 0.1, 0.04, (0.25, 0.5), (0.7, 0.9))
    return mix(np.clip(0.4 + 0.28 * ripples + 0.2 * grain, 0, 1), light, darker(light, 0.6))


def _water(rng: Random, height: int, width: int) -> Float64:
    waves = noise(rng, height, width, (7, 24), 3)
    glints = np.clip(1 - 7 * np.abs(waves), 0, 1)
    deep, shallow = hue(rng, 0.58, 0.06, (0.6, 0.9), (0.25, 0.45)), hue(rng, 0.5, 0.05, (0.35, 0.7), (0.5, 0.75))
    water = mix(np.clip(0.5 + 0.5 * waves, 0, 1), deep, shallow)
    return mix(0.35 * glints, water, WHITE)


def _bricks(rng: Random, height: int, width: int) -> Float64:
    high = rng.uniform(11, 18)
    y = np.arange(height)[:, None] / high + rng.uniform(0, 1)
    row = np.floor(y).astype(int)
    x = np.arange(width)[None, :] / (2.2 * high) + 0.5 * (row % 2)
    column = np.floor(x).astype(int)
    tones = rng.uniform(0.75, 1.15, (64, 64))[row % 64, column % 64]
    u, v = x - column, y - row
    mortar = np.clip(1 - np.minimum(np.minimum(u, 1 - u) * 2.2, np.minimum(v, 1 - v)) * high / 1.3, 0, 1)
    clay = hue(rng, 0.03, 0.03, (0.45, 0.7), (0.45, 0.75))
    wall = solid(clay) * tones * (1 + 0.18 * noise(rng, height, width, (5, 7), 3))
    return mix(mortar, wall, darker((0.7, 0.68, 0.64), rng.uniform(0.6, 1.1)))


def _planks(rng: Random, height: int, width: int) -> Float64:
    wide = rng.uniform(18, 34)
    place = np.arange(width)[None, :] / wide + rng.uniform(0, 1)
    board = np.floor(place).astype(int)
    tones = rng.uniform(0.8, 1.15, 64)[board % 64]
    grain = noise(rng, height, width, (70, 5), 3)
    rings = np.sin(9 * grain + np.arange(height)[:, None] / 30)
    seam = np.clip(1 - np.minimum(place - board, 1 - place + board) * wide / 1.2, 0, 1)
    wood = hue(rng, 0.08, 0.03, (0.35, 0.65), (0.5, 0.8))
    floor = solid(wood) * tones * (1 + 0.12 * rings + 0.1 * grain)
    return mix(0.75 * seam, floor, BLACK)


def _cloth(rng: Random, height: int, width: int) -> Float64:
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    size = rng.uniform(16, 30)
    bands = [np.clip(6 * (np.abs(along / size - np.floor(along / size) - 0.5) - 0.25), -1, 1) for along in (y, x)]
    weave = np.where((y + x) % 2 == 0, 0.06, -0.06) + 0.08 * noise(rng, height, width, (30, 30), 2)
    one = hue(rng, 0.55, 0.5, (0.2, 0.6), (0.4, 0.7))
    other = hue(rng, 0.1, 0.1, (0.05, 0.2), (0.75, 0.95))
    return mix(0.5 + 0.25 * (bands[0] + bands[1]), one, other) * (1 + weave)


#: The functions that draw a background, (3, H, W).
GROUNDS: tuple[Callable[[Random, int, int], Float64], ...] = (_meadow, _sky, _sand, _water, _bricks, _planks, _cloth)

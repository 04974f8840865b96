"""Annotations in LabelMe's JSON: a file for each image, with polygons, rectangles, circles, lines, points and masks.

They are drawn in the order of the file, as LabelMe's export draws them: later shapes cover earlier ones, lines are 10
pixels wide and points have a radius of 5. The copy of the image in the file (``imageData``) is not decoded.

Source: wkentaro/labelme@51e50e4 labelme/_utils/shape.py, shape_to_mask, shapes_to_label.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from PIL import Image, ImageDraw

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import image_files, json_file
from reproduction.caffe.formats.json_file import OpenRecord, between
from reproduction.fcn.datasets.custom import outlines
from reproduction.fcn.datasets.custom.outlines import Annotations, LabelRegion, Size

LINE_WIDTH = 10  # pixels
POINT_RADIUS = 5
MOST_POINTS = 10_000  # of a line; Pillow takes milliseconds for each thousand
MOST_RADII = 4  # the largest radius of a circle, in sides of its image; Pillow's time grows with the radius
_POLYGONS = ("polygon", "oriented_rectangle", None)
_Side = Annotated[int, between(1, image_files.MAX_SIDE)]


@dataclass(frozen=True)
class LabelMeShape(OpenRecord):
    """A shape: the name of its class, its points as parsed JSON, its type, and its mask as a base64 PNG, if any."""

    label: str
    points: Any
    shape_type: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class LabelMeFile(OpenRecord):
    """The shapes of an image, and its size in pixels, if it is stated."""

    shapes: Sequence[LabelMeShape]
    imageHeight: _Side | None = None  # noqa: N815 (LabelMe's name)
    imageWidth: _Side | None = None  # noqa: N815


def load(path: Path) -> LabelMeFile:
    """Load a file that LabelMe wrote; it is cached until it changes.

    Raises:
        DataError: If the file cannot be read, or is not in LabelMe's format.
    """
    return outlines.load_cached(path, _load)


@lru_cache(maxsize=1 << 16)
def _load(path: Path, size: int, changed: int) -> LabelMeFile:
    return json_file.load(path, LabelMeFile, "not LabelMe's JSON")


class LabelMe(Annotations):
    """The shapes of several images.

    Args:
        paths: Path of the JSON file of each image id.
    """

    title = "LabelMe JSON"
    rule = "later shapes cover earlier ones"

    def __init__(self, paths: Mapping[str, Path]):
        self._paths = paths

    def names(self) -> tuple[str, ...]:
        """Return the labels of all shapes in alphabetic order; this reads every file."""
        return outlines.join_names(
            [sorted({shape.label for path in self._paths.values() for shape in load(path).shapes})]
        )

    def size(self, image_id: str) -> Size | None:
        """Return the (height, width) that an image's file states, or None."""
        found = load(self._paths[image_id])
        return (found.imageHeight, found.imageWidth) if found.imageHeight and found.imageWidth else None

    def regions(self, image_id: str) -> list[LabelRegion]:
        """Return the regions of an image's shapes, in the order of the file.

        Raises:
            DataError: If the file is not LabelMe's, or a shape is invalid.
        """
        found = load(self._paths[image_id])
        return [_region(shape, f"shape {number}") for number, shape in enumerate(found.shapes, 1)]


def _region(shape: LabelMeShape, place: str) -> LabelRegion:
    name, kind = shape.label, shape.shape_type
    if kind in _POLYGONS:
        return outlines.polygon_region(name, [outlines.check_points(shape.points, 3, place)])
    least = {"rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1, "points": 1, "mask": 2}.get(kind or "")
    if least is None:
        want = "polygon, rectangle, circle, line, linestrip, point, points or mask"
        raise DataError(f"{place} has an unknown type", got=json_file.format_value(kind), want=want)
    points = outlines.check_points(shape.points, least, place)
    (left, top), (right, bottom) = points[0], points[min(1, len(points) - 1)]
    if kind == "rectangle":
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return outlines.polygon_region(name, [corners])
    if kind == "mask":
        return _mask_region(shape, (int(min(left, right)), int(min(top, bottom))), place)
    if len(points) > MOST_POINTS:
        raise DataError(f"{place} has too many points", got=f"{len(points):,}", want=f"at most {MOST_POINTS:,}")
    radius = math.dist(points[0], points[1]) if kind == "circle" else POINT_RADIUS

    def draw(canvas: Image.Image, number: int) -> None:
        if radius > (most := max(MOST_RADII * max(canvas.size), POINT_RADIUS)):
            raise DataError(f"{place} is a circle far larger than its image", got=radius, want=f"a radius up to {most}")
        if kind in ("line", "linestrip"):
            ImageDraw.Draw(canvas).line(_clip(points, canvas), fill=number, width=LINE_WIDTH, joint="curve")
            return
        for x, y in points[:1] if kind == "circle" else points:
            ImageDraw.Draw(canvas).ellipse((x - radius, y - radius, x + radius, y + radius), fill=number)

    return LabelRegion(name, 0.0, draw)


def _clip(points: outlines.Points, canvas: Image.Image) -> list[tuple[float, float]]:
    """Move points that are far outside of an image to its border, since Pillow draws lines pixel by pixel."""
    far = LINE_WIDTH
    return [(min(max(x, -far), canvas.width + far), min(max(y, -far), canvas.height + far)) for x, y in points]


def _mask_region(shape: LabelMeShape, corner: tuple[int, int], place: str) -> LabelRegion:
    try:
        data = base64.b64decode(shape.mask or "", validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{place} has no valid mask", want="a PNG as base64") from None
    try:
        with image_files.open_image(io.BytesIO(data)) as image:
            mask = image_files.decode(image)
    except DataError as error:
        raise DataError(f"{place} has no valid mask ({error.problem})", want="a PNG as base64") from None
    if mask.ndim != 2:
        raise DataError(f"{place} has a mask in colour", want="a PNG in grey")
    return outlines.mask_region(shape.label, mask, corner)

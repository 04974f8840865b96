"""Outlines of things in images, as annotation programs store them, and the label maps that are drawn from them.

Pillow fills the outlines. Its rule for the border: coordinates are rounded towards zero to pixels, and every pixel on
the outline belongs to the region. LabelMe's own export does the same; COCO's ``pycocotools`` leaves out some of these
pixels. Regions are drawn in order, so that later ones cover earlier ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from reproduction.caffe.errors import DataError, cannot_read
from reproduction.caffe.formats import image_files, json_file
from reproduction.caffe.typing import Array, UInt8
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.custom.color_labels import VOID_NAME

T = TypeVar("T")
Size = tuple[int, int]  # height and width, pixels
Points = Sequence[tuple[float, float]]  # x and y, pixels
Draw = Callable[[Image.Image, int], None]  # draws a region on an image of mode L, with a grey level

BACKGROUND = "background"
#: Names of the class of pixels in no outline, and names that mean void. Source: wkentaro/labelme@51e50e4
#: examples/semantic_segmentation/labels.txt.
BACKGROUND_NAMES = (BACKGROUND, "_background_", "__background__")
VOID_NAMES = (VOID_NAME, "__ignore__", "_ignore_")

_LARGEST = 1 << 20  # of a coordinate
_MAX_WORK = 1 << 28  # of points times rows, for which Pillow takes about 20 seconds


@dataclass(frozen=True)
class LabelRegion:
    """A region of an image that belongs to one class.

    Attributes:
        name: Name of the class.
        area: Number of pixels, at least approximately; it orders overlapping regions.
        draw: A function that draws the region on an image of mode L with a grey level.
    """

    name: str
    area: float
    draw: Draw


def load_cached(path: Path, load: Callable[[Path, int, int], T]) -> T:
    """Load a file of annotations again only if its size or its time of change differs.

    Args:
        path: The file.
        load: A function with a cache, called with the path, the size in bytes, and the time of change in nanoseconds.

    Raises:
        DataError: If the file cannot be read, or ``load`` raises it.
    """
    try:
        stat = path.stat()
        return load(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise cannot_read(error, "the annotations", path) from None


class Annotations(ABC):
    """The outlines in a user's images, by image id: what an annotation program wrote.

    Attributes:
        title: Name of the format.
        rule: A sentence about overlapping regions.
        notes: Sentences about what was left out.
    """

    title: str
    rule: str
    notes: Sequence[str] = ()

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names of the classes in the files, in their order, without background and void."""

    @abstractmethod
    def size(self, image_id: str) -> Size | None:
        """Return the (height, width) of an image as its annotation states it, or None if it does not."""

    @abstractmethod
    def regions(self, image_id: str) -> list[LabelRegion]:
        """Return the regions of an image, in the order in which they are drawn.

        Raises:
            DataError: If the annotation is invalid.
        """

    def classes(self) -> tuple[str, ...]:
        """Return the classes if the user does not name them: background, and the names in the files."""
        return (BACKGROUND, *self.names())

    def draw_labels(self, image_id: str, image: Path, classes: Sequence[str]) -> UInt8:
        """Draw the label map of an image.

        Pixels in no region, and regions of a name that is not a class, are background; or void, if there is no class
        of that name.

        Args:
            image_id: Id of the image.
            image: Path of the image; its header is read if the annotation does not state the size.
            classes: Names of the classes.

        Returns:
            (H, W) uint8; 255 for void.

        Raises:
            DataError: If the annotation is invalid.
        """
        height, width = self.size(image_id) or _upright_size(image)
        image_files.check_size(width, height)
        numbers = {name: number for number, name in enumerate(classes)} | dict.fromkeys(VOID_NAMES, VOID)
        rest = next((numbers[name] for name in BACKGROUND_NAMES if name in numbers), VOID)
        numbers |= dict.fromkeys(BACKGROUND_NAMES, rest)
        canvas = Image.new("L", (width, height), rest)
        for region in self.regions(image_id):
            region.draw(canvas, numbers.get(region.name, rest))
        return np.array(canvas)


def _upright_size(path: Path) -> Size:
    with image_files.open_image(path) as image:
        turned = image_files.orientation(image) >= 5  # these swap height and width
        return (image.width, image.height) if turned else (image.height, image.width)


def is_class_name(name: str) -> bool:
    """Return True if a name in an annotation is that of a class: neither background nor void."""
    return name not in BACKGROUND_NAMES and name not in VOID_NAMES


def check_points(points: object, least: int, place: str) -> list[tuple[float, float]]:
    """Return a list of [x, y] pairs from a JSON file as tuples, if it is valid.

    Args:
        points: The parsed JSON.
        least: The least number of points.
        place: What has the points, for errors.

    Raises:
        DataError: If it is not such a list, has fewer points, or a coordinate is not a number or too large.
    """
    want = f"{least} or more points [x, y]"
    if not isinstance(points, list) or len(points) < least:
        raise DataError(f"{place} has no valid outline", got=json_file.format_value(points), want=want)
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_is_coordinate, point)):
            raise DataError(f"{place} has no valid outline", got=json_file.format_value(point), want=want)
    return [(float(x), float(y)) for x, y in points]


def _is_coordinate(value: object) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # type: ignore[operator]


def polygon_region(name: str, rings: Sequence[Points]) -> LabelRegion:
    """Return the region of one or several filled polygons, each with three points or more.

    ``draw`` raises a DataError if the polygons have so many points that filling them would take minutes.
    """

    def draw(canvas: Image.Image, number: int) -> None:
        if sum(map(len, rings)) * canvas.height > _MAX_WORK:
            raise DataError(
                f"the outline of {name!r} has too many points to fill",
                got=f"{sum(map(len, rings)):,}",
                want=f"at most {_MAX_WORK // canvas.height:,}",
            )
        for ring in rings:
            ImageDraw.Draw(canvas).polygon(list(ring), fill=number)

    return LabelRegion(name, sum(map(_polygon_area, rings)), draw)


def _polygon_area(ring: Points) -> float:
    x, y = np.array(ring, np.float64).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def mask_region(name: str, mask: Array, corner: tuple[int, int] = (0, 0)) -> LabelRegion:
    """Return the region of the pixels that are not zero in a mask.

    Args:
        name: Name of the class.
        mask: (H, W).
        corner: x and y of the mask's upper left pixel in the image.
    """
    inside = np.asarray(mask) != 0
    stencil = Image.fromarray(inside)

    def draw(canvas: Image.Image, number: int) -> None:
        canvas.paste(number, corner, stencil)

    return LabelRegion(name, float(inside.sum()), draw)


def join_names(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return the class names of several lists in their order, each once, without background and void."""
    return tuple(dict.fromkeys(name for names in lists for name in names if is_class_name(name)))

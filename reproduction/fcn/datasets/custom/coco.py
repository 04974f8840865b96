"""Annotations in COCO's JSON: instances with polygons, and masks as run lengths (RLE), compressed or not.

Overlapping instances have no order in COCO, so the smaller one covers the larger; of equal ones, the later. Crowd
regions (``iscrowd``) are void where no instance covers them. Images that a file lists without annotations contain only
background.

Source: cocodataset/cocoapi@8c9bcc3 README.txt; common/maskApi.c, rleFrString (the compressed run lengths).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import image_files, json_file
from reproduction.caffe.formats.json_file import OpenRecord, between
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets.custom import outlines
from reproduction.fcn.datasets.custom.color_labels import VOID_NAME
from reproduction.fcn.datasets.custom.outlines import Annotations, LabelRegion, Size

#: The largest file that is read; COCO's own largest has 450 MB. Reading takes about ten times as much memory.
MOST_BYTES = 1 << 30

_NOT_COCO = "not COCO's JSON"
_Side = Annotated[int, between(1, image_files.MAX_SIDE)]
_Id = int | str


@dataclass(frozen=True)
class CocoImage(OpenRecord):
    """The entry of an image: its id, the name of its file, and its size in pixels, if it is stated."""

    id: _Id
    file_name: str
    width: _Side | None = None
    height: _Side | None = None


@dataclass(frozen=True)
class CocoCategory(OpenRecord):
    """The entry of a category: its id and name, and the name of the group that it is in."""

    id: _Id
    name: str
    supercategory: str | None = None


@dataclass(frozen=True)
class CocoInstance(OpenRecord):
    """The entry of an instance: its image, its category, its outline as parsed JSON, and whether it is a crowd."""

    image_id: _Id
    category_id: _Id | None = None
    id: _Id | None = None
    segmentation: Any = None
    iscrowd: int | bool = 0
    segments_info: Any = None


@dataclass(frozen=True)
class CocoFile(OpenRecord):
    """The entries of a file in COCO's format."""

    images: Sequence[CocoImage]
    categories: Sequence[CocoCategory] = ()
    annotations: Sequence[CocoInstance] = field(default_factory=list)


def load(path: Path) -> CocoFile:
    """Load a file in COCO's format; the last files that were loaded are cached until they change.

    Raises:
        DataError: If the file cannot be read, is not in this format, or has only boxes, captions or panoptic segments.
    """
    return outlines.load_cached(path, _load)


@lru_cache(maxsize=4)
def _load(path: Path, size: int, changed: int) -> CocoFile:
    found = json_file.load(path, CocoFile, _NOT_COCO, limit=MOST_BYTES)
    if any(each.segments_info is not None for each in found.annotations):
        remedy = "Convert it by panopticapi's converters/panoptic2detection_coco_format.py."
        raise DataError("the annotations are panoptic segments", path=path, want="instances", remedy=remedy)
    if not found.categories:
        raise DataError("the annotations have no categories", path=path, want="COCO's instances, not captions")
    if found.annotations and not any(each.segmentation for each in found.annotations):
        remedy = "Draw the outlines of the things, or export them too."
        raise DataError("the annotations are boxes", path=path, want="polygons or masks", remedy=remedy)
    return found


@dataclass(frozen=True)
class _Entry:
    """An image with its instances, and the names of the categories of the file that lists it."""

    image: CocoImage
    instances: Sequence[CocoInstance]
    names: Mapping[_Id, str]


class Coco(Annotations):
    """The instances of one or several files in COCO's format, such as those for training and for validation.

    Args:
        files: The files.
        ids: For each file, the id by which this project calls each image, by COCO's id.
    """

    title = "COCO JSON"
    rule = "of overlapping instances the smaller one is drawn last; crowds are void"

    def __init__(self, files: Sequence[CocoFile], ids: Sequence[Mapping[_Id, str]]):
        self._names = outlines.join_names(map(_used_names, files))
        self._entries: dict[str, _Entry] = {}
        lost = 0
        for file, of in zip(files, ids, strict=True):
            instances = defaultdict(list)
            for each in file.annotations:
                instances[each.image_id].append(each)
            names = {category.id: category.name for category in file.categories}
            for image in file.images:
                self._entries[of[image.id]] = _Entry(image, instances.pop(image.id, []), names)
            lost += sum(map(len, instances.values()))
        empty = sum(not entry.instances for entry in self._entries.values())
        self.notes = [
            *([f"{lost} instances are of images that the file does not list, and are left out"] if lost else []),
            *([f"{empty} images have no instance, and are read as background"] if empty else []),
        ]

    def names(self) -> tuple[str, ...]:
        """Return the names of the categories, in the order of their ids."""
        return self._names

    def size(self, image_id: str) -> Size | None:
        """Return the (height, width) that an image's entry states, or None."""
        image = self._entries[image_id].image
        return (image.height, image.width) if image.height and image.width else None

    def regions(self, image_id: str) -> list[LabelRegion]:
        """Return the regions of an image's instances: crowds first, as void, then from large to small.

        Raises:
            DataError: If an instance has no valid outline, or a category that the file does not list.
        """
        entry = self._entries[image_id]
        crowds = [_region(each, entry, VOID_NAME) for each in entry.instances if each.iscrowd]
        others = [_region(each, entry, _name(each, entry)) for each in entry.instances if not each.iscrowd]
        return [*crowds, *sorted(others, key=lambda region: -region.area)]


def _used_names(file: CocoFile) -> list[str]:
    """Return the names of a file's categories in the order of their ids.

    Roboflow's exports have a category that only groups the others; it is left out.
    """
    used = {each.category_id for each in file.annotations}
    groups = {category.supercategory for category in file.categories}
    categories = [each for each in file.categories if each.id in used or each.name not in groups]
    return [each.name for each in sorted(categories, key=lambda each: (isinstance(each.id, str), each.id))]


def _name(instance: CocoInstance, entry: _Entry) -> str:
    if instance.category_id is None or instance.category_id not in entry.names:
        got = json_file.format_value(instance.category_id)
        raise DataError(f"instance {instance.id} has a category that is not listed", got=got)
    return entry.names[instance.category_id]


def _region(instance: CocoInstance, entry: _Entry, name: str) -> LabelRegion:
    place, outline = f"instance {instance.id}", instance.segmentation
    if not outline:
        remedy = "Draw its outline, or remove it."
        raise DataError(f"{place} has no outline", got="a box", want="polygons or a mask", remedy=remedy)
    if isinstance(outline, dict):
        height, width = _check_rle_size(outline.get("size"), entry.image, place)
        return outlines.mask_region(name, decode_rle(outline.get("counts"), (height, width), place))
    if not isinstance(outline, list):
        raise DataError(f"{place} has no valid outline", got=json_file.format_value(outline), want="lists of x, y")
    return outlines.polygon_region(name, [_ring(flat, place) for flat in outline])


def _ring(flat: object, place: str) -> list[tuple[float, float]]:
    if not isinstance(flat, list) or len(flat) % 2:
        raise DataError(f"{place} has no valid outline", got=json_file.format_value(flat), want="[x, y, x, y, ...]")
    pairs = [[flat[i], flat[i + 1]] for i in range(0, len(flat), 2)]
    return outlines.check_points(pairs, 3, place)


def _check_rle_size(size: object, image: CocoImage, place: str) -> Size:
    """Return the (height, width) of a mask if it is that of the image, or could be the size of one."""
    stated = [image.height, image.width] if image.height and image.width else size
    if size != stated or not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        got, want = json_file.format_value(size), f"{stated}, as its image" if stated != size else "[height, width]"
        raise DataError(f"{place} has a mask of another size", got=got, want=want)
    image_files.check_size(size[1], size[0])
    return size[0], size[1]


def decode_rle(counts: object, size: Size, place: str = "the mask") -> UInt8:
    """Decode the run lengths of a mask, which alternate between outside and inside, down each column.

    Args:
        counts: The run lengths as a list of integers, or compressed as a string.
        size: (height, width) in pixels.
        place: What has the mask, for errors.

    Returns:
        (H, W) uint8 of 0 and 1.

    Raises:
        DataError: If the run lengths are invalid, or do not add up to the number of pixels.
    """
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise DataError(f"{place} has no valid run lengths", got=json_file.format_value(counts))
    if sum(runs) != size[0] * size[1]:
        raise DataError(f"{place} has run lengths of another size", got=sum(runs), want=size[0] * size[1])
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[1], size[0]).T.astype(np.uint8)


def _decompress(text: str) -> list[int] | None:
    """Return the run lengths in a compressed string, each in groups of five bits, from the third on as differences."""
    runs: list[int] = []
    value = shift = 0
    for code in (ord(letter) - 48 for letter in text):
        if not 0 <= code < 64 or shift > 30:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code >> 4 & 1) << shift  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs

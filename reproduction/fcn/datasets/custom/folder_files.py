"""The images, labels and lists of ids that were found in a user's folder, and the splits that follow from them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import files, image_files
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import layouts
from reproduction.fcn.datasets.custom.color_labels import RGB
from reproduction.fcn.datasets.custom.outlines import Annotations

SPLITS = ("train", "val")
FIFTH = 5  # without lists, one in so many images is for validation
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
#: Names of folders of labels or annotations, in order of preference.
LABEL_FOLDERS = (
    "labels", "SegmentationClassPNG", "SegmentationClass", "masks", "mask", "label", "annotations", "ann_dir", "ann",
    "gt", "json", "labelme",
)  # fmt: skip
JSON = frozenset((".json",))

_HEAD = 1 << 16  # bytes by which the format of a JSON file is recognized


@dataclass(frozen=True)
class FolderFiles:
    """The images, labels and lists in a user's folder, by id; an id is a file's name without the extension.

    Attributes:
        root: The folder.
        images: Path of the image of each id.
        labels: Path of the label, or of the annotation that contains it, of each id.
        twice: Ids that several images or several labels have (``7.jpg`` and ``7.png``), with the paths of these files.
        lists: Path of the list of ids (such as train.txt) of each split that has one.
        folders: Names of the folders of images and of labels.
        groups: The ids of each split, if the splits have folders or annotation files.
        annotations: The outlines from which labels are drawn; None if the labels are images.
        colours: The colour of each class, if the format defines the classes; else None.
        numbers: The class number of each pixel value, (256,) uint8, if the format defines it and the user does not
            name the classes; else None.
        description: How the files are read, in one line; empty for the plain layout.
    """

    root: Path
    images: dict[str, Path]
    labels: dict[str, Path]
    twice: dict[str, list[Path]] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)
    folders: tuple[str, str] = ("images", "labels")
    groups: Mapping[str, list[str]] = field(default_factory=dict)
    annotations: Annotations | None = None
    colours: Mapping[str, RGB] | None = None
    numbers: UInt8 | None = None
    description: str = ""

    @property
    def pairs(self) -> list[str]:
        """The ids that have both an image and a label, sorted."""
        return sorted(self.images.keys() & self.labels.keys())

    def classes(self) -> tuple[str, ...] | None:
        """Return the names of the classes that the format or the annotations define, or None."""
        if self.annotations:
            return self.annotations.classes()
        return tuple(self.colours) if self.colours else None

    def ids(self, split: str) -> list[str]:
        """Return the ids of a split, ``train`` or ``val``.

        These are the ids in the split's list, or in its folder or annotation file. If only the other split has one,
        they are the pairs that are not in it. Without any, every fifth pair is in ``val`` (the last one if there are
        fewer than five), the others in ``train``.

        Raises:
            DataError: If there is no such split, or no image for it.
        """
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}", path=self.root, want=" or ".join(SPLITS))
        if split in self.lists:
            return self._listed(split)
        pairs = self.pairs
        given = {name: self._listed(name) for name in self.lists} or self.groups
        if split in given:
            found = [image_id for image_id in given[split] if image_id in self.images and image_id in self.labels]
        elif given:
            taken = {image_id for ids in given.values() for image_id in ids}
            found = [image_id for image_id in pairs if image_id not in taken]
        else:
            validated = set(pairs[FIFTH - 1 :: FIFTH] or pairs[-1:])
            found = [image_id for image_id in pairs if (image_id in validated) == (split == "val")]
        if not found:
            got = f"{len(pairs)} with a label"
            raise DataError(
                f"there is no image for the split {split!r}",
                path=self.root,
                got=got,
                want="2 or more",
                remedy="fcn check-data says what is missing.",
            )
        return found

    def _listed(self, split: str) -> list[str]:
        """Return the ids in a list, which may include the files' extensions."""
        listed = layouts.read_ids(self.lists[split])
        return [
            image_id if image_id in self.images or Path(image_id).stem not in self.images else Path(image_id).stem
            for image_id in listed
        ]


def find_lists(place: Path) -> dict[str, Path]:
    """Return the paths of the lists of ids in a folder, train.txt and val.txt, by split."""
    listed = {split: place / f"{split}.txt" for split in SPLITS}
    return {split: path for split, path in listed.items() if path.is_file()}


def below(place: Path, path: Path) -> str:
    """Return a path relative to a folder that contains it, with slashes."""
    return path.relative_to(place).as_posix()


def list_paths(folder: Path, endings: Iterable[str] = image_files.ENDINGS) -> list[Path]:
    """Return the files in a folder that have one of some endings, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    return [folder / name for name in names if Path(name).suffix.lower() in endings]


def named_folders(place: Path, names: Iterable[str]) -> list[Path]:
    """Return the folders of some names in a folder, in the order of the names, in exact case on any file system."""
    if not place.is_dir():
        return []
    present = {path.name for path in place.iterdir() if path.is_dir()}
    return [place / name for name in names if name in present]


def kind_of_json(path: Path) -> str | None:
    """Return the format of a JSON file, ``COCO`` or ``LabelMe``, by the names near its beginning and end, or None."""
    with files.open_regular(path) as file:
        head = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - _HEAD))
        text = head + file.read()
    if re.search(rb'"shapes"\s*:', text) and re.search(rb'"image(Path|Data|Height)"\s*:', text):
        return "LabelMe"
    if re.match(rb"\s*\{", head) and re.search(rb'"(images|annotations|categories)"\s*:\s*\[', text):
        return "COCO"
    return None

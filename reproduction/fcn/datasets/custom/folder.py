"""Anybody's pictures and labels: a folder with ``images/`` and ``labels/``, or a tree like PASCAL VOC's.

A picture and its label have one name but for the ending: ``images/7.jpg``, ``labels/7.png``. A label's pixels are
class numbers from 0, 255 for void; or colours, where a palette says which colour is which class.

    DIR/classes.txt                      the names of the classes, one a line, the first for label 0
    DIR/palette.txt                      for painted labels instead: lines ``R G B name``
    DIR/train.txt, DIR/val.txt           which pictures are learnt from and validated on, one name a line; without
                                         them every fifth picture is validated on. A VOC tree has them in
                                         ImageSets/Segmentation/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import DataError, StrPath, shown
from reproduction.caffe.formats import files, image_files
from reproduction.fcn.datasets import layouts
from reproduction.fcn.datasets.base import VOID, Array, Dataset, Tops
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.color_labels import Reading
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import caffe_input, decode
from reproduction.fcn.nets import published_nets

SPLITS = ("train", "val")
FIFTH = 5  # of the pictures, one of so many is validated on, where no list says which
_KINDS = (("images", "labels", "."), ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))


@dataclass(frozen=True)
class Tree:
    """What a folder holds, by the names of its files without their endings.

    Attributes:
        root: the folder.
        images: id -> picture.
        labels: id -> label.
        twice: ids that several pictures or several labels have, with these files.
        lists: the lists of ids that are there, by split.
        folders: the names of the folders of pictures and of labels.
    """

    root: Path
    images: dict[str, Path]
    labels: dict[str, Path]
    twice: dict[str, list[Path]] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)
    folders: tuple[str, str] = ("images", "labels")

    @property
    def pairs(self) -> list[str]:
        """The ids with a picture and a label, sorted."""
        return sorted(self.images.keys() & self.labels.keys())

    def ids(self, split: str) -> list[str]:
        """List the ids of a split: those of its list, or those that no list has.

        Raises:
            DataError: there is no such split, or no pictures for it.
        """
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}", path=self.root, want=" or ".join(SPLITS))
        if split in self.lists:
            return self._listed(split)
        pairs = self.pairs
        if self.lists:
            taken = {id for listed in self.lists for id in self._listed(listed)}
            found = [id for id in pairs if id not in taken]
        else:
            validated = set(pairs[FIFTH - 1 :: FIFTH] or pairs[-1:])
            found = [id for id in pairs if (id in validated) == (split == "val")]
        if not found:
            got = f"{len(pairs)} with a label"
            raise DataError(
                f"there is no picture for the split {split!r}",
                path=self.root,
                got=got,
                want="2 or more",
                remedy="tools/check_data.py says what is missing.",
            )
        return found

    def _listed(self, split: str) -> list[str]:
        """Read a list; people write the files' endings too."""
        listed = layouts.read_list(self.lists[split])
        return [id if id in self.images or Path(id).stem not in self.images else Path(id).stem for id in listed]


def tree(root: StrPath) -> Tree:
    """Look into a folder, without opening a picture.

    Raises:
        DataError: it is not there, or holds neither ``images`` and ``labels`` nor the folders of a VOC tree.
    """
    place = Path(root)
    if not place.is_dir():
        raise DataError("this is a file, no folder" if place.is_file() else "there is no such folder", path=place)
    if (kind := _kind(place)) is None:
        raise _no_tree(place)
    pictures_in, labels_in, lists_in = kind
    shown, shown_twice = _files(place / pictures_in)
    labelled, labelled_twice = _files(place / labels_in)
    listed = {split: place / lists_in / f"{split}.txt" for split in SPLITS}
    lists = {split: path for split, path in listed.items() if path.is_file()}
    return Tree(place, shown, labelled, shown_twice | labelled_twice, lists, (pictures_in, labels_in))


def _kind(place: Path) -> tuple[str, str, str] | None:
    return next((kind for kind in _KINDS if all((place / name).is_dir() for name in kind[:2])), None)


def _no_tree(place: Path) -> DataError:
    """Word what a folder holds instead, and which one near it was meant."""
    shown = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    inside = [path.name + "/" * path.is_dir() for path in shown]
    near = next((path for path in (*shown, place.parent) if path.is_dir() and _kind(path)), None)
    return DataError(
        "this is no folder to learn from",
        path=place,
        got=", ".join(inside[:6]) + (" ..." if len(inside) > 6 else "") or "an empty folder",
        want="images/ and labels/, or JPEGImages/ and SegmentationClass/",
        remedy=f"Did you mean {near}?" if near else "",
    )


def is_album(folder: Path) -> bool:
    """Say whether pictures lie in a folder itself, and no folders beside them."""
    return bool(_files(folder)[0]) and not any(path.is_dir() for path in folder.iterdir())


def _files(folder: Path) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """List the picture files of a folder by id, and the ids that several have."""
    found: dict[str, list[Path]] = {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    for name in names:
        path = folder / name
        if path.suffix.lower() in image_files.ENDINGS:
            found.setdefault(path.stem, []).append(path)
    twice = {id: paths for id, paths in found.items() if len(paths) > 1}
    return {id: paths[0] for id, paths in found.items()}, twice


def class_list(
    root: StrPath, classes: StrPath | None = None, colours: StrPath | None = None
) -> tuple[tuple[str, ...] | None, Reading]:
    """Find the names of a folder's classes, and how its labels are read.

    Args:
        root: the folder, whose classes.txt and palette.txt are taken where the others are None.
        classes: a file of names.
        colours: a palette, ``voc`` or ``indices``.

    Returns:
        The names, and the palette or ``indices``; None where nothing says them.

    Raises:
        DataError: a file is missing or wrong, or the two do not agree.
    """
    own = {name: Path(root) / f"{name}.txt" for name in ("classes", "palette")}
    classes = classes or (own["classes"] if own["classes"].is_file() else None)
    colours = colours or (own["palette"] if own["palette"].is_file() else None)
    names = layouts.read_classes(classes) if classes else None
    if colours is None:
        return names, None
    found = color_labels.reading(colours, names)
    return color_labels.class_names(found) if isinstance(found, Mapping) else names, found


class Folder(Dataset):
    """A split of anybody's pictures and labels.

    Pictures are read as a viewer shows them: any size, grey, 16-bit, transparent, turned by their camera.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``
        label  (1, H, W)  uint8    0 to the last class; 255 = void

    Args:
        split: ``train`` or ``val``.
        root: the folder.
        tops: top -> kind.
        mean: what to subtract, B G R.
        classes: the names of the classes; None is what the folder's classes.txt or palette.txt says.
        palette: how labels are read, see ``painted.Reading``; None with no ``classes`` is what the folder's
            palette.txt says.
        side: pictures with a longer side are shrunk to it, with their labels; 0 leaves them as they are.
        order: ``seed`` and ``randomize``.
    """

    name = "folder"
    kinds = ("data", "label")
    label_lists: ClassVar[dict[str, str]] = {"label": "voc"}  # in whose place come the folder's own names

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        mean: Sequence[float] = published_nets.MEAN_BGR,
        classes: Sequence[str] | None = None,
        palette: Reading = None,
        side: int = 0,
        **order: Any,
    ):
        super().__init__(split, root, tops, **order)
        self.mean_bgr = np.array(mean, np.float64)
        self.files = tree(root)
        self.tree = self.files.root
        self.ids = self.files.ids(split)
        if classes is None and palette is None:
            classes, palette = class_list(root)
        if isinstance(palette, Mapping):
            classes = color_labels.class_names(color_labels.check(palette, classes, root))
        if classes is None:
            raise DataError(
                "nothing says the names of the classes", path=root, want="classes.txt, one name a line, or --classes"
            )
        self.side, self._names = side, tuple(classes)
        self.read_labels = LabelReader(palette)
        self.label_classes = {top: self._names for top, kind in self.tops.items() if kind == "label"}

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; index = label."""
        return self._names

    @property
    def palette(self) -> Reading:
        """How the labels are read."""
        return self.read_labels.reading

    def file(self, kind: str, id: str) -> Path:
        """Return the path of a picture or a label.

        Raises:
            DataError: several files have this name.
        """
        if id in self.files.twice:
            said = " and ".join(map(str, self.files.twice[id]))
            raise DataError(f"{said} have one name", remedy="Rename or remove one.")
        known = self.files.images if kind == "data" else self.files.labels
        if id in known:
            return known[id]
        folder, ending = self.files.folders[kind == "label"], ".png" if kind == "label" else ".jpg"
        return self.tree / folder / f"{id}{ending}"

    def read(self, kind: str, path: Path) -> Array:
        """Read a picture or a label."""
        if kind == "data":
            return caffe_input.caffe_input(decode.shrink(decode.read_rgb(path), self.side), self.mean_bgr, flip=True)
        numbers = caffe_input.class_numbers(self.read_labels(path), len(self._names) - 1, void=VOID)
        return decode.shrink(numbers.astype(np.uint8), self.side, smooth=False)[np.newaxis]

    def training_ids(self) -> set[str] | None:
        """Return the ids of the train split."""
        return set(self.files.ids("train"))


def check_names(names: object) -> tuple[str, ...]:
    """Check a prototxt's classes: a list of names.

    Raises:
        DataError: they are something else.
    """
    if isinstance(names, list | tuple) and 0 < len(names) < VOID and all(map(_is_name, names)):
        return tuple(names)
    raise DataError("'classes' is not a list of names", got=shown(names)[:80])


def _is_name(name: object) -> bool:
    return isinstance(name, str) and files.is_utf8(name)


def check_side(side: object) -> int:
    """Check a prototxt's greatest side: a number of pixels, or 0.

    Raises:
        DataError: it is something else.
    """
    if type(side) is int and 0 <= side < 1 << 20:
        return side
    raise DataError("'side' is not a number of pixels", got=shown(side)[:80])


def check_palette(colours: object) -> Reading:
    """Check a prototxt's palette: None, ``indices``, or a colour by each name.

    Raises:
        DataError: it is something else.
    """
    if colours is None:
        return None
    if colours == color_labels.INDICES:
        return color_labels.INDICES
    if isinstance(colours, dict) and all(
        _is_name(name)
        and isinstance(rgb, tuple)
        and len(rgb) == 3
        and all(type(value) is int and 0 <= value < 256 for value in rgb)
        for name, rgb in colours.items()
    ):
        return colours
    raise DataError("'palette' is not a table of colours", got=shown(colours)[:80], want="{'sky': (0, 0, 255), ...}")

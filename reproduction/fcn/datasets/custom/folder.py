"""A user's images and labels: a folder with ``images/`` and ``labels/``, or with the structure of PASCAL VOC.

An image and its label have the same name except for the extension: ``images/7.jpg``, ``labels/7.png``. The pixels of a
label are class numbers from 0, and 255 for void; or colours, if a palette assigns them to classes.

    DIR/classes.txt                      the names of the classes, one a line, the first for label 0
    DIR/palette.txt                      for painted labels instead: lines ``R G B name``
    DIR/train.txt, DIR/val.txt           the images to train on and to validate on, one name a line; without them,
                                         every fifth image is for validation. A VOC tree has them in
                                         ImageSets/Segmentation/.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import DataError, StrPath, safe_repr
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import Array
from reproduction.fcn.datasets import layouts, voc
from reproduction.fcn.datasets.base import VOID, Dataset, Tops
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.color_labels import Reading
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import caffe_input, decode

SPLITS = ("train", "val")
FIFTH = 5  # without lists, one in so many images is for validation
_KINDS = (("images", "labels", "."), ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))


@dataclass(frozen=True)
class FolderFiles:
    """The images, labels and lists in a user's folder, by id; an id is a file's name without the extension.

    Attributes:
        root: The folder.
        images: Path of the image of each id.
        labels: Path of the label of each id.
        twice: Ids that several images or several labels have (``7.jpg`` and ``7.png``), with the paths of these files.
        lists: Path of the list of ids (such as train.txt) of each split that has one.
        folders: Names of the folders of images and of labels.
    """

    root: Path
    images: dict[str, Path]
    labels: dict[str, Path]
    twice: dict[str, list[Path]] = field(default_factory=dict)
    lists: dict[str, Path] = field(default_factory=dict)
    folders: tuple[str, str] = ("images", "labels")

    @property
    def pairs(self) -> list[str]:
        """The ids that have both an image and a label, sorted."""
        return sorted(self.images.keys() & self.labels.keys())

    def ids(self, split: str) -> list[str]:
        """Return the ids of a split, ``train`` or ``val``.

        These are the ids in the split's list. If only the other split has a list, they are the pairs that are not in
        it. Without lists, every fifth pair is in ``val`` (the last one if there are fewer than five), the others in
        ``train``.

        Raises:
            DataError: If there is no such split, or no image for it.
        """
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}", path=self.root, want=" or ".join(SPLITS))
        if split in self.lists:
            return self._listed(split)
        pairs = self.pairs
        if self.lists:
            taken = {image_id for listed in self.lists for image_id in self._listed(listed)}
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


def list_files(root: StrPath) -> FolderFiles:
    """Find the images, labels and lists in a user's folder, without opening an image.

    Args:
        root: The folder.

    Raises:
        DataError: If the folder does not exist, or has neither ``images`` and ``labels`` nor VOC's folders.
    """
    place = Path(root)
    if not place.is_dir():
        raise DataError("this is a file, not a folder" if place.is_file() else "there is no such folder", path=place)
    if (kind := _kind(place)) is None:
        raise _no_tree(place)
    pictures_in, labels_in, lists_in = kind
    shown, shown_twice = _files(place / pictures_in)
    labelled, labelled_twice = _files(place / labels_in)
    listed = {split: place / lists_in / f"{split}.txt" for split in SPLITS}
    lists = {split: path for split, path in listed.items() if path.is_file()}
    return FolderFiles(place, shown, labelled, shown_twice | labelled_twice, lists, (pictures_in, labels_in))


def _kind(place: Path) -> tuple[str, str, str] | None:
    return next((kind for kind in _KINDS if all((place / name).is_dir() for name in kind[:2])), None)


def _no_tree(place: Path) -> DataError:
    """Return the error for a folder without images and labels; it lists the content and suggests a folder nearby."""
    shown = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    inside = [path.name + "/" * path.is_dir() for path in shown]
    near = next((path for path in (*shown, place.parent) if path.is_dir() and _kind(path)), None)
    return DataError(
        "this is not a folder of images and labels",
        path=place,
        got=", ".join(inside[:6]) + (" ..." if len(inside) > 6 else "") or "an empty folder",
        want="images/ and labels/, or JPEGImages/ and SegmentationClass/",
        remedy=f"Did you mean {near}?" if near else "",
    )


def is_album(folder: Path) -> bool:
    """Return True if a folder contains image files and no subfolders."""
    return bool(_files(folder)[0]) and not any(path.is_dir() for path in folder.iterdir())


def _files(folder: Path) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Return the first image file of each id in a folder, and all files of the ids that several have."""
    found: dict[str, list[Path]] = {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
    for name in names:
        path = folder / name
        if path.suffix.lower() in image_files.ENDINGS:
            found.setdefault(path.stem, []).append(path)
    twice = {image_id: paths for image_id, paths in found.items() if len(paths) > 1}
    return {image_id: paths[0] for image_id, paths in found.items()}, twice


def find_classes(
    root: StrPath, classes: StrPath | None = None, colours: StrPath | None = None
) -> tuple[tuple[str, ...] | None, Reading]:
    """Find the names of a folder's classes, and how its label images are converted to class numbers.

    Args:
        root: The folder.
        classes: Path of a list of class names; None for the folder's classes.txt, if it exists.
        colours: Path of a palette, or ``voc`` or ``indices``; None for the folder's palette.txt, if it exists.

    Returns:
        (names, reading). The names are None if neither a list nor a palette states them; the reading is a palette,
        ``"indices"`` or None, see ``color_labels.Reading``.

    Raises:
        DataError: If a file is missing or invalid, or the two disagree.
    """
    own = {name: Path(root) / f"{name}.txt" for name in ("classes", "palette")}
    classes = classes or (own["classes"] if own["classes"].is_file() else None)
    colours = colours or (own["palette"] if own["palette"].is_file() else None)
    names = layouts.read_class_names(classes) if classes else None
    if colours is None:
        return names, None
    found = color_labels.parse_reading(colours, names)
    return color_labels.palette_classes(found) if isinstance(found, Mapping) else names, found


def check_classes_param(names: object) -> tuple[str, ...]:
    """Return the ``classes`` in a data layer's ``param_str`` as a tuple if they are valid, else raise.

    Raises:
        DataError: If it is not a list or tuple of 1 to 254 strings.
    """
    if isinstance(names, list | tuple) and 0 < len(names) < VOID and all(map(color_labels.is_name, names)):
        return tuple(names)
    raise DataError("'classes' is not a list of names", got=safe_repr(names)[:80])


def check_side_param(side: object) -> int:
    """Return the ``side`` in a data layer's ``param_str`` if it is valid, else raise.

    Raises:
        DataError: If it is not an integer from 0 to 2**20 - 1.
    """
    if type(side) is int and 0 <= side < 1 << 20:
        return side
    raise DataError("'side' is not a number of pixels", got=safe_repr(side)[:80])


class Folder(Dataset):
    """A split of a user's folder of images and labels, as a data set.

    Images are read as a viewer displays them: of any size, grey, 16-bit, transparent, rotated by EXIF.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``
        label  (1, H, W)  uint8    0 to the last class; 255 = void

    Args:
        split: ``train`` or ``val``.
        root: The folder.
        tops: Mapping from top to kind; None for every kind, under its name.
        mean: The mean of each channel to subtract, in B G R order, 0 to 255.
        classes: Names of the classes. If ``classes`` and ``palette`` are both None, the folder's classes.txt and
            palette.txt are read.
        palette: How label images are read. A palette: by colour. ``"indices"``: by pixel value. None: by pixel value,
            if the image's own palette proves that these are class numbers.
        side: Limit of the longer side, in pixels: larger images are shrunk, with their labels. 0 for no limit.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.
    """

    name = "folder"
    kinds = ("data", "label")
    kind_classes: ClassVar = {"label": ()}  # the folder's classes replace it
    layer = "FolderSegDataLayer"
    layer_checks: ClassVar = {
        "mean": voc.check_mean,
        "palette": color_labels.check_palette_param,
        "classes": check_classes_param,
        "side": check_side_param,
    }

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        mean: Sequence[float] = voc.MEAN_BGR,
        classes: Sequence[str] | None = None,
        palette: Reading = None,
        side: int = 0,
        **order: Any,
    ):
        super().__init__(split, root, tops, **order)
        self.mean_bgr = np.array(mean, np.float64)
        self.files = list_files(root)
        self.tree = self.files.root
        self.ids = self.files.ids(split)
        if classes is None and palette is None:
            classes, palette = find_classes(root)
        if isinstance(palette, Mapping):
            classes = color_labels.palette_classes(color_labels.check_palette(palette, classes, root))
        if classes is None:
            raise DataError(
                "the names of the classes are not defined", path=root, want="classes.txt, one name a line, or --classes"
            )
        self.side, self._names = side, tuple(classes)
        self.read_labels = LabelReader(palette)
        self.label_classes = {top: self._names for top, kind in self.tops.items() if kind == "label"}

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the folder's classes; the index is the label."""
        return self._names

    @property
    def palette(self) -> Reading:
        """How label images are converted to class numbers, see ``color_labels.Reading``."""
        return self.read_labels.reading

    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of the image (kind ``data``) or the label (kind ``label``) of an id; it need not exist.

        Raises:
            DataError: If several files have this id.
        """
        if image_id in self.files.twice:
            said = " and ".join(map(str, self.files.twice[image_id]))
            raise DataError(f"{said} have the same name", remedy="Rename or remove one.")
        known = self.files.images if kind == "data" else self.files.labels
        if image_id in known:
            return known[image_id]
        folder, ending = self.files.folders[kind == "label"], ".png" if kind == "label" else ".jpg"
        return self.tree / folder / f"{image_id}{ending}"

    def read(self, kind: str, path: Path) -> Array:
        """Read an image as (3, H, W) float32 minus the mean, or a label as (1, H, W) uint8."""
        if kind == "data":
            return caffe_input.subtract_mean(decode.shrink(decode.read_rgb(path), self.side), self.mean_bgr, flip=True)
        numbers = caffe_input.check_labels(self.read_labels(path), len(self._names) - 1, void=VOID)
        return decode.shrink(numbers.astype(np.uint8), self.side, smooth=False)[np.newaxis]

    def training_ids(self) -> set[str] | None:
        """Return the ids of the split ``train``, on which the user trains."""
        return set(self.files.ids("train"))

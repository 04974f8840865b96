"""Where a user's images and labels are: the folders and names that people and annotation programs use.

images/7.jpg, labels/7.png            also imgs/, JPEGImages/; masks/, SegmentationClass/ and others
images/7.jpg, masks/7_mask.png        labels may have a suffix
7.jpg, 7_mask.png                     in one folder, labels need a suffix
images/train/, labels/train/          a folder for each split, below or above: train/images/, train/labels/
7.jpg, 7.json                         LabelMe, in any of these folders
annotations/*.json, any/7.jpg         COCO
leftImg8bit/train/CITY/, gtFine/      Cityscapes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.fcn.datasets.custom import cityscapes, find_coco, other_formats
from reproduction.fcn.datasets.custom.folder_files import (
    JSON,
    LABEL_FOLDERS,
    SPLIT_FOLDERS,
    FolderFiles,
    below,
    find_lists,
    kind_of_json,
    list_paths,
    named_folders,
)
from reproduction.fcn.datasets.custom.labelme import LabelMe

#: Names of folders of images, in order of preference.
IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "img", "image", "img_dir")
#: What may follow the name of an image in the name of its label.
SUFFIXES = ("_mask", "-mask", "_masks", "_label", "_labels", "_labelIds", "_gt", "_seg", "_segmentation", "_L", "_P")

_AFTER = ("annot", "_masks", "_mask", "_labels", "_label", "_gt")  # train/ may have its labels in trainannot/
_PLAIN = (("images", "labels"), ("JPEGImages", "SegmentationClass"))
_Found = dict[str, list[Path]]  # the files of each id


def list_files(root: StrPath) -> FolderFiles:
    """Find the images, labels and lists in a user's folder, without opening an image.

    Args:
        root: The folder.

    Raises:
        DataError: If the folder does not exist, has none of the known structures, has annotations in a format that is
            not read, or its annotations are invalid.
    """
    place = Path(root)
    if not place.is_dir():
        raise DataError("this is a file, not a folder" if place.is_file() else "there is no such folder", path=place)
    found = cityscapes.find(place) or _label_images(place) or find_coco.find(place) or _labelme(place)
    if found is None:
        if unread := other_formats.recognize(place):
            raise unread
        found = _plain(place)
    if found is None:
        raise _no_tree(place)
    return found


def is_annotated(root: Path) -> bool:
    """Return True if a folder, or its folder ``annotations``, has a JSON file in COCO's or LabelMe's format."""
    return any(kind_of_json(path) for place in (root, root / "annotations") for path in list_paths(place, JSON)[:1])


def has_split_folder(root: Path) -> bool:
    """Return True if a folder has a folder ``train`` or ``training`` with images, or with a folder of images."""
    folders = named_folders(root, SPLIT_FOLDERS["train"])
    return any(list_paths(folder) or named_folders(folder, IMAGE_FOLDERS) for folder in folders)


def is_album(folder: Path) -> bool:
    """Return True if a folder contains image files and no subfolders."""
    return bool(list_paths(folder)) and not any(path.is_dir() for path in folder.iterdir())


# ---- folders of images and of labels


@dataclass(frozen=True)
class _Pair:
    """A folder of images and one of labels, which may be the same; and the split that they are for, if any."""

    images: Path
    labels: Path
    split: str | None = None


def _label_images(place: Path) -> FolderFiles | None:
    """Find labels that are images."""
    pairs = [pair for pair in _pairs(place) if _match(pair, image_files.ENDINGS)[1]]
    return _join(place, pairs, image_files.ENDINGS) if pairs else None


def _labelme(place: Path) -> FolderFiles | None:
    """Find labels in LabelMe's JSON."""
    found = [pair for pair in _pairs(place, JSON) if _match(pair, JSON)[1]]
    pairs = [pair for pair in found if kind_of_json(list_paths(pair.labels, JSON)[0]) == "LabelMe"]
    if not pairs:
        return None
    files = _join(place, pairs, JSON)
    annotations = LabelMe({image_id: files.labels[image_id] for image_id in files.pairs})
    description = f"{LabelMe.title}, {files.description or _describe(place, pairs, [])}; {LabelMe.rule}"
    return replace(files, annotations=annotations, description=description)


def _plain(place: Path) -> FolderFiles | None:
    """Return the folders images/ and labels/, or those of VOC, even if they are empty."""
    pairs = [pair for pair in _pairs(place) if pair.images != pair.labels and pair.split is None]
    return _join(place, pairs[:1], image_files.ENDINGS) if pairs else None


def _pairs(place: Path, endings: Iterable[str] = image_files.ENDINGS) -> list[_Pair]:
    """Return the folders that may have the images and the labels: of both splits, or one pair of folders."""
    images, labels = (named_folders(place, names) for names in (IMAGE_FOLDERS, LABEL_FOLDERS))
    for shown in images:
        for labelled in labels:
            by_name = [
                _Pair(shown / name, labelled / name, split)
                for split, names in SPLIT_FOLDERS.items()
                for name in names
                if (shown / name).is_dir() and (labelled / name).is_dir()
            ]
            if by_name:
                return by_name
    split = {name: place / each for name, names in SPLIT_FOLDERS.items() for each in names if (place / each).is_dir()}
    by_split = [_Pair(shown, labelled, name) for name, path in split.items() for shown, labelled in _inside(path)]
    pairs = [_Pair(shown, labelled) for shown in images for labelled in labels if list_paths(labelled, endings)]
    empty = [_Pair(shown, labelled) for shown in images for labelled in labels]
    return pairs[:1] or by_split or empty[:1] or [_Pair(*both) for both in _inside(place)]


def _inside(place: Path) -> list[tuple[Path, Path]]:
    """Return the folders of images and of labels in a split's folder, next to it, or that folder for both."""
    images, labels = (named_folders(place, names) for names in (IMAGE_FOLDERS, LABEL_FOLDERS))
    if images and labels:
        return [(images[0], labels[0])]
    near = [place.with_name(place.name + end) for end in _AFTER if place.with_name(place.name + end).is_dir()]
    if near:
        return [(place, near[0])]
    return [(images[0], images[0])] if images else [(place, place)]


def _match(pair: _Pair, endings: Iterable[str]) -> tuple[_Found, _Found]:
    """Return the images and the labels in two folders by id; in a common folder, label images need a suffix."""
    shown: _Found = {}
    for path in list_paths(pair.images):
        shown.setdefault(path.stem, []).append(path)
    needs_suffix = pair.images == pair.labels and endings != JSON
    labelled: _Found = {}
    for path in list_paths(pair.labels, endings):
        cut = (path.stem.removesuffix(suffix) for suffix in SUFFIXES if path.stem.endswith(suffix))
        without = next((stem for stem in cut if stem in shown), None)
        stem = without if needs_suffix or (without and path.stem not in shown) else path.stem
        if stem is not None:
            labelled.setdefault(stem, []).append(path)
    for path in (path for paths in labelled.values() for path in paths if needs_suffix):
        shown.pop(path.stem, None)
    return shown, labelled


def _join(place: Path, pairs: list[_Pair], endings: Iterable[str]) -> FolderFiles:
    """Return the files of several pairs of folders; an id that occurs in both splits is preceded by the split."""
    matched = [_match(pair, endings) for pair in pairs]
    count = Counter(stem for shown, labelled in matched for stem in {*shown, *labelled})
    images: _Found = {}
    labels: _Found = {}
    groups: dict[str, list[str]] = {}
    for pair, (shown, labelled) in zip(pairs, matched, strict=True):
        ids = {stem: stem if count[stem] == 1 else f"{pair.split}_{stem}" for stem in {**shown, **labelled}}
        images |= {ids[stem]: paths for stem, paths in shown.items()}
        labels |= {ids[stem]: paths for stem, paths in labelled.items()}
        if pair.split:
            groups[pair.split] = [*groups.get(pair.split, ()), *(ids[stem] for stem in shown)]
    twice = {image_id: paths for each in (images, labels) for image_id, paths in each.items() if len(paths) > 1}
    folders = (below(place, pairs[0].images), below(place, pairs[0].labels))
    stems = [(stem, path.stem) for _, labelled in matched for stem, paths in labelled.items() for path in paths]
    suffixes = sorted({whole.removeprefix(stem) for stem, whole in stems} - {""})
    return FolderFiles(
        place,
        {image_id: paths[0] for image_id, paths in images.items()},
        {image_id: paths[0] for image_id, paths in labels.items()},
        twice,
        find_lists(place / "ImageSets/Segmentation" if folders == _PLAIN[1] else place),
        folders,
        groups,
        description="" if folders in _PLAIN and not suffixes and not groups else _describe(place, pairs, suffixes),
    )


def _describe(place: Path, pairs: list[_Pair], suffixes: list[str]) -> str:
    """Describe where the labels are, such as ``labels in masks/ with the suffix _mask``."""
    folders = ", ".join(f"{below(place, pair.labels)}/" for pair in pairs if pair.labels != place)
    where = f"in {folders}" if folders else "next to the images"
    return f"labels {where}" + (f" with the suffix {', '.join(suffixes)}" if suffixes else "")


def _no_tree(place: Path) -> DataError:
    """Return the error for a folder without images and labels; it lists the content and suggests a folder nearby."""
    shown = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    inside = [path.name + "/" * path.is_dir() for path in shown]
    both = (IMAGE_FOLDERS, LABEL_FOLDERS)
    near = next((path for path in (*shown, place.parent) if all(named_folders(path, names) for names in both)), None)
    return DataError(
        "this is not a folder of images and labels",
        path=place,
        got=", ".join(inside[:6]) + (" ..." if len(inside) > 6 else "") or "an empty folder",
        want="images/ and labels/, or JPEGImages/ and SegmentationClass/",
        remedy=f"Did you mean {near}?" if near else "",
    )

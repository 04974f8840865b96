"""Data with the folders and names of Cityscapes: ``leftImg8bit/train/CITY/NAME_leftImg8bit.png`` and ``gtFine``.

Source: mcordts/cityscapesScripts@0bcc4a7 cityscapesscripts/helpers/labels.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.custom.color_labels import RGB
from reproduction.fcn.datasets.custom.folder_files import (
    SPLIT_FOLDERS,
    FolderFiles,
    below,
    find_lists,
    list_paths,
    named_folders,
)

#: The colour of each class that Cityscapes scores, in the order of its training ids.
COLOURS: dict[str, RGB] = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152),
    "sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70),
    "bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
CLASSES = tuple(COLOURS)

#: The ids (``labelIds``) of these classes; all others are void.
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

#: The class number of each id, (256,) uint8.
NUMBERS = np.full(256, VOID, np.uint8)
NUMBERS[list(_IDS)] = range(len(CLASSES))

IMAGES = "leftImg8bit"
TRUTHS = ("gtFine", "gtCoarse")
ENDINGS = ("labelTrainIds", "labelIds")  # in order of preference


def find(place: Path) -> FolderFiles | None:
    """Find images and labels with the folders and names of Cityscapes; None if there are none.

    The labels are ``labelTrainIds`` if every labelled image has them, else ``labelIds``.
    """
    shown, truths = named_folders(place, [IMAGES]), named_folders(place, TRUTHS)
    if not shown or not truths:
        return None
    images: dict[str, Path] = {}
    labels: dict[str, dict[str, Path]] = {ending: {} for ending in ENDINGS}
    groups: dict[str, list[str]] = {}
    for split, names in SPLIT_FOLDERS.items():
        found = {path.stem.removesuffix(f"_{IMAGES}"): path for path in _list_cities(shown[0], names)}
        images |= found
        groups |= {split: list(found)} if found else {}
        for path in _list_cities(truths[0], names):
            if match := re.fullmatch(rf"(.+)_{truths[0].name}_({'|'.join(ENDINGS)})", path.stem):
                labels[match[2]][match[1]] = path
    by_train_id, by_id = (labels[ending] for ending in ENDINGS)
    is_train_id = bool(by_train_id) and by_train_id.keys() >= by_id.keys()
    if not by_train_id and not by_id:
        return None
    read = f"{ENDINGS[0]}" if is_train_id else f"{ENDINGS[1]}, of which 19 are classes and the others void"
    return FolderFiles(
        place,
        images,
        by_train_id if is_train_id else by_id,
        lists=find_lists(place),
        folders=(below(place, shown[0]), below(place, truths[0])),
        groups=groups,
        colours=COLOURS,
        numbers=None if is_train_id else NUMBERS,
        description=f"Cityscapes, labels in {truths[0].name}/ as {read}",
    )


def _list_cities(place: Path, splits: tuple[str, ...]) -> list[Path]:
    """Return the images in the folders of a split, and in the folders of cities in them."""
    folders = [(split, *sorted(filter(Path.is_dir, split.iterdir()))) for split in named_folders(place, splits)]
    return [path for inside in folders for folder in inside for path in list_paths(folder)]

"""Lists of class names, and palettes, that a user or an annotation program put into a folder of images.

classes.txt, palette.txt        this project's
class_names.txt                 LabelMe's export to VOC's layout
codes.txt                       fastai's CamVid
_classes.csv                    Roboflow's segmentation masks, in each split's folder
labelmap.txt                    CVAT's ``Segmentation mask 1.1``, a palette
"""

from __future__ import annotations

import csv
from pathlib import Path

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files
from reproduction.fcn.datasets import layouts
from reproduction.fcn.datasets.base import VOID

_LISTS = ("classes.txt", "class_names.txt", "codes.txt", "_classes.csv", "train/_classes.csv")
_PALETTES = ("palette.txt", "labelmap.txt")


def find_class_list(root: Path) -> Path | None:
    """Return the path of the list of class names in a folder, or None."""
    return next((root / name for name in _LISTS if (root / name).is_file()), None)


def find_palette(root: Path) -> Path | None:
    """Return the path of the palette in a folder, or None."""
    return next((root / name for name in _PALETTES if (root / name).is_file()), None)


def read_class_list(path: StrPath) -> tuple[str, ...]:
    """Read class names from a text file of one name a line, or from Roboflow's table of pixel values and names.

    Returns:
        The names; the index is the label.

    Raises:
        DataError: If the file cannot be read, or is not a list of 1 to 255 distinct names.
    """
    if Path(path).suffix.lower() != ".csv":
        return layouts.read_class_names(path)
    want = "a heading, and lines of a pixel value (0, 1, 2 ...) and a name"
    lines = files.read_list(path, "the names of the classes", want)
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except csv.Error as error:
        raise DataError(f"not a table of classes: {error}", path=path) from None
    names = [row[1] for row in rows[1:] if len(row) == 2]
    values = [row[0] for row in rows[1:] if len(row) == 2]
    if not 0 < len(names) < VOID or values != [str(i) for i in range(len(names))] or len(set(names)) < len(names):
        raise DataError("not a table of classes", path=path, want=want)
    return tuple(names)

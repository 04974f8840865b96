"""PASCAL-Context: VOC 2010's images with every pixel labelled; 459 labels, of which the task takes 59."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files
from reproduction.fcn.datasets import layouts, mat
from reproduction.fcn.datasets.base import Array, Dataset, Tops, class_names
from reproduction.fcn.images import caffe_input

MEAN_BGR = np.array((104.007, 116.669, 122.679), np.float32)

# Three of the published nets' names are other names among the 459. Upstream bug, fixed: the published layer looks for
# them in 59_labels.txt too, and fails on that list as the data set's site has it, with the names among the 459.
# Source: pascalcontext_layers.py L53-54.
RENAMED = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


class PASCALContext(Dataset):
    """PASCAL-Context with the 59 classes of the task, and background for every other label.

    Background is a class like the others: it is learnt and scored, and no pixel is void.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus (104.007, 116.669, 122.679)
        label  (1, H, W)  uint8    0 (background) to 59

    Args:
        split: a list of VOC 2010's ``ImageSets/Main``: ``train`` (4998) or ``val`` (5105).
        root: the data root.
        tops: top -> kind.
        folder: where a prototxt says the annotations lie.
        voc_folder: where a prototxt says the folder that holds ``VOC2010`` lies.
        order: ``seed`` and ``randomize``.

    Raises:
        DataError: as ``Dataset``; and when ``labels.txt`` or ``59_labels.txt`` lies with the annotations and does
            not name the task's classes.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 pascalcontext_layers.py; data/pascal-context.
    """

    name = "pascalcontext"
    kinds = ("data", "label")
    label_lists: ClassVar[dict[str, str]] = {"label": "pascalcontext"}

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        folder: str | None = None,
        voc_folder: str | None = None,
        **order: Any,
    ):
        super().__init__(split, root, tops, **order)
        self.tree = layouts.find(("pascalcontext",), root, folder)
        self.images = layouts.find(("voc2010",), root, voc_folder and f"{voc_folder}/VOC2010")
        self.ids = self._list(split)
        task = [RENAMED.get(name, name) for name in self.classes[1:]]
        listed = _names(self.tree / "59_labels.txt", task)
        if [RENAMED.get(name, name) for name in listed] != task:
            raise DataError(
                "these are not the 59 classes of the published nets, in their order", path=self.tree / "59_labels.txt"
            )
        full = _names(self.tree / "labels.txt", class_names("pascalcontext-459"))
        self._task_label = _mapping(full, task, self.tree / "labels.txt")

    def file(self, kind: str, id: str) -> Path:
        """Return the path of an image or a label map."""
        if kind == "data":
            return self.images / "JPEGImages" / f"{id}.jpg"
        return self.tree / "trainval" / f"{id}.mat"

    def read(self, kind: str, path: Path) -> Array:
        """Read an image or a label map."""
        if kind == "data":
            return caffe_input.caffe_input(caffe_input.rgb(path), MEAN_BGR, flip=True)
        numbers = caffe_input.class_numbers(mat.read(path, "LabelMap"), len(self._task_label) - 1)
        return self._task_label[numbers][np.newaxis]

    def training_ids(self) -> set[str] | None:
        """Return the split ``train``, if its list is at hand."""
        try:
            return set(self._list("train"))
        except DataError:
            return None

    def _list(self, split: str) -> list[str]:
        return layouts.split_ids(split, [self.images / "ImageSets" / "Main" / f"{split}.txt"])


def _mapping(full: Sequence[str], task: Sequence[str], path: Path) -> npt.NDArray[np.uint8]:
    """Return the task's label for each of the full labels, which count from 1; 0 is background."""
    label = np.zeros(len(full) + 1, np.uint8)
    for number, name in enumerate(task, 1):
        if name not in full:
            raise DataError(f"the list has no label {name!r}", path=path, remedy="Fetch it again.")
        label[full.index(name) + 1] = number
    return label


def _names(path: Path, published: Sequence[str]) -> list[str]:
    """Read ``NUMBER: NAME`` lines as the published layer does, or take the published names where there is no file."""
    if not path.is_file():
        return _plain(published)
    try:
        text = files.read_regular(path, 1 << 20).decode()
        lines = [line for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of labels cannot be read ({error})", path=path) from None
    if not all(line.count(":") == 1 for line in lines):
        raise DataError("this is no list of labels", path=path, want="lines of NUMBER: NAME")
    return _plain([line.split(":")[1] for line in lines])


def _plain(names: Sequence[str]) -> list[str]:
    return [name.replace(" ", "") for name in names]

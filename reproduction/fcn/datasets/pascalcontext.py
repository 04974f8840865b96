"""PASCAL-Context: VOC 2010's images with every pixel labelled; 459 labels, of which the task uses 59."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Array, UInt8
from reproduction.fcn.datasets import layouts, mat
from reproduction.fcn.datasets.base import PublishedDataset, Tops, load_class_names
from reproduction.fcn.datasets.layouts import FolderLayout
from reproduction.fcn.datasets.spec import HIGH_DATA, VGG16, DataLayer, DatasetSpec, PublishedNet
from reproduction.fcn.images import caffe_input

MEAN_BGR = np.array((104.007, 116.669, 122.679), np.float32)
_CLASSES = {"label": load_class_names("pascalcontext")}
_LAYOUT = FolderLayout("PASCAL-Context", ("pascal-context", "pascal/pascal-context"), ("trainval",))
_VOC2010 = FolderLayout(
    "PASCAL VOC 2010",
    ("pascal/VOC2010", "pascal/VOCdevkit/VOC2010", "VOCdevkit/VOC2010", "VOC2010"),
    ("JPEGImages", "ImageSets/Main"),
)

# Upstream bug, fixed: three classes of the published nets have other names among PASCAL-Context's 459 labels. The
# published layer expects the nets' names in 59_labels.txt, and fails on the list of the data set's site, which has the
# names among the 459. Here both lists are accepted.
# Source: pascalcontext_layers.py L53-54.
RENAMED = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


class PASCALContext(PublishedDataset):
    """PASCAL-Context with the 59 classes of the paper's task; pixels with any of its 400 other labels are background.

    Background is a class like the others: it is trained and scored, and no pixel is void.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus (104.007, 116.669, 122.679)
        label  (1, H, W)  uint8    0 (background) to 59

    Args:
        split: A list in VOC 2010's ``ImageSets/Main``: ``train`` (4998 samples) or ``val`` (5105).
        root: The data root.
        tops: Mapping from top to kind; None for every kind, under its name.
        voc_folder: The path in a prototxt of the folder that contains ``VOC2010``, tried before the usual places; None
            for none.
        params: ``folder`` of ``PublishedDataset``; ``seed`` and ``randomize`` of ``Dataset``.

    Raises:
        DataError: In the cases of ``Dataset``, and if ``labels.txt`` or ``59_labels.txt`` exists in the folder of the
            annotations but does not name the task's classes.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 pascalcontext_layers.py; data/pascal-context.
    """

    name = "pascalcontext"
    kinds = ("data", "label")
    kind_classes = _CLASSES
    layer = "PASCALContextSegDataLayer"
    layer_folders: ClassVar = {"context_dir": "folder", "voc_dir": "voc_folder"}

    places = (_LAYOUT,)
    patterns: ClassVar = {"label": "trainval/{}.mat"}

    def __init__(
        self, split: str, root: StrPath, tops: Tops | None = None, *, voc_folder: str | None = None, **params: Any
    ):
        self._voc_folder = voc_folder and f"{voc_folder}/VOC2010"
        super().__init__(split, root, tops, **params)
        task = [RENAMED.get(name, name) for name in self.classes[1:]]
        listed = _names(self.tree / "59_labels.txt", task)
        if [RENAMED.get(name, name) for name in listed] != task:
            raise DataError(
                "these are not the 59 classes of the published nets, in their order", path=self.tree / "59_labels.txt"
            )
        full = _names(self.tree / "labels.txt", load_class_names("pascalcontext-459"))
        self._task_label = _mapping(full, task, self.tree / "labels.txt")

    @cached_property
    def images(self) -> Path:
        """The folder of VOC 2010, which has the images.

        Raises:
            DataError: If it is not found.
        """
        return layouts.find_folder((_VOC2010,), self.root, self._voc_folder)

    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of the image (kind ``data``) or label map (kind ``label``) of a sample."""
        return self.images / f"JPEGImages/{image_id}.jpg" if kind == "data" else super().file(kind, image_id)

    def read(self, kind: str, path: Path) -> Array:
        """Read an image as (3, H, W) float32 minus the mean, or a label map as (1, H, W) uint8."""
        if kind == "data":
            return caffe_input.subtract_mean(caffe_input.read_rgb(path), MEAN_BGR, flip=True)
        numbers = caffe_input.check_labels(mat.read(path, "LabelMap"), len(self._task_label) - 1)
        return self._task_label[numbers][np.newaxis]

    def training_ids(self) -> set[str] | None:
        """Return the ids of ``train``, on which the published nets were trained, or None if its list is not found."""
        try:
            return set(self.list_ids("train"))
        except DataError:
            return None

    def list_ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list among those of VOC 2010."""
        return layouts.read_split(split, [self.images / "ImageSets" / "Main" / f"{split}.txt"])


def _mapping(full: Sequence[str], task: Sequence[str], path: Path) -> UInt8:
    """Return a lookup table from the full labels, which count from 1, to the task's; 0 is background."""
    label = np.zeros(len(full) + 1, np.uint8)
    for number, name in enumerate(task, 1):
        if name not in full:
            raise DataError(f"the list has no label {name!r}", path=path, remedy="Fetch it again.")
        label[full.index(name) + 1] = number
    return label


def _names(path: Path, published: Sequence[str]) -> list[str]:
    """Read the names in lines of ``NUMBER: NAME``, as the published layer does; ``published`` if there is no file."""
    if not path.is_file():
        return _plain(published)
    lines = [line for line in files.read_list(path, "the list of labels", "lines of NUMBER: NAME") if line.strip()]
    if not all(line.count(":") == 1 for line in lines):
        raise DataError("not a list of labels", path=path, want="lines of NUMBER: NAME")
    return _plain([line.split(":")[1] for line in lines])


def _plain(names: Sequence[str]) -> list[str]:
    return [name.replace(" ", "") for name in names]


_KEYS = ("context_dir", "seed", "split", "voc_dir")
SPEC = DatasetSpec(
    name="pascalcontext",
    title="PASCAL-Context",
    classes=_CLASSES,
    means={"color": MEAN_BGR},
    datasets=(PASCALContext,),
    layouts={"pascalcontext": _LAYOUT, "voc2010": _VOC2010},
    module="pascalcontext_layers",
    folders={"context_dir": "pascal-context", "voc_dir": "pascal"},
    train=DataLayer("train", "train", PASCALContext, _KEYS),
    test=DataLayer("val", "val", PASCALContext, _KEYS),
    test_iter=5105,
    snapshot=4000,
    schedule=(400_000, 8000),  # Source: shelhamer/fcn.berkeleyvision.org@1305c73 pascalcontext-*/solve.py
)

# fmt: off
NETS = (
    PublishedNet("pascalcontext-fcn32s", SPEC, 32, 1e-10, "pascalcontext-fcn32s-heavy.caffemodel", VGG16,
                 data=HIGH_DATA),
    PublishedNet("pascalcontext-fcn16s", SPEC, 16, 1e-12, "pascalcontext-fcn16s-heavy.caffemodel",
                 {"pascalcontext-fcn32s": ""}, data=HIGH_DATA),
    PublishedNet("pascalcontext-fcn8s", SPEC, 8, 1e-14, "pascalcontext-fcn8s-heavy.caffemodel",
                 {"pascalcontext-fcn16s": ""}, data=HIGH_DATA),
)
# fmt: on

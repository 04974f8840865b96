"""PASCAL VOC's segmentation task, and SBD, which annotates more of VOC's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import DataError, StrPath, shown
from reproduction.fcn.datasets import layouts, mat
from reproduction.fcn.datasets.base import VOID, Array, Dataset, Tops
from reproduction.fcn.datasets.custom.color_labels import Reading
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import caffe_input

# Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc-fcn8s/net.py, and every published VOC prototxt.
MEAN_BGR = (104.00699, 116.66877, 122.67892)


class _VOCClasses(Dataset):
    """What VOC and SBD share: the classes, the mean, and that the published nets learnt from SBD's train split.

    A tree in one of the two layouts that shows other classes names them in its ``classes.txt``, background first.
    """

    kinds = ("data", "label")
    label_lists: ClassVar[dict[str, str]] = {"label": "voc"}

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        mean: Sequence[float] = MEAN_BGR,
        palette: Reading = None,
        **order: Any,
    ):
        super().__init__(split, root, tops, **order)
        self.read_labels = LabelReader(palette)
        # Double precision, unlike the other data sets' means: so the published layer makes it.
        self.mean_bgr = np.array(mean, np.float64)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; index = label."""
        return self._own_classes or super().classes

    def _take_classes(self) -> None:
        """Take the names of the classes from the tree, where it has its own."""
        listed = self.tree / "classes.txt"
        self._own_classes = layouts.read_classes(listed) if listed.is_file() else None
        self.label_classes = dict.fromkeys(self.label_classes, self.classes)

    def read(self, kind: str, path: Path) -> Array:
        """Read an image or a label map."""
        if kind == "data":
            return caffe_input.caffe_input(caffe_input.rgb(path), self.mean_bgr, flip=True)
        values = mat.read(path, "GTcls", "Segmentation") if path.suffix == ".mat" else self.read_labels(path)
        return caffe_input.class_numbers(values, len(self.classes) - 1, void=VOID).astype(np.uint8)[np.newaxis]

    def training_ids(self) -> set[str] | None:
        """Return SBD's train split, if SBD lies beside this tree or below the data root."""
        tree = layouts.search("sbd", self.tree.parent.parent) or layouts.search("sbd", self.root)
        return set(layouts.read_list(tree / "train.txt")) if tree and (tree / "train.txt").is_file() else None


class VOC(_VOCClasses):
    """PASCAL VOC segmentation, of 2011 or, where that is not at hand, 2012.

    The split ``seg11valid``, which the paper and the published nets are scored on, is the 736 images of VOC 2011's
    segmentation val that SBD's train does not hold. The published list and the data's own must agree where both are
    at hand. VOC 2012's archive holds the same images, so the list does for it too.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``
        label  (1, H, W)  uint8    0 to 20, or to the last of the tree's own classes; 255 = void

    Args:
        split: a list of ``ImageSets/Segmentation``, or ``seg11valid``.
        root: the data root.
        tops: top -> kind.
        mean: what to subtract, B G R.
        palette: how label pictures are read, see ``painted.Reading``.
        folder: where a prototxt says the year's tree lies.
        order: ``seed`` and ``randomize``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L8-117, data/pascal/README.md.
    """

    name = "voc"
    years: ClassVar[tuple[str, ...]] = ("voc2011", "voc2012")

    def __init__(
        self, split: str, root: StrPath, tops: Tops | None = None, *, folder: str | None = None, **params: Any
    ):
        super().__init__(split, root, tops, **params)
        self.tree = layouts.find(self.years, root, folder)
        self._take_classes()
        files = [
            self.tree / "ImageSets" / "Segmentation" / f"{split}.txt",
            *(self.root / below / f"{split}.txt" for below in ("splits/pascal", "pascal")),
        ]
        self.ids = layouts.split_ids(split, files, self._seg11valid() if split == "seg11valid" else None)

    def file(self, kind: str, id: str) -> Path:
        """Return the path of an image or a label map."""
        if kind == "data":
            return self.tree / "JPEGImages" / f"{id}.jpg"
        return self.tree / "SegmentationClass" / f"{id}.png"

    def overlap(self) -> list[str] | None:
        """List the ids that SBD's train split holds; ``seg11valid`` has none by its definition."""
        return [] if self.split == "seg11valid" and self.training_ids() is None else super().overlap()

    def _seg11valid(self) -> list[str] | None:
        """Work the split out from VOC 2011's val and SBD's train; None unless both are at hand."""
        lists = "ImageSets/Segmentation"
        year = self.tree if self.tree.name == "VOC2011" else layouts.search("voc2011", self.root, needs=(lists,))
        trained = self.training_ids()
        if trained is None or year is None or not (listed := year / lists / "val.txt").is_file():
            return None
        return [id for id in layouts.read_list(listed) if id not in trained]


class VOC2011(VOC):
    """PASCAL VOC 2011, see ``VOC``."""

    name = "voc2011"
    years = ("voc2011",)


class VOC2012(VOC):
    """PASCAL VOC 2012, see ``VOC``."""

    name = "voc2012"
    years = ("voc2012",)


class SBD(_VOCClasses):
    """Semantic Boundaries Dataset; its train split (8,498 images) is what the published VOC nets learnt from.

    Label maps are the MAT files of the archive, or the PNG files that the published convert_sbdd.py makes of them.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``
        label  (1, H, W)  uint8    0 to 20, or to the last of the tree's own classes; 255 = void

    Args:
        split: a list in the ``dataset`` folder: ``train``, ``val``.
        root: the data root.
        tops: top -> kind.
        mean: what to subtract, B G R.
        palette: how label pictures are read, see ``painted.Reading``.
        folder: where a prototxt says the ``dataset`` folder lies.
        order: ``seed`` and ``randomize``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L120-232, data/pascal/convert_sbdd.py.
    """

    name = "sbd"

    def __init__(
        self, split: str, root: StrPath, tops: Tops | None = None, *, folder: str | None = None, **params: Any
    ):
        super().__init__(split, root, tops, **params)
        self.tree = layouts.find(("sbd",), root, folder)
        self._take_classes()
        self.ids = layouts.split_ids(split, [self.tree / f"{split}.txt"])

    def file(self, kind: str, id: str) -> Path:
        """Return the path of an image or a label map."""
        if kind == "data":
            return self.tree / "img" / f"{id}.jpg"
        converted = self.tree / "cls" / f"{id}.png"
        original = converted.with_suffix(".mat")
        return converted if converted.is_file() and not original.is_file() else original

    def training_ids(self) -> set[str] | None:
        """Return the train split."""
        listed = self.tree / "train.txt"
        return set(layouts.read_list(listed)) if listed.is_file() else None


def check_mean(mean: object) -> tuple[float, float, float]:
    """Check a prototxt's mean: three numbers.

    Raises:
        DataError: it is something else.
    """
    if (
        isinstance(mean, list | tuple)
        and len(mean) == 3
        and all(isinstance(value, int | float) and abs(value) < 1e6 for value in mean)
    ):
        return float(mean[0]), float(mean[1]), float(mean[2])
    raise DataError("'mean' is not three numbers", got=shown(mean)[:80])

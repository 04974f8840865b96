"""PASCAL VOC's segmentation task, and SBD, which annotates more of VOC's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import StrPath
from reproduction.caffe.typing import Array
from reproduction.fcn.datasets import layouts, mat
from reproduction.fcn.datasets.base import VOID, PublishedDataset, Tops, check_param, load_class_names
from reproduction.fcn.datasets.custom.color_labels import Reading, check_palette_param
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.datasets.layouts import FolderLayout
from reproduction.fcn.datasets.spec import CAFFENET, HIGH_DATA, VGG16, DataLayer, DatasetSpec, PublishedNet
from reproduction.fcn.images import caffe_input

# Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc-fcn8s/net.py, and every published VOC prototxt.
MEAN_BGR = (104.00699, 116.66877, 122.67892)
_CLASSES = {"label": load_class_names("voc")}

_VOC_FOLDERS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
_VOC2012 = FolderLayout(
    "PASCAL VOC 2012",
    ("pascal/VOC2012", "pascal/VOCdevkit/VOC2012", "VOCdevkit/VOC2012", "VOC2012"),
    _VOC_FOLDERS,
)
_VOC2011 = FolderLayout(
    "PASCAL VOC 2011",
    (
        "pascal/VOC2011",
        "pascal/TrainVal/VOCdevkit/VOC2011",
        "pascal/VOCdevkit/VOC2011",
        "TrainVal/VOCdevkit/VOC2011",
        "VOCdevkit/VOC2011",
        "VOC2011",
    ),
    _VOC_FOLDERS,
)
_SBD = FolderLayout(
    "SBD",
    (
        "sbdd/dataset",
        "sbdd/benchmark_RELEASE/dataset",
        "benchmark_RELEASE/dataset",
        "pascal/sbdd/dataset",
        "pascal/benchmark_RELEASE/dataset",
    ),
    ("img", "cls"),
)


def check_mean(mean: Sequence[float]) -> tuple[float, ...]:
    """Return the ``mean`` in a data layer's ``param_str`` as three floats if it is valid, else raise.

    Raises:
        DataError: If it is not a list or tuple of three numbers below 1e6 in magnitude.
    """
    is_valid = isinstance(mean, list | tuple) and len(mean) == 3
    is_valid = is_valid and all(isinstance(value, int | float) and abs(value) < 1e6 for value in mean)
    return tuple(map(float, check_param(mean, is_valid, "'mean' is not three numbers")))


class _VOCClasses(PublishedDataset):
    """The base of VOC and SBD: their classes, their mean, and the ids that the published nets were trained on.

    A data set with other classes in one of the two layouts lists their names in its ``classes.txt``, background first.
    """

    kinds = ("data", "label")
    kind_classes = _CLASSES
    layer_checks: ClassVar = {"mean": check_mean, "palette": check_palette_param}

    def __init__(
        self,
        split: str,
        root: StrPath,
        tops: Tops | None = None,
        *,
        mean: Sequence[float] = MEAN_BGR,
        palette: Reading = None,
        **params: Any,
    ):
        super().__init__(split, root, tops, **params)
        self.read_labels = LabelReader(palette)
        # The published layer has this mean in double precision, unlike those of the other data sets.
        self.mean_bgr = np.array(mean, np.float64)
        listed = self.tree / "classes.txt"
        self._own_classes = layouts.read_class_names(listed) if listed.is_file() else None
        self.label_classes = dict.fromkeys(self.label_classes, self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; the index is the label."""
        return self._own_classes or super().classes

    def read(self, kind: str, path: Path) -> Array:
        """Read an image or a label map."""
        if kind == "data":
            return caffe_input.subtract_mean(caffe_input.read_rgb(path), self.mean_bgr, flip=True)
        values = mat.read(path, "GTcls", "Segmentation") if path.suffix == ".mat" else self.read_labels(path)
        return caffe_input.check_labels(values, len(self.classes) - 1, void=VOID).astype(np.uint8)[np.newaxis]

    def training_ids(self) -> set[str] | None:
        """Return the ids of SBD's train split, or None if SBD is neither near this data set nor below the data root."""
        tree = layouts.search_folder(_SBD, self.tree.parent.parent) or layouts.search_folder(_SBD, self.root)
        return set(layouts.read_ids(tree / "train.txt")) if tree and (tree / "train.txt").is_file() else None


class VOC(_VOCClasses):
    """PASCAL VOC segmentation, of 2011 or, if that is not found, 2012.

    The split ``seg11valid``, on which the paper and the published nets are scored, is the 736 images of VOC 2011's
    segmentation val that are not in SBD's train. The published list is included; if the data sets' lists are found,
    they must agree with it. VOC 2012's archive contains the same images, so the split works with it too.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``
        label  (1, H, W)  uint8    0 to 20, or to the last class in ``classes.txt``; 255 = void

    Args:
        split: A list in ``ImageSets/Segmentation``, or ``seg11valid``.
        root: The data root.
        tops: Mapping from top to kind; None for every kind, under its name.
        mean: The mean of each channel to subtract, in B G R order, 0 to 255.
        palette: How label images are read. A palette: by colour. ``"indices"``: by pixel value. None: by pixel value,
            if the image's own palette proves that these are class numbers.
        folder: The path of the folder ``VOC2011`` (or 2012) in a prototxt, tried before the usual places; None for
            none.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L8-117, data/pascal/README.md.
    """

    name = "voc"
    layer = "VOCSegDataLayer"
    layer_folders: ClassVar = {"voc_dir": "folder"}
    places: ClassVar[tuple[FolderLayout, ...]] = (_VOC2011, _VOC2012)
    patterns: ClassVar = {"data": "JPEGImages/{}.jpg", "label": "SegmentationClass/{}.png"}

    def list_ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list."""
        files = [
            self.tree / "ImageSets" / "Segmentation" / f"{split}.txt",
            *(self.root / below / f"{split}.txt" for below in ("splits/pascal", "pascal")),
        ]
        derived = self._seg11valid() if split == "seg11valid" else None
        return layouts.read_split(split, files, derived, published=split)

    def overlap(self) -> list[str] | None:
        """Return the ids of this split that are in SBD's train split, on which the published nets were trained.

        None if SBD is not found. An empty list for ``seg11valid`` even then: it contains no such image by definition.
        """
        return [] if self.split == "seg11valid" and self.training_ids() is None else super().overlap()

    def _seg11valid(self) -> list[str] | None:
        """Compute the split from VOC 2011's val and SBD's train; return None unless both are found."""
        lists = "ImageSets/Segmentation"
        year = self.tree if self.tree.name == "VOC2011" else layouts.search_folder(_VOC2011, self.root, needs=(lists,))
        trained = self.training_ids()
        if trained is None or year is None or not (listed := year / lists / "val.txt").is_file():
            return None
        return [image_id for image_id in layouts.read_ids(listed) if image_id not in trained]


class VOC2011(VOC):
    """PASCAL VOC segmentation of 2011 only, see ``VOC``."""

    name = "voc2011"
    places = (_VOC2011,)


class VOC2012(VOC):
    """PASCAL VOC segmentation of 2012 only, see ``VOC``."""

    name = "voc2012"
    places = (_VOC2012,)


class SBD(_VOCClasses):
    """The Semantic Boundaries Dataset: on its train split (8,498 images), the published VOC nets were trained.

    Label maps are the MAT files of the archive, or the PNG files into which the published convert_sbdd.py converts
    them.

    Shapes:
        kind   shape      dtype    content
        data   (3, H, W)  float32  B G R, minus ``mean``
        label  (1, H, W)  uint8    0 to 20, or to the last class in ``classes.txt``; 255 = void

    Args:
        split: A list in the ``dataset`` folder: ``train`` or ``val``.
        root: The data root.
        tops: Mapping from top to kind; None for every kind, under its name.
        mean: The mean of each channel to subtract, in B G R order, 0 to 255.
        palette: How label images are read. A palette: by colour. ``"indices"``: by pixel value. None: by pixel value,
            if the image's own palette proves that these are class numbers.
        folder: The path of SBD's folder ``dataset`` in a prototxt, tried before the usual places; None for none.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 voc_layers.py L120-232, data/pascal/convert_sbdd.py.
    """

    name = "sbd"
    layer = "SBDDSegDataLayer"
    layer_folders: ClassVar = {"sbdd_dir": "folder"}

    places = (_SBD,)
    patterns: ClassVar = {"data": "img/{}.jpg", "label": "cls/{}.mat"}

    def list_ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list."""
        return layouts.read_split(split, [self.tree / f"{split}.txt"])

    def file(self, kind: str, image_id: str) -> Path:
        """Return the path of the image (kind ``data``) or label map (kind ``label``) of a sample."""
        original = super().file(kind, image_id)
        converted = original.with_suffix(".png")
        return converted if kind == "label" and converted.is_file() and not original.is_file() else original

    def training_ids(self) -> set[str] | None:
        """Return the ids of ``train``, on which the published nets were trained, or None if its list does not exist."""
        listed = self.tree / "train.txt"
        return set(layouts.read_ids(listed)) if listed.is_file() else None


SPEC = DatasetSpec(
    name="voc",
    title="PASCAL VOC",
    classes=_CLASSES,
    means={"color": np.array(MEAN_BGR, np.float64)},
    datasets=(VOC, VOC2011, VOC2012, SBD),
    layouts={"voc2011": _VOC2011, "voc2012": _VOC2012, "sbd": _SBD},
    module="voc_layers",
    folders={"sbdd_dir": "sbdd/dataset", "voc_dir": "pascal/VOC2011"},
    train=DataLayer("train", "train", SBD, ("sbdd_dir", "seed", "split", "mean")),
    test=DataLayer("val", "seg11valid", VOC, ("voc_dir", "seed", "split", "mean")),
    test_iter=736,
    max_iter=100_000,
    snapshot=4000,
)

# fmt: off
NETS = (
    PublishedNet("voc-fcn32s", SPEC, 32, 1e-10, "fcn32s-heavy-pascal.caffemodel", VGG16),
    PublishedNet("voc-fcn16s", SPEC, 16, 1e-12, "fcn16s-heavy-pascal.caffemodel", {"voc-fcn32s": ""}, data=HIGH_DATA),
    PublishedNet("voc-fcn8s", SPEC, 8, 1e-14, "fcn8s-heavy-pascal.caffemodel", {"voc-fcn16s": ""}),
    PublishedNet("voc-fcn8s-atonce", SPEC, 8, 1e-10, "fcn8s-atonce-pascal.caffemodel", VGG16,
                 at_once=True, solver={"max_iter": 300_000}),
    PublishedNet("voc-fcn-alexnet", SPEC, 32, 1e-4, "fcn-alexnet-pascal.caffemodel", CAFFENET,
                 trunk="alexnet", first="conv1", kernel=63, normalize=True, solver={"momentum": 0.9, "iter_size": 20}),
)
# fmt: on

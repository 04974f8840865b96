"""SIFT Flow: outdoor scenes with two kinds of labels, semantic and geometric."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from reproduction.caffe.typing import Array
from reproduction.fcn.datasets import layouts, mat
from reproduction.fcn.datasets.base import PublishedDataset, load_class_names
from reproduction.fcn.datasets.layouts import FolderLayout
from reproduction.fcn.datasets.spec import VGG16, DataLayer, DatasetSpec, PublishedNet
from reproduction.fcn.images import caffe_input

MEAN_BGR = np.array((114.578, 115.294, 108.353), np.float32)
_CLASSES = {"sem": load_class_names("siftflow-sem"), "geo": load_class_names("siftflow-geo")}
_LAYOUT = FolderLayout(
    "SIFT Flow",
    ("sift-flow", "sift-flow/SiftFlowDataset", "SiftFlowDataset"),
    ("Images", "SemanticLabels", "GeoLabels"),
)
_SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


class SIFTFlow(PublishedDataset):
    """SIFT Flow: outdoor scenes in which each pixel has a semantic label (``sem``) and a geometric one (``geo``).

    The published splits leave out two images without labels.

    Shapes:
        kind  shape      dtype    content
        data  (3, H, W)  float32  B G R, minus (114.578, 115.294, 108.353)
        sem   (1, H, W)  uint8    0 to 32; 255 = void (0 in the file)
        geo   (1, H, W)  uint8    0 to 2: sky, horizontal, vertical; 255 = void (0 or -1 in the file)

    Args:
        split: ``trainval`` (2486 samples) or ``test`` (200).
        root: The data root.
        tops: Mapping from top to kind; None for every kind, under its name.
        folder: The data set's path in a prototxt, tried before the usual places; None for none.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 siftflow_layers.py; data/sift-flow.
    """

    name = "siftflow"
    kinds = ("data", "sem", "geo")
    kind_classes = _CLASSES
    layer = "SIFTFlowSegDataLayer"
    layer_folders: ClassVar = {"siftflow_dir": "folder"}

    places = (_LAYOUT,)
    patterns: ClassVar = {
        "data": f"Images/{_SCENES}/{{}}.jpg",
        "sem": f"SemanticLabels/{_SCENES}/{{}}.mat",
        "geo": f"GeoLabels/{_SCENES}/{{}}.mat",
    }

    def read(self, kind: str, path: Path) -> Array:
        """Read an image as (3, H, W) float32 minus the mean, or one of its two label maps as (1, H, W) uint8."""
        if kind == "data":
            return caffe_input.subtract_mean(caffe_input.read_rgb(path), MEAN_BGR, flip=True)
        values = mat.read(path, "S")
        if kind == "sem":
            numbers = caffe_input.check_labels(values, 33)
        else:
            numbers = np.maximum(caffe_input.check_labels(values, 3, low=-1), 0)
        return (numbers.astype(np.uint8) - np.uint8(1))[np.newaxis]  # 0, void, wraps to 255

    def list_ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list."""
        places = [self.root / "splits" / "sift-flow", self.root / "sift-flow", self.tree]  # the published lists first
        return layouts.read_split(split, [place / f"{split}.txt" for place in places], published=f"siftflow-{split}")


_KEYS = ("siftflow_dir", "seed", "split")
SPEC = DatasetSpec(
    name="siftflow",
    title="SIFT Flow",
    classes=_CLASSES,
    means={"color": MEAN_BGR},
    datasets=(SIFTFlow,),
    layouts={"siftflow": _LAYOUT},
    module="siftflow_layers",
    folders={"siftflow_dir": "sift-flow"},
    train=DataLayer("trainval", "trainval", SIFTFlow, _KEYS),
    test=DataLayer("test", "test", SIFTFlow, _KEYS),
    test_iter=200,
    schedule=(100_000, 2000),  # Source: shelhamer/fcn.berkeleyvision.org@1305c73 siftflow-*/solve.py
)

NETS = (
    PublishedNet("siftflow-fcn32s", SPEC, 32, 1e-10, "siftflow-fcn32s-heavy.caffemodel", VGG16),
    PublishedNet("siftflow-fcn16s", SPEC, 16, 1e-12, "siftflow-fcn16s-heavy.caffemodel", {"siftflow-fcn32s": ""}),
    # The published solver has 1e-12 here, unlike the other staged nets of stride 8, which have 1e-14.
    PublishedNet("siftflow-fcn8s", SPEC, 8, 1e-12, "siftflow-fcn8s-heavy.caffemodel", {"siftflow-fcn16s": ""}),
)

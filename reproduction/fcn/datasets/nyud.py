"""NYUDv2: indoor scenes with depth, 40 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reproduction.caffe.errors import DataError
from reproduction.caffe.typing import Array
from reproduction.fcn.datasets import layouts, mat
from reproduction.fcn.datasets.base import PublishedDataset, check_text, load_class_names
from reproduction.fcn.datasets.layouts import FolderLayout
from reproduction.fcn.datasets.spec import VGG16, DataLayer, DatasetSpec, PublishedNet
from reproduction.fcn.images import caffe_input

MEAN_BGR = np.array((116.190, 97.203, 92.318), np.float32)
MEAN_HHA = np.array((132.431, 94.076, 118.477), np.float32)
MEAN_LOG_DEPTH = np.array((7.844,), np.float32)

_CLASSES = {"label": load_class_names("nyud")}
_LAYOUT = FolderLayout("NYUDv2", ("nyud", "nyud/nyud"), ("data", "segmentation"))


def _check_kinds(kinds: Any) -> list[str] | str:
    return list(map(check_text, kinds)) if isinstance(kinds, list | tuple) else check_text(kinds)


class NYUD(PublishedDataset):
    """NYUDv2 in the format that Berkeley published (``nyud.tar.gz``).

    No list of the split ``trainval`` was published: it is ``train`` followed by ``val``.

    Shapes:
        kind   shape      dtype    content
        color  (3, H, W)  float32  B G R, minus (116.190, 97.203, 92.318)
        depth  (1, H, W)  float32  natural logarithm of millimetres, minus 7.844
        hha    (3, H, W)  float32  disparity, height, angle as stored (not flipped), minus (132.431, 94.076, 118.477)
        label  (1, H, W)  uint8    0 to 39; 255 = void (0 in the file)

    Args:
        split: ``train`` (381 samples), ``val`` (414), ``trainval`` (795) or ``test`` (654).
        root: The data root.
        tops: Mapping from top to kind; None for every kind, under its name.
        folder: The data set's path in a prototxt, tried before the usual places; None for none.
        order: ``seed`` and ``randomize``, which determine the order of training samples, see ``Dataset``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 nyud_layers.py; data/nyud.
    """

    name = "nyud"
    kinds = ("color", "depth", "hha", "label")
    kind_classes = _CLASSES
    layer = "NYUDSegDataLayer"
    layer_folders: ClassVar = {"nyud_dir": "folder"}
    layer_checks: ClassVar = {"tops": _check_kinds}

    places = (_LAYOUT,)
    patterns: ClassVar = {
        "color": "data/images/img_{}.png",
        "depth": "data/depth/img_{}.png",
        "hha": "data/hha/img_{}.png",
        "label": "segmentation/img_{}.mat",
    }

    def read(self, kind: str, path: Path) -> Array:
        """Read an image or depth map as float32 minus the mean, or a label map as (1, H, W) uint8."""
        if kind == "color":
            return caffe_input.subtract_mean(caffe_input.read_rgb(path), MEAN_BGR, flip=True)
        elif kind == "hha":
            return caffe_input.subtract_mean(caffe_input.read_rgb(path), MEAN_HHA, flip=False)
        elif kind == "depth":
            return log_depth(caffe_input.read_depth(path))
        values = caffe_input.check_labels(mat.read(path, "segmentation"), len(self.classes)).astype(np.uint8)
        return (values - np.uint8(1))[np.newaxis]  # 0, void, wraps to 255

    def list_ids(self, split: str) -> list[str]:
        """Return the ids of a split, in the order of its list."""
        places = [self.root / "splits" / "nyud", self.root / "nyud", self.tree]  # the published lists first
        derived = [*self.list_ids("train"), *self.list_ids("val")] if split == "trainval" else None
        return layouts.read_split(split, [place / f"{split}.txt" for place in places], derived, f"nyud-{split}")


def log_depth(millimetres: Array) -> Array:
    """Return the logarithm of a depth map minus its mean over the data set, as the published data layer does.

    Args:
        millimetres: (H, W), all greater than 0.

    Returns:
        (1, H, W) float32.

    Raises:
        DataError: If a pixel has no depth (is not greater than 0).

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 nyud_layers.py (load_depth).
    """
    values = millimetres.astype(np.float32)
    if not (values > 0).all():
        holes = np.count_nonzero(~(values > 0))
        raise DataError(f"{holes} pixels have no depth", want="depths with their holes filled")
    values = np.log(values)
    values -= MEAN_LOG_DEPTH
    return values[np.newaxis]


_KEYS = ("tops", "seed", "nyud_dir", "split")
SPEC = DatasetSpec(
    name="nyud",
    title="NYUDv2",
    classes=_CLASSES,
    means={"color": MEAN_BGR, "hha": MEAN_HHA, "depth": MEAN_LOG_DEPTH},
    datasets=(NYUD,),
    layouts={"nyud": _LAYOUT},
    module="nyud_layers",
    folders={"nyud_dir": "nyud"},
    train=DataLayer("trainval", "trainval", NYUD, _KEYS),
    test=DataLayer("test", "test", NYUD, _KEYS),
    test_iter=654,
    snapshot=2000,
    schedule=(100_000, 2000),  # Source: shelhamer/fcn.berkeleyvision.org@1305c73 nyud-*/solve.py
)

# fmt: off
NETS = (
    PublishedNet("nyud-fcn32s-color", SPEC, 32, 1e-10, "nyud-fcn32s-color-heavy.caffemodel", VGG16),
    PublishedNet("nyud-fcn32s-color-d", SPEC, 32, 1e-10, None, VGG16,
                 inputs={"color": "color", "depth": "depth"}, first="conv1_1_bgrd"),
    PublishedNet("nyud-fcn32s-hha", SPEC, 32, 1e-10, "nyud-fcn32s-hha-heavy.caffemodel", VGG16, inputs={"data": "hha"}),
    PublishedNet("nyud-fcn32s-color-hha", SPEC, 32, 1e-12, "nyud-fcn32s-color-hha-heavy.caffemodel",
                 {"nyud-fcn32s-color": "color", "nyud-fcn32s-hha": "hha"},
                 inputs={"color": "color", "hha": "hha"}, late=True),
)
# fmt: on

"""The record of a user's own images, on which nets are trained whose texts name no data that can be had.

It stands for any folder: ``train.custom_nets`` replaces its classes by those of the folder.
"""

from __future__ import annotations

from reproduction.fcn.datasets import voc
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.datasets.spec import DataLayer, DatasetSpec

#: The keys of the data layer's ``param_str``.
KEYS = ("seed", "split", "mean", "classes", "palette", "side")

#: The longer side of VOC's images in pixels, the scale at which the published nets recognize objects.
SIDE = 500

_CLASSES = {"label": ("background", "object")}

SPEC = DatasetSpec(
    name=Folder.name,
    title="Your own images",
    classes=_CLASSES,
    means=voc.SPEC.means,
    datasets=(Folder,),
    layouts={},
    module="folder_layers",
    folders={},
    train=DataLayer("train", "train", Folder, KEYS),
    test=DataLayer("val", "val", Folder, KEYS),
    test_iter=1,
    max_iter=100_000,
    snapshot=4000,
    params={"classes": list(_CLASSES["label"]), "palette": None, "side": SIDE},
)

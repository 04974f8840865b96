"""The paper's data sets, preprocessed as the published Python layers do, and users' folders of images and labels.

``open_split("voc", "seg11valid", "data")`` finds a data set below the data root; ``from_layer`` does the same for the
data layer of a published prototxt. A data set is a sequence of samples, see ``base.Dataset``; ``base.check_sample``
checks that a sample has the documented arrays. Each data set has a record, see ``spec.DatasetSpec``.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reproduction.caffe.errors import DataError, StrPath, did_you_mean
from reproduction.caffe.schema import PythonParameter
from reproduction.fcn.datasets.base import (
    VOID,
    Dataset,
    Sample,
    check_param,
    check_sample,
    check_text,
    draw_order,
    load_class_names,
)
from reproduction.fcn.datasets.custom.color_labels import Reading
from reproduction.fcn.datasets.custom.folder import Folder
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.datasets.spec import DatasetSpec, NetRecord, PublishedNet
from reproduction.fcn.images import framing
from reproduction.fcn.images.framing import Framing

__all__ = [
    "DATASETS",
    "NETS",
    "SPECS",
    "VOID",
    "Dataset",
    "DatasetSpec",
    "NetRecord",
    "PublishedNet",
    "Sample",
    "check_sample",
    "draw_order",
    "from_layer",
    "load_class_names",
    "open_split",
    "set_label_reading",
]

#: The files of the data sets; docs/data_sets.md shows how to add one.
_FILES = ("voc", "nyud", "siftflow", "pascalcontext", "mini.mini_voc")
_MODULES = [importlib.import_module(f"{__name__}.{file}") for file in _FILES]

#: The data sets by name.
SPECS: dict[str, DatasetSpec] = {module.SPEC.name: module.SPEC for module in _MODULES}
#: The nets of the paper and those of Mini-VOC by name. ``fcn.nets.registry`` has further nets.
NETS: dict[str, PublishedNet] = {net.name: net for module in _MODULES for net in module.NETS}
#: The classes that read the data sets by name, and users' folders.
DATASETS: dict[str, type[Dataset]] = {kind.name: kind for spec in SPECS.values() for kind in spec.datasets} | {
    Folder.name: Folder
}
# The class of each Python layer. FolderSegDataLayer is ours, for users' data; the others are published.
_FRAMING = {each.name for each in dataclasses.fields(Framing)}  # keys of every layer's ``param_str``
_LAYERS = {kind.layer: kind for kind in DATASETS.values() if "layer" in vars(kind)}


def open_split(
    name: str, split: str, root: StrPath = "data", tops: Mapping[str, str] | Sequence[str] | None = None
) -> Dataset:
    """Open a split of a data set.

    Args:
        name: A key of ``DATASETS``. ``"voc"`` is VOC 2011 or, if that is not found, VOC 2012.
        split: Name of the split: ``train``, ``val``, ``trainval``, ``test`` or ``seg11valid``.
        root: The data root, the folder that contains the data sets.
        tops: The kinds of data to read, such as ``("color", "label")``, or a mapping from the net's tops to them if the
            names differ, such as ``{"data": "color", "label": "label"}``. None for all kinds.

    Returns:
        The split.

    Raises:
        DataError: If there is no such data set or kind, or its folder or split is not found. The error lists where it
            looked.
    """
    if name not in DATASETS:
        known = f"one of {', '.join(DATASETS)}"
        raise DataError(f"no data set is called {name!r}", want=known, remedy=did_you_mean(name, DATASETS))
    if tops is not None and not isinstance(tops, Mapping):
        tops = {kind: kind for kind in tops}
    return DATASETS[name](split, root, tops)


def from_layer(
    param: PythonParameter, tops: Sequence[str], root: StrPath = "data", split: str | None = None
) -> Dataset:
    """Open the data set that the Python data layer of a published prototxt reads.

    The layer's folders, which are relative to the prototxt, are looked up below ``root``, then in the usual places.
    No code is executed: ``param_str`` is parsed as a Python literal.

    Args:
        param: The layer's ``python_param``.
        tops: The names of the layer's tops.
        root: The data root.
        split: The split to open; None for the layer's.

    Returns:
        The split.

    Raises:
        DataError: If the layer or a parameter is unknown, the number of tops is wrong, or ``open_split`` would raise.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 *_layers.py (setup).
    """
    if param.layer not in _LAYERS:
        raise DataError(
            f"no data set belongs to the Python layer {param.layer!r}",
            want=f"one of {', '.join(_LAYERS)}",
            remedy=did_you_mean(param.layer, _LAYERS),
        )
    try:
        return _open_layer(_LAYERS[param.layer], _parse_params(param.param_str), tops, root, split)
    except DataError as error:
        raise error if error.place else error.at(param.layer) from None


def set_label_reading(dataset: Dataset, reading: Reading) -> None:
    """Set how a data set reads its label images: by colour, or by class numbers.

    Args:
        dataset: The data set; its labels must be image files.
        reading: A palette (colour of each class): by colour. ``"indices"``: by pixel value. None, the default: by pixel
            value, if the image's own palette proves that these are class numbers.

    Raises:
        DataError: If the labels of the data set are not images.
    """
    if not hasattr(dataset, "read_labels"):
        raise DataError(f"the labels of {dataset.name} are not images", remedy="Leave --palette out.")
    dataset.read_labels = LabelReader(reading)


def _open_layer(
    kind: type[Dataset], params: dict[str, Any], tops: Sequence[str], root: StrPath, split: str | None
) -> Dataset:
    checks: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys((*kind.layer_folders, "split"), check_text),
        "randomize": _check_flag,
        "seed": _check_seed,
        **dict.fromkeys(_FRAMING, _check_pixels),
        **kind.layer_checks,
    }
    for key in params:
        if key not in checks:
            raise DataError(f"param_str has an unknown {key!r}", remedy=did_you_mean(key, checks))
    params = {kind.layer_folders.get(key, key): checks[key](value) for key, value in params.items()}
    kinds = params.pop("tops", kind.kinds)
    if len(tops) != len(kinds) or len(set(tops)) != len(tops):
        raise DataError("wrong tops", got=list(tops), want=f"{len(kinds)}, for {', '.join(kinds)}")
    listed = params.pop("split", None)
    if split is None and listed is None:
        raise DataError("param_str names no split")
    params.setdefault("seed", None)
    frame = Framing(**{key: params.pop(key) for key in _FRAMING & params.keys()})
    dataset = kind(split or listed, root, dict(zip(tops, kinds, strict=True)), **params)
    dataset.framing = frame
    return dataset


def _parse_params(text: str) -> dict[str, Any]:
    try:
        params = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        params = None
    if not isinstance(params, dict) or not all(isinstance(key, str) for key in params):
        raise DataError("param_str is not a dictionary of literals", got=repr(text[:80]), want="{'split': 'val', ...}")
    return params


def _check_flag(value: bool) -> bool:
    return bool(check_param(value, value in (True, False), "'randomize' is not True or False"))


def _check_pixels(value: int) -> int:
    is_valid = type(value) is int and 0 < value <= framing.WIDEST
    return check_param(value, is_valid, "the frame is not a number of pixels", f"1 to {framing.WIDEST}")


def _check_seed(value: int | None) -> int | None:
    is_valid = value is None or (isinstance(value, int) and abs(value) < 1 << 64)
    return check_param(value, is_valid, "the seed is not a whole number")

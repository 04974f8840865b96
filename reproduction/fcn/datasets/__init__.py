"""The paper's data sets, as the published Python layers read them, and anybody's own.

``open("voc", "seg11valid", "data")`` finds the tree below the data root (``layouts.LAYOUTS`` says where it looks);
``from_layer`` does the same from the data layer of a published prototxt. A data set is a sequence of samples,
``base.Dataset``; what it holds is there, and ``base.check_sample`` is that contract as code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reproduction.caffe.errors import DataError, StrPath, did_you_mean, shown
from reproduction.caffe.formats import files
from reproduction.caffe.schema import PythonParameter
from reproduction.fcn.datasets.base import Dataset, Sample, check_sample, class_names, draw_order
from reproduction.fcn.datasets.custom.color_labels import Reading
from reproduction.fcn.datasets.custom.folder import Folder, check_names, check_palette, check_side
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.datasets.layouts import LAYOUTS
from reproduction.fcn.datasets.mini.mini_voc import Mini, MiniSBD
from reproduction.fcn.datasets.nyud import NYUD
from reproduction.fcn.datasets.pascalcontext import PASCALContext
from reproduction.fcn.datasets.siftflow import SIFTFlow
from reproduction.fcn.datasets.voc import SBD, VOC, VOC2011, VOC2012, check_mean

__all__ = [
    "DATASETS",
    "LAYOUTS",
    "Dataset",
    "Sample",
    "check_sample",
    "class_names",
    "draw_order",
    "from_layer",
    "open",
    "read_labels_by",
]

DATASETS: dict[str, type[Dataset]] = {
    kind.name: kind for kind in (VOC, VOC2011, VOC2012, SBD, NYUD, SIFTFlow, PASCALContext, Mini, MiniSBD, Folder)
}

# The published layers, and the one for data that are nobody's but the user's: their data set, and what their folder
# parameters are here.
_LAYERS: dict[str, tuple[type[Dataset], dict[str, str]]] = {
    "VOCSegDataLayer": (VOC, {"voc_dir": "folder"}),
    "SBDDSegDataLayer": (SBD, {"sbdd_dir": "folder"}),
    "NYUDSegDataLayer": (NYUD, {"nyud_dir": "folder"}),
    "SIFTFlowSegDataLayer": (SIFTFlow, {"siftflow_dir": "folder"}),
    "PASCALContextSegDataLayer": (PASCALContext, {"context_dir": "folder", "voc_dir": "voc_folder"}),
    "FolderSegDataLayer": (Folder, {}),
}


def open(
    name: str, split: str, root: StrPath = "data", tops: Mapping[str, str] | Sequence[str] | None = None
) -> Dataset:
    """Open a split of a data set.

    Args:
        name: a key of ``DATASETS``; ``voc`` is VOC 2011, or VOC 2012 where that is not at hand.
        split: a list of ids: ``train``, ``val``, ``trainval``, ``test``, ``seg11valid``.
        root: the data root.
        tops: the kinds to read (NYUDv2 has four), or top -> kind when the net calls them otherwise. Default: all.

    Raises:
        DataError: no such data set, tree, split or kind; says where it looked.
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
    """Open what the Python data layer of a published prototxt reads.

    Its folders, which are relative to the prototxt's, are looked for below ``root``; where they are not there,
    everywhere that ``LAYOUTS`` names. Nothing of it is executed: the parameter string is read as a literal.

    Args:
        param: the layer's ``python_param``.
        tops: the layer's tops.
        root: the data root.
        split: another split than the layer's.

    Raises:
        DataError: an unknown layer or parameter, a wrong number of tops, or as ``open``.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 *_layers.py (setup).
    """
    if param.layer not in _LAYERS:
        raise DataError(
            f"no data set belongs to the Python layer {param.layer!r}",
            want=f"one of {', '.join(_LAYERS)}",
            remedy=did_you_mean(param.layer, _LAYERS),
        )
    kind, folders = _LAYERS[param.layer]
    try:
        return _open_layer(kind, folders, _params(param.param_str), tops, root, split)
    except DataError as error:
        raise error if error.place else error.at(param.layer) from None


def read_labels_by(dataset: Dataset, reading: Reading) -> None:
    """Change how the label pictures of a data set are read.

    Args:
        dataset: the data set.
        reading: see ``painted.Reading``.

    Raises:
        DataError: its labels are not pictures.
    """
    if not isinstance(dataset, VOC | SBD | Folder):
        raise DataError(f"the labels of {dataset.name} are not pictures", remedy="Leave --palette out.")
    dataset.read_labels = LabelReader(reading)


def _open_layer(
    kind: type[Dataset],
    folders: Mapping[str, str],
    params: dict[str, Any],
    tops: Sequence[str],
    root: StrPath,
    split: str | None,
) -> Dataset:
    checks: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys((*folders, "split"), _text),
        "randomize": _flag,
        "seed": _seed,
    }
    if kind in (VOC, SBD, Folder):
        checks |= {"mean": check_mean, "palette": check_palette}
    if kind is Folder:
        checks |= {"classes": check_names, "side": check_side}
    if kind is NYUD:
        checks["tops"] = lambda kinds: (
            [_text(name) for name in kinds] if isinstance(kinds, list | tuple) else _text(kinds)
        )
    for key in params:
        if key not in checks:
            raise DataError(f"param_str has an unknown {key!r}", remedy=did_you_mean(key, checks))
    params = {folders.get(key, key): checks[key](value) for key, value in params.items()}
    kinds = params.pop("tops", kind.kinds)
    if len(tops) != len(kinds) or len(set(tops)) != len(tops):
        raise DataError("wrong tops", got=list(tops), want=f"{len(kinds)}, for {', '.join(kinds)}")
    listed = params.pop("split", None)
    if split is None and listed is None:
        raise DataError("param_str names no split")
    params.setdefault("seed", None)
    return kind(split or listed, root, dict(zip(tops, kinds, strict=True)), **params)


def _params(text: str) -> dict[str, Any]:
    try:
        params = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        params = None
    if not isinstance(params, dict) or not all(isinstance(key, str) for key in params):
        raise DataError("param_str is not a dictionary of literals", got=repr(text[:80]), want="{'split': 'val', ...}")
    return params


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value or not files.is_utf8(value):
        raise DataError("param_str has a value that is not a string", got=shown(value)[:80])
    return value


def _flag(value: object) -> bool:
    if value not in (True, False):
        raise DataError("'randomize' is not True or False", got=shown(value)[:80])
    return bool(value)


def _seed(value: object) -> int | None:
    if value is not None and not (isinstance(value, int) and abs(value) < 1 << 64):
        raise DataError("the seed is not a whole number", got=shown(value)[:80])
    return value

"""Recognition of annotation formats that are not read, so that an error can name what to do with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import files

_HEAD = 4096  # bytes of a file that are examined
_FEW = 3  # files of each ending in a folder that are examined
_FOLDERS = 200  # folders that are examined
_COCO = "Export the outlines as COCO JSON"
_DRAWN = "Boxes have no outlines: draw outlines, or paint label maps."

_AS_PNG = "Save each as PNG: `Image.fromarray(labels.astype('uint8')).save(name)`."


class _Format(NamedTuple):
    """A format: the endings of its files, a pattern of their first bytes, its name, and what to do."""

    endings: tuple[str, ...]
    pattern: str
    name: str
    remedy: str


_FORMATS = (
    _Format((".xml",), r"[\s\S]{0,300}?<annotations\b", "CVAT's XML", f"{_COCO} or as `Segmentation mask` in CVAT."),
    _Format((".xml",), r"[\s\S]{0,300}?<annotation\b", "PASCAL VOC's XML of boxes", _DRAWN),
    _Format((".txt",), r"\d+( -?[\d.]+(e-?\d+)?){4}\s*(\n|$)", "YOLO's text of boxes", _DRAWN),
    _Format(
        (".txt",),
        r"\d+( -?[\d.]+(e-?\d+)?){6,}\s*(\n|$)",
        "YOLO's text of outlines",
        "Convert it by the package supervision: `DetectionDataset.from_yolo(..., force_masks=True).as_coco(...)`.",
    ),
    _Format((".json",), r'[\s\S]*"(classTitle|geometryType)"', "Supervisely's JSON", f"{_COCO} or masks by its apps."),
    _Format((".json",), r'\s*\[\s*\{[\s\S]*"annotations"', "Label Studio's JSON", f"{_COCO} or `Brush labels to PNG`."),
    _Format(
        (".json",), r'[\s\S]*"(_via_settings|region_attributes)"', "the JSON of VGG's annotator", f"{_COCO} there."
    ),
    _Format((".json", ".ndjson"), r'[\s\S]*"data_row"', "Labelbox's JSON", f"{_COCO} with Labelbox's SDK."),
    _Format((".tfrecord", ".tfrecords", ".record"), "", "TFRecord", f"{_COCO} or as label maps."),
    _Format((".npy", ".npz"), "", "NumPy's arrays", _AS_PNG),
    _Format((".mat",), "", "MATLAB's arrays", _AS_PNG),
)
_ENDINGS = frozenset(ending for each in _FORMATS for ending in each.endings)
#: Text files that are not annotations.
_LISTS = re.compile(r"(classes|palette|labelmap|train|val|valid|test|readme.*|.*requirements)", re.IGNORECASE)


def recognize(root: Path) -> DataError | None:
    """Return an error that names the format of the annotations in a folder, if it is known but not read; else None."""
    for path in _samples(root):
        try:
            with files.open_regular(path) as file:
                head = file.read(_HEAD).decode("utf-8", "replace")
        except (OSError, DataError):
            continue
        for each in _FORMATS:
            if path.name.lower().endswith(each.endings) and re.match(each.pattern, head):
                problem = "annotations in this format are not read"
                return DataError(problem, path=path, got=each.name, remedy=each.remedy)
    return None


def _samples(root: Path) -> Iterator[Path]:
    """Yield some files below a folder whose ending an annotation may have, from at most three levels of folders."""
    level = [root]
    for _ in range(3):
        below: list[Path] = []
        for folder in level[:_FOLDERS]:
            count = dict.fromkeys(_ENDINGS, 0)
            for path in sorted(folder.iterdir()):
                ending = path.suffix.lower()
                if path.name.startswith("."):
                    continue
                if ending in count and not _LISTS.fullmatch(path.stem) and count[ending] < _FEW:
                    count[ending] += 1
                    yield path
                elif not ending and path.is_dir() and not path.is_symlink():
                    below.append(path)
        level = below

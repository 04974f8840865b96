"""Where the data sets lie below the data root, and the lists of ids that make a split.

One table for everybody: what ``tools/fetch.py`` extracts, what the published archives hold, and what people made by
hand are all folders of ``LAYOUTS``. Every file that a split list names is checked by name before anything is opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reproduction.caffe.errors import DataError, StrPath, did_you_mean
from reproduction.caffe.formats import files

_CLASSES_BYTES = 1 << 20
_SPLIT_BYTES = 1 << 24  # SBD's list of 8,498 ids has 102 kB


@dataclass(frozen=True)
class Layout:
    """Where one published archive's tree may lie.

    Attributes:
        title: what people call it.
        folders: places below the data root, the first choice first. The root itself counts too, when it is called
            like the last part of one of them.
        needs: the folders that make it that tree.
    """

    title: str
    folders: tuple[str, ...]
    needs: tuple[str, ...]


_VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")

LAYOUTS: dict[str, Layout] = {
    "voc2012": Layout(
        "PASCAL VOC 2012",
        ("pascal/VOC2012", "pascal/VOCdevkit/VOC2012", "VOCdevkit/VOC2012", "VOC2012"),
        _VOC,
    ),
    "voc2011": Layout(
        "PASCAL VOC 2011",
        (
            "pascal/VOC2011",
            "pascal/TrainVal/VOCdevkit/VOC2011",
            "pascal/VOCdevkit/VOC2011",
            "TrainVal/VOCdevkit/VOC2011",
            "VOCdevkit/VOC2011",
            "VOC2011",
        ),
        _VOC,
    ),
    "voc2010": Layout(
        "PASCAL VOC 2010",
        ("pascal/VOC2010", "pascal/VOCdevkit/VOC2010", "VOCdevkit/VOC2010", "VOC2010"),
        ("JPEGImages", "ImageSets/Main"),
    ),
    "sbd": Layout(
        "SBD",
        (
            "sbdd/dataset",
            "sbdd/benchmark_RELEASE/dataset",
            "benchmark_RELEASE/dataset",
            "pascal/sbdd/dataset",
            "pascal/benchmark_RELEASE/dataset",
        ),
        ("img", "cls"),
    ),
    "nyud": Layout("NYUDv2", ("nyud", "nyud/nyud"), ("data", "segmentation")),
    "siftflow": Layout(
        "SIFT Flow",
        ("sift-flow", "sift-flow/SiftFlowDataset", "SiftFlowDataset"),
        ("Images", "SemanticLabels", "GeoLabels"),
    ),
    "pascalcontext": Layout("PASCAL-Context", ("pascal-context", "pascal/pascal-context"), ("trainval",)),
}


def search(name: str, root: StrPath, folder: str | None = None, needs: Sequence[str] | None = None) -> Path | None:
    """Look for a data set's tree.

    Args:
        name: a key of ``LAYOUTS``.
        root: the data root.
        folder: where a prototxt says it lies; its ``../data/`` stands for the root. Tried first.
        needs: the folders that it must hold. Default: the layout's.

    Returns:
        The first place that holds all of them, or None.
    """
    needs = LAYOUTS[name].needs if needs is None else needs
    return next((place for place in _places(name, Path(root), folder) if not _lacking(place, needs)), None)


def find(names: Sequence[str], root: StrPath, folder: str | None = None) -> Path:
    """Look for the first of several trees, as ``search`` does.

    Raises:
        DataError: none is there, or one is there in part; says what was looked for, and where.
    """
    root = Path(root)
    for name in names:
        if found := search(name, root, folder):
            return found
    title = " or ".join(LAYOUTS[name].title for name in names)
    places = list(dict.fromkeys(place for name in names for place in _places(name, root, folder)))
    remedy = "Fetch it with tools/fetch.py, or point to the folder that holds it."
    for place in places:
        lacking = _lacking(place, LAYOUTS[names[0]].needs)
        if place != root and place.is_dir() and lacking:
            raise DataError(f"{title} is not whole here; {', '.join(lacking)} missing", path=place, remedy=remedy)
    looked = ", ".join(os.path.relpath(place, root) if place.is_relative_to(root) else str(place) for place in places)
    raise DataError(f"{title} is not here; looked for {looked}", path=root, remedy=remedy)


def _places(name: str, root: Path, folder: str | None) -> list[Path]:
    folders = LAYOUTS[name].folders
    places = [root / below for below in folders]
    if root.resolve().name in {PurePosixPath(below).name for below in folders}:
        places.insert(0, root)
    if folder:
        places.insert(0, below(root, folder))
    return places


def below(root: StrPath, folder: str) -> Path:
    """Find a place that a prototxt names: its ``../data/`` stands for the data root."""
    parts = list(PurePosixPath(folder).parts)
    while parts and parts[0] in ("..", ".", "data"):
        parts.pop(0)
    return Path(root).joinpath(*parts)


def _lacking(place: Path, needs: Sequence[str]) -> list[str]:
    return [need + "/" for need in needs if not (place / need).is_dir()]


def read_list(path: StrPath) -> list[str]:
    """Read a split: one id a line; blank lines and blanks around ids do not count.

    Raises:
        DataError: the file cannot be read, is empty, is no list of ids, or has an id twice.
    """
    try:
        with files.open_regular(path) as file:
            data = file.read(_SPLIT_BYTES + 1)
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"the split cannot be read ({(error.strerror or str(error)).lower()})", path=path) from None
    except UnicodeDecodeError:
        raise DataError("the split is not a text file", path=path, want="one id a line") from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines if len(data) <= _SPLIT_BYTES else ["<more>"], 1):
        id = line.strip()
        if id in seen:
            raise DataError(f"id {id!r} is there twice, on lines {seen[id]} and {number}", path=path)
        # Ids become file names, of label maps that are written too: they must not lead out of their folder.
        if id and (not set(id).isdisjoint(' \t/\\:<>"|?*\0') or id.startswith(".") or len(id) > 200):
            raise DataError(f"line {number} is not an id", path=path, got=repr(id[:60]), want="one id a line")
        if id:
            seen[id] = number
    if not seen:
        raise DataError("the split is empty", path=path, want="one id a line")
    return list(seen)


def read_classes(path: StrPath) -> tuple[str, ...]:
    """Read the names of a labelling's classes: one a line, the first for label 0.

    Raises:
        DataError: the file cannot be read, or is no list of at most 255 different names; says which line is wrong.
    """
    want = "one name a line, at most 255, none twice"
    try:
        text = files.read_regular(path, _CLASSES_BYTES).decode("utf-8-sig")
        names = [line.strip() for line in text.rstrip().splitlines()]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"the names of the classes cannot be read ({reason})", path=path, want=f"a file, {want}"
        ) from None
    except UnicodeDecodeError:
        names = []
    for number, name in enumerate(names[:256], 1):
        if not name or name in names[: number - 1]:
            got = f"{name[:60]!r} again" if name else "a blank"
            raise DataError("this is no list of classes", path=path, got=f"{got} on line {number}", want=want)
    if not 0 < len(names) < 256:
        got = f"{len(names)} names" if names else "no name"
        raise DataError("this is no list of classes", path=path, got=got, want=want)
    return tuple(names)


def split_ids(split: str, files: Sequence[Path], derived: Sequence[str] | None = None) -> list[str]:
    """Take a split from the first of its files that exists, and hold it against the one derived from the data.

    Args:
        split: its name.
        files: where its list may lie.
        derived: the same split, worked out from other lists; None where these are not at hand.

    Raises:
        DataError: there is neither, or the two differ.
    """
    if Path(split).name != split:
        raise DataError(f"a split cannot be called {split!r}", want="a name such as 'val'")
    listed = next((path for path in files if path.is_file()), None)
    if listed is None and derived is None:
        near = did_you_mean(split, {path.stem for file in files for path in file.parent.glob("*.txt")})
        looked = ", ".join(str(path) for path in files)
        remedy = near or "Fetch the lists with tools/fetch.py."
        raise DataError(f"split {split!r} is not here; looked for {looked}", remedy=remedy)
    if listed is None:
        return list(derived or ())
    ids = read_list(listed)
    if derived is not None and set(ids) != set(derived):
        only = [sorted(set(ids) - set(derived)), sorted(set(derived) - set(ids))]
        first = (only[0] or only[1])[0]
        raise DataError(
            f"the list is not the split {split!r} that follows from the data; {len(only[0])} ids are only in the"
            f" list, {len(only[1])} only in the data, the first is {first!r}",
            path=listed,
            remedy="One of the two is not the published one: fetch both again.",
        )
    return ids

"""COCO's annotation files in a user's folder, and the images that they name, wherever these are in the folder.

A file is opened by the path that its folder lists. The names in annotations are only compared with these paths, so that
no annotation can lead out of the user's folder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from reproduction.caffe.errors import DataError
from reproduction.fcn.datasets.custom import coco
from reproduction.fcn.datasets.custom.coco import Coco
from reproduction.fcn.datasets.custom.folder_files import (
    JSON,
    LABEL_FOLDERS,
    SPLIT_FOLDERS,
    SPLITS,
    FolderFiles,
    below,
    find_lists,
    kind_of_json,
    list_paths,
    named_folders,
)

_DEPTH = 4  # of folders with images
_SPLIT_WORDS = {**SPLIT_FOLDERS, "test": ("test", "testing")}


def find(place: Path) -> FolderFiles | None:
    """Find annotations in COCO's JSON in a user's folder, and the images that they name; None if there are none.

    Raises:
        DataError: If several files are for the same split, or a file is invalid.
    """
    splits = [place / name for names in SPLIT_FOLDERS.values() for name in names]
    places = (place, *named_folders(place, LABEL_FOLDERS), *splits)
    found = [path for where in places for path in _list_coco(where)]
    found = [path for path in found if path.name.startswith("instances")] or found
    of_split = {path: _split_of(place, path) for path in found}
    chosen: dict[str | None, list[Path]] = {None: [path for path in found if of_split[path] is None]}
    if not set(SPLITS).isdisjoint(of_split.values()):
        chosen = {split: [path for path in found if of_split[path] == split] for split in SPLITS}
    if several := next((paths for paths in chosen.values() if len(paths) > 1), None):
        got = " and ".join(below(place, path) for path in several)
        raise DataError("several files have the annotations", path=place, got=got, remedy="Remove all but one.")
    sources = {split: paths[0] for split, paths in chosen.items() if paths}
    return _join_coco(place, sources) if sources else None


def _list_coco(folder: Path) -> list[Path]:
    """Return the files in COCO's format in a folder; if its first JSON file is LabelMe's, all are."""
    paths = list_paths(folder, JSON)
    return [] if paths and kind_of_json(paths[0]) == "LabelMe" else [p for p in paths if kind_of_json(p) == "COCO"]


def _split_of(place: Path, path: Path) -> str | None:
    """Return the split that the name of an annotation file, or of its folder, contains; ``test`` for test images."""
    words = re.split(r"[^a-z]+", below(place, path).lower())
    return next((split for split, names in _SPLIT_WORDS.items() if not set(names).isdisjoint(words)), None)


def _join_coco(place: Path, sources: Mapping[str | None, Path]) -> FolderFiles:
    """Return the images that annotation files list, with the splits of the files."""
    known = _ImagesBelow(place)
    files = {split: coco.load(path) for split, path in sources.items()}
    names = {
        split: [known.find(each.file_name, sources[split]) for each in file.images] for split, file in files.items()
    }
    count = Counter(Path(name).stem for listed in names.values() for _, name in listed)
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    groups: dict[str, list[str]] = {}
    ids: list[dict[int | str, str]] = []
    for split, listed in names.items():
        of: dict[int | str, str] = {}
        for image, (path, name) in zip(files[split].images, listed, strict=True):
            stem = PurePosixPath(name).stem
            image_id = stem if count[stem] == 1 else "_".join(PurePosixPath(name).with_suffix("").parts[-2:])
            if image_id in labels:
                raise DataError(f"two images are called {image_id!r}", path=sources[split], remedy="Rename one.")
            of[image.id], labels[image_id] = image_id, sources[split]
            if path:
                images[image_id] = path
        ids.append(of)
        if split:
            groups[split] = list(of.values())
    where = {path.parent for path in images.values()}
    listed_paths = set(images.values())
    for path in known.paths:  # images that no file lists are left out, and reported
        if path.parent in where and path not in listed_paths:
            images.setdefault(path.stem, path)
    annotations = Coco(list(files.values()), ids)
    return FolderFiles(
        place,
        images,
        labels,
        lists=find_lists(place),
        folders=(below(place, min(where, default=place)), below(place, next(iter(sources.values())))),
        groups=groups,
        annotations=annotations,
        description=f"{Coco.title} in {', '.join(below(place, path) for path in sources.values())}; {Coco.rule}",
    )


class _ImagesBelow:
    """The image files in a folder and below it, for finding those that an annotation names."""

    def __init__(self, place: Path):
        self._place = place
        self.paths: list[Path] = []
        level = [place]
        for _ in range(_DEPTH):
            self.paths += [path for folder in level for path in list_paths(folder)]
            level = [path for folder in level for path in sorted(folder.iterdir()) if _is_open_folder(path)]
        self._named: dict[str, list[Path]] = {}
        for path in self.paths:
            self._named.setdefault(path.name, []).append(path)

    def find(self, name: str, source: Path) -> tuple[Path | None, str]:
        """Return the path of the file that an annotation file names, or None if there is none; and its name.

        Of several files of the same name, that whose path agrees with the name in more folders is chosen, then that in
        the annotation file's folder, then that in a folder for the annotation file's split.

        Raises:
            DataError: If several files fit equally.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        found = self._named.get(parts[-1], []) if parts else []
        for rule in self._rules(parts, source) if len(found) > 1 else ():
            found = [path for path in found if rule(path)] or found
        if len(found) > 1:
            got = " and ".join(below(self._place, path) for path in found[:2])
            raise DataError(f"several images are called {name!r}", path=source, got=got, remedy="Rename or remove one.")
        path = found[0] if found else None
        return path, below(self._place, path) if path else parts[-1] if parts else ""

    def _rules(self, parts: tuple[str, ...], source: Path) -> list[Callable[[Path], bool]]:
        split = _split_of(self._place, source)
        return [
            *(lambda path, n=n: path.parts[-n:] == parts[-n:] for n in range(2, min(len(parts), _DEPTH) + 1)),
            lambda path: path.parent == source.parent,
            lambda path: _split_of(self._place, path.parent) == split,
        ]


def _is_open_folder(path: Path) -> bool:
    return not path.suffix and not path.name.startswith(".") and path.is_dir()

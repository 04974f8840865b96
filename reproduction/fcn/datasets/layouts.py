"""Where the data sets may be below the data root, and how the lists of ids and of class names are read.

A ``FolderLayout`` covers the folders that ``fcn fetch`` extracts, those in the published archives, and those that
users commonly create by hand. The lists that the authors published are included, in ``PUBLISHED_SPLITS``; a list in the
user's data has precedence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reproduction.caffe.errors import DataError, StrPath, did_you_mean
from reproduction.caffe.formats import files

PUBLISHED_SPLITS = Path(__file__).with_name("splits")
"""The folder of the published lists; each has the name of its entry in the manifest.

Source: shelhamer/fcn.berkeleyvision.org@1305c73 data/pascal/seg11valid.txt, data/nyud/*.txt, data/sift-flow/*.txt.
"""
_SPLIT_BYTES = 1 << 24  # far above SBD's list of 8,498 ids, 102 kB


@dataclass(frozen=True)
class FolderLayout:
    """The places where the folder of one data set may be, and the subfolders by which it is recognized.

    Attributes:
        title: Name of the data set, for errors.
        folders: Paths below the data root, in order of preference. The root itself is tried first if its name is the
            last component of one of these paths.
        needs: Names of subfolders that must exist.
    """

    title: str
    folders: tuple[str, ...]
    needs: tuple[str, ...]


def search_folder(
    layout: FolderLayout, root: StrPath, folder: str | None = None, needs: Sequence[str] | None = None
) -> Path | None:
    """Return the first place of a layout that exists and has the required subfolders, or None.

    Args:
        layout: The places to try.
        root: The data root.
        folder: The path that a prototxt states, tried first; its leading ``../data/`` stands for the data root. None
            for no path.
        needs: Names of subfolders that must exist; None for the layout's.
    """
    needs = layout.needs if needs is None else needs
    return next((place for place in _places(layout, Path(root), folder) if not _lacking(place, needs)), None)


def find_folder(layouts: Sequence[FolderLayout], root: StrPath, folder: str | None = None) -> Path:
    """Return the folder of the first of several data sets that is found, such as VOC 2011, else VOC 2012.

    Args:
        layouts: The layouts of the data sets, in order of preference.
        root: The data root.
        folder: The path that a prototxt states, tried first, see ``search_folder``.

    Raises:
        DataError: If none is found, or one is incomplete. The error lists the places or the missing subfolders.
    """
    root = Path(root)
    for layout in layouts:
        if found := search_folder(layout, root, folder):
            return found
    title = " or ".join(layout.title for layout in layouts)
    places = list(dict.fromkeys(place for layout in layouts for place in _places(layout, root, folder)))
    remedy = "Fetch it with fcn fetch, or point to the folder that holds it."
    for place in places:
        lacking = _lacking(place, layouts[0].needs)
        if place != root and place.is_dir() and lacking:
            raise DataError(f"{title} is incomplete here; {', '.join(lacking)} missing", path=place, remedy=remedy)
    looked = ", ".join(os.path.relpath(place, root) if place.is_relative_to(root) else str(place) for place in places)
    raise DataError(f"{title} is not here; looked for {looked}", path=root, remedy=remedy)


def _places(layout: FolderLayout, root: Path, folder: str | None) -> list[Path]:
    places = [root / below for below in layout.folders]
    if root.resolve().name in {PurePosixPath(below).name for below in layout.folders}:
        places.insert(0, root)
    if folder:
        places.insert(0, below(root, folder))
    return places


def below(root: StrPath, folder: str) -> Path:
    """Return the path that a prototxt's path stands for: its leading ``../data/`` is replaced by the data root.

    Args:
        root: The data root.
        folder: The path in the prototxt.
    """
    parts = list(PurePosixPath(folder).parts)
    while parts and parts[0] in ("..", ".", "data"):
        parts.pop(0)
    return Path(root).joinpath(*parts)


def _lacking(place: Path, needs: Sequence[str]) -> list[str]:
    return [need + "/" for need in needs if not (place / need).is_dir()]


def read_ids(path: StrPath) -> list[str]:
    """Read the ids of a split from its list, a text file of one id a line.

    Blank lines, and whitespace around ids, are ignored.

    Args:
        path: Path of the list.

    Returns:
        The ids, in the order of the list.

    Raises:
        DataError: If the file cannot be read, is empty or not a list of ids, or contains an id twice.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(files.read_list(path, "the split", "one id a line", _SPLIT_BYTES), 1):
        image_id = line.strip()
        if image_id in seen:
            raise DataError(f"id {image_id!r} occurs twice, on lines {seen[image_id]} and {number}", path=path)
        # Ids become names of files, some of which are written: they must not point outside their folder.
        if image_id and (
            not set(image_id).isdisjoint(' \t/\\:<>"|?*\0') or image_id.startswith(".") or len(image_id) > 200
        ):
            raise DataError(f"line {number} is not an id", path=path, got=repr(image_id[:60]), want="one id a line")
        if image_id:
            seen[image_id] = number
    if not seen:
        raise DataError("the split is empty", path=path, want="one id a line")
    return list(seen)


def read_class_names(path: StrPath) -> tuple[str, ...]:
    """Read class names from a text file of one name a line, that of label 0 first.

    Args:
        path: Path of the list.

    Returns:
        The names; the index is the label.

    Raises:
        DataError: If the file cannot be read, or is not a list of 1 to 255 distinct names. The error names the line.
    """
    want = "one name a line, at most 255, none twice"
    names = [line.strip() for line in files.read_list(path, "the names of the classes", want)]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names[:256], 1):
        if not name or name in names[: number - 1]:
            got = f"{name[:60]!r} again" if name else "a blank"
            raise DataError("not a list of classes", path=path, got=f"{got} on line {number}", want=want)
    if not 0 < len(names) < 256:
        got = f"{len(names)} names" if names else "no name"
        raise DataError("not a list of classes", path=path, got=got, want=want)
    return tuple(names)


def read_split(
    split: str, files: Sequence[Path], derived: Sequence[str] | None = None, published: str = ""
) -> list[str]:
    """Return the ids of a split from its list, and check that they are those that other lists of the data set imply.

    Args:
        split: Name of the split.
        files: Paths where the list may be; the first that exists is read.
        derived: The ids of the split as computed from other lists (seg11valid: val without SBD's train), or None if
            these are not found.
        published: Name of the list that this package includes (in ``PUBLISHED_SPLITS``), read if none of ``files``
            exists; empty, or the name of no list, for none.

    Returns:
        The ids of the first list that exists: one of ``files``, else the included one. If there is no list,
        ``derived``.

    Raises:
        DataError: If the name is not a file name, there is neither a list nor ``derived``, or the two differ as sets.
    """
    if Path(split).name != split:
        raise DataError(f"a split cannot be called {split!r}", want="a name such as 'val'")
    listed = next((path for path in files if path.is_file()), None)
    included = PUBLISHED_SPLITS / f"{published}.txt"
    # Another data set in the same layout, such as Mini-VOC, has none of the published ids.
    if not listed and included.is_file() and (not derived or not set(derived).isdisjoint(read_ids(included))):
        listed = included
    if listed is None and derived is None:
        near = did_you_mean(split, {path.stem for file in files for path in file.parent.glob("*.txt")})
        looked = ", ".join(str(path) for path in files)
        remedy = near or "Fetch the lists with fcn fetch."
        raise DataError(f"split {split!r} is not here; looked for {looked}", remedy=remedy)
    if listed is None:
        return list(derived or ())
    ids = read_ids(listed)
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

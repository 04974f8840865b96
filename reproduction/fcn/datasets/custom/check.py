"""Check a user's folder: read every image and label, and report what it contains and what would prevent training.

``check_folder`` reads each file once and returns a ``FolderReport``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import image_files
from reproduction.caffe.typing import Array, Progress
from reproduction.fcn.datasets import label_files
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.custom import color_labels, find_files, folder
from reproduction.fcn.datasets.custom.color_labels import RGB, Reading
from reproduction.fcn.datasets.custom.folder_files import SPLITS, FolderFiles
from reproduction.fcn.datasets.custom.folder_report import FolderReport, Problem, Size, Value
from reproduction.fcn.datasets.label_files import LabelReader
from reproduction.fcn.images import decode

#: Training VGG16 on an image with more pixels needs tens of gigabytes.
MOST_PIXELS = 2_000_000
#: With a larger share of one class, a net that predicts only this class scores well.
MOST_OF_ONE = 0.99

_SEVERAL = 12  # numbers that a line lists
#: The problems of labels whose colours are reported, so that the user can name them.
_COLOURS_NOT_READ = (label_files.PAINTED, label_files.UNKNOWN, label_files.DIFFERENT)
_MASK_PALETTE = (
    "pass a --palette with the lines `0 0 0 background` and `255 255 255 thing`, which --write-palette writes"
)


class _Found:
    """What is collected while the files are read."""

    def __init__(self) -> None:
        self.problems: dict[tuple[str, str, bool], list[str]] = {}
        self.modes: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self.sizes: Counter[Size] = Counter()
        self.pixels: Counter[int] = Counter()
        self.images: Counter[int] = Counter()
        self.colours: Counter[RGB] = Counter()
        self.indices: dict[RGB, set[int]] = {}  # colour -> its indices in the palettes
        self.read = 0

    def add(self, what: str, remedy: str, file: str = "", *, fatal: bool = True) -> None:
        """Add a problem; files with the same problem are collected in one entry."""
        self.problems.setdefault((what, remedy, fatal), []).extend([file] if file else [])

    def failed(self, path: Path, error: DataError) -> None:
        """Add a problem for a DataError that a reader raised."""
        got = f" ({error.got})" if error.got is not None else ""
        self.add(error.problem, error.remedy, f"{path}{got}")


def check_folder(
    root: StrPath,
    classes: Sequence[str] | None = None,
    palette: Reading = None,
    progress: Progress = lambda done, total: None,
) -> FolderReport:
    """Read every image and label of a user's folder, and report what it contains and which problems it has.

    Args:
        root: The folder, with a structure that the module ``find_files`` describes.
        classes: Names of the classes; None for those that the format or the annotations define, if any.
        palette: How label images are read. A palette: by colour. ``"indices"``: by pixel value. None: by pixel value,
            if the image's own palette proves that these are class numbers.
        progress: Called with the number of images checked and their total.

    Returns:
        The report.

    Raises:
        DataError: If the folder does not exist, or has none of the known structures.
    """
    files = find_files.list_files(root)
    found = _Found()
    names = folder.choose_classes(files, classes)
    report = FolderReport(
        files.root,
        files.folders,
        names,
        files.description,
        images=len(files.images),
        labels=len(files.labels),
        pairs=len(files.pairs),
    )
    _check_names(found, files)
    _check_annotations(found, files, names)
    splits = _check_splits(found, files)
    report.splits = {split: len(ids) for split, ids in splits.items()}
    present: dict[str, set[int]] = {}
    reader = LabelReader(palette)
    for i, image_id in enumerate(pairs := files.pairs):
        progress(i, len(pairs))
        sizes = _check_image(found, files.images[image_id])
        present[image_id] = _check_label(found, files, image_id, sizes, names, reader)
    progress(len(pairs), len(pairs))
    _check_sizes(found)
    _explain_colours(found, names)
    _check_numbers(found, names, is_painted=isinstance(palette, Mapping))
    if names and found.read:
        _check_classes(found, names, splits, present)
    _fill_report(report, found, names)
    return report


def _check_names(found: _Found, files: FolderFiles) -> None:
    """Find duplicate names, empty folders, and images or labels without a counterpart."""
    for paths in files.twice.values():
        found.add("files have the same name", "Rename or remove one.", " and ".join(map(str, paths)))
    empty = [name for name, held in zip(files.folders, (files.images, files.labels), strict=True) if not held]
    for name in empty:
        found.add(f"there is no image in {name}/", "Images are files that end in .png, .jpg and the like.")
    if empty:
        return
    alone = (
        ("images have no label, and are left out", files.images, sorted(files.images.keys() - files.labels.keys())),
        ("labels have no image, and are left out", files.labels, sorted(files.labels.keys() - files.images.keys())),
    )
    if not files.pairs:
        first = [str(where[ids[0]]) for _, where, ids in alone if ids]
        remedy = "Call both alike but for the ending: images/7.jpg, labels/7.png."
        found.add("no image has a label with its name", remedy, " and ".join(first))
        return
    for what, where, ids in alone:
        for image_id in ids:
            found.add(what, "", str(where[image_id]), fatal=False)


def _check_annotations(found: _Found, files: FolderFiles, names: Sequence[str] | None) -> None:
    """Find what was left out of the annotations, and names in them that are not among the classes."""
    if files.annotations is None or names is None:
        return
    for note in files.annotations.notes:
        found.add(note, "", fatal=False)
    try:
        others = [name for name in files.annotations.names() if name not in names]
    except DataError:  # of a file, which is reported when its label is read
        return
    what = "names in the annotations are not among the classes, and are read as background"
    for name in others:
        found.add(what, "", name, fatal=False)


def _check_splits(found: _Found, files: FolderFiles) -> dict[str, list[str]]:
    """Return the ids of each split, and find ids in the lists that do not exist or are in both splits."""
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        try:
            splits[split] = files.ids(split)
        except DataError as error:
            if files.pairs:
                found.add(f"{error.problem}; want {error.want}", error.remedy, error.place)
            continue
        for image_id in splits[split]:
            if image_id not in files.images or image_id not in files.labels:
                what = "image" if image_id not in files.images else "label"
                path = str(files.lists[split])
                found.add(
                    f"lists name images that do not exist or have no label: {path}", "", f"{image_id} (no {what})"
                )
    both = sorted(set(splits.get("train", ())) & set(splits.get("val", ())))
    for image_id in both:
        found.add("images are in both the training and the validation split", "Take them out of one list.", image_id)
    return splits


def _check_image(found: _Found, path: Path) -> tuple[Size, Size] | None:
    """Read an image; return (height, width) after EXIF rotation and as stored, or None if it cannot be read."""
    try:
        with image_files.open_image(path) as image:
            mode, stored = image.mode, (image.height, image.width)
            rgb = decode.from_pil(image)
    except DataError as error:
        found.failed(path, error)
        return None
    found.modes[0][mode] += 1
    size = (rgb.shape[0], rgb.shape[1])
    found.sizes[size] += 1
    return size, stored


def _check_label(
    found: _Found,
    files: FolderFiles,
    image_id: str,
    sizes: tuple[Size, Size] | None,
    names: Sequence[str] | None,
    reader: LabelReader,
) -> set[int]:
    """Read a label; return the class numbers in it."""
    path = files.labels[image_id]
    try:
        if files.annotations is not None:
            values = files.annotations.draw_labels(image_id, files.images[image_id], names or ())
            path = path / image_id if len(set(files.labels.values())) < len(files.labels) else path
        else:
            values = _read_label_image(found, path, reader)
            values = folder.convert_numbers(files, names or (), values)
    except DataError as error:
        found.failed(path, error)
        return set()
    if sizes is not None and values.shape != sizes[0]:
        remedy = "A label must have its image's size; resize it without smoothing (nearest)."
        if values.shape == sizes[1]:
            remedy = "The images are rotated by their EXIF tag: save them rotated, or rotate the labels."
        shown, said = (" x ".join(map(str, size)) for size in (sizes[0], values.shape))
        found.add("labels differ from their image in height or width", remedy, f"{path} ({said}, not {shown})")
    numbers, counts = np.unique(values, return_counts=True)
    here = {int(number): int(count) for number, count in zip(numbers, counts, strict=True)}
    found.read += 1
    found.pixels.update(here)
    found.images.update(here.keys())
    if names is not None:
        wrong = [number for number in here if not (0 <= number < len(names) or number == VOID)]
        if wrong:
            pixels = sum(here[number] for number in wrong)
            found.add(*_out_of_range(len(names)), f"{path} ({_format_numbers(wrong)} in {pixels} pixels)")
    return set(here)


def _read_label_image(found: _Found, path: Path, reader: LabelReader) -> Array:
    with image_files.open_image(path) as image:
        found.modes[1][image.mode] += 1
        if reader.reading is None:
            _count_colours(found, image)
        return reader.numbers(image, str(path))


def _count_colours(found: _Found, image: Image.Image) -> None:
    """Count the colours of a colour or palette label, unless there are already too many for classes."""
    if len(found.colours) > color_labels.MOST_COLOURS or image.format in ("JPEG", "MPO"):
        return
    if image.mode == "P":
        for index, (colour, pixels) in label_files.count_colours(image).items():
            found.colours[colour] += pixels
            found.indices.setdefault(colour, set()).add(index)
    elif image.mode not in label_files.NUMBERS:
        found.colours.update(color_labels.count_colours(image))


def _check_sizes(found: _Found) -> None:
    large = sum(count for (height, width), count in found.sizes.items() if height * width > MOST_PIXELS)
    if large:
        remedy = "fcn train shrinks them to --side pixels, 500 by default, with their labels."
        found.add(f"{large} images have more than {MOST_PIXELS // 10**6} million pixels", remedy, fatal=False)


def _out_of_range(classes: int) -> tuple[str, str]:
    return (
        f"labels are out of range; want 0 to {classes - 1}, or 255 for void",
        "Name every class, or mend the labels.",
    )


def _explain_colours(found: _Found, names: Sequence[str] | None) -> None:
    """Set the remedy for labels that could not be read as class numbers, according to their colours."""
    if not any(what in _COLOURS_NOT_READ for what, _, _ in found.problems):
        found.colours.clear()
        found.indices.clear()
    colours = set(found.colours)
    if not colours:
        return
    if len(colours) > VOID:
        remedy = (
            f"{len(colours):,} colours are too many: the labels were smoothed; export them again, without smoothing."
        )
    elif colours == set(color_labels.MASK.values()):
        remedy = f"They are black-and-white masks: {_MASK_PALETTE}."
    elif names and color_labels.has_voc_colours(colours, names):
        remedy = "They are the colours in which VOC draws its classes: use --palette voc."
    else:
        return
    for what, old, fatal in list(found.problems):
        if what in _COLOURS_NOT_READ:
            found.problems[what, remedy, fatal] = found.problems.pop((what, old, fatal))


def _check_numbers(found: _Found, names: Sequence[str] | None, *, is_painted: bool) -> None:
    """Find problems that only all labels together show."""
    numbers = set(found.pixels)
    known = numbers - {VOID}
    if not found.read:
        return
    if numbers == {0, VOID} and not is_painted:
        found.add(
            "the labels are masks of 0 and 255; 255 is void, so class 0 is the only class",
            f"Write 1 for 255; or {_MASK_PALETTE}.",
        )
    elif len(known) < 2:
        said = f"class {_format_label(min(known), names)}" if known else "void"
        found.add(f"the labels contain only {said}", "Training needs at least two classes.")
    if names is None:
        remedy = "Name them by --classes FILE or in classes.txt, one a line, the first for label 0."
        found.add("the names of the classes are not defined", remedy)
        if known and sorted(known) != list(range(len(known))):
            remedy = "Class numbers count from 0; grey levels and colours are not class numbers."
            found.add(
                "the labels are not numbered 0, 1, 2 and so on", remedy, _format_numbers(sorted(known)), fatal=False
            )
    elif min(known, default=0) == 1 and max(known) == len(names):
        what, remedy = _out_of_range(len(names))
        listed = found.problems.pop((what, remedy, True), [])
        said = f"the labels count from 1 to {len(names)}; class numbers count from 0"
        found.problems[said, "Subtract 1, or put a name for label 0 first in the list of classes.", True] = listed


def _check_classes(
    found: _Found, names: Sequence[str], splits: dict[str, list[str]], present: dict[str, set[int]]
) -> None:
    """Find classes that never occur, or that cover nearly everything."""
    learnt = set().union(*(present.get(image_id, set()) for image_id in splits.get("train", ())))
    for label, name in enumerate(names):
        if not found.pixels[label]:
            found.add("classes occur in no label", "", name, fatal=False)
        elif splits and label not in learnt:
            found.add("classes occur in no training image", "", name, fatal=False)
    known = {label: count for label, count in found.pixels.items() if label != VOID}
    label = max(known, default=0, key=lambda each: known[each])
    count, total = known.get(label, 0), sum(known.values())
    if len(known) > 1 and count / total > MOST_OF_ONE and label < len(names):
        remedy = "Look at the other classes' IU, not at the pixel accuracy; more of their pixels help."
        said = f"{names[label]} ({100 * count / total:.1f} %)"
        found.add("one class covers nearly all pixels", remedy, said, fatal=False)


def _fill_report(report: FolderReport, found: _Found, names: Sequence[str] | None) -> None:
    images_of, labels_of = (dict(counter.most_common()) for counter in found.modes)
    report.modes = {"images": images_of, "labels": labels_of}
    report.sizes = dict(found.sizes.most_common())
    total = sum(found.pixels.values())
    real = total - found.pixels[VOID]
    report.void = found.pixels[VOID] / total if total else 0.0
    known = dict(enumerate(names or ())) | {VOID: color_labels.VOID_NAME}
    report.values = [
        Value(
            label,
            known.get(label),
            found.pixels[label],
            found.pixels[label] / real if real and label != VOID else 0.0,
            found.images[label],
        )
        for label in sorted(found.pixels)
    ]
    report.colours = dict(_sort_colours(found))
    problems = [Problem(what, remedy, files, fatal) for (what, remedy, fatal), files in found.problems.items()]
    report.problems = sorted(problems, key=lambda problem: not problem.fatal)


def _sort_colours(found: _Found) -> list[tuple[RGB, int]]:
    """Return the colours in the order of a palette that fits all labels or, if there is none, most frequent first."""
    places = [index for indices in found.indices.values() for index in indices]
    if found.indices.keys() == found.colours.keys() and len(places) == len(set(places)) == len(found.colours):
        return sorted(found.colours.items(), key=lambda item: min(found.indices[item[0]]))
    return found.colours.most_common()


def _format_label(label: int, names: Sequence[str] | None) -> str:
    return f"{label} ({names[label]})" if names and label < len(names) else str(label)


def _format_numbers(numbers: Sequence[Any]) -> str:
    return ", ".join(map(str, numbers[:_SEVERAL])) + (" ..." if len(numbers) > _SEVERAL else "")

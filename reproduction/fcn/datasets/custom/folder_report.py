"""What the check of a user's folder found, and the palette file that follows from the colours in its labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import files
from reproduction.fcn.datasets.base import VOID
from reproduction.fcn.datasets.custom import color_labels
from reproduction.fcn.datasets.custom.color_labels import RGB

Size = tuple[int, int]  # height and width, pixels


@dataclass(frozen=True)
class Problem:
    """A problem that the check of a folder found, and the files that have it.

    Attributes:
        what: Description of the problem.
        remedy: What to do, as a sentence; may be empty.
        files: Names of the files, each with what was found in it.
        fatal: True if training would fail, or learn nothing.
    """

    what: str
    remedy: str
    files: list[str] = field(default_factory=list)
    fatal: bool = True


@dataclass(frozen=True)
class Value:
    """A class number that occurs in the labels, and how often.

    Attributes:
        label: The class number.
        name: Name of the class; ``void`` for 255; None if there is no class of this number.
        pixels: Number of pixels with this number.
        share: Its fraction of the pixels that are not void, 0 to 1; 0 for void.
        images: Number of label images that contain it.
    """

    label: int
    name: str | None
    pixels: int
    share: float
    images: int


@dataclass
class FolderReport:
    """What the check of a user's folder of images and labels found.

    Attributes:
        root: The folder.
        folders: Names of the folders of images and of labels.
        description: How the labels are read, in one line; empty for the plain layout.
        classes: Names of the classes; None if nothing defines them.
        images: Number of images.
        labels: Number of label images.
        pairs: Number of images that have a label.
        splits: Number of images by split.
        modes: Number of images and of labels of each Pillow mode: ``{"images": {"RGB": 20}, "labels": {"P": 20}}``.
        sizes: Number of images of each (height, width).
        values: The class numbers in the labels, in ascending order.
        colours: Number of pixels of each colour, if the labels could not be read as class numbers; else empty. They are
            sorted as in the images' palettes if these agree on one order, otherwise by descending frequency.
        void: Fraction of the pixels that are void, 0 to 1.
        problems: The problems, fatal ones first.
    """

    root: Path
    folders: tuple[str, str]
    classes: tuple[str, ...] | None
    description: str = ""
    images: int = 0
    labels: int = 0
    pairs: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    modes: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: dict[Size, int] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)
    colours: dict[RGB, int] = field(default_factory=dict)
    void: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if no problem was found that prevents training."""
        return not any(problem.fatal for problem in self.problems)


def write_palette(report: FolderReport, path: Path) -> None:
    """Write a palette file of the colours in the labels, with placeholder names for the user to replace.

    No placeholders are needed if the labels are black and white or have VOC's colours, and the report's classes fit.

    Args:
        report: The result of the check.
        path: The file to write.

    Raises:
        ReproductionError: If there are no colours, or more than classes can have, or the file cannot be written.
    """
    is_mask = not report.colours and {value.label for value in report.values} == {0, VOID}
    if not report.colours and not is_mask:
        reason = "the labels are class numbers, not colours" if report.values else "no label could be read"
        raise ReproductionError(f"there is no palette to write; {reason}", place=str(report.root))
    if len(report.colours) > VOID:
        raise ReproductionError(
            "there are too many colours for classes",
            place=str(report.root),
            got=len(report.colours),
            want=f"at most {VOID}",
            remedy="The labels were smoothed or saved as JPEG: export them again, as PNG without smoothing.",
        )
    colours = color_labels.MASK.values() if is_mask else report.colours
    files.write_text(path, color_labels.dumps(color_labels.make_template(list(colours), report.classes)))

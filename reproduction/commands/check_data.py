"""Check images and labels of your own before a training: sizes, classes, and every problem with its files.

    fcn check-data photos                            photos/images/7.jpg with photos/labels/7.png, and so on
    fcn check-data VOC2012 --classes names.txt       a tree like PASCAL VOC's; the class names, one per line
    fcn check-data photos --write-palette found.txt  labels in colours: write the colours to a file, to be named
    fcn check-data photos                            photos/annotations.json in COCO's format; LabelMe's files; others
    fcn check-data photos --palette found.txt        the class of each colour: lines of R G B name
    fcn check-data photos --json > report.json       everything, with every file

The pixels of a label are class indices from 0 on, and 255 for void, which is neither trained on nor scored. The names
of the classes are in DIR/classes.txt or in the file of --classes; the first line is class 0. DIR/train.txt and
DIR/val.txt list the images for training and validation; without them, every fifth image is for validation. A thousand
photos take about a minute.

Exit code: 0 if a net can be trained on the data, 1 if fcn train would fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reproduction.commands.bars import Bars
from reproduction.commands.parsers import FEW, make_parser
from reproduction.commands.terminal import note, say, say_json
from reproduction.fcn.datasets.custom import check, color_labels, folder, folder_report
from reproduction.fcn.datasets.custom.folder_report import FolderReport, Problem

SHOWN = 20  # colours listed


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the folder and print the report; return 1 if a training would fail, else 0."""
    args = make_parser("check-data").parse_args(arguments)
    names, palette = folder.find_classes(args.folder, args.classes, args.palette)
    with Bars() as bars:
        report = check.check_folder(args.folder, names, palette, bars(args.folder.name, "image"))
    if args.write_palette:
        folder_report.write_palette(report, args.write_palette)
        note(f"{args.write_palette}: written; a line is R G B name, in the order of the classes.")
    if args.json:
        say_json(document(report))
    else:
        say(*text(report, None if args.all else FEW))
    return 0 if report.ok else 1


def text(report: FolderReport, few: int | None) -> Iterator[str]:
    """Yield the lines of a report; ``few`` limits the files listed for each problem, None lists all."""
    images, labels = report.folders
    labels = labels if Path(labels).suffix else f"{labels}/"
    yield f"{report.root}: {report.images} images in {images}/, {report.labels} labels in {labels}"
    if report.description:
        yield f"read as: {report.description}"
    splits = ", ".join(f"{n} in {split}" for split, n in report.splits.items())
    yield f"{report.pairs} images with a label" + (f"; {splits}" if splits else "")
    for what, modes in report.modes.items():
        if modes:
            yield f"modes of {what}: " + ", ".join(f"{mode} ({n})" for mode, n in modes.items())
    if report.sizes:
        yield f"sizes: {_sizes(report)}"
    if report.values:
        yield ""
        yield "label  class                 pixels        share     in images"
        for value in report.values:
            share = "" if value.name == color_labels.VOID_NAME else f"{100 * value.share:.2f} %"
            name = value.name or ("?" if report.classes else "")
            yield f"{value.label:5d}  {name:<18}  {value.pixels:>13,}  {share:>9}  {value.images:>10}"
        yield f"void: {100 * report.void:.2f} % of all pixels"
    if report.colours:
        total = sum(report.colours.values())
        yield ""
        yield f"{len(report.colours)} colours in the labels (R G B, share):"
        for colour, pixels in list(report.colours.items())[:SHOWN]:
            yield f"  {' '.join(f'{value:3d}' for value in colour)}  {100 * pixels / total:6.2f} %"
        if len(report.colours) > SHOWN:
            yield f"  and {len(report.colours) - SHOWN} more"
    for problem in report.problems:
        yield ""
        yield from _problem(problem, few)
    yield ""
    yield "A net can be trained on this." if report.ok else "Training would fail: see the errors."


def _sizes(report: FolderReport) -> str:
    heights, widths = zip(*report.sizes, strict=True)
    if len(report.sizes) == 1:
        return f"all {widths[0]} x {heights[0]} (width x height)"
    return f"{len(report.sizes)} different, {min(widths)} to {max(widths)} wide, {min(heights)} to {max(heights)} high"


def _problem(problem: Problem, few: int | None) -> Iterator[str]:
    count = f" ({len(problem.files)})" if len(problem.files) > 1 else ""
    yield f"{'error' if problem.fatal else 'note'}: {problem.what}{count}. {problem.remedy}".rstrip()
    for file in problem.files[:few]:
        yield f"  {file}"
    if few is not None and len(problem.files) > few:
        yield f"  and {len(problem.files) - few} more; --all names them"


def document(report: FolderReport) -> dict[str, Any]:
    """Return a report as plain data, for JSON."""
    return {
        **vars(report),
        "root": str(report.root),
        "ok": report.ok,
        "folders": dict(zip(("images", "labels"), report.folders, strict=True)),
        "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in report.sizes.items()],
        "values": [vars(value) for value in report.values],
        "colours": [{"rgb": rgb, "pixels": n} for rgb, n in report.colours.items()],
        "problems": [vars(problem) for problem in report.problems],
    }

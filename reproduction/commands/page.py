"""Write a page of trainings from their logs, or a page of scores from a report.

    fcn page runs                    the trainings in runs/, finished or not, to runs/index.html
    fcn page runs/mini-fcn8s         one of them
    fcn page reports/voc             the scores of scores.json there, with images if data and label maps exist
    fcn page weights/mini -o mini.html

fcn train, fcn reproduce and fcn evaluate write these pages themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reproduction.caffe.errors import DataError
from reproduction.caffe.formats import hashes
from reproduction.commands.parsers import make_parser
from reproduction.commands.terminal import note, say
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.nets import registry
from reproduction.report import page, record, training, training_history
from reproduction.report.gallery import Gallery
from reproduction.report.record import ScoreReport


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page, and print its path."""
    args = make_parser("page").parse_args(arguments)
    path = args.out or args.folder / "index.html"
    if not args.folder.is_dir():
        raise DataError("there is no such folder", path=args.folder)
    if (args.folder / "scores.json").is_file():
        report = record.load_report(args.folder / "scores.json")
        page.write_page(report, path, galleries(report, args.folder, args.data))
    else:
        training.write_page(training_history.find_run_folders(args.folder), path)
    say(path)


def galleries(report: ScoreReport, folder: Path, data: Path) -> dict[str, Gallery]:
    """Return the galleries of a report's nets by the net's name; print a note for each net without one.

    Raises:
        DataError: If the report is of custom images, which only fcn evaluate can read.
    """
    if report.set not in SPECS:
        raise DataError(
            f"these scores are of images of {report.set!r}, which is not a published data set",
            path=folder / "scores.json",
            remedy="fcn evaluate writes their page.",
        )
    found = {}
    for net in report.nets:
        maps = folder / net.predictions
        if not net.measured or net.net not in registry.NETS:
            continue
        try:
            if not net.predictions or not maps.is_dir():
                raise DataError("its label maps are not here", path=maps)
            dataset = registry.open_test_split(registry.find_net(net.net), data)
            if any(list(found.class_iu) != list(dataset.label_classes.get(found.label, ())) for found in net.measured):
                raise DataError("it has other classes than these scores", path=dataset.tree)
            if report.split and hashes.hash_lines(dataset.ids) != report.split.sha1:
                raise DataError(f"{dataset.split} is not the split that was scored", path=dataset.tree)
            found[net.net] = Gallery(dataset, maps)
        except DataError as error:
            note(f"no images of {net.net}: {error}")
    return found

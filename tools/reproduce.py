#!/usr/bin/env python3
"""Score the nets of a data set and compare them with published or recorded scores.

    tools/reproduce.py mini                                the nets that come with this project, on images it draws
    tools/reproduce.py voc                                 every net; downloads weights and data that are missing
    tools/reproduce.py voc --nets voc-fcn8s --limit 20     one net on 20 images
    tools/reproduce.py nyud --device cuda --data /data --mirror http://mirror.example/fcn
    tools/reproduce.py voc --json > voc.json               the scores for another program
    tools/reproduce.py mini --trained runs/mini            the weights that tools/train.py wrote there, not weights/
    tools/reproduce.py nyud --nets nyud-fcn32s-color-d --model my.caffemodel        your own weights of one net

The table is printed and written to reports/SET/scores.md and scores.json; reports/SET/index.html is a page with images.
Label maps are written to reports/SET/predictions.
The same command resumes a run that was stopped. The tolerance of a score, in points (percent):

    0.01   of the score that weights/SET/scores.json recorded
    0.1    of the score that others measured with the published weights, or that the authors' README states
    1      of the paper's table, if no other score is known; and of every score of your own weights (--trained, --model)

Exit codes: 0 every net was checked and matches; 1 a net is off, or could not be scored; 2 wrong usage; 3 no net is off,
but one was not checked: no score of it is known (siftflow-fcn32s), its weights were not published (nyud-fcn32s-color-d,
see --model), or only a part of the images was scored (--limit). 130 the run was stopped.

--record writes the scores to weights/SET/scores.json, and later runs are compared with them; with --trained it also
copies the weights and the logs of their training.

Mini-VOC takes half a minute on two cores; a net of VOC about an hour: 736 images of 3 to 6 seconds.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TextIO

from common import (
    NOT_CHECKED,
    ROOT,
    Bars,
    add_device,
    add_precision,
    compiled,
    describe,
    fail,
    note,
    positive,
    precision,
    run,
    say,
    versions,
)

from reproduction.caffe import devices, locks
from reproduction.caffe.errors import DataError, ReproductionError, WeightsError
from reproduction.caffe.formats import files
from reproduction.fcn.datasets import SPECS, PublishedNet
from reproduction.fcn.fetch import local_files
from reproduction.fcn.reproduce import pipeline, sources
from reproduction.fcn.reproduce.pipeline import ScoringPlan
from reproduction.fcn.reproduce.sources import Callbacks
from reproduction.fcn.scoring.evaluate import TimedProgress
from reproduction.fcn.train import log_file, recipes
from reproduction.report import gallery, markdown, page, record
from reproduction.report.gallery import Gallery
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport
from reproduction.report.reference import Reference, format_points

LOGGED = 10  # of a training's log, every LOGGED-th iteration is recorded with its weights


def main() -> int:
    """Score the nets, print and write the results; return the exit code, see above."""
    parser = _parser()
    args = parser.parse_args()
    if args.model and len(set(args.nets)) != 1:
        parser.error("--model is of one net: name it with --nets")
    if args.model and (args.trained or args.record):
        parser.error("--model goes with neither --trained nor --record")
    if args.record and (args.nets or args.limit):
        parser.error("--record is for all nets and all images: leave --nets and --limit out")
    with locks.lock_folder(args.report / args.set, "another process is reproducing here"):
        return reproduced(args)


def reproduced(args: argparse.Namespace) -> int:
    """Score the nets, print and write the results; the caller has locked the report folder."""
    start = time.monotonic()
    rows = pipeline.select_nets(args.set, args.nets)
    device = devices.select_device(args.device)
    source = weights_from(args)
    folder = args.report / args.set
    plan = ScoringPlan(
        source,
        local_files.FileRoots(args.weights, args.data),
        folder / "predictions",
        args.device,
        args.limit,
        partial(compiled, precision=precision(args)),
    )
    kept = args.weights / args.set / "scores.json"
    recorded = record.load_report(kept) if kept.is_file() and not args.record else None
    with Screen(sys.stderr if args.json else sys.stdout) as screen:
        results, galleries, split = score_all(
            plan,
            rows,
            screen,
            partial(record.find_references, earlier=recorded, trained=bool(args.trained or args.model)),
        )
    if recorded and split and recorded.split != split:
        got, want = (f"{each.count} of sha1 {each.sha1}" if each else "none" for each in (recorded.split, split))
        raise DataError("these scores were recorded on other images", path=kept, got=got, want=want)
    report = ScoreReport(
        set=args.set,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        split=split,
        limit=None if split is None or args.limit is None or args.limit >= split.count else args.limit,
        device=describe(device),
        precision=precision(args),
        versions=versions(),
        nets=results,
    )
    if screen.errors and not any(net.measured for net in report.nets):
        raise ReproductionError(f"{screen.errors} of {len(report.nets)} nets could not be scored")
    if any(net.measured for net in report.nets):
        write(report, folder, galleries)
        if not args.json:
            show(report, folder)
    if args.json:
        say(*record.format_report(report).rstrip("\n").split("\n"))
    code = judge(report, screen.errors, recording=args.record)
    if args.record and not code:
        keep(report, rows, args.trained, kept)
        screen.note(f"recorded in {kept.parent}")
    screen.note(f"{time.monotonic() - start:.1f} s")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SPECS, help="the data set")
    parser.add_argument("--nets", nargs="+", default=[], metavar="NET", help="default: all of the data set")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="score the first N images only; checks nothing")
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="DIR", help="default: data/")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights", metavar="DIR", help="default: weights/")
    parser.add_argument("--report", type=Path, default=ROOT / "reports", metavar="DIR", help="default: reports/")
    parser.add_argument("--trained", type=Path, metavar="DIR", help="score what tools/train.py left in this --out")
    parser.add_argument("--model", type=Path, metavar="FILE", help="your own weights of the net that --nets names")
    parser.add_argument("--record", action="store_true", help="keep the scores in WEIGHTS/SET/scores.json")
    parser.add_argument("--json", action="store_true", help="print scores.json, and all else on standard error")
    parser.add_argument("--mirror", metavar="URL|DIR", help="where to look first (also REPRODUCTION_MIRROR)")
    parser.add_argument("--manifest", type=Path, help="another weights/manifest.json (also REPRODUCTION_MANIFEST)")
    return parser


def weights_from(args: argparse.Namespace) -> sources.Source:
    """Return the source of data and weights: published, drawn, or the user's own weights.

    Raises:
        WeightsError: If the file of ``--model`` does not exist.
    """
    source = sources.find_source(args.set, local_files.load_manifest(args.manifest), args.mirror)
    if args.model:
        if not args.model.is_file():  # checked before anything is downloaded
            raise WeightsError("no such file of weights", path=args.model)
        return sources.CustomWeights(source, args.model)
    return sources.TrainedWeights(source, args.trained) if args.trained else source


def score_all(
    plan: ScoringPlan,
    rows: Sequence[PublishedNet],
    screen: Screen,
    references: Callable[[str, str], Sequence[Reference]],
) -> tuple[list[NetResult], dict[str, Gallery], ScoredSplit | None]:
    """Score the nets in turn; an error of one net does not stop the others.

    Args:
        plan: The source of data and weights, the folders, the device and the limit.
        rows: The nets.
        screen: Shows progress and errors.
        references: Returns the scores that a net's scores are compared with, from the net's name and the label.

    Returns:
        The results, the galleries of the nets that were scored, and the split; None if every net was skipped.

    Raises:
        ReproductionError: If the data cannot be downloaded or read.
    """
    results, galleries, split = [], {}, None
    for row in rows:
        if row.caffemodel is None and isinstance(plan.source, sources.DownloadedSource):
            results.append(
                NetResult(
                    row.name, note="its weights were not published, name your own with --model (make: MODEL=FILE)"
                )
            )
            continue
        watch = Callbacks(screen, partial(screen, unit="picture"), screen.note, screen.images(row.name))
        dataset = pipeline.fetch_dataset(plan, row, watch)
        split = ScoredSplit(dataset.split, len(dataset), pipeline.compute_split_sha1(dataset.ids))
        try:
            result = pipeline.score_net(plan, row, dataset, watch)
            galleries[row.name] = Gallery(dataset, result.predictions)
            measured = [
                gallery.measure(
                    galleries[row.name],
                    LabelScores.from_scores(top, scores, dataset.label_classes[top], references(row.name, top)),
                    plan.limit,
                    screen(f"{row.name}, image by image", "image"),
                )
                for top, scores in result.scores.items()
            ]
        except ReproductionError as error:
            screen.error(str(error))
            results.append(NetResult(row.name, note=error.problem))
            continue
        file, sha256, seconds = result.weights.path.name, result.weights.sha256, result.seconds_per_image
        maps = f"{plan.out.name}/{result.predictions.name}"
        results.append(NetResult(row.name, "", file, sha256, seconds, measured, maps))
    return results, galleries, split


class Screen(Bars):
    """The output of a run: bars and errors on standard error, sentences on ``out``.

    Args:
        out: The stream for sentences.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.errors = 0
        self._out = out

    def note(self, text: str) -> None:
        """Print a sentence."""
        self.close()
        say(text, file=self._out)

    def error(self, text: str) -> None:
        """Print an error and count it."""
        self.close()
        self.errors += 1
        fail(text)

    def images(self, what: str) -> TimedProgress:
        """Prepare a bar of images and return the function that moves it."""
        move = self(what, "image")
        return lambda done, total, _: move(done, total)


def write(report: ScoreReport, folder: Path, galleries: Mapping[str, Gallery]) -> None:
    """Write a report as JSON, Markdown and a page.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record.write_report(report, folder / "scores.json")
    markdown.write_markdown(report, folder / "scores.md")
    page.write_page(report, folder / "index.html", galleries)


def show(report: ScoreReport, folder: Path) -> None:
    """Print a report and the paths of its files."""
    say("", *markdown.format_scores(report).split("\n"), "", *markdown.format_verdicts(report))
    say("", ", ".join(str(folder / name) for name in ("index.html", "scores.md", "scores.json")))


def judge(report: ScoreReport, errors: int, *, recording: bool = False) -> int:
    """Print what is wrong and what was not checked; return the exit code.

    Args:
        report: The report of the run.
        errors: How many nets could not be scored.
        recording: Whether the run writes the record; then nothing counts as not checked.
    """
    if errors:
        fail(f"{errors} of {len(report.nets)} nets could not be scored.")
    off: dict[float, list[str]] = {}
    for net, measured, *_ in report.mismatches():
        if (reference := measured.compared_with) and reference.tolerance_points is not None:
            off.setdefault(reference.tolerance_points, []).append(net)
    for within, names in off.items():
        fail(f"off by more than {format_points(within)}: {', '.join(dict.fromkeys(names))}.")
    flat = [rise for rise in report.stage_gains() if not rise.is_enough]
    for rise in flat:
        said = f"{rise.points:+.2f} points, and at least {rise.least:+g} is wanted"
        fail(f"mean IU from {rise.parent} to {rise.net}: {said}.")
    if off or flat or errors:
        return 1
    unchecked = [] if recording else report.unchecked()
    for name, why in unchecked:
        note(f"not checked: {name}; {why}.")
    return NOT_CHECKED if unchecked else 0


def keep(report: ScoreReport, rows: Sequence[PublishedNet], trained: Path | None, path: Path) -> None:
    """Record the scores that later runs are compared with, and copy the trainings' weights and logs.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in (*row.parents, row.name))
    trainings = {name: recipes.final_model_path(name, trained) for name in names} if trained else {}
    for name, result in trainings.items():
        log = result.with_name("log.jsonl")
        if result.is_file():
            with result.open("rb") as file, files.open_atomic(path.with_name(result.name)) as copy:
                shutil.copyfileobj(file, copy)
        if log.is_file():
            log_file.copy_thinned(log, path.with_name(f"{name}.log.jsonl"), LOGGED)
    # Label maps are not copied, and later runs are compared with these scores, not with this run's references.
    results = [
        replace(net, predictions="", measured=[replace(scores, references=()) for scores in net.measured])
        for net in report.nets
    ]
    record.write_report(replace(report, nets=results), path)


if __name__ == "__main__":
    run(main)

"""The scoring of a data set's nets: their results, the failures among them, and how they are recorded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import files, hashes
from reproduction.caffe.typing import Progress
from reproduction.fcn.datasets import Dataset, NetRecord
from reproduction.fcn.fetch.availability import format_availability
from reproduction.fcn.reproduce import pipeline, sources
from reproduction.fcn.reproduce.pipeline import ScoringPlan
from reproduction.fcn.reproduce.sources import Callbacks
from reproduction.fcn.scoring.results import Evaluation
from reproduction.fcn.train import log_file, recipes
from reproduction.report import markdown, page, record
from reproduction.report.gallery import Gallery
from reproduction.report.record import LabelScores, NetResult, ScoredSplit, ScoreReport
from reproduction.report.reference import format_points

LOGGED = 10  # of a training's log, every LOGGED-th iteration is recorded with its weights
UNPUBLISHED = "its weights were not published; name your own with --model (make: MODEL=FILE)"


class Screen(Protocol):
    """The interface through which a run shows progress, messages and errors."""

    def __call__(self, what: str, unit: str = "B") -> Progress:
        """Start a progress bar, and return the function that moves it.

        Args:
            what: the label of the bar.
            unit: the name of what is counted, such as ``image``; ``B`` for bytes.
        """

    def note(self, text: str) -> None:
        """Show a message, such as that a file was fetched."""

    def error(self, text: str) -> None:
        """Show an error; the run continues with the next net."""


@dataclass
class ScoringRun:
    """The results of scoring the nets of a data set.

    Attributes:
        results: the result of each net, including those that were skipped or failed.
        galleries: the images, labels and predictions of the nets that were scored, by net name.
        split: the split that was scored; None if every net was skipped.
        images: the name of the folder of the images, such as ``VOC2012``; empty if every net was skipped.
        errors: the number of nets that could not be scored.
    """

    results: list[NetResult] = field(default_factory=list)
    galleries: dict[str, Gallery] = field(default_factory=dict)
    split: ScoredSplit | None = None
    images: str = ""
    errors: int = 0

    def make_report(
        self, set_name: str, limit: int | None, device: str, precision: str, versions: Mapping[str, str]
    ) -> ScoreReport:
        """Return the report of the run, dated now.

        Args:
            set_name: the name of the data set.
            limit: the number of images that were scored, from the start of the split; None for all.
            device: the device that the nets ran on.
            precision: the name of the arithmetic's precision.
            versions: the versions of the packages that the results depend on.

        Raises:
            ReproductionError: If there were errors and no net was scored.
        """
        if self.errors and not any(net.measured for net in self.results):
            raise ReproductionError(f"{self.errors} of {len(self.results)} nets could not be scored")
        is_partial = self.split is not None and limit is not None and limit < self.split.count
        return ScoreReport(
            set=set_name,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            split=self.split,
            limit=limit if is_partial else None,
            device=device,
            precision=precision,
            versions=versions,
            nets=self.results,
            images=self.images,
        )


def score_nets(
    plan: ScoringPlan,
    nets: Sequence[NetRecord],
    screen: Screen,
    find_references: record.FindReferences,
) -> ScoringRun:
    """Fetch what is missing and score the nets one after the other; if one fails, the others are still scored.

    Args:
        plan: the source of data and weights, the folders, the device and the limit.
        nets: the nets; those whose weights were never published are skipped.
        screen: shows progress and errors.
        find_references: a function from a net name and a label top to the published scores to compare with.

    Raises:
        ReproductionError: If the data cannot be downloaded or read.
    """
    run = ScoringRun()
    availability = pipeline.check_availability(plan, nets)
    for line in format_availability(availability) if availability else ():
        screen.note(line)
    pipeline.require_available(plan, availability)
    for published in nets:
        if published.caffemodel is None and isinstance(plan.source, sources.DownloadedSource):
            run.results.append(NetResult(published.name, note=UNPUBLISHED))
            continue
        move = screen(published.name, "image")
        callbacks = Callbacks(screen, partial(screen, unit="image"), screen.note, partial(_move_bar, move))
        dataset = pipeline.fetch_dataset(plan, published, callbacks)
        run.images = dataset.tree.name
        run.split = ScoredSplit(dataset.split, len(dataset), hashes.hash_lines(dataset.ids))
        try:
            scored = pipeline.score_net(plan, published, dataset, callbacks)
            run.galleries[published.name] = Gallery(dataset, scored.predictions)
            measured = measure_labels(published.name, dataset, scored.evaluation, find_references)
        except ReproductionError as error:
            screen.error(str(error))
            run.errors += 1
            run.results.append(NetResult(published.name, note=error.problem))
            continue
        file, maps = scored.weights, f"{plan.out.name}/{scored.predictions.name}"
        seconds = scored.evaluation.seconds_per_image
        run.results.append(
            NetResult(published.name, "", file.path.name, file.sha256, seconds, measured, maps, file.origin)
        )
    return run


def measure_labels(
    net_name: str, dataset: Dataset, evaluation: Evaluation, find_references: record.FindReferences
) -> list[LabelScores]:
    """Convert the result of an evaluation to ``LabelScores``, with the published scores to compare them with.

    Args:
        net_name: The name of the net.
        dataset: The data set that was scored.
        evaluation: The result of the evaluation.
        find_references: A function from a net name and a label top to the published scores to compare with.

    Returns:
        One ``LabelScores`` for each kind of labels: one, or two for SIFT Flow.
    """
    return [
        LabelScores.from_scores(
            top, scores, dataset.label_classes[top], find_references(net_name, top), evaluation.images
        )
        for top, scores in evaluation.scores.items()
    ]


def _move_bar(move: Progress, done: int, total: int, seconds: float) -> None:
    move(done, total)


def check_recorded(recorded: ScoreReport | None, split: ScoredSplit | None, path: Path) -> None:
    """Check that recorded scores are of the same images as this run's; do nothing if either is None.

    Args:
        recorded: the recorded report.
        split: the split that this run scored.
        path: the file of the recorded report, for the error.

    Raises:
        DataError: If they are of other images.
    """
    if recorded and split and recorded.split != split:
        got, want = (f"{each.count} of sha1 {each.sha1}" if each else "none" for each in (recorded.split, split))
        raise DataError("these scores were recorded on other images", path=path, got=got, want=want)


def write_files(report: ScoreReport, folder: Path, galleries: dict[str, Gallery]) -> list[Path]:
    """Write a report as ``scores.json``, ``scores.md`` and ``index.html``; return the three paths, the page first.

    Args:
        report: the report.
        folder: the folder to write to.
        galleries: the images for the page, by net name.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("index.html", "scores.md", "scores.json")]
    record.write_report(report, paths[2])
    files.write_text(paths[1], markdown.format_markdown(report))
    page.write_page(report, paths[0], galleries)
    return paths


def list_failures(report: ScoreReport, errors: int) -> list[str]:
    """Return a sentence on each failure of a run: nets without scores, scores outside their tolerance, too small gains.

    Args:
        report: the report of the run.
        errors: the number of nets that could not be scored.
    """
    failures = [f"{errors} of {len(report.nets)} nets could not be scored."] if errors else []
    off: dict[float, list[str]] = {}
    for net, measured, *_ in report.mismatches():
        if (reference := measured.compared_with) and reference.tolerance_points is not None:
            off.setdefault(reference.tolerance_points, []).append(net)
    failures += [
        f"off by more than {format_points(tolerance)}: {', '.join(dict.fromkeys(names))}."
        for tolerance, names in off.items()
    ]
    return failures + [
        f"mean IU from {gain.parent} to {gain.net}: {gain.points:+.2f} points; at least {gain.least:+g} is required."
        for gain in report.stage_gains()
        if not gain.is_enough
    ]


def record_run(report: ScoreReport, nets: Sequence[NetRecord], trained: Path | None, path: Path) -> None:
    """Write a report as the recorded scores that later runs are compared with, next to copies of the weights and logs.

    Args:
        report: the report of the run.
        nets: the nets that were scored.
        trained: the folder that contains a folder for each training, whose weights and logs are copied; None if the
            weights were not trained by the user.
        path: the file to write; weights and logs are copied to the same folder.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for published in nets for name in (*published.parents, published.name))
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

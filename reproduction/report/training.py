"""The HTML page of trainings: losses and scores over all stages, the final IU of each class, and the settings.

A stage is the training of one net; a chain is several stages that follow each other, as 32s, 16s and 8s do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

from reproduction.caffe.errors import ReproductionError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.training.events import Step
from reproduction.fcn.images import palette
from reproduction.fcn.scoring.score import METRICS, TITLES
from reproduction.fcn.train.log_file import LOG_FILE, Validation
from reproduction.report import curves, training_history
from reproduction.report.curves import Chart, Curve, RenderedChart, StageSpan
from reproduction.report.page import ClassBar, make_bars, render_template
from reproduction.report.training_history import TrainingHistory


@dataclass(frozen=True)
class ClassScores:
    """The IU of each class for one kind of labels, at the last validation of a stage: the data of a bar chart.

    Attributes:
        label: the label top, ``sem`` or ``geo`` for SIFT Flow; empty if there is only one kind of labels.
        stage: the name of the stage's net.
        iteration: the iteration of the validation.
        mean_iu: the mean IU of the validation; None if there was nothing to count.
        bars: the IU of each class, with that of other stages for comparison.
    """

    label: str
    stage: str
    iteration: int
    mean_iu: float | None
    bars: list[ClassBar]


@dataclass(frozen=True)
class Chain:
    """Several stages, each trained from the weights of earlier ones, such as 32s, 16s, 8s; with their charts.

    Attributes:
        stages: the history of each stage, in the order in which they were trained.
        charts: the charts of losses and scores, over the iterations of all stages.
        classes: the class IUs of the last stage that has any, one entry for each kind of labels.
    """

    stages: list[TrainingHistory]
    charts: list[RenderedChart]
    classes: list[ClassScores]

    @property
    def title(self) -> str:
        """The names of the stages' nets, joined by arrows."""
        return " → ".join(stage.name for stage in self.stages)


@dataclass(frozen=True)
class Written:
    """When the page of a running training was written.

    Attributes:
        time: the time, as text.
        reload_seconds: the interval in which the page reloads itself; None if the training is over.
    """

    time: str
    reload_seconds: int | None


def format_page(histories: Iterable[TrainingHistory], written: Written | None = None) -> str:
    """Format the HTML page of trainings; trainings that start from each other's weights share their charts.

    Args:
        histories: the trainings.
        written: when the page is written, if a training writes it; None for a page without a time.
    """
    chains = training_history.group_chains(histories)
    return render_template(
        "training.html",
        chains=[Chain(chain, _charts(chain), _class_scores(chain)) for chain in chains],
        written=written,
    )


def write_page(folders: Iterable[Path], path: StrPath, written: Written | None = None) -> None:
    """Load the logs of trainings, and write their page to a file atomically.

    Args:
        folders: the folders of the trainings.
        path: the file to write.
        written: see ``format_page``.

    Raises:
        DataError: If a log is missing or broken.
        ReproductionError: If the page cannot be written.
    """
    files.write_text(path, format_page([training_history.load_history(folder) for folder in folders], written))


class LivePage:
    """The page ``index.html`` of all trainings in a folder, which is updated while they run, and then reloads itself.

    Use it as a context manager: at its end, the page is written a last time, and no longer reloads itself.

    Args:
        out: the folder that contains a folder for each training.
        on_error: called with a message if the page cannot be written; the training continues.
    """

    SECONDS = 30.0  # the least time between two updates
    SHARE = 0.02  # the most of the training's time that writing the page may take

    def __init__(self, out: Path, on_error: Callable[[str], object]):
        self._out, self._on_error, self._due = out, on_error, time.monotonic() + self.SECONDS
        self._interval = self.SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if any(self._out.glob(f"*/{LOG_FILE}")):
            self._write(reload_seconds=None)

    def step(self, *_: object) -> None:
        """Write the page again if it is due: at most every ``SECONDS``, and less often if writing takes long."""
        if time.monotonic() >= self._due:
            self._write(reload_seconds=math.ceil(self._interval))

    images = validated = step

    def _write(self, reload_seconds: int | None) -> None:
        start = time.monotonic()
        written = Written(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", reload_seconds)
        try:
            write_page(training_history.find_run_folders(self._out), self._out / "index.html", written)
        except (ReproductionError, OSError) as error:
            self._on_error(f"the page of this training was not written: {error}")
        now = time.monotonic()
        self._interval = max(self.SECONDS, (now - start) / self.SHARE)
        self._due = now + self._interval


def _charts(chain: Sequence[TrainingHistory]) -> list[RenderedChart]:
    spans = _spans(chain)
    losses = _losses(chain, spans)
    lowest = min(losses.band[0] if losses.band else losses.y, default=0)
    charts = [Chart("Loss", [losses], spans, log=lowest > 1e-100)] if losses.x else []
    validations = _validations(chain, spans)
    labels = list(dict.fromkeys(top for _, validation in validations for top in validation.scores))
    for top in labels:
        points = [(x, vars(validation.scores[top])) for x, validation in validations if top in validation.scores]
        lines = [line for metric in METRICS if (line := _curve(TITLES[metric], metric, points)).x]
        if lines:
            charts.append(Chart("Scores" if len(labels) == 1 else f"Scores, {top}", lines, spans, percent=True))
    for name in dict.fromkeys(name for _, validation in validations for name in validation.outputs):
        stages = [stage for stage in chain if any(name in validation.outputs for validation in stage.validations)]
        spans = _spans(stages)
        points = [(x, dict(validation.outputs)) for x, validation in _validations(stages, spans)]
        charts.append(Chart(f"Test net: {name}", [_curve(name, name, points)], spans))
    return [curves.render_chart(chart) for chart in charts]


def _spans(chain: Sequence[TrainingHistory]) -> list[StageSpan]:
    ends = list(accumulate(stage.max_iter for stage in chain))
    return [StageSpan(stage.name, end - stage.max_iter, end) for stage, end in zip(chain, ends, strict=True)]


def _validations(chain: Sequence[TrainingHistory], spans: Sequence[StageSpan]) -> list[tuple[int, Validation]]:
    """Return the validations of all stages, with their iterations counted over all stages."""
    pairs = zip(chain, spans, strict=True)
    return [(span.start + each.iteration, each) for stage, span in pairs for each in stage.validations]


def _curve(title: str, name: str, points: Sequence[tuple[int, Mapping[str, Any]]]) -> Curve:
    values = [(x, value) for x, metrics in points if (value := metrics.get(name)) is not None]
    return Curve(title, [x for x, _ in values], [y for _, y in values])


def _losses(chain: Sequence[TrainingHistory], spans: Sequence[StageSpan]) -> Curve:
    """Return one curve of the losses of all stages; long ones are averaged to about ``curves.BINS`` points."""
    size = max(1, spans[-1].end // curves.BINS)
    return curves.join_curves(
        "loss" if size == 1 else f"loss, mean and range of {size} iterations",
        [
            curves.average_bins(
                [span.start + step.iteration for step in stage.steps], list(map(_loss, stage.steps)), size
            )
            for stage, span in zip(chain, spans, strict=True)
        ],
    )


def _loss(step: Step) -> float:
    """Return the loss of a step: the mean per pixel for dense labels."""
    return step.loss if step.loss_per_pixel is None else step.loss_per_pixel


def _class_scores(chain: Sequence[TrainingHistory]) -> list[ClassScores]:
    """Return the class IUs of the last stage that has any, with those of the other stages for comparison."""
    scored = [stage for stage in chain if stage.validations and stage.validations[-1].scores]
    if not scored:
        return []
    stage, last = scored[-1], scored[-1].validations[-1]
    class_scores = []
    for top, names in stage.start.classes.items():
        if top not in last.scores:
            continue
        earlier = {other.name: other.validations[-1].scores.get(top) for other in scored[:-1]}
        others = {
            name: metrics.class_iu
            for name, metrics in earlier.items()
            if metrics and len(metrics.class_iu) == len(names)
        }
        colours = palette.colour_table(stage.colours.get(top, ())).tolist()
        bars = make_bars(names, last.scores[top].class_iu, others, colours)
        label = top if len(stage.start.classes) > 1 else ""
        class_scores.append(ClassScores(label, stage.name, last.iteration, last.scores[top].mean_iu, bars))
    return class_scores

"""The HTML page of trainings: losses and scores over all stages, final class scores, and the settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.caffe.errors import StrPath
from reproduction.caffe.formats import files
from reproduction.fcn.images import palette
from reproduction.report import curves, training_history
from reproduction.report.curves import Chart, Curve, RenderedChart, StageSpan
from reproduction.report.page import ClassBar, css_color, render_template
from reproduction.report.reference import METRICS, TITLES
from reproduction.report.training_history import Check, TrainingHistory


@dataclass(frozen=True)
class Classes:
    """The IU of each class in one label top, at the last validation of a stage.

    Attributes:
        label: the label top; empty if there is only one.
        net: the name of the stage.
        check: the validation.
        mean_iu: the mean IU of the validation; None if there was nothing to count.
        bars: the IU of each class.
        has_others: True if the bars include other stages of the chain.
    """

    label: str
    net: str
    check: Check
    mean_iu: float | None
    bars: list[ClassBar]
    has_others: bool


@dataclass(frozen=True)
class Course:
    """A chain of stages, each trained from the weights of earlier ones.

    Attributes:
        stages: the stages, in their order.
        charts: losses and scores over the iterations of all stages.
        classes: the class scores of the last stage that has any, one entry for each label top.
    """

    stages: list[TrainingHistory]
    charts: list[RenderedChart]
    classes: list[Classes]

    @property
    def title(self) -> str:
        """The names of the stages, joined by arrows."""
        return " → ".join(stage.name for stage in self.stages)


def page(stages: Iterable[TrainingHistory]) -> str:
    """Format the HTML page of trainings.

    Args:
        stages: the trainings; those of one chain share their charts.
    """
    courses = [Course(chain, _charts(chain), _classes(chain)) for chain in training_history.group_chains(stages)]
    return render_template("training.html", courses=courses)


def dump(folders: Iterable[Path], path: StrPath) -> None:
    """Load the logs of trainings and write their page to a file atomically.

    Raises:
        DataError: If a log is missing or broken.
        ReproductionError: If the page cannot be written.
    """
    text = page([training_history.load_history(folder) for folder in folders])
    with files.open_atomic(path) as file:
        file.write(text.encode())


def _charts(chain: Sequence[TrainingHistory]) -> list[RenderedChart]:
    spans = _spans(chain)
    losses = _losses(chain, spans)
    lowest = min(losses.band[0] if losses.band else losses.y, default=0)
    charts = [Chart("Loss", [losses], spans, log=lowest > 1e-100)] if losses.x else []
    checks = [
        (span.start + check.iteration, check)
        for stage, span in zip(chain, spans, strict=True)
        for check in stage.checks
    ]
    labels = list(dict.fromkeys(top for _, check in checks for top in check.scores))
    for top in labels:
        found = [(x, check.scores[top]) for x, check in checks if top in check.scores]
        lines = [line for metric in METRICS if (line := _line(TITLES[metric], metric, found)).x]
        if lines:
            charts.append(Chart("Scores" if len(labels) == 1 else f"Scores, {top}", lines, spans, percent=True))
    for name in dict.fromkeys(name for _, check in checks for name in check.outputs):
        mine = [stage for stage in chain if any(name in check.outputs for check in stage.checks)]
        points = [
            (span.start + check.iteration, check.outputs)
            for stage, span in zip(mine, _spans(mine), strict=True)
            for check in stage.checks
        ]
        charts.append(Chart(f"Test net: {name}", [_line(name, name, points)], _spans(mine)))
    return [curves.render_chart(chart) for chart in charts]


def _spans(chain: Sequence[TrainingHistory]) -> list[StageSpan]:
    spans, begin = [], 0
    for stage in chain:
        spans.append(StageSpan(stage.name, begin, begin + stage.planned))
        begin += stage.planned
    return spans


def _line(title: str, name: str, found: Sequence[tuple[int, Mapping[str, float | None]]]) -> Curve:
    points = [(x, value) for x, values in found if (value := values.get(name)) is not None]
    return Curve(title, [x for x, _ in points], [y for _, y in points])


def _losses(chain: Sequence[TrainingHistory], spans: Sequence[StageSpan]) -> Curve:
    """Return one curve of the losses of all stages; long ones are averaged to about ``curves.BINS`` points."""
    size = max(1, spans[-1].end // curves.BINS)
    parts = [curves.average_bins(stage.iterations, stage.losses, size) for stage in chain]
    return Curve(
        "loss" if size == 1 else f"loss, mean and range of {size}",
        [span.start + x for part, span in zip(parts, spans, strict=True) for x in part.x],
        [y for part in parts for y in part.y],
        (
            [low for part in parts if part.band for low in part.band[0]],
            [high for part in parts if part.band for high in part.band[1]],
        )
        if size > 1
        else None,
    )


def _classes(chain: Sequence[TrainingHistory]) -> list[Classes]:
    """Return the class IUs of the last stage that has any, with those of the other stages for comparison."""
    last = {stage.name: stage.checks[-1] for stage in chain if stage.checks and stage.checks[-1].class_iu}
    if not last:
        return []
    name, check = list(last.items())[-1]
    stage = next(stage for stage in chain if stage.name == name)
    found = []
    for top, names in stage.classes.items():
        if top not in check.class_iu:
            continue
        values = check.class_iu[top]
        others = {
            other: dict(zip(names, earlier.class_iu[top], strict=True))
            for other, earlier in last.items()
            if other != name and len(earlier.class_iu.get(top, ())) == len(names)
        }
        colours = palette.colour_table(stage.colours.get(top, ()))
        order = sorted(range(len(names)), key=lambda k: -(iu if (iu := values[k]) is not None else -1.0))
        bars = [
            ClassBar(
                name=names[k],
                colour=css_color(colours[k].tolist()),
                iu=values[k],
                rank=order.index(k) + 1,
                others={other: iu for other, theirs in others.items() if (iu := theirs[names[k]]) is not None},
            )
            for k in range(len(names))
        ]
        label = top if len(stage.classes) > 1 else ""
        found.append(Classes(label, name, check, check.scores[top]["mean_iu"], bars, bool(others)))
    return found

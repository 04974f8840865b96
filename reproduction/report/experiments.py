"""The results of the paper's experiments: their record, and tables and pages that show the paper's numbers, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, ClassVar

from reproduction.caffe.errors import StrPath
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.json_file import at_least
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.experiments.runs import Measured
from reproduction.fcn.experiments.table import EXPERIMENTS, Claim, Experiment
from reproduction.fcn.scoring.score import TITLES
from reproduction.report import page, tables
from reproduction.report.tables import Table

FILE = "experiments.json"
_FORMAT = 1


@dataclass(frozen=True)
class Column:
    """How the figures of a column are shown.

    Attributes:
        title: the heading.
        form: the format of a number.
        scale: the factor by which figures are multiplied: 100 for percent.
    """

    title: str
    form: str = "{:.2f}"
    scale: float = 1


COLUMNS = {
    **{name: Column(title, scale=100) for name, title in TITLES.items()},
    "object_iu": Column("mean IU without background", scale=100),
    "nearest_iu": Column("mean IU, nearest", scale=100),
    "bilinear_iu": Column("mean IU, bilinear", scale=100),
    "outputs": Column("outputs", "{:.0f}"),
    "passes": Column("passes", "{:,.0f}"),
    "products_millions": Column("million products", "{:,.0f}"),
    "products_an_output_millions": Column("million products an output", "{:,.1f}"),
    "forward_ms": Column("ms", "{:.2f}"),
    "an_output_ms": Column("ms an output", "{:.3f}"),
    "cpu_s": Column("seconds", "{:.2f}"),
    "difference": Column("relative difference", "{:.0e}"),
}


@dataclass(frozen=True)
class Result:
    """The result of an experiment, as it is recorded.

    Attributes:
        name: the name of the experiment.
        iterations: the most updates of its trainings; None if nothing was trained.
        seeds: the seeds of the trainings; empty if nothing was trained.
        images: the number of images that were scored; None for all.
        date: the day, ISO 8601.
        versions: the versions of the packages.
        rows: the figures.
    """

    extra_names: ClassVar = ("*",)

    name: str
    iterations: Annotated[int, at_least(1)] | None
    seeds: Sequence[int]
    images: Annotated[int, at_least(1)] | None
    date: str
    versions: Mapping[str, str]
    rows: Sequence[Measured]


@dataclass(frozen=True)
class _Document:
    """The file of the results of a data set."""

    set: str
    results: Sequence[Result]


def load_results(path: StrPath) -> dict[str, Result]:
    """Load the results of a data set by the name of the experiment; none if there is no file.

    Raises:
        DataError: If the file does not contain results.
    """
    if not Path(path).is_file():
        return {}
    document = json_file.load(path, _Document, "these are not the results of experiments", version=_FORMAT)
    return {result.name: result for result in document.results}


def list_tables(results: Mapping[str, Result]) -> list[Table]:
    """Return the tables of results by name, in the order of the table of experiments."""
    return [make_table(experiment, results[name]) for name, experiment in EXPERIMENTS.items() if name in results]


def write_results(
    results: Mapping[str, Result], set_name: str, folder: Path, *, record_only: bool = False
) -> dict[str, str]:
    """Write results as ``experiments.json``, ``.md`` and ``.html``, and return the text of each file by its name.

    Args:
        results: the results by the name of the experiment.
        set_name: the name of the data set.
        folder: the folder to write to, which is created if it does not exist.
        record_only: whether to write ``experiments.json`` alone.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    ordered = [results[name] for name in EXPERIMENTS if name in results]
    found = list_tables(results)
    document = {"format": _FORMAT, **asdict(_Document(set_name, ordered))}
    texts = {FILE: json.dumps(document, indent=1, allow_nan=False) + "\n"}
    if not record_only:
        texts["experiments.md"] = f"# The paper's experiments on {SPECS[set_name].title}\n\n{tables.format_page(found)}"
        texts["experiments.html"] = page.render_template("experiments.html", title=SPECS[set_name].title, tables=found)
    tables.write_texts(texts, folder)
    return texts


def make_table(experiment: Experiment, result: Result) -> Table:
    """Return the table of an experiment: its figures, the paper's, and whether they show what the paper found.

    Args:
        experiment: the entry of the table of experiments.
        result: what was measured.
    """
    printed = {row.label: experiment.find_printed(row.label) for row in result.rows}
    names = {column: experiment.printed_columns.get(column, column) for column in experiment.columns}
    beside = [
        column
        for column, name in names.items()
        if any(row is not None and name in row.figures for row in printed.values())
    ]
    head, lines = ["net" if experiment.trials else "row"], [[row.label] for row in result.rows]
    for column in experiment.columns:
        about = COLUMNS[column]
        form = "{:g}" if about.scale == 1 else "{:.1f}"  # scores are printed with one decimal
        head += [about.title, *(["paper"] if column in beside else [])]
        for line, row in zip(lines, result.rows, strict=True):
            line.append(format_figures(row.figures.get(column, ()), about))
            theirs = printed[row.label]
            if column in beside:
                known = theirs is not None and names[column] in theirs.figures
                line.append(tables.format_figure(theirs, names[column], form) if known else "")
    verdicts = "\n".join(f"- {sentence}" for sentence in format_verdicts(experiment, result))
    parts = [experiment.says, experiment.differs, _format_conditions(result), f"\n\n{verdicts}" if verdicts else ""]
    return Table(
        experiment.name,
        experiment.title,
        " ".join(part for part in parts if part).replace(" \n", "\n"),
        head,
        lines,
        tables.format_sources(printed.values()),
    )


def _format_conditions(result: Result) -> str:
    seeds = f"seed{'s' * (len(result.seeds) > 1)} {', '.join(map(str, result.seeds))}"
    trained = f"{result.iterations} updates, {seeds}" if result.seeds else ""
    scored = f"the first {result.images} images" if result.images else ""
    return "; ".join(part for part in (trained, scored, f"measured {result.date}") if part).capitalize() + "."


def format_figures(values: Sequence[float], column: Column) -> str:
    """Format one figure, or the mean and the standard deviation of several; empty for none."""
    if not values:
        return ""
    scaled = [column.scale * value for value in values]
    text = column.form.format(fmean(scaled))
    return f"{text} ± {column.form.format(stdev(scaled))}" if len(scaled) > 1 else text


def format_verdicts(experiment: Experiment, result: Result) -> list[str]:
    """Return a sentence for each claim of the paper: whether the figures show it too.

    A difference counts if it is larger than its standard deviation over the seeds.
    """
    figures = {row.label: row.figures for row in result.rows}
    return [
        _judge(claim, figures[claim.first][claim.column], figures[claim.second][claim.column])
        for claim in experiment.claims
        if claim.first in figures and claim.second in figures
    ]


def _judge(claim: Claim, first: Sequence[float], second: Sequence[float]) -> str:
    column = COLUMNS[claim.column]
    differences = [column.scale * (mine - other) for mine, other in zip(first, second, strict=True)]
    difference, margin = fmean(differences), stdev(differences) if len(differences) > 1 else 0.0
    if claim.relation == "below":
        verdict = _name_verdict(-difference, margin)
    else:
        verdict = "as in the paper" if difference <= margin else "not as in the paper"
    change = f"{difference:+.2f}" if column.scale != 1 else _format_ratio(fmean(first), fmean(second))
    spread = f" ± {margin:.2f}" if len(differences) > 1 and column.scale != 1 else ""
    return f"{claim.first} against {claim.second}, {column.title}: {change}{spread}: {verdict}."


def _name_verdict(expected: float, margin: float) -> str:
    """Return the verdict on a difference that should be positive."""
    if abs(expected) <= margin:
        return "within the spread"
    return "as in the paper" if expected > 0 else "not as in the paper"


def _format_ratio(first: float, second: float) -> str:
    return f"{second / first:.1f} times less" if 0 < first < second else f"{first:g} and {second:g}"


def list_experiments(results: Mapping[str, Result]) -> list[str]:
    """Return a line for each experiment: its name, its title, and when it was measured.

    Args:
        results: the known results by name.
    """
    width = max(map(len, EXPERIMENTS))
    lines = []
    for name, experiment in EXPERIMENTS.items():
        nets = len({trial.variant for trial in experiment.trials.values()})
        what = f"trains {nets} nets" if nets else "trains nothing"
        when = f"; measured {results[name].date}" if name in results else ""
        lines.append(f"{name:{width}}  {experiment.title} ({what}{when})")
    return lines

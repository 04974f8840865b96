"""A report of scores as a Markdown page: measured and published scores, their sources, and the IU of each class."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from reproduction.caffe.errors import printable
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.scoring.score import METRICS, TITLES
from reproduction.report.record import LabelScores, NetResult, ScoreReport
from reproduction.report.reference import COLUMNS, PUBLISHED_RULE, format_points

UNVERIFIED = "\\*"
_DECIMALS = 4  # of measured scores: as many as the most precise source has


def format_markdown(report: ScoreReport) -> str:
    """Format a report of scores as a Markdown page.

    Published scores are percent with the decimals of their source, followed in parentheses by the difference measured
    minus published, in points.
    """
    report = _escape_strings(report)
    sources = "\n".join(f"- {line}" for line in _format_sources(report))
    parts = [
        f"# {report.set}: its nets, measured here",
        _format_conditions(report),
        format_scores(report),
        *_format_footnotes(report),
        "\n".join(f"- {line}" for line in format_verdicts(report)),
        f"## Sources\n\n{sources}" if sources else "",
        *_format_class_tables(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_scores(report: ScoreReport) -> str:
    """Format every net's metrics as a Markdown table: a column for each published source, then the measured scores."""
    rows = []
    columns = list_columns(report)
    for net in report.nets:
        if net.note:
            rows.append([net.net, "not measured", *[""] * (len(columns) + 1)])
        for measured in net.measured:
            for metric in METRICS:
                cells = [_format_cell(report, measured, column, metric) for column in columns]
                rows.append([net.title(measured), TITLES[metric], *cells, _format_percent(getattr(measured, metric))])
    titles = [COLUMNS[column] for column in columns]
    return format_table(["net", "metric", *titles, "measured here"], rows, text_columns=2)


def list_columns(report: ScoreReport) -> list[str]:
    """Return the keys of the sources (such as ``paper``, ``readme``) that state a score of any net of a report.

    They are in the order of ``reference.COLUMNS``.
    """
    present = {each.column for each in report.references}
    return [column for column in COLUMNS if column in present]


def format_verdicts(report: ScoreReport) -> Iterator[str]:
    """Yield sentences on each net: its reference, whether the scores match it, and the gain over its parent."""
    why = dict(report.unchecked())
    for net in report.nets:
        for measured in net.measured:
            name = net.title(measured)
            yield f"{name}: not checked; {why[name]}." if name in why else _format_comparison(name, measured)
            if measured.has_absent:
                yield f"{name}: {_format_both_rules(report, measured)}."
        if not net.measured:
            yield f"{net.net}: not checked; {net.note}."
    for gain in report.stage_gains():
        required = "" if gain.least is None else f"; at least {gain.least:+g} is required"
        sentence = f"{gain.net}: mean IU changes by {gain.points:+.2f} points from {gain.parent}{required}."
        yield sentence if gain.is_enough else f"**{sentence}**"


def _format_comparison(name: str, measured: LabelScores) -> str:
    """Format the comparison of scores with ``measured.compared_with`` as a sentence."""
    reference = measured.compared_with
    assert reference is not None
    assert reference.tolerance_points is not None
    within, source = format_points(reference.tolerance_points), COLUMNS[reference.column]
    remark = f" ({reference.remark})" if reference.remark else ""
    off = ", ".join(
        f"{TITLES[metric]} by {delta:+.2f}" if delta == delta else f"{TITLES[metric]} was not measured"
        for metric, delta in measured.mismatches()
    )
    if off:
        return f"{name}: **off** from {source}{remark}, more than {within}: {off}."
    return f"{name}: within {within} of {source}{remark}."


def _format_both_rules(report: ScoreReport, measured: LabelScores) -> str:
    """Format the mean IU by both rules for absent classes, with the difference of each from the reference in points."""
    reference, parts = measured.compared_with, []
    for metric, rule in (
        ("mean_iu", "with absent classes left out"),
        (PUBLISHED_RULE, "as the published score.py counts them"),
    ):
        delta = report.delta(measured, reference, metric) if reference else None
        above = "" if delta is None else f" ({delta:+.2f})"
        parts.append(f"{_format_percent(getattr(measured, metric))}{above} {rule}")
    return f"mean IU is {' and '.join(parts)}"


def _format_conditions(report: ScoreReport) -> str:
    lines = []
    if report.split:
        part = "all" if report.limit is None else f"the first {report.limit} of"
        images = f"{report.split.count} images" + (f" of {report.images}" if report.images else "")
        lines.append(f"Split {report.split.name}, {part} {images} (sha1 of the list {report.split.sha1}).")
    lines += [f"Weights of {net.net}: {net.weights_origin}." for net in report.nets if net.weights_origin]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines.append(f"Measured {report.measured} on {report.device}, {report.precision}; {versions}.")
    if known := SPECS[report.set].knows if report.set in SPECS else "":
        lines.append(f"These nets recognize {known}.")
    lines.append("Scores are in percent; in parentheses, measured minus published, in points.")
    return "\n".join(lines)


def _format_cell(report: ScoreReport, measured: LabelScores, column: str, metric: str) -> str:
    reference = next((row for row in measured.references if row.column == column), None)
    if reference is None or metric not in reference.values:
        return ""
    text = f"{100 * reference.values[metric]:.{reference.decimals}f}"
    text += UNVERIFIED if metric in reference.unverified else ""
    delta = report.delta(measured, reference, metric)
    return text if delta is None else f"{text} ({format_signed(delta, reference.decimals)})"


def format_signed(delta: float, decimals: int) -> str:
    """Format a difference in points with its sign, e.g. ``+0.01``; zero has no sign."""
    rounded = round(delta, decimals)
    return f"{rounded:+.{decimals}f}" if rounded else f"{0:.{decimals}f}"


def _format_footnotes(report: ScoreReport) -> list[str]:
    marked = any(reference.unverified for reference in report.references)
    return [f"{UNVERIFIED} not checked: the text of its paper was not at hand."] if marked else []


def _format_sources(report: ScoreReport) -> Iterator[str]:
    for column, title in COLUMNS.items():
        for net, measured in report.scored:
            for reference in measured.references:
                if reference.column == column:
                    yield f"{title}, {net.title(measured)}: {reference.source}."


def _format_class_tables(report: ScoreReport) -> list[str]:
    """Return headings and IU tables, one for each label top, with a row for each class and a column for each net."""
    by_label: dict[str, list[tuple[NetResult, LabelScores]]] = {}
    for net, measured in report.scored:
        by_label.setdefault(measured.label, []).append((net, measured))
    parts = []
    for label, columns in by_label.items():
        rows = [
            [name, *(_format_percent(measured.class_iu.get(name), 2) for _, measured in columns)]
            for name in columns[0][1].class_iu
        ]
        parts.append("## IU of each class" + (f", {label}" if len(by_label) > 1 else ""))
        parts.append(format_table(["class", *(net.net for net, _ in columns)], rows, text_columns=1))
    return parts


def _format_percent(value: float | None, decimals: int = _DECIMALS) -> str:
    return "-" if value is None else f"{100 * value:.{decimals}f}"


# The special characters of Markdown and HTML. An underscore inside a word is literal in Markdown.
_MARKDOWN_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def escape(text: str) -> str:
    """Escape text from data or files so that Markdown displays it literally, on one line."""
    return _MARKDOWN_SPECIAL.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), printable(text))


def _escape_strings(value: Any) -> Any:
    """Return a copy of a report with every string escaped, recursively."""
    if isinstance(value, str):
        return escape(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _escape_strings(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, dict):
        return {_escape_strings(name): _escape_strings(inner) for name, inner in value.items()}
    return [_escape_strings(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int) -> str:
    """Format a Markdown table with cells padded to the width of their column.

    Args:
        head: the column titles.
        rows: the cells of each row, as text.
        text_columns: the number of columns at the left that are left-aligned; the others contain numbers and are
            right-aligned.
    """
    cells = [[printable(text) for text in row] for row in (head, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    rule = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        texts = (
            text.ljust(width) if i < text_columns else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(texts)} |"

    return "\n".join([line(cells[0]), line(rule), *(line(row) for row in cells[1:])])

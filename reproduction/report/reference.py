"""Published scores to compare with, the tolerances that apply, and the known obstacles to a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from reproduction.caffe.formats.json_file import between, one_of
from reproduction.fcn.reproduce import paper
from reproduction.fcn.reproduce.paper import PublishedRow
from reproduction.fcn.scoring.score import METRICS

COLUMNS = {
    "paper": "paper",
    "readme": "published README",
    "rescored": "re-scored elsewhere",
    "recorded": "recorded",
}

# The tolerance of each source in points (percent), in order of preference. All but the paper's numbers were measured
# with the same weights, those of "recorded" by this project. If only the paper's table is known, weights and rounding
# may differ, and some numbers were not checked against its text; see ``paper.find_caveat``.
TOLERANCES = {"rescored": 0.1, "readme": 0.1, "recorded": 0.01, "paper": 1.0}

PUBLISHED_RULE = "mean_iu_published_rule"

#: The tolerance in points for weights that the user trained.
TRAINED_POINTS = 1.0


@dataclass(frozen=True)
class Reference:
    """One row of published or recorded scores.

    Attributes:
        column: a key of ``COLUMNS``.
        source: the edition, table and row, and the text in which they were read.
        decimals: the number of printed decimals of a percent.
        values: metric -> fraction; metrics that the row does not state are absent.
        unverified: the metrics that could not be compared with the text of their paper.
        tolerance_points: the largest difference allowed, in points (percent); None if the scores need not match.
        remark: why the scores may not be comparable; empty if no reason is known.
    """

    extra_names: ClassVar = ("deltas_points",)  # computed when a report is written

    column: Annotated[str, one_of(COLUMNS)]
    source: str
    decimals: Annotated[int, between(0, 12)]
    values: Mapping[str, Annotated[float, between(0, 1)]]
    unverified: Sequence[Annotated[str, one_of(METRICS)]] = ()
    tolerance_points: Annotated[float, between(0, 100)] | None = None
    remark: str = ""

    def check(self) -> str | None:
        """Return the condition that is not met (see ``json_file``): only known metrics; None if it is."""
        return None if set(self.values) <= set(METRICS) else f"values of {', '.join(METRICS)} alone"

    @classmethod
    def from_row(cls, column: str, row: PublishedRow, label: str = "label") -> Reference | None:
        """Convert a published row to fractions; return None if it has no score of this label top."""
        prefix = "geo_" if label == "geo" else ""
        figures = {metric: row.figures[prefix + metric] for metric in METRICS if prefix + metric in row.figures}
        if not figures:
            return None
        return cls(
            column,
            f"{row.edition}, {row.table}, {row.name}; {row.measured_on}; {row.source}",
            max(_count_decimals(figure.value) for figure in figures.values()),
            {metric: figure.value / 100 for metric, figure in figures.items()},
            [metric for metric, figure in figures.items() if not figure.verified],
            TOLERANCES[column],
            paper.find_caveat(row) if column == "paper" else "",
        )


def choose_reference(references: Sequence[Reference]) -> Reference | None:
    """Return the reference that a net must match, the first in the order of ``TOLERANCES``; None if there is none."""
    held = [reference for reference in references if reference.tolerance_points is not None]
    return min(held, key=lambda reference: list(TOLERANCES).index(reference.column), default=None)


def format_points(tolerance: float) -> str:
    """Format a tolerance, such as ``0.1 points``."""
    return f"{tolerance:g} point{'' if tolerance == 1 else 's'}"


def _count_decimals(value: float) -> int:
    return len(f"{value:.6f}".rstrip("0").partition(".")[2]) or 1

"""Published scores to compare a net's scores with, the tolerances that apply, and why some are not comparable."""

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
    """The scores of one net from one source, such as a row of the paper's table, to compare measured scores with.

    Attributes:
        column: the kind of source, a key of ``COLUMNS`` (``paper``, ``readme``, ``rescored`` or ``recorded``): it
            selects the column of a report's table.
        source: where the scores were read, as text: edition, table and row of the paper, or the date and versions of a
            recorded run.
        decimals: the number of decimals of a percent in the source.
        values: the scores by metric (``pixel_acc``, ``mean_acc``, ``mean_iu``, ``fw_iu``), as fractions; metrics that
            the source does not state are absent.
        unverified: the metrics whose value could not be compared with the text of the paper itself.
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
        """Return which metrics ``values`` may contain if it has others, else None (see ``json_file``)."""
        return None if set(self.values) <= set(METRICS) else f"values of {', '.join(METRICS)} alone"

    @classmethod
    def from_row(cls, column: str, row: PublishedRow, label: str = "label") -> Reference | None:
        """Convert a row of a published table, in percent, to fractions; None if it has no score for this label top.

        Args:
            column: the kind of source, a key of ``COLUMNS``.
            row: the row.
            label: the label top: ``label``; for SIFT Flow ``sem`` or ``geo``.
        """
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
    """Return the reference that a net's scores must match; None if no reference has a tolerance.

    If several have one, it is the first in the order of ``TOLERANCES``.
    """
    held = [reference for reference in references if reference.tolerance_points is not None]
    return min(held, key=lambda reference: list(TOLERANCES).index(reference.column), default=None)


def format_points(tolerance: float) -> str:
    """Format a tolerance in points (percent), such as ``0.1 points``."""
    return f"{tolerance:g} point{'' if tolerance == 1 else 's'}"


def _count_decimals(value: float) -> int:
    return len(f"{value:.6f}".rstrip("0").partition(".")[2]) or 1

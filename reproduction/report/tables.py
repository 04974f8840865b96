"""The paper's tables other than its scores: net shapes, times, skips; measured next to printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reproduction.caffe.formats import files
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.nets import registry
from reproduction.fcn.nets.receptive_field import compute_net_figures
from reproduction.fcn.reproduce import paper
from reproduction.fcn.reproduce.paper import PublishedRow
from reproduction.fcn.scoring.score import METRICS, TITLES
from reproduction.report import record
from reproduction.report.markdown import UNVERIFIED, format_table
from reproduction.report.record import LabelScores, ScoreReport

NOT_RECORDED = "not recorded"

# The rows of the CVPR paper's Table 1. Its FCN-GoogLeNet was not published; it was written from this table.
_TABLE_1 = {"voc-fcn-alexnet": "FCN-AlexNet", "voc-fcn32s": "FCN-VGG16", "voc-fcn-googlenet": "FCN-GoogLeNet"}
# The rows of its Table 2, by the part of the net's name that follows the data set.
_TABLE_2 = {
    "fcn32s-fixed": "FCN-32s-fixed",
    "fcn32s": "FCN-32s",
    "fcn16s": "FCN-16s",
    "fcn8s": "FCN-8s",
}


@dataclass(frozen=True)
class Table:
    """A table of a report, formatted as text.

    Attributes:
        name: the name by which the user selects the table on the command line.
        title: the heading.
        about: a paragraph on how the values were computed or measured, and how the paper's differ.
        head: the column titles.
        rows: the cells of each row, one for each column; a number that is missing is an empty cell.
        sources: where the printed numbers were read.
    """

    name: str
    title: str
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    sources: Sequence[str]


def format_page(tables: Iterable[Table]) -> str:
    """Format tables as one Markdown page, each with its heading, text and sources."""
    parts = []
    for table in tables:
        parts += [f"## {table.title}", table.about, format_table(table.head, table.rows, text_columns=1)]
        is_marked = any(UNVERIFIED in cell for row in table.rows for cell in row)
        parts += [f"{UNVERIFIED} not checked: the text of its paper was not at hand."] if is_marked else []
        parts += ["\n".join(f"- {source}." for source in table.sources)] if table.sources else []
    return "\n\n".join(parts) + "\n"


def shape_table(nets: Sequence[NetRecord]) -> Table:
    """Return Table 1, computed from the nets' prototxts: convolutions, parameters, receptive field and stride."""
    columns = ("depth", "learned", "receptive_field", "max_stride")
    printed = ("conv_layers", "parameters_millions", "receptive_field_px", "max_stride_px")
    lines, used = [], []
    for published in nets:
        figures = asdict(compute_net_figures(registry.load_net(published.name)))
        theirs = find_row(paper.CVPR, "table 1", _TABLE_1[published.name]) if published.name in _TABLE_1 else None
        used += [theirs] if theirs else []
        cells = [f"{figures[column]:,}" for column in columns]
        lines.append([published.name, *_put_beside(cells, theirs, printed, "{:g}")])
    titles = ("convolutions on the longest path", "learned parameters", "receptive field, px", "max. stride, px")
    return Table(
        "shape",
        "Table 1: convolutions, parameters, receptive field, stride",
        "Computed from each net's deploy.prototxt; the fixed upsampling is not learned.",
        ["net", *interleave(titles, ["paper", "paper, millions", "paper", "paper"])],
        lines,
        format_sources(used),
    )


def time_table(seconds: Mapping[str, float], device: str, trials: int, size: tuple[int, int]) -> Table:
    """Return a table of measured forward times next to those that the paper prints in Table 1.

    Args:
        seconds: the mean time of a forward pass in seconds, by net name.
        device: a description of the device that was used.
        trials: the number of forward passes over which each mean was taken.
        size: height and width of the image, in pixels.
    """
    lines, used = [], []
    for name, mean in seconds.items():
        row = _TABLE_1.get(name)
        printed = [find_row(edition, "table 1", row) for edition in (paper.CVPR, paper.PAMI)] if row else []
        used += printed
        lines.append(
            [name, f"{1000 * mean:.1f}", *([format_figure(each, "forward_ms", "{:g}") for each in printed] or ["", ""])]
        )
    height, width = size
    return Table(
        "time",
        "Table 1: forward time",
        f"Milliseconds for an image of {height} x {width}: the mean of {trials} after one more, on {device}. The"
        " papers' are of 500 x 500 on other machines (CVPR: a Tesla K40c, the mean of 20).",
        ["net", "here", "CVPR", "PAMI"],
        lines,
        format_sources(used),
    )


def skip_table(report: ScoreReport | None, fixed: LabelScores | None, set_name: str) -> Table:
    """Return a table of the metrics at strides 32, 16 and 8, and with only the last layer fine-tuned, next to Table 2.

    Args:
        report: the scores of the data set's nets; None if nothing was measured.
        fixed: the scores of the net of which only the last layer was fine-tuned; None if there is none.
        set_name: the name of the data set.
    """
    measured = {net.net: net.measured[0] for net in report.nets if net.measured} if report else {}
    if fixed:
        measured[f"{set_name}-fcn32s-fixed"] = fixed
    lines, used = [], []
    for ending, row in _TABLE_2.items():
        theirs = find_row(paper.CVPR, "table 2", row)
        used.append(theirs)
        mine = measured.get(f"{set_name}-{ending}")
        cells = [
            "not measured" if mine is None or (value := getattr(mine, metric)) is None else f"{100 * value:.2f}"
            for metric in METRICS
        ]
        lines.append([f"{set_name}-{ending}", *_put_beside(cells, theirs, METRICS, "{:.1f}")])
    part = f" Only {report.limit} images were scored here." if report and report.limit is not None else ""
    return Table(
        "skip",
        "Table 2: strides, and the last layer alone",
        "Percent. In fcn32s-fixed only the last layer is fine-tuned. Upsampling is bilinear and fixed here, as in the"
        " published nets; the paper's numbers are of PASCAL VOC and the nets of 2015, which learned it but for the last"
        " one." + part,
        ["net", *interleave([TITLES[metric] for metric in METRICS], ["paper, VOC"] * len(METRICS))],
        lines,
        format_sources(used),
    )


def find_scores(*folders: Path) -> ScoreReport | None:
    """Return the scores of a data set's nets from the first of several folders that has them; None if none has.

    Args:
        folders: folders that may contain scores.json, such as ``reports/SET`` and ``weights/SET``.

    Raises:
        DataError: If the file is not a report of scores.
    """
    paths = (folder / "scores.json" for folder in folders)
    return next((record.load_report(path) for path in paths if path.is_file()), None)


def write_tables(tables: Sequence[Table], set_name: str, versions: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Write tables to ``tables.md`` and ``tables.json``, and return the text of each file by its name.

    Args:
        tables: the tables.
        set_name: the name of the data set.
        versions: the versions of the packages that the values depend on.
        folder: the folder to write to, which is created if it does not exist.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    document = {"set": set_name, "versions": versions, "tables": [asdict(table) for table in tables]}
    texts = {"tables.md": format_page(tables), "tables.json": json.dumps(document, indent=1) + "\n"}
    write_texts(texts, folder)
    return texts


def write_texts(texts: Mapping[str, str], folder: Path) -> None:
    """Write texts to files in a folder, which is created if it does not exist, each atomically.

    Args:
        texts: the text of each file by its name.
        folder: the folder.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.write_text(folder / name, text)


def find_row(edition: str, table: str, name: str) -> PublishedRow | None:
    """Return a row of a publication by its edition, table and name; None if it is not in ``paper.ROWS``."""
    rows = (row for row in paper.ROWS if (row.edition, row.table, row.name) == (edition, table, name))
    return next(rows, None)


def format_figure(row: PublishedRow | None, column: str, form: str) -> str:
    """Format a published number, and mark it if it was not compared with its source.

    Args:
        row: the row; None gives an empty text.
        column: the column; ``NOT_RECORDED`` is returned if the row lacks it.
        form: the format of the number, such as ``{:.1f}``.
    """
    if row is None:
        return ""
    if column not in row.figures:
        return NOT_RECORDED
    figure = row.figures[column]
    return form.format(figure.value) + ("" if figure.verified else UNVERIFIED)


def interleave(mine: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """Return the cells of two rows of the same length in turns, each measured one before the published one."""
    return [cell for pair in zip(mine, theirs, strict=True) for cell in pair]


def _put_beside(cells: Sequence[str], row: PublishedRow | None, columns: Sequence[str], form: str) -> list[str]:
    """Return cells in turns with those of a published row; see ``format_figure``."""
    return interleave(cells, [format_figure(row, column, form) for column in columns])


def format_sources(rows: Iterable[PublishedRow | None]) -> list[str]:
    """Format the sources of printed rows, each once."""
    sources = [f"{row.edition}, {row.table}: {row.measured_on}; {row.source}" for row in rows if row]
    return list(dict.fromkeys(sources))

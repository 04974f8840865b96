#!/usr/bin/env python3
"""Write the generated parts of README.md and docs/: Mini-VOC's scores, exactness, speed, numbers, lists, figures.

``make readme`` runs it, after ``tools/figure.py``, which draws the figure.

    tools/readme.py            write the generated parts
    tools/readme.py --check    exit with code 1 if one of them is not current
"""

from __future__ import annotations

import argparse
import functools
import json
import re
from pathlib import Path

from common import ROOT, run

from readme_parts import differences, layer_types, speed, systems

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.nets import published_nets
from reproduction.fcn.reproduce import paper
from reproduction.fcn.scoring.score import METRICS, TITLES
from reproduction.report import comparison, experiments, ledger, markdown, record, tables
from reproduction.report.record import LabelScores, ScoreReport
from reproduction.report.reference import choose_reference

README = ROOT / "README.md"
DIFFERENCES = ROOT / "docs" / "differences.md"
SPEED = ROOT / "docs" / "speed.md"
CAFFE_MODELS = ROOT / "docs" / "caffe_models.md"
SYSTEMS = ROOT / "docs" / "systems.md"
MINI = ROOT / "weights" / "mini" / "scores.json"
LEDGER = ROOT / "weights" / ledger.FOLDER
FIGURES = ROOT / "tests" / "golden" / "exactness.json"
COMPARISONS = LEDGER / comparison.FOLDER
EXPERIMENTS = ROOT / "docs" / "experiments.md"
EXPERIMENT_RESULTS = ROOT / "weights" / "mini" / experiments.FILE
UNVERIFIED = "\\*"
OTHER_WEIGHTS, OWN_WEIGHTS = "†", "‡"
NUMBERS = f"""± is the tolerance in points; no score of siftflow-fcn32s is known to check it with. Where "measured here"
is empty, nobody has yet: run the command with `BY="your name"` and open a pull request. {UNVERIFIED} not yet compared
with the text of the paper. {OTHER_WEIGHTS} The score is the CVPR 2015 paper's, of other weights than the published.
{OWN_WEIGHTS} Never published: pass your own as `MODEL`; without it the command ends with "not checked"."""


def main() -> int:
    """Replace the generated parts of each page, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    args = parser.parse_args()
    written = {page: functools.partial(replace_parts, page, page.read_text()) for page in PARTS}
    for page, write in {**written, **systems.figures()}.items():
        old, new = page.read_text() if page.exists() else "", write()
        if args.check and new != old:
            raise ReproductionError(
                "a generated part is not current", place=page.name, remedy="Run `make readme` and commit the result."
            )
        if new != old:
            page.write_text(new)
    return 0


def replace_parts(page: Path, text: str) -> str:
    """Return the page with its generated parts replaced.

    Raises:
        ReproductionError: If the page lacks the marks of a part.
    """
    for name, write_part in PARTS[page].items():
        mark = re.search(rf"(?<=<!-- generated: {name} -->\n).*?(?=<!-- end -->)", text, re.DOTALL)
        if not mark:
            raise ReproductionError(f"the mark of part {name!r} is missing", place=page.name)
        text = f"{text[: mark.start()]}{write_part()}\n{text[mark.end() :]}"
    return text


def mini_table() -> str:
    """Return a table of the scores in weights/mini/scores.json, and of the gain of each stage."""
    report = record.load_report(MINI)
    gained = {rise.net: f"{rise.points:+.2f}" for rise in report.stage_gains()}
    lines = [
        f"| net | {' | '.join(TITLES[metric] for metric in METRICS)} | gain in mean IU |",
        "| --- |" + " --: |" * 5,
    ]
    for net in report.nets:
        (measured,) = net.measured
        cells = [f"{100 * getattr(measured, metric):.2f}" for metric in METRICS]
        lines.append(f"| {net.net} | {' | '.join(cells)} | {gained.get(net.net, '')} |")
    images, torch = report.split.count if report.split else 0, report.versions["torch"]
    return "\n".join(lines) + f"\n\nIn percent, on {images} images; recorded {report.measured[:10]} with torch {torch}."


def exactness_table() -> str:
    """Return a table of tests/golden/exactness.json."""
    figures = json.loads(FIGURES.read_text())
    layers, whole, legacy = figures["layers"], figures["nets"], figures["legacy"]
    count = whole["cases"]
    rows = [
        ("compared with BVLC Caffe 1.0 (9b89154)", "cases", "largest error", "tolerance"),
        ("---", "--:", "--:", "--:"),
        ("layers, forward and backward", layers["cases"], f"{layers['worst']:.0e}", f"{layers['tolerance']:g}"),
        ("models in the old V0 and V1 formats", legacy["cases"], f"{legacy['worst']:.0e}", f"{legacy['tolerance']:g}"),
        (
            "the published nets, every intermediate array",
            count,
            f"{whole['torch_forward']:.0e}",
            f"{whole['forward_tolerance']:g}",
        ),
        (
            "the published nets, the label of each pixel",
            count,
            f"{whole['labels_off']} pixels",
            "0, where Caffe is sure",
        ),
        ("the same with `blas_order=True`", count, f"{whole['forward']:.0e}", f"{whole['forward_tolerance']:g}"),
        ("gradients with `blas_order=True`", count, f"{whole['backward']:.0e}", f"{whole['backward_tolerance']:g}"),
        ("bit-for-bit equal with `blas_order=True`", count, f"{whole['same']:,} of {whole['values']:,} values", "all"),
    ]
    measured = figures["measured"]
    table = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    return (
        f"{table}\n\nErrors are relative to the largest value of each array. Measured {measured['date']} by"
        f" `make exactness`: torch {measured['torch']}, {measured['machine']}. {cuda_sentence()}"
    )


def cuda_sentence() -> str:
    """Return a sentence on the errors on CUDA, or that CUDA is untested."""
    if remark := tested_devices.untested_note():
        return f"`DEVICE=cuda` and `--device cuda` are {remark}; `tools/exactness.py --device cuda` records a test."
    found = json.loads(tested_devices.RECORD.read_text())
    return (
        f"On CUDA ({found['device']}, {found['date']}), the scores of the published nets differ from Caffe's by at most"
        f" {found['forward']:.0e} of the largest score, and the gradients by {found['backward']:.0e}."
    )


def numbers_table() -> str:
    """Return a table of the published nets, the scores that each must match, and the command that checks it."""
    lines = [
        "| net | paper | authors' README | measured by others | measured here | command |",
        "| --- | --: | --: | --: | --- | --- |",
    ]
    entries = ledger.load_entries(LEDGER)
    for name, net in published_nets.NETS.items():
        rows = {
            "paper": paper.find_paper_row(name),
            "readme": paper.find_readme_row(name),
            "rescored": paper.find_rescored_row(name),
        }
        reference = choose_reference(record.find_references(name, net.heads[0].label))
        cells = {column: _mean_iu(row) for column, row in rows.items()}
        if reference:
            cells[reference.column] += f" ± {reference.tolerance_points:.1f}"
        else:
            cells["paper"] = "not checked"
        cells["here"] = _measured_here(ledger.find_newest(entries, name))
        other = OTHER_WEIGHTS if rows["paper"] and "of other weights" in paper.find_caveat(rows["paper"]) else ""
        own = "" if net.caffemodel else f" MODEL=FILE` {OWN_WEIGHTS}"
        command = f"`make reproduce-{net.dataset.name} NETS={name}{own or '`'}"
        lines.append(f"| {name}{other} | {' | '.join(cells.values())} | {command} |")
    return "\n".join(lines) + "\n\n" + NUMBERS


def experiment_tables() -> str:
    """Return the tables of the recorded experiments on Mini-VOC."""
    return tables.format_page(experiments.list_tables(experiments.load_results(EXPERIMENT_RESULTS))).rstrip()


def compared_table() -> str:
    """Return the table of the newest recorded comparison of nets at an equal budget."""
    found = comparison.load_newest(COMPARISONS)
    about = f"Recorded {found.measured[:10]} with torch {found.versions['torch']}: {found.device}."
    return f"{comparison.format_rows(found)}\n\n{found.rule()} {about}"


def _measured_here(found: tuple[ScoreReport, LabelScores] | None) -> str:
    if found is None:
        return ""
    report, scores = found
    points = "" if scores.mean_iu is None else f"{100 * scores.mean_iu:.4f}, "
    return f"{points}{markdown.escape(report.by)}, {report.measured[:10]}"


def _mean_iu(row: paper.PublishedRow | None) -> str:
    figure = row.figures.get("mean_iu") if row else None
    if figure is None:
        return ""
    printed = f"{figure.value:.1f}" if round(figure.value, 1) == figure.value else f"{figure.value:g}"
    return printed + ("" if figure.verified else UNVERIFIED)


PARTS = {
    README: {"mini": mini_table, "exactness": exactness_table, "speed": speed.speed_table, "numbers": numbers_table},
    DIFFERENCES: {"differences": differences.difference_lists},
    SPEED: {"speed tables": speed.speed_page},
    CAFFE_MODELS: {"layer types": layer_types.layer_types_table},
    EXPERIMENTS: {"experiments": experiment_tables},
    SYSTEMS: {"systems": systems.systems_table, "compared": compared_table},
}


if __name__ == "__main__":
    run(main)

#!/usr/bin/env python3
"""Write the generated parts of README.md and docs/: Mini-VOC's scores, exactness, speed, numbers, differences.

``make readme`` runs it.

    tools/readme.py            write them
    tools/readme.py --check    say whether they are current; exit 1 when not
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT, run

from peers import BASELINE, FORWARD, figures

from reproduction.caffe import tested
from reproduction.caffe.errors import ReproductionError
from reproduction.fcn import nets, paper
from reproduction.report import record
from reproduction.report.reference import METRICS, TITLES, closest

README = ROOT / "README.md"
DIFFERENCES = ROOT / "docs" / "differences.md"
MINI = ROOT / "weights" / "mini" / "scores.json"
FIGURES = ROOT / "tests" / "golden" / "exactness.json"
SPEED = ROOT / "tools" / "peers" / "measured.json"
SETS = ("voc", "nyud", "siftflow", "pascalcontext")
UNVERIFIED = "\\*"
OTHER_WEIGHTS, OWN_WEIGHTS = "†", "‡"
NUMBERS = f"""± is how many points a net may be off before its command fails. Of siftflow-fcn32s no score is known.

{UNVERIFIED} not checked against the paper's text. {OTHER_WEIGHTS} The number is CVPR 2015's, of other weights than the
published ones. {OWN_WEIGHTS} Its weights were not published; FILE is your own. The command ends with "not checked"
without it."""
MARK = re.compile(r"# (Caffe|Upstream bug, kept|Upstream bug, fixed): (.*)")


def main() -> int:
    """Rewrite each page between its marks, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    args = parser.parse_args()
    for page in PARTS:
        old = page.read_text()
        new = render(page, old)
        if args.check and new != old:
            raise ReproductionError(
                "a generated part is not current", place=page.name, remedy="Run `make readme` and commit the result."
            )
        if new != old:
            page.write_text(new)
    return 0


def render(page: Path, text: str) -> str:
    """Insert the generated parts of a page between their marks."""
    for name, make in PARTS[page].items():
        mark = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            raise ReproductionError(f"the mark of part {name!r} is missing", place=page.name)
        part = make()
        text = mark.sub(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)
    return text


def mini() -> str:
    """Tabulate what weights/mini/scores.json recorded, and how much each stage gains."""
    report = record.load(MINI)
    gained = {rise.net: f"{rise.points:+.2f}" for rise in report.rises()}
    lines = [f"| net | {' | '.join(TITLES[metric] for metric in METRICS)} | mean IU gained |", "| --- |" + " --: |" * 5]
    for net in report.nets:
        (measured,) = net.measured
        cells = [f"{100 * getattr(measured, metric):.2f}" for metric in METRICS]
        lines.append(f"| {net.net} | {' | '.join(cells)} | {gained.get(net.net, '')} |")
    images, torch = report.split.count if report.split else 0, report.versions["torch"]
    return "\n".join(lines) + f"\n\nPercent, on {images} pictures; recorded {report.measured[:10]} with torch {torch}."


def exactness() -> str:
    """Tabulate tests/golden/exactness.json."""
    figures = json.loads(FIGURES.read_text())
    layers, whole, legacy = figures["layers"], figures["nets"], figures["legacy"]
    count = whole["cases"]
    rows = [
        ("compared with BVLC Caffe 1.0 (9b89154)", "cases", "worst error, of the array's greatest value", "allowed"),
        ("---", "--:", "--:", "--:"),
        ("layers, forward and backward", layers["cases"], f"{layers['worst']:.0e}", f"{layers['tolerance']:g}"),
        ("V0 and V1 models, text and binary", legacy["cases"], f"{legacy['worst']:.0e}", f"{legacy['tolerance']:g}"),
        ("the published nets, every blob", count, f"{whole['torch_forward']:.0e}", f"{whole['forward_tolerance']:g}"),
        ("label of each pixel", count, f"{whole['labels_off']} pixels", "0, where Caffe is sure"),
        ("with `blas_order=True`, every blob", count, f"{whole['forward']:.0e}", f"{whole['forward_tolerance']:g}"),
        ("and every gradient", count, f"{whole['backward']:.0e}", f"{whole['backward_tolerance']:g}"),
        ("and bit for bit", count, f"{whole['same']:,} of {whole['values']:,} values", "all"),
    ]
    measured = figures["measured"]
    table = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    return (
        f"{table}\n\nMeasured {measured['date']} by `make exactness`: torch {measured['torch']}, {measured['machine']}."
    )


def cuda() -> str:
    """Say whether CUDA was tested."""
    if remark := tested.remark():
        return (
            f"`DEVICE=cuda` and `--device cuda` are {remark}: `tools/exactness.py --device cuda` tests and records it."
        )
    found = json.loads(tested.RECORD.read_text())
    return (
        f"On CUDA, a {found['device']} of {found['date']}, scores of the published nets differ from Caffe's by at most"
        f" {found['forward']:.0e} of the greatest, and gradients by {found['backward']:.0e}."
    )


def speed() -> str:
    """Tabulate tools/peers/measured.json: a forward at two sizes, and in words what else was measured."""
    kinds = json.loads(SPEED.read_text())
    large, small = (section["contenders"] for section in kinds["forward"].values())
    said = next(iter(kinds["forward"].values()))["measured"]
    titles = [title.split()[-1].replace("x", " x ") for title in kinds["forward"]]
    lines = [
        f"| a forward of voc-fcn8s, seconds | {titles[0]} | of PyTorch's | MB | {titles[1]} | of PyTorch's | error |",
        "| --- |" + " --: |" * 6,
    ]
    for name, row in large.items():
        if "bf16" in name and not said["multiplies_bf16"]:
            continue  # it computed in single precision
        cells = [*_timed(row), f"{row['peak_bytes'] / 1e6:,.0f}", *_timed(small[name])]
        error = f"{row['error']:.0e}" if row.get("error") else ""
        shown = {"our Net": "the net as it is"}.get(name, name)
        shown = f"**{shown.replace('our ', '')}**" if row["ours"] else shown
        lines.append(f"| {shown} | {' | '.join(cells)} | {error} |")
    versions = ", ".join(f"{name} {said[name]}" for name in figures.PACKAGES if name in said and name != "numpy")
    where = f"Medians of {said['date'][:10]} by `make bench`: {said['threads']} threads of {said['cpu']}; {versions}."
    ahead = " and ".join(
        f"{name.replace('our ', '')} {large[name]['times_best_peer']:.2f} and {small[name]['times_best_peer']:.2f}"
        for name in ("our exact", "our winograd")
    )
    rivals, absent = _rivals(large)
    best = f"Times as fast as the best of {_and(rivals)} in the same round: {ahead}."
    best += f" Not measured yet: {_and(absent)}." if absent else ""
    return "\n".join(lines) + f"\n\n{where} {best}\n\n{_also(kinds, said['cpu'])}"


def _rivals(measured: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """List the peers that the best one was chosen from, and those that tools/bench.py knows but the record lacks."""
    peers = [
        c.name for c in FORWARD if not c.ours and c.name != BASELINE and c.precision == "float32" and "cpu" in c.devices
    ]
    return [name for name in peers if name in measured], [name for name in peers if name not in measured]


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _timed(row: dict[str, Any]) -> list[str]:
    return [f"{row['seconds']:.2f}", f"{1 / row['times_pytorch']:.0%}" if "times_pytorch" in row else ""]


def _also(kinds: dict[str, Any], cpu: str) -> str:
    """Say what was measured besides the forward pass, and where, if that was on another processor than ``cpu``."""
    (train,), (load,), (scored,) = (
        [section["contenders"] for section in kinds[kind].values()] for kind in ("train", "load", "evaluate")
    )
    others = {
        f"{section['measured']['date'][:10]}, {section['measured']['cpu']}"
        for kind in ("train", "load", "evaluate")
        for section in kinds[kind].values()
        if section["measured"]["cpu"] != cpu
    }
    elsewhere = f" These were measured elsewhere: {'; '.join(sorted(others))}." if others else ""
    ours, port = train["our Solver"], train["PyTorch"]
    first = load["our exact"]
    return (
        f"A training step of voc-fcn32s takes {ours['seconds']:.1f} s and {ours['peak_bytes'] / 1e6:,.0f} MB, a plain"
        f" port's {port['seconds']:.1f} s and {port['peak_bytes'] / 1e6:,.0f} MB. From the start of a process to the"
        f" scores of its first picture, by way of a caffemodel, pass {first['seconds']:.1f} s. Scoring"
        f" {scored['images']} pictures of VOC's sizes takes {scored['overhead']:.1%} longer than their forwards alone."
        f"{elsewhere}"
    )


def numbers() -> str:
    """List the published nets with the scores that each must match and the command that shows it."""
    lines = [
        "| net | paper | published README | re-scored elsewhere | command |",
        "| --- | --: | --: | --: | --- |",
    ]
    for name, net in nets.NETS.items():
        if net.dataset not in SETS:
            continue
        rows = {"paper": paper.published(name), "readme": paper.readme(name), "rescored": paper.rescored(name)}
        held = closest(record.references(name, net.heads[0].label))
        cells = {column: _mean_iu(row) for column, row in rows.items()}
        if held:
            cells[held.column] += f" ± {held.tolerance_points:.1f}"
        else:
            cells["paper"] = "not checked"
        other = OTHER_WEIGHTS if rows["paper"] and "of other weights" in paper.caveat(rows["paper"]) else ""
        own = "" if net.caffemodel else f" MODEL=FILE` {OWN_WEIGHTS}"
        command = f"`make reproduce-{net.dataset} NETS={name}{own or '`'}"
        lines.append(f"| {name}{other} | {' | '.join(cells.values())} | {command} |")
    return "\n".join(lines) + "\n\n" + NUMBERS


def _mean_iu(row: paper.Row | None) -> str:
    figure = row.figures.get("mean_iu") if row else None
    if figure is None:
        return ""
    printed = f"{figure.value:.1f}" if round(figure.value, 1) == figure.value else f"{figure.value:g}"
    return printed + ("" if figure.verified else UNVERIFIED)


def differences() -> str:
    """Collect the marks in the sources: where torch's way would differ, and where the published code errs."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "reproduction").rglob("*.py")):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if match := MARK.search(line):
                text = match[2]
                for more in lines[i + 1 :]:
                    rest = re.match(r"\s*# (?!Caffe:|Upstream bug)(.*)", more)
                    if not rest or not line.lstrip().startswith("#"):
                        break
                    text += f" {rest[1]}"
                found.setdefault(match[1], []).append(f"- {text} `{path.relative_to(ROOT / 'reproduction')}`")
    parts = []
    for kind, title in (
        ("Upstream bug, kept", "Errors of the published code, kept because its numbers depend on them"),
        ("Upstream bug, fixed", "Errors of the published code, fixed here"),
        ("Caffe", "Where torch would differ, and Caffe's way was taken"),
    ):
        if kind in found:
            items = "\n".join(found[kind])
            parts.append(f"## {title} ({len(found[kind])})\n\n{items}")
    return "\n\n".join(parts)


PARTS = {
    README: {"mini": mini, "cuda": cuda, "exactness": exactness, "speed": speed, "numbers": numbers},
    DIFFERENCES: {"differences": differences},
}


if __name__ == "__main__":
    run(main)

#!/usr/bin/env python3
"""Write the generated parts of README.md and docs/: Mini-VOC's scores, exactness, speed, numbers, differences.

``make readme`` runs it, after ``tools/figure.py``, which draws the figure.

    tools/readme.py            write the generated parts
    tools/readme.py --check    exit with code 1 if one of them is not current
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ROOT, run

from bench import results
from bench.contenders import BASELINE, FORWARD

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.fcn.nets import published_nets
from reproduction.fcn.reproduce import paper
from reproduction.report import record
from reproduction.report.reference import METRICS, TITLES, choose_reference

README = ROOT / "README.md"
DIFFERENCES = ROOT / "docs" / "differences.md"
MINI = ROOT / "weights" / "mini" / "scores.json"
FIGURES = ROOT / "tests" / "golden" / "exactness.json"
SPEED = results.RECORD
UNVERIFIED = "\\*"
OTHER_WEIGHTS, OWN_WEIGHTS = "†", "‡"
NUMBERS = f"""± is the tolerance in points. siftflow-fcn32s cannot be checked, because no score of it is known.
{UNVERIFIED} not yet compared with the text of the paper. {OTHER_WEIGHTS} The score is the CVPR 2015 paper's, of other
weights than the published ones. {OWN_WEIGHTS} The weights were never published: train them and pass the file as
`MODEL`; without it the command ends with "not checked"."""
KINDS = {  # the prefixes of comments, and the titles of their lists
    "Caffe": "Caffe computes something else than PyTorch: Caffe's definition is used",
    "Upstream bug, kept": "Errors of Caffe and of the authors' code that are kept, since their numbers depend on them",
    "Upstream bug, fixed": "Errors of Caffe and of the authors' code that are fixed here",
}
COMMIT = "9b891540183ddc834a02b2bd81b31afae71b2153"
FOLDERS = {  # Caffe's folder for file names that match the pattern
    r"\w+_layer\.(cpp|cu)": "src/caffe/layers",
    r"\w+_layer\.hpp": "include/caffe/layers",
    r"(filler|layer)\.hpp": "include/caffe",
    r"\w+_solver\.cpp": "src/caffe/solvers",
    r"(solver|net)\.cpp": "src/caffe",
    r"(upgrade_proto|hdf5)\.cpp": "src/caffe/util",
    r"io\.py": "python/caffe",
}
FILE = re.compile(r"\b(?<!/)(?P<name>\w+\.(?:cpp|hpp|cu|py))(?: L(?P<first>\d+)(?:-L?(?P<last>\d+))?)?")
MARK = re.compile(r"# (Caffe|Upstream bug, kept|Upstream bug, fixed): (.*)")


def main() -> int:
    """Replace the generated parts of each page, or compare them."""
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
    """Return the page with its generated parts replaced.

    Raises:
        ReproductionError: If the page lacks the marks of a part.
    """
    for name, make in PARTS[page].items():
        mark = re.search(rf"(?<=<!-- generated: {name} -->\n).*?(?=<!-- end -->)", text, re.DOTALL)
        if not mark:
            raise ReproductionError(f"the mark of part {name!r} is missing", place=page.name)
        text = f"{text[: mark.start()]}{make()}\n{text[mark.end() :]}"
    return text


def mini() -> str:
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


def exactness() -> str:
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
        f" `make exactness`: torch {measured['torch']}, {measured['machine']}. {cuda()}"
    )


def cuda() -> str:
    """Return a sentence on the errors on CUDA, or that CUDA is untested."""
    if remark := tested_devices.untested_note():
        return f"`DEVICE=cuda` and `--device cuda` are {remark}; `tools/exactness.py --device cuda` records a test."
    found = json.loads(tested_devices.RECORD.read_text())
    return (
        f"On CUDA ({found['device']}, {found['date']}), the scores of the published nets differ from Caffe's by at most"
        f" {found['forward']:.0e} of the largest score, and the gradients by {found['backward']:.0e}."
    )


def speed() -> str:
    """Return a table of a forward pass at two sizes, and sentences on the rest of tools/bench/measured.json."""
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
            continue  # this CPU has no bf16 instructions and computed in single precision
        cells = [*_timed(row), f"{row['peak_bytes'] / 1e6:,.0f}", *_timed(small[name])]
        error = f"{row['error']:.0e}" if row.get("error") else ""
        shown = {"our Net": "not compiled"}.get(name, name)
        shown = f"**{shown.replace('our ', '')}**" if row["ours"] else shown
        lines.append(f"| {shown} | {' | '.join(cells)} | {error} |")
    versions = ", ".join(f"{name} {said[name]}" for name in results.PACKAGES if name in said and name != "numpy")
    where = f"Medians of {said['date'][:10]} by `make bench`: {said['threads']} threads of {said['cpu']}; {versions}."
    ahead = " and ".join(
        f"{name.replace('our ', '')} {large[name]['times_best_peer']:.2f} and {small[name]['times_best_peer']:.2f}"
        for name in ("our exact", "our winograd")
    )
    rivals, absent = _rivals(large)
    best = f"Speed relative to the best of {_and(rivals)} in the same round: {ahead}."
    best += f" Not measured yet: {_and(absent)}." if absent else ""
    return "\n".join(lines) + f"\n\n{where} {best}\n{_also(kinds, said['cpu'])}"


def _rivals(measured: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the peers in single precision that were measured, and those that were not measured yet."""
    peers = [
        c.name for c in FORWARD if not c.ours and c.name != BASELINE and c.precision == "float32" and "cpu" in c.devices
    ]
    return [name for name in peers if name in measured], [name for name in peers if name not in measured]


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _timed(row: dict[str, Any]) -> list[str]:
    return [f"{row['seconds']:.2f}", f"{1 / row['times_pytorch']:.0%}" if "times_pytorch" in row else ""]


def _also(kinds: dict[str, Any], cpu: str) -> str:
    """Describe the measurements other than the forward pass, and their CPU if it is not ``cpu``."""
    (train,), (load,), (scored,) = (
        [section["contenders"] for section in kinds[kind].values()] for kind in ("train", "load", "evaluate")
    )
    others = {
        f"{section['measured']['date'][:10]}, {section['measured']['cpu']}"
        for kind in ("train", "load", "evaluate")
        for section in kinds[kind].values()
        if section["measured"]["cpu"] != cpu
    }
    elsewhere = f" These were measured on another processor: {'; '.join(sorted(others))}." if others else ""
    ours, port = train["our Solver"], train["PyTorch"]
    first = load["our exact"]
    return (
        f"A training step of voc-fcn32s takes {ours['seconds']:.1f} s and {ours['peak_bytes'] / 1e6:,.0f} MB; a direct"
        f" port to PyTorch takes {port['seconds']:.1f} s and {port['peak_bytes'] / 1e6:,.0f} MB. A new process has the"
        f" scores of its first image after {first['seconds']:.1f} s, reading a caffemodel included. Evaluating"
        f" {scored['images']} images of VOC's sizes takes {scored['overhead']:.1%} longer than the forward passes do."
        f"{elsewhere}"
    )


def numbers() -> str:
    """Return a table of the published nets, the scores that each must match, and the command that checks it."""
    lines = [
        "| net | paper | authors' README | measured by others | command |",
        "| --- | --: | --: | --: | --- |",
    ]
    for name, net in published_nets.NETS.items():
        rows = {
            "paper": paper.find_paper_row(name),
            "readme": paper.find_readme_row(name),
            "rescored": paper.find_rescored_row(name),
        }
        held = choose_reference(record.find_references(name, net.heads[0].label))
        cells = {column: _mean_iu(row) for column, row in rows.items()}
        if held:
            cells[held.column] += f" ± {held.tolerance_points:.1f}"
        else:
            cells["paper"] = "not checked"
        other = OTHER_WEIGHTS if rows["paper"] and "of other weights" in paper.find_caveat(rows["paper"]) else ""
        own = "" if net.caffemodel else f" MODEL=FILE` {OWN_WEIGHTS}"
        command = f"`make reproduce-{net.dataset.name} NETS={name}{own or '`'}"
        lines.append(f"| {name}{other} | {' | '.join(cells.values())} | {command} |")
    return "\n".join(lines) + "\n\n" + NUMBERS


def _mean_iu(row: paper.PublishedRow | None) -> str:
    figure = row.figures.get("mean_iu") if row else None
    if figure is None:
        return ""
    printed = f"{figure.value:.1f}" if round(figure.value, 1) == figure.value else f"{figure.value:g}"
    return printed + ("" if figure.verified else UNVERIFIED)


def differences() -> str:
    """Return the marked comments of the sources as lists by kind and file, with their class or function."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((ROOT / "reproduction").rglob("*.py")):
        for kind, name, text in marked(path.read_text()):
            entry = f"- **`{name}`**: {text}" if name else f"- {text}"
            found.setdefault(kind, {}).setdefault(path.relative_to(ROOT / "reproduction").as_posix(), []).append(entry)
    parts = []
    for kind, title in KINDS.items():
        if files := found.get(kind):
            parts.append(f"## {title} ({sum(map(len, files.values()))})")
            parts += [f"### {name}\n\n" + "\n".join(entries) for name, entries in files.items()]
    return "\n\n".join(parts)


def marked(source: str) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, class or function around it, text as a sentence) of each marked comment of a Python source."""
    lines = source.splitlines()
    for i, line in enumerate(lines):
        if match := MARK.search(line):
            text = match[2]
            for more in lines[i + 1 :]:
                rest = re.match(r"\s*# (?!Caffe:|Upstream bug)(.*)", more)
                if not rest or not line.lstrip().startswith("#"):
                    break
                text += f" {rest[1]}"
            text = text.rstrip(".") + "."
            start = text[0].upper() if re.match(r"[a-z]+[ ,;]", text) else text[0]
            yield match[1], _around(source, i + 1), FILE.sub(_linked, start + text[1:])


def _around(source: str, line: int) -> str:
    """Return the dotted name of the classes and functions that contain a line, such as ``Pooling.forward``."""
    names = [
        (node.lineno, node.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return ".".join(name for _, name in sorted(names) if name != "__init__")


def _linked(match: re.Match[str]) -> str:
    """Link a file of Caffe, and its first line if there is one; return any other file name unchanged."""
    name, first, last = match["name"], match["first"], match["last"]
    folder = next((folder for pattern, folder in FOLDERS.items() if re.fullmatch(pattern, name)), None)
    if folder is None:
        return match[0]
    lines = (f"#L{first}" + (f"-L{last}" if last else "")) if first else ""
    return f"[{match[0]}](https://github.com/BVLC/caffe/blob/{COMMIT}/{folder}/{name}{lines})"


PARTS = {
    README: {"mini": mini, "exactness": exactness, "speed": speed, "numbers": numbers},
    DIFFERENCES: {"differences": differences},
}


if __name__ == "__main__":
    run(main)

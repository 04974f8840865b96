"""The tables of speed in README.md and docs/speed.md, from the figures in tools/bench/results/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench import results
from bench.contenders import FORWARD

# The columns of a table: their title, and the contenders in single precision and in bf16.
COLUMNS = {
    "not compiled": ("our Net", ""),
    "**compiled**": ("our exact", "our bf16"),
    "**with [fast]**": ("our fast", "our fast bf16"),
    "OpenCV": ("OpenCV dnn", ""),
    "onnxruntime": ("onnxruntime", ""),
    "OpenVINO": ("OpenVINO", "OpenVINO bf16"),
    "ncnn": ("ncnn", "ncnn bf16"),
}
#: The rows of the README, as titles of the results, and whether the bf16 row is shown as well.
README_ROWS = {
    "voc-fcn8s 500x500": True, "voc-fcn8s 256x256": False, "voc-fcn-googlenet 500x500": False,
    "voc-fcn8s-resnet50 500x500": False, "unet 572x572": False, "resnet50 224x224": False, "googlenet 224x224": False,
    "mobilenet 224x224": False,
}  # fmt: skip
PRECISIONS = ("float32", "bf16")

Section = Mapping[str, Any]
Kinds = Mapping[str, Mapping[str, Section]]


def speed_table() -> str:
    """Return the README's table: the machine that was measured last, and sentences on other work than inference."""
    machine = max((kinds for kinds in load_all() if "forward" in kinds), key=_find_date)
    forward = machine["forward"]
    rows = [
        (title, precision)
        for title, both in README_ROWS.items()
        for precision in (PRECISIONS if both else PRECISIONS[:1])
        if title in forward
    ]
    return (
        f"{format_times(forward, rows)}\n\n{describe_conditions(forward)} [The whole table](docs/speed.md) has all nets"
        f" and sizes, memory and loading.\n{describe_other_work(forward)}"
    )


def speed_page() -> str:
    """Return the tables of all machines."""
    parts = []
    for kinds in sorted((kinds for kinds in load_all() if "forward" in kinds), key=_find_date, reverse=True):
        forward = kinds["forward"]
        rows = [(title, precision) for precision in PRECISIONS for title in forward]
        measured = next(iter(forward.values()))["measured"]
        name = measured["cpu"] if measured["device"] == "cpu" else measured["device"]
        parts.append(f"## {name}\n\n{describe_conditions(forward)}")
        parts.append(f"Milliseconds of a forward pass:\n\n{format_times(forward, rows)}")
        for title, key, scale in (
            ("Peak of resident memory in MB:", "peak_bytes", 1e-6),
            ("Seconds to read the weights, and to convert or compile the net:", "build_seconds", 1),
            ("Seconds from the start of a process to its first scores:", "load_seconds", 1),
        ):
            table = format_grid(forward, rows, key, scale)
            if table:
                parts.append(f"{title}\n\n{table}")
        if failed := list(_list_failures(forward)):
            parts.append("Without a figure:\n\n" + "\n".join(f"- {line}" for line in failed))
    return "\n\n".join(parts)


def load_all() -> list[Kinds]:
    """Load the figures of all machines."""
    return [results.load_report(path) for path in sorted(results.FOLDER.glob("*.json"))]


def format_times(forward: Mapping[str, Section], rows: Sequence[tuple[str, str]]) -> str:
    """Format the table of milliseconds, with the ratio to the best peer and the largest error of our contenders."""

    def end(contenders: Mapping[str, Any], ours: Sequence[str]) -> list[str]:
        found = [contenders[name] for name in ours if name in contenders]
        ratios = [row["times_best_peer"] for row in found if "times_best_peer" in row]
        errors = [row["error"] for row in found if "error" in row]
        return [f"{max(ratios):.2f}" if ratios else "", f"{max(errors):.0e}" if errors else ""]

    heads = ["best peer / best of ours", "error"]
    return _format_grid(forward, rows, lambda row: _format_number(1e3 * row["seconds"]), heads, end)


def format_grid(forward: Mapping[str, Section], rows: Sequence[tuple[str, str]], key: str, scale: float) -> str:
    """Format a table of another figure; empty if no contender has it."""
    if not any(key in row for section in forward.values() for row in section["contenders"].values()):
        return ""
    return _format_grid(forward, rows, lambda row: _format_number(scale * row[key]) if key in row else "")


def _format_grid(
    forward: Mapping[str, Section],
    rows: Sequence[tuple[str, str]],
    cell: Callable[[Mapping[str, Any]], str],
    more_heads: Sequence[str] = (),
    more_cells: Callable[[Mapping[str, Any], Sequence[str]], list[str]] = lambda contenders, ours: [],
) -> str:
    lines = []
    shown = [
        head
        for head, names in COLUMNS.items()
        if any(names[PRECISIONS.index(p)] in forward[title]["contenders"] for title, p in rows)
    ]
    for title, precision in rows:
        contenders, measured = forward[title]["contenders"], forward[title]["measured"]
        names = [COLUMNS[head][PRECISIONS.index(precision)] for head in shown]
        if precision == "bf16" and not (measured["multiplies_bf16"] and any(name in contenders for name in names)):
            continue  # a CPU without bf16 instructions computes in single precision
        cells = ["" if name not in contenders or "failed" in contenders[name] else cell(contenders[name])
                 for name in names]  # fmt: skip
        ours = [name for name in names if name.startswith("our ") and name != "our Net"]
        label = f"{title} {precision if precision != 'float32' else ''}".strip()
        lines.append(f"| {label} | {' | '.join([*cells, *more_cells(contenders, ours)])} |")
    heads = ["net", *shown, *more_heads]
    return "\n".join([f"| {' | '.join(heads)} |", f"| --- |{' --: |' * (len(heads) - 1)}", *lines])


def _format_number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def describe_conditions(forward: Mapping[str, Section]) -> str:
    """Describe when, on which processor and next to which load the figures were measured, and the peers' versions."""
    conditions = [section["measured"] for section in forward.values()]
    last = max(conditions, key=lambda measured: str(measured["date"]))
    packages = [name for name in results.PACKAGES if name in last and name != "numpy"]
    versions = ", ".join(f"{name} {last[name]}" for name in packages)
    loads = [measured["other_load"] for measured in conditions if measured.get("other_load") is not None]
    beside = f", next to other programs on {max(loads):.1f} processors at most" if loads and max(loads) > 0.1 else ""
    absent = [name for name in packages_of_peers() if name not in last]
    missing = f" Not measured: {' and '.join(absent)}." if absent else ""
    return (
        f"Medians of {last['date'][:10]} by `make bench`: {last['threads']} threads of {last['cpu']}{beside};"
        f" {versions}.{missing} Errors are relative to the largest score of the net not compiled."
    )


def packages_of_peers() -> list[str]:
    """Return the packages of the peers in the table."""
    modules = {"cv2": "opencv-python-headless"}
    peers = [c for c in FORWARD if c.needs and "cpu" in c.devices]
    return list(dict.fromkeys(modules.get(c.needs[0], c.needs[0]) for c in peers))


def _list_failures(forward: Mapping[str, Section]) -> Iterator[str]:
    for title, section in forward.items():
        for name, row in section["contenders"].items():
            if "failed" in row:
                yield f"{title}, {name}: {row['failed']}"


def describe_other_work(forward: Mapping[str, Section]) -> str:
    """Describe the newest measurements other than the forward pass, and their processor if it differs."""
    wanted = {"train": "voc-fcn32s 500x500", "load": "", "evaluate": ""}
    newest = {kind: _find_newest(kind, beginning) for kind, beginning in wanted.items()}
    train, load, scored = (section["contenders"] for section in newest.values())
    cpus = {section["measured"]["cpu"] for section in forward.values()}
    names = {"train": "training", "load": "loading", "evaluate": "evaluating"}
    others: dict[str, list[str]] = {}
    for kind, section in newest.items():
        if section["measured"]["cpu"] not in cpus:
            place = f"{section['measured']['date'][:10]}, {section['measured']['cpu']}"
            others.setdefault(place, []).append(names[kind])
    places = (f"{', '.join(kinds)} ({place})" for place, kinds in others.items())
    elsewhere = f" Measured on another processor: {'; '.join(places)}." if others else ""
    ours, port = train["our Solver"], train["PyTorch"]
    return (
        f"A training step of voc-fcn32s takes {ours['seconds']:.1f} s and {ours['peak_bytes'] / 1e6:,.0f} MB; a direct"
        f" port to PyTorch takes {port['seconds']:.1f} s and {port['peak_bytes'] / 1e6:,.0f} MB. A new process has the"
        f" scores of its first image after {load['our exact']['seconds']:.1f} s, reading a caffemodel included."
        f" Evaluating {scored['images']} images of VOC's sizes takes {scored['overhead']:.1%} longer than the forward"
        f" passes do.{elsewhere}"
    )


def _find_newest(kind: str, beginning: str) -> Section:
    """Return the newest section whose title has a beginning, with the size: ``--quick`` measures small images."""
    found = [item for kinds in load_all() for item in kinds.get(kind, {}).items()]
    sections = [section for title, section in found if title.startswith(beginning)]
    return max(sections, key=lambda section: str(section["measured"]["date"]))


def _find_date(kinds: Kinds) -> str:
    return max(str(section["measured"]["date"]) for section in kinds["forward"].values())

"""Output of the benchmark: a table, a plot, a report of all figures, and the record of those that the README shows."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reproduction.caffe import devices
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.files import open_atomic
from reproduction.fast import precisions

Rows = Mapping[str, Mapping[str, Any]]

FOLDER = Path(__file__).with_name("results")  # a file for each machine
PACKAGES = ("torch", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "ncnn")
_COLUMNS = {
    "seconds": ("seconds", "{:.4f}"),
    "least": ("least", "{:.4f}"),
    "greatest": ("greatest", "{:.4f}"),
    "cpu_seconds": ("CPU s", "{:.2f}"),
    "build_seconds": ("build", "{:.2f}"),
    "first_seconds": ("first", "{:.2f}"),
    "load_seconds": ("load", "{:.2f}"),
    "peak_bytes": ("peak MB", "{:.0f}"),
    "times_pytorch": ("x PyTorch", "{:.2f}"),
    "times_plain": ("x plain", "{:.2f}"),
    "times_best_peer": ("x best peer", "{:.2f}"),
    "error": ("error", "{:.1e}"),
    "labels_off": ("labels off", "{:.4%}"),
}
_KEPT = (
    "seconds", "least", "greatest", "cpu_seconds", "build_seconds", "first_seconds", "load_seconds", "peak_bytes",
    "times_pytorch", "times_plain", "times_best_peer", "error", "labels_off", "ours", "precision", "failed",
)  # fmt: skip


def format_table(rows: Rows) -> str:
    """Format the rows as a table."""
    shown = [key for key in _COLUMNS if any(key in row for row in rows.values())]
    lines = [["", *(_COLUMNS[key][0] for key in shown)]]
    for name, row in rows.items():
        scaled = {**row, "peak_bytes": row.get("peak_bytes", 0) / 1e6}
        lines.append([name, *(_COLUMNS[key][1].format(scaled[key]) if key in row else "" for key in shown)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    ) + "".join(f"\n{name} failed: {row['failed']}" for name, row in rows.items() if "failed" in row)


def load_report(path: Path) -> dict[str, dict[str, Any]]:
    """Load a report of the benchmark, by kind of work and title; empty if there is none.

    Raises:
        ReproductionError: If the file is not such a report.
    """
    problem = "not a report of the benchmark"
    return json_file.load(path, dict[str, dict[str, Any]], problem, remedy="Remove it.") if path.exists() else {}


def merge(path: Path, kind: str, sections: Mapping[str, Any]) -> None:
    """Merge figures into a report, which keeps those of other kinds and sizes."""
    report = load_report(path)
    report.setdefault(kind, {}).update(sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomic(path) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


def record(kind: str, sections: Mapping[str, Any]) -> None:
    """Merge figures into the file of the machine that measured them, with floats rounded to four digits."""
    for title, section in sections.items():
        rows = section["contenders"]
        kept = section | {"contenders": rows if kind == "evaluate" else {n: _brief(r) for n, r in rows.items()}}
        merge(machine_file(section["measured"]), kind, {title: kept})


def machine_file(measured: Mapping[str, Any]) -> Path:
    """Return the path of a machine's figures in ``FOLDER``."""
    name = measured["cpu"] if measured["device"] == "cpu" else measured["device"]
    return FOLDER / (re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)", "", name).lower()).strip("-") + ".json")


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: row[key] for key in _KEPT if key in row}
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}


def plot(path: Path, title: str, sizes: Mapping[int, Rows]) -> None:
    """Plot seconds against the size of the image, one curve for each contender, and write it as SVG.

    Args:
        path: Path of the file.
        title: Title of the plot.
        sizes: The rows for each side of the square images, in pixels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6))
    axes = figure.add_subplot()
    for name in dict.fromkeys(name for rows in sizes.values() for name in rows):
        seconds = {side**2: rows[name]["seconds"] for side, rows in sizes.items() if name in rows}
        ours = any(rows[name]["ours"] for rows in sizes.values() if name in rows)
        axes.plot(
            list(seconds), list(seconds.values()), label=name, marker="o", markersize=4,
            linewidth=2.5 if ours else 1.2, linestyle="-" if ours else "--",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="side of the image, pixels", ylabel="seconds", title=title)
    axes.set_xticks([side**2 for side in sizes], [str(side) for side in sizes])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    steps = [
        a * 10.0**b for b in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for a in (1, 2, 5)
    ]
    axes.set_yticks(shown := [step for step in steps if low <= step <= high], [f"{step:g}" for step in shown])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    with open_atomic(path) as file:
        figure.savefig(file, format="svg", bbox_inches="tight")


def conditions(threads: int, device: str, other_load: float | None) -> dict[str, Any]:
    """Return the date, the hardware and the versions of a measurement.

    Args:
        threads: The number of threads.
        device: ``cpu`` or ``cuda``.
        other_load: The number of processors that other programs kept busy; None if it is unknown.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": devices.describe_processor(),
        "threads": threads,
        "device": device_name(device),
        "other_load": None if other_load is None else round(other_load, 2),
        "multiplies_bf16": precisions.supported_precision("bf16", device) == "bf16",
        "python": platform.python_version(),
        **versions,
    }


def device_name(device: str) -> str:
    """Return ``cpu`` or the name of the GPU."""
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name()

"""The table of speed, from the record of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench import results
from bench.contenders import BASELINE, FORWARD


def speed_table() -> str:
    """Return a table of a forward pass at two sizes, and sentences on the rest of tools/bench/measured.json."""
    kinds = json.loads(results.RECORD.read_text())
    large, small = (section["contenders"] for section in kinds["forward"].values())
    conditions = next(iter(kinds["forward"].values()))["measured"]
    titles = [title.split()[-1].replace("x", " x ") for title in kinds["forward"]]
    lines = [
        f"| a forward of voc-fcn8s, seconds | {titles[0]} | of PyTorch's | MB | {titles[1]} | of PyTorch's | error |",
        "| --- |" + " --: |" * 6,
    ]
    for name, row in large.items():
        if "bf16" in name and not conditions["multiplies_bf16"]:
            continue  # this CPU has no bf16 instructions and computed in single precision
        cells = [*_time_cells(row), f"{row['peak_bytes'] / 1e6:,.0f}", *_time_cells(small[name])]
        error = f"{row['error']:.0e}" if row.get("error") else ""
        shown = {"our Net": "not compiled"}.get(name, name)
        shown = f"**{shown.replace('our ', '')}**" if row["ours"] else shown
        lines.append(f"| {shown} | {' | '.join(cells)} | {error} |")
    packages = [name for name in results.PACKAGES if name in conditions and name != "numpy"]
    versions = ", ".join(f"{name} {conditions[name]}" for name in packages)
    processor = f"{conditions['threads']} threads of {conditions['cpu']}"
    where = f"Medians of {conditions['date'][:10]} by `make bench`: {processor}; {versions}."
    ahead = " and ".join(
        f"{name.replace('our ', '')} {large[name]['times_best_peer']:.2f} and {small[name]['times_best_peer']:.2f}"
        for name in ("our exact", "our winograd")
    )
    rivals, absent = _measured_and_missing_peers(large)
    best = f"Speed relative to the best of {_join(rivals)} in the same round: {ahead}."
    best += f" Not measured yet: {_join(absent)}." if absent else ""
    return "\n".join(lines) + f"\n\n{where} {best}\n{_describe_other_work(kinds, conditions['cpu'])}"


def _measured_and_missing_peers(measured: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the peers in single precision that were measured, and those that were not measured yet."""
    peers = [
        c.name for c in FORWARD if not c.ours and c.name != BASELINE and c.precision == "float32" and "cpu" in c.devices
    ]
    return [name for name in peers if name in measured], [name for name in peers if name not in measured]


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _time_cells(row: dict[str, Any]) -> list[str]:
    return [f"{row['seconds']:.2f}", f"{1 / row['times_pytorch']:.0%}" if "times_pytorch" in row else ""]


def _describe_other_work(kinds: dict[str, Any], cpu: str) -> str:
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

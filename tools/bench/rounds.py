"""Rounds of turns: contenders run one after the other, each in a separate process, several times."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common import ROOT

from bench.contenders import BASELINE, FORWARD, REFERENCE, Contender, Task
from reproduction.caffe.errors import ReproductionError
from reproduction.commands.bars import bar

STEPS = {"forward": 3, "load": 0, "scaling": 2, "train": 2}  # timed steps in each process, after one untimed step
# The largest error of the scores, by precision. Above it, a contender computes another net and the run ends.
ALLOWED = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}

Turn = dict[str, Any]


def choose(table: Sequence[Contender], names: Sequence[str], device: str) -> list[Contender]:
    """Return the contenders that ``names`` lists, or all; skip those that are not installed, with a message.

    Raises:
        ReproductionError: If a name is not in the table, or if no contender is left.
    """
    unknown = set(names) - {c.name for c in table}
    if unknown:
        raise ReproductionError("no such contender", got=sorted(unknown), want=f"some of {[c.name for c in table]}")
    found = []
    for contender in table:
        if (names and contender.name not in names) or device not in contender.devices:
            continue
        if contender.missing:
            print(f"{contender.name} is left out, since {' and '.join(contender.missing)} is not installed.")
        else:
            found.append(contender)
    if not found:
        raise ReproductionError(
            "no contender is left to measure", remedy="Install the others: pip install -e '.[peers]'"
        )
    return found


@dataclass
class Rounds:
    """Rounds of one kind of work.

    Attributes:
        kind: ``forward``, ``load``, ``scaling``, ``train`` or ``evaluate``.
        task: The net and its files; ``measure`` is called with a copy for each size.
        contenders: The contenders, which take turns.
        count: How many turns each contender has.
        folder: The folder for temporary files.
    """

    kind: str
    task: Task
    contenders: list[Contender]
    count: int
    folder: str

    def write_files(self) -> None:
        """Write the weights and the other files that contenders read."""
        self._run_worker(
            {"job": "write_files", "files": sorted({c.reads for c in self.contenders if c.reads})}, self.task
        )

    def measure(self, task: Task) -> dict[str, dict[str, Any]]:
        """Run all rounds on one size of images; return the rows of the table by contender."""
        reference = f"{self.folder}/scores.npy"
        scored = self.kind in {"forward", "scaling"}
        if scored and REFERENCE not in [c.name for c in self.contenders]:
            self._take_turn(FORWARD[0], task, steps=0, save=reference)
        found: dict[str, list[Turn]] = {c.name: [] for c in self.contenders}
        turns = [c for _ in range(self.count) for c in self.contenders]
        with bar(f"{task.height}x{task.width}", len(turns), "turn") as shown:
            for contender in turns:
                first = scored and contender.name == REFERENCE and not found[REFERENCE]
                extra = {"save": reference} if first else {"reference": reference} if scored else {}
                found[contender.name].append(self._take_turn(contender, task, steps=STEPS[self.kind], **extra))
                shown.update()
        return summarize(self.kind, self.contenders, found)

    def evaluate(self, images: int) -> dict[str, Any]:
        """Return the figures of scoring ``images`` images with our exact net."""
        return self._run_worker({"job": "evaluate", "images": images, "precision": "exact"}, self.task)

    def _take_turn(self, contender: Contender, task: Task, **wanted: Any) -> Turn:
        job = {"scaling": "forward"}.get(self.kind, self.kind)
        return self._run_worker({"job": job, "contender": contender.name, **wanted}, task)

    def _run_worker(self, wanted: dict[str, Any], task: Task) -> Turn:
        """Run ``bench.worker`` in a process and return the figures that it prints.

        Raises:
            ReproductionError: If the process fails.
        """
        wanted = {"task": task.as_dict(), "started": time.monotonic(), **wanted}
        settings = {"OMP_NUM_THREADS": str(task.threads), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "bench.worker"], input=json.dumps(wanted), capture_output=True, text=True,
            cwd=ROOT / "tools", env=os.environ | settings, check=False,
        )  # fmt: skip
        if done.returncode:
            name = wanted.get("contender", wanted["job"])
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ReproductionError(f"the process ended with: {why.rstrip('.')}", place=f"bench, {name!r}")
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def summarize(kind: str, contenders: Sequence[Contender], found: dict[str, list[Turn]]) -> dict[str, dict[str, Any]]:
    """Return the rows of the table: medians over the rounds, and medians of the ratios within each round."""
    main = "load_seconds" if kind == "load" else "seconds"
    memory = "load_peak_bytes" if kind == "load" else "peak_bytes"
    times = {name: [_median(turn[main]) for turn in turns] for name, turns in found.items()}
    peers = {c.name: c.precision for c in contenders if not c.ours and c.name != BASELINE}
    rows = {}
    for contender in contenders:
        name, turns = contender.name, found[contender.name]
        mine = times[name]
        row: dict[str, Any] = {
            "ours": contender.ours,
            "precision": contender.precision,
            "seconds": statistics.median(mine),
            "least": min(mine),
            "greatest": max(mine),
            "first_seconds": statistics.median(turn["first_seconds"] for turn in turns),
            "prepare_seconds": statistics.median(turn["prepare_seconds"] for turn in turns),
            "peak_bytes": max(turn[memory] for turn in turns),
        }
        if kind != "load":
            row["cpu_seconds"] = statistics.median(_median(turn["cpu_seconds"]) for turn in turns)
        for key in ("error", "labels_off"):
            if any(key in turn for turn in turns):
                row[key] = max(turn[key] for turn in turns if key in turn)
        rivals = [peer for peer, precision in peers.items() if precision == contender.precision]
        best = min(rivals, key=lambda peer: statistics.median(times[peer]), default=None)
        for key, rival in (("times_pytorch", BASELINE), ("times_best_peer", best if contender.ours else None)):
            if rival in times and rival != name:
                row[key] = statistics.median(a / b for a, b in zip(times[rival], mine, strict=True))
        row["rounds"] = turns
        rows[name] = row
    return rows


def check_scores(rows: dict[str, dict[str, Any]]) -> None:
    """Check that all contenders computed the same net.

    Raises:
        ReproductionError: If the scores of one are off by more than ``ALLOWED``.
    """
    for name, row in rows.items():
        allowed = ALLOWED[row["precision"]]
        if "error" in row and not row["error"] <= allowed:  # also true for NaN
            got, want = f"an error of {row['error']:.1e}", f"at most {allowed:g}"
            raise ReproductionError(f"{name} computes other scores than {REFERENCE}", place="bench", got=got, want=want)


def _median(values: float | list[float]) -> float:
    return statistics.median(values) if isinstance(values, list) else values


def measure_pairs(net_name: str, size: tuple[int, int] | None, busy: Sequence[int], count: int, threads: int) -> None:
    """Print the seconds of the compiled and the uncompiled net, for each number of busy processes.

    Args:
        net_name: A folder of ``prototxt/``, or a net of ``tests.helpers.classifiers``.
        size: Height and width of the images in pixels; None means those that the net declares.
        busy: The numbers of busy processes.
        count: The number of rounds.
        threads: The number of threads of both nets.

    Raises:
        ReproductionError: If the measuring process fails.
    """
    wanted = {"net_name": net_name, "size": size, "busy": busy, "rounds": count, "threads": threads}
    # Without the setting of common.py, which programs that use the library do not have.
    settings = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.busy"], input=json.dumps(wanted), text=True, cwd=ROOT / "tools",
        env=settings | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ReproductionError(f"the process ended with exit code {done.returncode}", place="bench --busy")

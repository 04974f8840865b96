"""Rounds of turns: contenders run one after the other, each in a separate process, several times."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from common import ROOT

from bench.contenders import BASELINE, FORWARD, REFERENCE, Contender, Task
from bench.processes import Worker, free_bytes, run_job
from reproduction.caffe.errors import ReproductionError
from reproduction.commands.bars import bar

# Seconds of timed steps in a turn, after an untimed step; 0 for work that is done once in a process.
TURN = {"forward": 0.3, "load": 0.0, "scaling": 0.3, "train": 0.3}
# The largest error of the scores, by precision. Above it, a contender computes another net.
ALLOWED = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
# SegNet puts values where pooling found the largest; where two are almost equal, rounding decides, and a score far away
# changes. Up to this share of its scores may be off.
UNSTABLE = {"segnet": 0.01}

Turn = dict[str, Any]


def check_names(table: Sequence[Contender], names: Iterable[str]) -> None:
    """Check that the contenders that a user named are in the table.

    Raises:
        ReproductionError: If one is not.
    """
    unknown = set(names) - {c.name for c in table}
    if unknown:
        raise ReproductionError("no such contender", got=sorted(unknown), want=f"some of {[c.name for c in table]}")


def choose(table: Sequence[Contender], names: Sequence[str], device: str, net: str) -> list[Contender]:
    """Return the contenders that ``names`` lists, or all that are measured on a net; skip those not installed.

    Raises:
        ReproductionError: If no contender is left.
    """
    found = []
    for contender in table:
        chosen = contender.name in names if names else re.fullmatch(contender.nets, net)
        if not chosen or device not in contender.devices:
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
        seconds: Seconds of all rounds after the first, as far as can be foreseen.
        failed: Why a contender failed, by its name; it is not asked again.
    """

    kind: str
    task: Task
    contenders: list[Contender]
    count: int
    folder: str
    seconds: float = 60
    failed: dict[str, str] = field(default_factory=dict)

    def write_files(self) -> None:
        """Write the weights and the other files that contenders read; those whose file cannot be written fail.

        Raises:
            ReproductionError: If the weights cannot be written.
        """
        files = sorted({c.reads for c in self.contenders if c.reads})
        failed = run_job({"job": "write_files", "files": files}, self.task)
        self.failed = {c.name: failed[c.reads] for c in self.contenders if c.reads in failed}

    def measure(self, task: Task) -> dict[str, dict[str, Any]]:
        """Run all rounds on one size of images; return the rows of the table by contender.

        Raises:
            ReproductionError: If the reference, whose scores the others are compared with, fails.
        """
        reference = f"{self.folder}/scores.npy"
        scored = self.kind in {"forward", "scaling"}
        if scored and REFERENCE not in [c.name for c in self.contenders]:
            Worker(self._job(FORWARD[0], save=reference), task).close()
        failed, workers = dict(self.failed), dict[str, Worker]()
        found: dict[str, list[Turn]] = {c.name: [] for c in self.contenders}
        start = time.monotonic()  # of the second round: the first one also starts the processes
        try:
            with bar(f"{task.net} {task.height}x{task.width}", self.count * len(self.contenders), "turn") as shown:
                for index in range(self.count):
                    if index == 1:
                        start = time.monotonic()
                    if index and time.monotonic() - start + _sum_last_seconds(found) > self.seconds:
                        break
                    first = index % len(self.contenders)  # each begins a round, so that no one always follows another
                    for contender in self.contenders[first:] + self.contenders[:first]:
                        shown.update()
                        if contender.name in failed:
                            continue
                        is_reference = scored and contender.name == REFERENCE and not index
                        extra = {"save": reference} if is_reference else {"reference": reference} if scored else {}
                        try:
                            turn = self._take_turn(workers, contender, task, **extra)
                            check_scores(contender, turn, UNSTABLE.get(task.net, 0.0))
                            found[contender.name].append(turn)
                        except ReproductionError as error:
                            if is_reference:
                                raise
                            failed[contender.name] = str(error)
                            _close(workers, contender.name)
        finally:
            for name in list(workers):
                _close(workers, name)
        return summarize(self.kind, self.contenders, found, failed)

    def evaluate(self, images: int) -> dict[str, Any]:
        """Return the figures of scoring ``images`` images with our exact net."""
        return run_job({"job": "evaluate", "images": images, "precision": "exact"}, self.task)

    def _take_turn(self, workers: dict[str, Worker], contender: Contender, task: Task, **wanted: Any) -> Turn:
        """Run a contender; its process stays for the next round if there is memory for it and for two more."""
        name, seconds = contender.name, TURN[self.kind]
        if name not in workers:
            workers[name] = Worker(self._job(contender, **wanted), task)
        turn = dict(workers[name].first)
        turn |= workers[name].take_turn(seconds) if seconds else {}
        if not seconds or free_bytes() < 3 * turn["peak_bytes"]:
            _close(workers, name)
        return turn

    def _job(self, contender: Contender, **wanted: Any) -> dict[str, Any]:
        return {"job": {"scaling": "forward"}.get(self.kind, self.kind), "contender": contender.name, **wanted}


def _sum_last_seconds(found: dict[str, list[Turn]]) -> float:
    """Return the seconds of the timed steps in the last turns, which the next round takes as well."""
    last = [turns[-1].get("seconds", 0) for turns in found.values() if turns]
    return sum(sum(seconds) if isinstance(seconds, list) else seconds for seconds in last)


def _close(workers: dict[str, Worker], name: str) -> None:
    if name in workers:
        workers.pop(name).close()


def summarize(
    kind: str, contenders: Sequence[Contender], found: dict[str, list[Turn]], failed: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Return the rows of the table: medians over the rounds, and medians of the ratios within each round."""
    main = "load_seconds" if kind == "load" else "seconds"
    memory = "load_peak_bytes" if kind == "load" else "peak_bytes"
    times = {name: [_median(turn[main]) for turn in turns] for name, turns in found.items() if name not in failed}
    peers = {c.name: c.precision for c in contenders if not c.ours and c.name in times and c.name != BASELINE}
    rows = {}
    for contender in contenders:
        name, turns = contender.name, found[contender.name]
        row: dict[str, Any] = {"ours": contender.ours, "precision": contender.precision}
        rows[name] = row
        if name in failed:
            row["failed"] = failed[name]
            continue
        mine = times[name]
        row |= {
            "seconds": statistics.median(mine),
            "least": min(mine),
            "greatest": max(mine),
            "first_seconds": statistics.median(turn["first_seconds"] for turn in turns),
            "build_seconds": statistics.median(turn["build_seconds"] for turn in turns),
            "load_seconds": statistics.median(turn["load_seconds"] for turn in turns),
            "peak_bytes": max(turn[memory] for turn in turns),
        }
        if kind != "load":
            row["cpu_seconds"] = statistics.median(_median(turn["cpu_seconds"]) for turn in turns)
        for key in ("error", "labels_off"):
            if any(key in turn for turn in turns):
                row[key] = max(turn[key] for turn in turns if key in turn)
        rivals = [peer for peer, precision in peers.items() if precision == contender.precision]
        best = min(rivals, key=lambda peer: statistics.median(times[peer]), default=None)
        plain = REFERENCE if contender.ours and contender.precision == "float32" else None
        others = {"times_pytorch": BASELINE, "times_plain": plain, "times_best_peer": best if contender.ours else None}
        for key, rival in others.items():
            if rival in times and rival != name:
                row[key] = statistics.median(a / b for a, b in zip(times[rival], mine, strict=True))
        row["rounds"] = turns
    return rows


def check_scores(contender: Contender, turn: Turn, share: float = 0.0) -> None:
    """Check that a contender computed the net.

    Args:
        contender: The contender.
        turn: Its figures.
        share: The share of scores that may be off.

    Raises:
        ReproductionError: If its scores are off by more than ``ALLOWED``, and too many of them are.
    """
    allowed = ALLOWED[contender.precision]
    is_fine = turn.get("error", 0) <= allowed or (0 < turn.get("scores_off", 1) <= share)
    if not is_fine:  # also if the error is NaN
        got, want = f"an error of {turn['error']:.1e}", f"at most {allowed:g}"
        raise ReproductionError(
            f"{contender.name} computes other scores than {REFERENCE}", place="bench", got=got, want=want
        )


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

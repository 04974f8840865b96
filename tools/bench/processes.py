"""A contender's process: it is started once, answers each turn, and is stopped between its turns."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT

from bench.contenders import Task
from reproduction.caffe.errors import ReproductionError

PATIENCE = 300  # seconds after which a process that does not answer is ended


class Worker:
    """A process of ``bench.worker``.

    Args:
        wanted: The job; see ``bench.worker``.
        task: The net and its files.

    Attributes:
        first: What the process answered at first.

    Raises:
        ReproductionError: If the process fails or does not answer.
    """

    def __init__(self, wanted: dict[str, Any], task: Task):
        self._name = wanted.get("contender", wanted["job"])
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the process)
        settings = {"OMP_NUM_THREADS": str(task.threads), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            text=True, cwd=ROOT / "tools", env=os.environ | settings,
        )  # fmt: skip
        try:
            self.first = self._ask({"task": task.as_dict(), "started": time.monotonic(), **wanted})
        except BaseException:
            self.close()
            raise

    def take_turn(self, seconds: float) -> dict[str, Any]:
        """Run the contender for about ``seconds`` and return its figures.

        Raises:
            ReproductionError: If the process fails or does not answer.
        """
        self._signal("SIGCONT")
        found = self._ask({"seconds": seconds})
        self._signal("SIGSTOP")  # no thread of it spins while others are timed
        return found

    def close(self) -> None:
        """End the process."""
        self._signal("SIGCONT")
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(PATIENCE):
                raise ReproductionError(f"no answer after {PATIENCE} s", place=f"bench, {self._name!r}")
        if line := self._process.stdout.readline():
            found: dict[str, Any] = json.loads(line)
            return found
        code = self._process.wait()
        self._errors.seek(0)
        why = ([line for line in self._errors.read().splitlines() if line.strip()] or [f"exit code {code}"])[-1]
        raise ReproductionError(f"the process ended with: {why.rstrip('.')}", place=f"bench, {self._name!r}")


def run_job(wanted: dict[str, Any], task: Task) -> dict[str, Any]:
    """Run a job that answers once, and return the answer.

    Raises:
        ReproductionError: If the process fails.
    """
    worker = Worker(wanted, task)
    worker.close()
    return worker.first


def free_bytes() -> int:
    """Return the memory that new processes can use, in bytes; 0 if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else 0


class OtherLoad:
    """How many processors other programs kept busy, from the creation of this object on."""

    def __init__(self) -> None:
        self._start = _busy_seconds(), _own_seconds(), time.monotonic()

    def measure(self) -> float | None:
        """Return the mean number of busy processors, this process and its ended children apart; None if unknown."""
        busy, own, start = self._start
        now = _busy_seconds()
        if busy is None or now is None:
            return None
        return max(0.0, (now - busy - (_own_seconds() - own)) / (time.monotonic() - start))


def _busy_seconds() -> float | None:
    """Return the seconds that all processors together were busy since the system started."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])

#!/usr/bin/env python3
"""Test and measure on a GPU, in at most nine minutes: `make gpu PYTHON=python3.12`.

The interpreter needs torch with CUDA and this project's other dependencies; nothing is installed. What is missing
beyond them is left out and named. Stages run one after the other, each in its own process with a limit of time; one
that fails or takes too long does not keep the others from running.

    tools/gpu.py                    all stages
    tools/gpu.py --only training    one of them: tests, exactness, batch-1, batch-8, training

Figures go to the file of the GPU in tools/bench/results/ after each stage. Exit code 1: a stage failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common import ROOT, run

from bench import results

from reproduction.caffe.errors import ReproductionError

LIMIT = 540  # seconds for all stages


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        arguments: The arguments of Python.
        seconds: The longest time that it may take.
        needs: Modules without which it is left out.
    """

    arguments: tuple[str, ...]
    seconds: float
    needs: tuple[str, ...] = ()


_CONTENDERS = (
    "our Net", "our exact", "our tf32", "our bf16", "PyTorch", "PyTorch channels_last", "PyTorch compiled"
)  # fmt: skip
_RECORDED = ("--device=cuda", "--rounds", "3", "--seconds", "20", "--record")
_FORWARD = ("tools/bench.py", "--nets", "voc-fcn8s", "--size", "500x500", *_RECORDED, "--only", *_CONTENDERS)

STAGES = {
    "tests": Stage(("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"), 90, needs=("pytest",)),
    "exactness": Stage(("tools/exactness.py", "--device=cuda"), 120),
    "batch-1": Stage(_FORWARD, 130),
    "batch-8": Stage((*_FORWARD, "--batch", "8"), 130),
    "training": Stage(("tools/bench.py", "--train", "--nets", "voc-fcn32s", *_RECORDED), 70),
}


def main() -> None:
    """Run the stages and record their outcomes.

    Raises:
        ReproductionError: If there is no GPU, or if a stage failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), help="the stages to run")
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        raise ReproductionError(
            "no GPU can be used", got=f"torch {torch.__version__}, which finds no CUDA device",
            remedy="Name an interpreter whose torch does: make gpu PYTHON=python3.12.",
        )  # fmt: skip
    run_stages({name: STAGES[name] for name in args.only}, results.conditions(1, "cuda", None), LIMIT)


def run_stages(stages: Mapping[str, Stage], measured: Mapping[str, Any], limit: float) -> None:
    """Run stages one after the other, and merge the outcome of each into the file of the machine when it ends.

    Args:
        stages: The stages by name.
        measured: The conditions, as ``results.conditions`` returns them.
        limit: The seconds for all stages.

    Raises:
        ReproductionError: If a stage failed.
    """
    path, end = results.machine_file(measured), time.monotonic() + limit
    failed = []
    for name, stage in stages.items():
        if missing := [module for module in stage.needs if importlib.util.find_spec(module) is None]:
            outcome = {"outcome": "left out", "reason": f"{' and '.join(missing)} is not installed"}
        else:
            outcome = run_stage(stage, min(stage.seconds, end - time.monotonic()))
        print(f"{name}: {', '.join(f'{value}' for value in outcome.values())}", flush=True)
        results.merge(path, "stages", {name: {"measured": measured, **outcome}})
        if outcome["outcome"] == "failed":
            failed.append(name)
    if failed:
        raise ReproductionError(f"{len(failed)} of {len(stages)} stages failed: {', '.join(failed)}", place="gpu")


def run_stage(stage: Stage, seconds: float) -> dict[str, str]:
    """Run a stage for at most ``seconds``; return its outcome, the last line that it printed, and its time."""
    if seconds <= 0:
        return {"outcome": "failed", "reason": "no time was left for it"}
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *stage.arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the workers that it started
                process.wait()
        output.seek(0)
        text = output.read()
    lines = [line for line in text.splitlines() if line.strip()]
    for line in lines[-30:]:
        print(f"    {line}")
    took = {"seconds": f"{time.monotonic() - start:.0f} s"}
    last = lines[-1].strip() if lines else "nothing was printed"
    if code is None:
        return {"outcome": "failed", "reason": f"stopped after {seconds:.0f} s; the last line was: {last}", **took}
    return {"outcome": "failed" if code else "passed", "reason": last, **took}


if __name__ == "__main__":
    run(main)

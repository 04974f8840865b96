"""Run one contender in this process: `python -m bench.worker`, with the job as JSON in a line of standard input.

Each answer is a line of JSON on standard output; what libraries print goes to standard error. After the first answer,
each further line of input asks for more timed steps, until the input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.contenders import FORWARD, TRAIN, Step, Task

JOBS = {"forward": FORWARD, "load": FORWARD, "train": TRAIN}
MOST_STEPS = 50  # in one turn
WARM_UPS = 4  # untimed forward passes before the first turn, in which a runtime may prepare for the size
FINE = 1e-4  # an error of a score that is not counted as off


def main() -> None:
    """Run one job and print its figures."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints does not disturb the answers

    def answer(found: Any) -> None:
        print(json.dumps(found), file=answers, flush=True)

    wanted = json.loads(sys.stdin.readline())
    task = Task(**wanted["task"])
    if wanted["job"] == "write_files":
        from bench import written_files

        answer(written_files.write_files(task, wanted["files"]))
        return
    if wanted["job"] == "evaluate":
        from bench import evaluation

        with tempfile.TemporaryDirectory() as folder:
            answer(evaluation.time_evaluation(task, wanted["images"], wanted["precision"], folder))
        return
    contender = next(c for c in JOBS[wanted["job"]] if c.name == wanted["contender"])
    begun = time.monotonic()
    prepare = contender.load_function()
    imported = time.monotonic()
    step = prepare(task)
    answer({"import_seconds": imported - begun, **begin(step, imported, wanted)})
    warm_ups = WARM_UPS if wanted["job"] == "forward" else 0
    for line in sys.stdin:
        for _ in range(warm_ups):
            step()
        warm_ups = 0
        answer(time_steps(step, json.loads(line)["seconds"]))


def begin(step: Step, imported: float, wanted: dict[str, Any]) -> dict[str, Any]:
    """Run the first step, which may allocate and compile, and compare its scores with those of the uncompiled net."""
    prepared = time.monotonic()
    result = step()
    first = time.monotonic()
    found = {
        "build_seconds": prepared - imported,
        "first_seconds": first - prepared,
        "load_seconds": first - wanted["started"],
        "load_peak_bytes": peak_bytes(),
    }
    reset_peak()
    if hasattr(result, "detach"):
        result = result.detach().cpu().numpy()
    if wanted.get("save"):
        import numpy as np

        np.save(wanted["save"], result)
    if wanted.get("reference"):
        found |= compare_scores(result, wanted["reference"])
    return found


def time_steps(step: Step, seconds: float) -> dict[str, Any]:
    """Run an untimed step, since the caches are cold after a pause, and timed ones for about ``seconds``.

    A step that takes longer than that is timed at once, since the caches do not matter to it.
    """
    timed = [time_step(step)]
    if timed[0][0] < seconds:
        timed.clear()
        end = time.monotonic() + seconds
        while not timed or (time.monotonic() < end and len(timed) < MOST_STEPS):
            timed.append(time_step(step))
    return {
        "seconds": [wall for wall, _ in timed],
        "cpu_seconds": [cpu for _, cpu in timed],
        "peak_bytes": peak_bytes(),
    }


def time_step(step: Step) -> tuple[float, float]:
    """Return the wall seconds of a step and its CPU seconds, summed over all threads."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare_scores(scores: Any, reference: str) -> dict[str, float]:
    """Return the largest error relative to the largest reference score, and the shares of scores and labels off."""
    import numpy as np

    want = np.load(reference)
    scores = scores.reshape(want.shape) if scores.size == want.size else scores  # some return (N, C), some (N, C, 1, 1)
    if scores.shape != want.shape:
        raise ValueError(f"scores are {scores.shape}, those of the uncompiled net {want.shape}")
    errors = np.abs(scores.astype(np.float64) - want) / np.abs(want).max()
    return {
        "error": float(errors.max()),
        "scores_off": float(1 - (errors <= FINE).mean()),  # NaN is not fine
        "labels_off": float((scores.argmax(1) != want.argmax(1)).mean()),
    }


def reset_peak() -> None:
    """Reset the memory peak of this process, if the system can; otherwise ``peak_bytes`` covers its whole life."""
    if _uses_cuda():
        sys.modules["torch"].cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the peak of resident memory in bytes since ``reset_peak``; with CUDA, of the GPU's memory."""
    if _uses_cuda():
        return int(sys.modules["torch"].cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _uses_cuda() -> bool:
    torch = sys.modules.get("torch")  # of this process's contender, if it uses torch at all
    return torch is not None and bool(torch.cuda.is_initialized())


if __name__ == "__main__":
    main()

"""Run one contender in this process: `python -m peers.worker`, with the job as JSON on standard input.

The last line of standard output is the measurement, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from peers import FORWARD, TRAIN, Step, Task

JOBS = {"forward": FORWARD, "load": FORWARD, "train": TRAIN}


def main() -> None:
    """Run one job and print its figures."""
    wanted = json.load(sys.stdin)
    task = Task(**wanted["task"])
    if wanted["job"] == "setup":
        set_up(task, wanted["files"])
        return
    if wanted["job"] == "evaluate":
        print(json.dumps(score(task, wanted["images"], wanted["precision"])))
        return
    contender = next(c for c in JOBS[wanted["job"]] if c.name == wanted["contender"])
    found = measure(contender.prepare, task, wanted)
    print()  # ends a line that a library may have left open
    print(json.dumps(found))


def measure(prepare: Any, task: Task, wanted: dict[str, Any]) -> dict[str, Any]:
    """Prepare a contender and time its steps; the first step, which may allocate and compile, is timed separately."""
    step = prepare(task)
    prepared = time.monotonic()
    result = step()
    first = time.monotonic()
    loaded = peak()
    forget_peak()
    timed = [clocked(step) for _ in range(wanted["steps"])]
    found = {
        "prepare_seconds": prepared - wanted["started"],
        "first_seconds": first - prepared,
        "load_seconds": first - wanted["started"],
        "load_peak_bytes": loaded,
        "seconds": [wall for wall, _ in timed],
        "cpu_seconds": [cpu for _, cpu in timed],
        "peak_bytes": peak(),
    }
    if wanted.get("save"):
        import numpy as np

        np.save(wanted["save"], result)
    if wanted.get("reference"):
        found |= compare(result, wanted["reference"])
    return found


def score(task: Task, images: int, precision: str) -> dict[str, Any]:
    """Evaluate ``images`` images; return the seconds of the evaluation and of its forward passes."""
    from peers import evaluation

    with tempfile.TemporaryDirectory() as folder:
        return evaluation.run(task, images, precision, folder)


def clocked(step: Step) -> tuple[float, float]:
    """Return the wall seconds of a step and its CPU seconds, summed over all threads."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(scores: Any, reference: str) -> dict[str, float]:
    """Return the largest error relative to the largest reference score, and the share of pixels whose label differs."""
    import numpy as np

    want = np.load(reference)
    if scores.shape != want.shape:
        raise ValueError(f"scores are {scores.shape}, those of the plain path {want.shape}")
    error = float(np.abs(scores.astype(np.float64) - want).max() / np.abs(want).max())
    return {"error": error, "labels_off": float((scores.argmax(1) != want.argmax(1)).mean())}


def forget_peak() -> None:
    """Reset the memory peak of this process, if the system can; otherwise ``peak`` covers its whole life."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the peak of resident memory in bytes, since ``forget_peak``."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def set_up(task: Task, files: Collection[str]) -> None:
    """Write the files that contenders read: seeded weights with a realistic spread, and the net as ONNX and ncnn."""
    import torch

    from reproduction.caffe.formats import caffemodel
    from reproduction.caffe.net import net as nets
    from tests.golden import seeded

    net = nets.load(task.deploy)
    with torch.no_grad():
        for name, layer in net.layers.items():
            for i, blob in enumerate(layer.blobs):
                made = seeded.make_weight(
                    name, i, tuple(blob.shape), bilinear=layer.layer_param.type == "Deconvolution"
                )
                blob.copy_(torch.from_numpy(made))
    caffemodel.dump(net.to_proto(), task.weights)
    if "ncnn" in files:
        from peers import ncnn_files

        ncnn_files.write(net, task.ncnn)
    del net
    if "onnx" in files:
        from peers import plain

        plain.export(task)


if __name__ == "__main__":
    main()

"""Run one contender in this process: `python -m bench.worker`, with the job as JSON on standard input.

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
from typing import TYPE_CHECKING, Any

from bench.contenders import FORWARD, TRAIN, Step, Task

if TYPE_CHECKING:
    from reproduction.caffe.net.net import Net

JOBS = {"forward": FORWARD, "load": FORWARD, "train": TRAIN}


def main() -> None:
    """Run one job and print its figures."""
    wanted = json.load(sys.stdin)
    task = Task(**wanted["task"])
    if wanted["job"] == "write_files":
        write_files(task, wanted["files"])
        return
    if wanted["job"] == "evaluate":
        from bench import evaluation

        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(evaluation.time_evaluation(task, wanted["images"], wanted["precision"], folder)))
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
    loaded = peak_bytes()
    reset_peak()
    timed = [time_step(step) for _ in range(wanted["steps"])]
    found = {
        "prepare_seconds": prepared - wanted["started"],
        "first_seconds": first - prepared,
        "load_seconds": first - wanted["started"],
        "load_peak_bytes": loaded,
        "seconds": [wall for wall, _ in timed],
        "cpu_seconds": [cpu for _, cpu in timed],
        "peak_bytes": peak_bytes(),
    }
    if wanted.get("save"):
        import numpy as np

        np.save(wanted["save"], result)
    if wanted.get("reference"):
        found |= compare_scores(result, wanted["reference"])
    return found


def time_step(step: Step) -> tuple[float, float]:
    """Return the wall seconds of a step and its CPU seconds, summed over all threads."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare_scores(scores: Any, reference: str) -> dict[str, float]:
    """Return the largest error relative to the largest reference score, and the share of pixels whose label differs."""
    import numpy as np

    want = np.load(reference)
    if scores.shape != want.shape:
        raise ValueError(f"scores are {scores.shape}, those of the uncompiled net {want.shape}")
    error = float(np.abs(scores.astype(np.float64) - want).max() / np.abs(want).max())
    return {"error": error, "labels_off": float((scores.argmax(1) != want.argmax(1)).mean())}


def reset_peak() -> None:
    """Reset the memory peak of this process, if the system can; otherwise ``peak_bytes`` covers its whole life."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the peak of resident memory in bytes, since ``reset_peak``."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def write_files(task: Task, files: Collection[str]) -> None:
    """Write the files that contenders read: seeded weights with a realistic spread, and the net as ONNX and ncnn."""
    from reproduction.caffe.formats import caffemodel
    from reproduction.caffe.net import net as nets

    net = nets.load(task.deploy)
    fill_with_seeded_weights(net)
    caffemodel.dump(net.to_proto(), task.weights)
    if "ncnn" in files:
        from bench import ncnn_files

        ncnn_files.write(net, task.ncnn)
    del net
    if "onnx" in files:
        from bench import pytorch_port

        pytorch_port.export(task)


def fill_with_seeded_weights(net: Net) -> None:
    """Replace the weights of a net by seeded ones; those of deconvolutions upsample bilinearly."""
    import torch

    from tests.golden import seeded

    with torch.no_grad():
        for name, layer in net.layers.items():
            for i, blob in enumerate(layer.blobs):
                bilinear = layer.layer_param.type == "Deconvolution" and i == 0
                blob.copy_(torch.from_numpy(seeded.make_weight(name, i, tuple(blob.shape), bilinear=bilinear)))


if __name__ == "__main__":
    main()

"""Time the compiled net and the plain one in pairs of rounds, next to busy processes: `python -m peers.busy`.

The input is JSON on standard input; each line of standard output is a row.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reproduction.caffe.net import net as nets
from reproduction.caffe.net.net import Net
from reproduction.fast import compiler
from tests.golden import seeded
from tests.helpers import classifiers

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Measure the pairs and print a row for each number of busy processes."""
    wanted = json.load(sys.stdin)
    torch.set_num_threads(wanted["threads"])
    net = build(wanted["net"])
    size = wanted["size"]
    inputs = {
        name: torch.randn(1, *shape[1:2], *(size or shape[2:]))
        for name, shape in ((name, net.blob_shapes[name]) for name in net.inputs)
    }
    fast = compiler.compile(net)
    with torch.inference_mode():
        for run in (net, fast, fast, net):
            run(inputs)
        for count in wanted["busy"]:
            print(row(wanted["net"], count, pairs(net, fast, inputs, count, wanted["rounds"])), flush=True)


def build(name: str) -> Net:
    """Build a net of ``prototxt/`` or one of ``tests.helpers.classifiers``, with seeded weights."""
    if name in classifiers.NETS:
        net: Net = classifiers.net(name)
        return net
    net = nets.load(ROOT / "prototxt" / name / "deploy.prototxt")
    with torch.no_grad():
        for layer_name, layer in net.layers.items():
            for i, blob in enumerate(layer.blobs):
                up = layer.layer_param.type == "Deconvolution" and i == 0
                blob.copy_(torch.from_numpy(seeded.make_weight(layer_name, i, tuple(blob.shape), bilinear=up)))
    return net


def pairs(net: Any, fast: Any, inputs: Any, busy: int, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of the plain and the compiled run of each round; the first to run alternates."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found = []
        for index in range(rounds):
            if index % 2:
                found.append((clocked(net, inputs), clocked(fast, inputs)))
            else:
                found.append((clocked(fast, inputs), clocked(net, inputs))[::-1])
        return found
    finally:
        for other in others:
            other.kill()
            other.wait()


def clocked(run: Callable[[Any], Any], inputs: Any) -> float:
    """Return the seconds of a run."""
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def row(name: str, busy: int, found: list[tuple[float, float]]) -> str:
    """Format the median seconds and the median of the pairs' ratios as a line."""
    plain, fast = (statistics.median(times) for times in zip(*found, strict=True))
    ratio = statistics.median(compiled / as_it_is for as_it_is, compiled in found)
    return f"{name}, {busy} busy: plain {plain:.3f} s, compiled {fast:.3f} s, {ratio:.2f} of plain"


if __name__ == "__main__":
    main()

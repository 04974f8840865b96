"""Time the compiled and the uncompiled net in pairs of rounds, next to busy processes: `python -m bench.busy`.

The input is JSON on standard input; each line of standard output is a row.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import nets as own_nets
from bench.written_files import fill_with_seeded_weights
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import net as nets
from reproduction.caffe.net.net import Net
from reproduction.fast import compiler
from tests.helpers import classifiers

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Measure the pairs and print a row for each number of busy processes."""
    wanted = json.load(sys.stdin)
    torch.set_num_threads(wanted["threads"])
    net = build_net(wanted["net_name"])
    shapes = {name: net.blob_shapes[name] for name in net.inputs}
    inputs = {name: torch.randn(1, *shape[1:2], *(wanted["size"] or shape[2:])) for name, shape in shapes.items()}
    compiled = compiler.compile(net)
    with torch.inference_mode():
        for run in (net, compiled, compiled, net):
            run(inputs)
        for count in wanted["busy"]:
            pairs = time_pairs(net, compiled, inputs, count, wanted["rounds"])
            print(format_row(wanted["net_name"], count, pairs), flush=True)


def build_net(net_name: str) -> Net:
    """Build a net of ``prototxt/``, ``bench.nets`` or ``tests.helpers.classifiers``, with seeded weights."""
    if net_name in own_nets.NETS:
        with tempfile.TemporaryDirectory() as folder:  # read from a file, which translates the fields of forks
            prototxt.dump(own_nets.NETS[net_name](), path := Path(folder) / "deploy.prototxt")
            net = nets.load(path)
    elif net_name in classifiers.NETS:
        net = Net(classifiers.NETS[net_name]())
    else:
        net = nets.load(ROOT / "prototxt" / net_name / "deploy.prototxt")
    fill_with_seeded_weights(net)
    return net


def time_pairs(net: Any, compiled: Any, inputs: Any, busy: int, rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of the uncompiled and the compiled run of each round; the first to run alternates."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found = []
        for index in range(rounds):
            if index % 2:
                found.append((time_run(net, inputs), time_run(compiled, inputs)))
            else:
                found.append((time_run(compiled, inputs), time_run(net, inputs))[::-1])
        return found
    finally:
        for other in others:
            other.kill()
            other.wait()


def time_run(run: Callable[[Any], Any], inputs: Any) -> float:
    """Return the seconds of a run."""
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def format_row(net_name: str, busy: int, pairs: list[tuple[float, float]]) -> str:
    """Format the median seconds and the median of the pairs' ratios as a line."""
    plain, fast = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(compiled / uncompiled for uncompiled, compiled in pairs)
    return f"{net_name}, {busy} busy: plain {plain:.3f} s, compiled {fast:.3f} s, {ratio:.2f} of plain"


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Time this project's ways to run a net against those of others, in one run on one machine.

    tools/bench.py                      voc-fcn8s at 500x500, everybody who is installed (about 5 minutes on two cores)
    tools/bench.py --size 256x256 --only "our Net" PyTorch
    tools/bench.py --train              a training step of voc-fcn32s: our solver against a plain port to PyTorch
    tools/bench.py --load               time to the first forward, and memory, from a caffemodel
    tools/bench.py --scaling            time against the size of the image, from 64x64 to 1500x1500
    tools/bench.py --quick              small images, one round: does it run?

Contenders take turns, each in a process of its own, for several rounds; the table has medians over the rounds. Weights
are random, from a seed, with the spread of trained ones; errors are against our plain path, as a part of the greatest
score. `pip install -e '.[peers]'` installs the peers. Every round's figures go to reports/bench.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import PROTOTXT, ROOT, run

from peers import BASELINE, FORWARD, REFERENCE, TRAIN, Contender, Task
from tqdm import tqdm

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.files import atomic

PACKAGES = ("torch", "numpy", "opencv-python-headless", "onnxruntime", "openvino")
SCALES = (64, 96, 128, 192, 256, 384, 500, 750, 1000, 1500)  # height and width, pixels
NETS = {"forward": "voc-fcn8s", "load": "voc-fcn8s", "scaling": "voc-fcn8s", "train": "voc-fcn32s"}
STEPS = {"forward": 3, "load": 0, "scaling": 2, "train": 2}  # timed in each process, after one that is not

Round = dict[str, Any]


def main() -> None:
    """Measure one kind of work, print its table, and keep its figures."""
    args = _parser().parse_args()
    kind = args.kind
    net = args.net or NETS[kind]
    if not (PROTOTXT / net / "deploy.prototxt").exists():
        raise ReproductionError(f"there is no net {net!r} in {PROTOTXT.name}/", remedy="Name one of its folders.")
    table = [c for c in (TRAIN if kind == "train" else FORWARD) if kind != "load" or c.loads]
    chosen = choose(table, args.only, args.device)
    size = args.size or ((96, 96) if args.quick else (500, 500))
    sizes = [size] if kind != "scaling" else [(side, side) for side in SCALES if not args.quick or side < 150]
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            net, str(PROTOTXT / net), f"{folder}/weights.caffemodel", f"{folder}/net.onnx", *sizes[0],
            batch=args.batch, threads=args.threads, device=args.device,
        )  # fmt: skip
        bench = Bench(kind, task, chosen, 1 if args.quick else args.rounds, folder)
        bench.set_up()
        sections = {}
        for height, width in sizes:
            rows = bench.measure(replace(task, height=height, width=width))
            title = f"{net} {height}x{width}" + (f", {args.batch} images" if args.batch > 1 else "")
            title += f" on {args.device}" if args.device != "cpu" else ""
            print(f"\n{kind}: {title}, {args.threads} threads, {bench.rounds} rounds\n")
            print(render(kind, rows))
            sections[title] = {"measured": conditions(args.threads, args.device), "contenders": rows}
    keep(args.report / "bench.json", kind, sections)
    print(f"\n{args.report / 'bench.json'} has the figures of every round.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_mutually_exclusive_group()
    for kind in ("train", "load", "scaling"):
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help="see above")
    parser.add_argument("--net", help="a folder of prototxt/; default voc-fcn8s, for --train voc-fcn32s")
    parser.add_argument("--size", type=_size, default=None, metavar="HxW", help="default 500x500")
    parser.add_argument("--batch", type=_count, default=1, metavar="N", help="images at a time (default 1)")
    parser.add_argument("--rounds", type=_count, default=5, metavar="N", help="default 5")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders, as the table names them")
    parser.add_argument("--threads", type=_count, default=len(os.sched_getaffinity(0)), metavar="N", help="default all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    parser.add_argument("--quick", action="store_true", help="96x96 pixels, one round")
    parser.add_argument("--report", type=Path, default=ROOT / "reports", metavar="DIR", help="default reports/")
    parser.set_defaults(kind="forward")
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"want height x width in pixels, as 500x375, not {text!r}")
    return int(height), int(width)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"want a whole number above 0, not {text!r}")
    return int(text)


def choose(table: Sequence[Contender], names: Sequence[str], device: str) -> list[Contender]:
    """Take the contenders that are named, or all; leave out, and say so, what is not installed.

    Raises:
        ReproductionError: a name that is not in the table, or is not to be had.
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
        raise ReproductionError("nobody is left to measure", remedy="Install the peers: pip install -e '.[peers]'")
    return found


@dataclass
class Bench:
    """Rounds of one kind of work.

    Attributes:
        kind: ``forward``, ``load``, ``scaling`` or ``train``.
        task: what is run; its sizes change with ``measure``.
        contenders: who takes turns.
        rounds: how many turns each gets.
        folder: for files of the run.
    """

    kind: str
    task: Task
    contenders: list[Contender]
    rounds: int
    folder: str

    def set_up(self) -> None:
        """Write the weights, and ONNX for those who read it."""
        self._call({"job": "setup", "onnx": any(c.reads_onnx for c in self.contenders)}, self.task)

    def measure(self, task: Task) -> dict[str, dict[str, Any]]:
        """Let the contenders take turns on one size of images."""
        reference = f"{self.folder}/scores.npy"
        scored = self.kind in {"forward", "scaling"}
        if scored and REFERENCE not in [c.name for c in self.contenders]:
            self._turn(FORWARD[0], task, steps=0, save=reference)
        found: dict[str, list[Round]] = {c.name: [] for c in self.contenders}
        turns = [c for _ in range(self.rounds) for c in self.contenders]
        often = 0.2 if sys.stderr.isatty() else 30.0
        for contender in tqdm(turns, desc=f"{task.height}x{task.width}", leave=False, delay=1.0, mininterval=often):
            first = scored and contender.name == REFERENCE and not found[REFERENCE]
            extra = {"save": reference} if first else {"reference": reference} if scored else {}
            found[contender.name].append(self._turn(contender, task, steps=STEPS[self.kind], **extra))
        return summarize(self.kind, self.contenders, found)

    def _turn(self, contender: Contender, task: Task, **wanted: Any) -> Round:
        job = {"scaling": "forward"}.get(self.kind, self.kind)
        return self._call({"job": job, "contender": contender.name, **wanted}, task)

    def _call(self, wanted: dict[str, Any], task: Task) -> Round:
        wanted = {"task": task.as_dict(), "started": time.monotonic(), **wanted}
        settings = {"OMP_NUM_THREADS": str(task.threads), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "peers.worker"], input=json.dumps(wanted), capture_output=True, text=True,
            cwd=ROOT / "tools", env=os.environ | settings, check=False,
        )  # fmt: skip
        if done.returncode:
            who = wanted.get("contender", wanted["job"])
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ReproductionError(f"the process ended with: {why}", place=f"bench, {who!r}")
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def summarize(kind: str, contenders: Sequence[Contender], found: dict[str, list[Round]]) -> dict[str, dict[str, Any]]:
    """Take medians over the rounds, and of the ratios within each round."""
    main = "load_seconds" if kind == "load" else "seconds"
    memory = "load_peak_bytes" if kind == "load" else "peak_bytes"
    times = {name: [_middle(turn[main]) for turn in turns] for name, turns in found.items()}
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
            row["cpu_seconds"] = statistics.median(_middle(turn["cpu_seconds"]) for turn in turns)
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


def _middle(values: float | list[float]) -> float:
    return statistics.median(values) if isinstance(values, list) else values


def render(kind: str, rows: dict[str, dict[str, Any]]) -> str:
    """Draw the table."""
    columns = {
        "seconds": ("seconds", "{:.3f}"),
        "least": ("least", "{:.3f}"),
        "greatest": ("greatest", "{:.3f}"),
        "cpu_seconds": ("CPU s", "{:.2f}"),
        "first_seconds": ("first", "{:.2f}"),
        "peak_bytes": ("peak MB", "{:.0f}"),
        "times_pytorch": ("x PyTorch", "{:.2f}"),
        "times_best_peer": ("x best peer", "{:.2f}"),
        "error": ("error", "{:.1e}"),
        "labels_off": ("labels off", "{:.4%}"),
    }
    shown = [key for key in columns if any(key in row for row in rows.values())]
    lines = [["", *(columns[key][0] for key in shown)]]
    for name, row in rows.items():
        scaled = row | {"peak_bytes": row["peak_bytes"] / 1e6}
        lines.append([name, *(columns[key][1].format(scaled[key]) if key in row else "" for key in shown)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def conditions(threads: int, device: str) -> dict[str, Any]:
    """Say when and with what was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": processor(),
        "threads": threads,
        "device": device_name(device),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    """Name the processor, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def device_name(device: str) -> str:
    """Name the device."""
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name()


def keep(path: Path, kind: str, sections: dict[str, Any]) -> None:
    """Put figures into the report beside those of other kinds and sizes."""
    report = {}
    if path.exists():
        try:
            report = json.loads(path.read_text())
        except ValueError:
            raise ReproductionError("this is not JSON", place=str(path), remedy="Remove it.") from None
    report.setdefault(kind, {}).update(sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    run(main)

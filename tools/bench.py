#!/usr/bin/env python3
"""Compare the speed of this project with other ways to run a net, in one run on one machine.

    tools/bench.py                      voc-fcn8s at 500x500 and 256x256, all installed peers (12 minutes, two cores)
    tools/bench.py --size 375x500 --only "our Net" PyTorch
    tools/bench.py --train              a training step of voc-fcn32s: our solver and a direct port to PyTorch
    tools/bench.py --load               time and memory from a caffemodel to the first scores
    tools/bench.py --scaling            time by size of the image, from 64x64 to 1500x1500, with a plot
    tools/bench.py --evaluate           scoring images of VOC's sizes, compared with the forward passes alone
    tools/bench.py --busy 0 2 4         compiled and plain in pairs, with N busy processes; also with --net resnet50
    tools/bench.py --all                all of these, for the README (hours)
    tools/bench.py --quick              small images, one round: a smoke test

Contenders take turns for several rounds, each in a separate process; the table has medians over the rounds. Weights are
random, from a seed, with the spread of trained ones. Errors are relative to the largest score of our plain net; one
above the tolerance ends the run. `pip install -c constraints.txt -e '.[peers]'` installs the peers. The figures of
every round go to reports/bench.json; with --record, medians go to tools/peers/measured.json, from which `make readme`
writes the README's table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import PROTOTXT, ROOT, add_device, bar, positive, run

from peers import BASELINE, FORWARD, REFERENCE, TRAIN, Contender, Task, figures

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.files import atomic

KINDS = ("forward", "train", "load", "scaling", "evaluate")
SIZES = ((500, 500), (256, 256))  # height and width, pixels
SCALES = (64, 96, 128, 192, 256, 384, 500, 750, 1000, 1500)  # of both, pixels
NETS = dict.fromkeys(KINDS, "voc-fcn8s") | {"train": "voc-fcn32s"}
STEPS = {"forward": 3, "load": 0, "scaling": 2, "train": 2}  # timed steps in each process, after one untimed step
FILES = ("weights.caffemodel", "net.onnx", "net.param")  # in the order of Task's fields weights, onnx, ncnn
RECORD = ROOT / "tools" / "peers" / "measured.json"
# The largest error of the scores, by precision. Above it, a contender computes another net and the run ends.
ALLOWED = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}

Round = dict[str, Any]


def main() -> None:
    """Measure, print tables, and write the figures."""
    args = _parser().parse_args()
    if args.busy is not None:
        beside_busy(args)
        return
    tested_devices.warn_of(args.device)  # warn here: the output of the worker processes is captured
    for kind in KINDS if args.all else (args.kind,):
        measure(kind, args)
    print(f"\n{args.report / 'bench.json'} has the figures of every round.")


def beside_busy(args: argparse.Namespace) -> None:
    """Print the seconds of the compiled and the plain net, for each number of busy processes.

    Raises:
        ReproductionError: If the measuring process fails.
    """
    size = args.size[0] if args.size else None
    wanted = {
        "net": args.net or NETS["forward"], "size": size, "busy": args.busy, "rounds": args.rounds,
        "threads": args.threads,
    }  # fmt: skip
    # Without the setting of common.py, which programs that use the library do not have.
    settings = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-m", "peers.busy"], input=json.dumps(wanted), text=True, cwd=ROOT / "tools",
        env=settings | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ReproductionError(f"the process ended with exit code {done.returncode}", place="bench --busy")


def measure(kind: str, args: argparse.Namespace) -> None:
    """Measure one kind of work, print its table and write its figures.

    Raises:
        ReproductionError: If there is no such net, if a process fails, or if a contender's scores are wrong.
    """
    net = args.net or NETS[kind]
    if not (PROTOTXT / net / "deploy.prototxt").exists():
        raise ReproductionError(f"there is no net {net!r} in {PROTOTXT.name}/", remedy="Name one of its folders.")
    table = [c for c in (TRAIN if kind == "train" else FORWARD) if kind != "load" or c.loads]
    chosen = [] if kind == "evaluate" else choose(table, args.only, args.device)
    with tempfile.TemporaryDirectory() as folder:
        weights, onnx, ncnn = (f"{folder}/{name}" for name in FILES)
        sizes = {"batch": args.batch, "threads": args.threads}
        task = Task(net, str(PROTOTXT / net), weights, onnx, ncnn, *SIZES[0], **sizes, device=args.device)
        bench = Bench(kind, task, chosen, 1 if args.quick else args.rounds, folder)
        bench.set_up()
        sections = {}
        for height, width in _sizes(kind, args):
            title = f"{net} {height}x{width}" + (f", {args.batch} images" if args.batch > 1 else "")
            title = title if kind != "evaluate" else f"{net}, {args.images} pictures of VOC's sizes"
            title += f" on {args.device}" if args.device != "cpu" else ""
            rounds = "" if kind == "evaluate" else f", {bench.rounds} rounds"
            print(f"\n{kind}: {title}, {args.threads} threads{rounds}\n", flush=True)
            if kind == "evaluate":
                rows = bench.score(args.images)
                print(f"{rows['seconds']:.1f} s, {rows['overhead']:.1%} more than the forwards alone.")
            else:
                rows = bench.measure(replace(task, height=height, width=width))
                print(figures.render(rows), flush=True)
                check(rows)
            sections[title] = {"measured": figures.conditions(args.threads, args.device), "contenders": rows}
    keep(args.report / "bench.json", kind, sections)
    if args.record and kind != "scaling":
        kept = {
            title: said
            | {"contenders": said["contenders"] if kind == "evaluate" else figures.brief(said["contenders"])}
            for title, said in sections.items()
        }
        keep(RECORD, kind, kept)
    if kind == "scaling":
        plotted = {side: said["contenders"] for side, said in zip(_sides(args), sections.values(), strict=True)}
        figures.plot(args.report / "scaling.svg", f"{net}, {args.threads} threads", plotted)
        print(f"\n{args.report / 'scaling.svg'}")


def _sizes(kind: str, args: argparse.Namespace) -> list[tuple[int, int]]:
    if kind == "scaling":
        return [(side, side) for side in _sides(args)]
    some = args.size or ([(96, 96)] if args.quick else list(SIZES))
    return some if kind == "forward" else some[:1]


def _sides(args: argparse.Namespace) -> list[int]:
    return [side for side in SCALES if not args.quick or side < 150]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_mutually_exclusive_group()
    for kind in KINDS[1:]:
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help="see above")
    kinds.add_argument(
        "--busy", type=int, nargs="+", metavar="N", help="plain against compiled in pairs, beside N busy processes"
    )
    kinds.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--net", help="a folder of prototxt/; default voc-fcn8s, for --train voc-fcn32s")
    parser.add_argument(
        "--size", type=_size, nargs="+", metavar="HxW",
        help="default 500x500 and 256x256; the first one, but for the forward pass",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at a time (default 1)")
    parser.add_argument("--images", type=positive, default=60, metavar="N", help="of --evaluate (default 60; VOC: 736)")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="default 5")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders, as the table names them")
    every = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=positive, default=every, metavar="N", help="default all")
    add_device(parser, choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="96x96 pixels, one round")
    parser.add_argument("--report", type=Path, default=ROOT / "reports", metavar="DIR", help="default reports/")
    parser.add_argument("--record", action="store_true", help="keep the medians for the README")
    parser.set_defaults(kind="forward")
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"want height x width in pixels, as 500x375, not {text!r}")
    return int(height), int(width)


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
        raise ReproductionError("nobody is left to measure", remedy="Install the peers: pip install -e '.[peers]'")
    return found


@dataclass
class Bench:
    """Rounds of one kind of work.

    Attributes:
        kind: ``forward``, ``load``, ``scaling``, ``train`` or ``evaluate``.
        task: The net and its files; ``measure`` is called with a copy for each size.
        contenders: The contenders, which take turns.
        rounds: How many turns each contender has.
        folder: The folder for temporary files.
    """

    kind: str
    task: Task
    contenders: list[Contender]
    rounds: int
    folder: str

    def set_up(self) -> None:
        """Write the weights and the other files that contenders read."""
        self._call({"job": "setup", "files": sorted({c.reads for c in self.contenders if c.reads})}, self.task)

    def measure(self, task: Task) -> dict[str, dict[str, Any]]:
        """Run all rounds on one size of images; return the rows of the table by contender."""
        reference = f"{self.folder}/scores.npy"
        scored = self.kind in {"forward", "scaling"}
        if scored and REFERENCE not in [c.name for c in self.contenders]:
            self._turn(FORWARD[0], task, steps=0, save=reference)
        found: dict[str, list[Round]] = {c.name: [] for c in self.contenders}
        turns = [c for _ in range(self.rounds) for c in self.contenders]
        with bar(f"{task.height}x{task.width}", len(turns), "turn") as shown:
            for contender in turns:
                first = scored and contender.name == REFERENCE and not found[REFERENCE]
                extra = {"save": reference} if first else {"reference": reference} if scored else {}
                found[contender.name].append(self._turn(contender, task, steps=STEPS[self.kind], **extra))
                shown.update()
        return summarize(self.kind, self.contenders, found)

    def score(self, images: int) -> dict[str, Any]:
        """Return the figures of scoring ``images`` images with our exact net."""
        return self._call({"job": "evaluate", "images": images, "precision": "exact"}, self.task)

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
            raise ReproductionError(f"the process ended with: {why.rstrip('.')}", place=f"bench, {who!r}")
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def summarize(kind: str, contenders: Sequence[Contender], found: dict[str, list[Round]]) -> dict[str, dict[str, Any]]:
    """Return the rows of the table: medians over the rounds, and medians of the ratios within each round."""
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


def check(rows: dict[str, dict[str, Any]]) -> None:
    """Check that all contenders computed the same net.

    Raises:
        ReproductionError: If the scores of one are off by more than ``ALLOWED``.
    """
    for name, row in rows.items():
        allowed = ALLOWED[row["precision"]]
        if "error" in row and not row["error"] <= allowed:  # also true for NaN
            got, want = f"an error of {row['error']:.1e}", f"at most {allowed:g}"
            raise ReproductionError(f"{name} computes other scores than {REFERENCE}", place="bench", got=got, want=want)


def _middle(values: float | list[float]) -> float:
    return statistics.median(values) if isinstance(values, list) else values


def keep(path: Path, kind: str, sections: dict[str, Any]) -> None:
    """Merge figures into a report, which keeps those of other kinds and sizes."""
    report = {}
    if path.exists():
        report = json_file.load(
            path, dict[str, dict[str, Any]], "this is no report of the benchmark", remedy="Remove it."
        )
    report.setdefault(kind, {}).update(sections)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    run(main)

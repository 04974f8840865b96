#!/usr/bin/env python3
"""Compare the speed of this project with other ways to run a net, in one run on one machine.

    tools/bench.py                      all nets of the table, all installed peers (20 minutes on two idle cores)
    tools/bench.py --nets resnet50 unet --rounds 3
    tools/bench.py --nets voc-fcn8s --size 375x500 --only "our Net" PyTorch
    tools/bench.py --resume             the same as the last run, without what it has measured
    tools/bench.py --train              training steps of four nets: our solver, and the same layers in plain PyTorch
    tools/bench.py --load               time and memory from a caffemodel to the first scores
    tools/bench.py --scaling            time by size of the image, from 64x64 to 1500x1500, with a plot
    tools/bench.py --evaluate           scoring images of VOC's sizes, compared with the forward passes alone
    tools/bench.py --busy 0 2 4         compiled and plain in pairs, with N busy processes; also with --nets resnet50
    tools/bench.py --all                all of these, for the README (an hour)
    tools/bench.py --quick              small images, one round: a smoke test

Nets are folders of prototxt/, and those of bench/nets.py. Contenders take turns for several rounds, each in a separate
process, which is stopped while others run; the table has medians over the rounds. Weights are random, from a seed.
Errors are relative to the largest score of our plain net. A contender that fails, or whose error is above the
tolerance, is a row with the reason. `pip install -c constraints.txt -e '.[peers]'` installs the peers.

The figures of every round go to reports/bench.json as soon as a net is done. With --record, medians go to a file of
this machine in tools/bench/results/, from which `make readme` writes the tables of README.md and docs/speed.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from common import ROOT, run

from bench import nets, results, rounds
from bench.contenders import FORWARD, TRAIN, Contender, Task
from bench.processes import OtherLoad

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.graph import build_graph
from reproduction.commands.options import positive, shared_options, split_names
from reproduction.fcn.nets.registry import PROTOTXT

KINDS = ("forward", "train", "load", "scaling", "evaluate")
SCALES = (64, 96, 128, 192, 256, 384, 500, 750, 1000, 1500)  # of both height and width, pixels
# The nets that are measured, and the side of their images in pixels; none for the size that the net declares.
TABLE: dict[str, tuple[int, ...]] = {
    "voc-fcn8s": (500, 256, 64), "voc-fcn-googlenet": (500,), "voc-fcn8s-resnet50": (500,), "unet": (572,),
    **dict.fromkeys(nets.NETS, ()),
}  # fmt: skip
TRAINED = ("voc-fcn32s", "voc-fcn8s-resnet50", "voc-fcn-googlenet", "unet")  # the other kinds measure voc-fcn8s
FILES = ("weights.caffemodel", "net.onnx", "net.param")  # in the order of Task's fields weights, onnx, ncnn


def main() -> int:
    """Measure, print tables, and write the figures; return 1 if one of our own contenders failed."""
    args = _parser().parse_args()
    args.nets = [name for names in args.nets for name in names]
    if args.busy is not None:
        size = args.size[0] if args.size else None
        for net_name in args.nets or ["voc-fcn8s"]:
            rounds.measure_pairs(net_name, size, args.busy, args.rounds, args.threads)
        return 0
    tested_devices.warn_if_untested(args.device)  # warn here: the output of the worker processes is captured
    kinds, failures = KINDS if args.all else (args.kind,), []
    for kind in kinds:
        rounds.check_names(_table(kind), args.only)
    for kind in kinds:
        names = args.nets or _known({"forward": TABLE, "train": TRAINED}.get(kind, ["voc-fcn8s"]))
        for net_name in names:
            try:
                failures += measure(kind, net_name, args)
            except ReproductionError as error:
                if len(names) == 1:
                    raise
                print(f"{net_name} failed: {error}", flush=True)  # the other nets are still measured
                failures.append(f"{net_name}: {error}")
    print(f"\n{args.report / 'bench.json'} has the figures of every round.")
    if failures:
        raise ReproductionError(f"{len(failures)} of our own measurements failed: {'; '.join(failures)}")
    return 0


def measure(kind: str, net_name: str, args: argparse.Namespace) -> list[str]:
    """Measure one kind of work with a net, print the tables and write the figures.

    Returns:
        A line for each contender of ours that failed.

    Raises:
        ReproductionError: If there is no such net, or if a process fails without which nothing can be compared.
    """
    if not _known([net_name]):
        raise ReproductionError(f"there is no net {net_name!r} in {PROTOTXT.name}/", remedy="Name one of its folders.")
    chosen = [] if kind == "evaluate" else rounds.choose(_table(kind), args.only, args.device, net_name)
    done = results.load_report(args.report / "bench.json").get(kind, {}) if args.resume else {}
    failures, by_side = [], {}
    with tempfile.TemporaryDirectory() as folder:
        task = build_task(net_name, folder, args)
        bench = rounds.Rounds(kind, task, chosen, 1 if args.quick else args.rounds, folder, args.seconds)
        written = False
        for height, width in _sizes(kind, task, args):
            title = _title(kind, task, height, width, args)
            if title in done and done[title]["contenders"].keys() >= {c.name for c in chosen}:
                print(f"{title} was measured at {done[title]['measured']['date']}.")
                continue
            if not written:
                bench.write_files()
                written = True
            print(f"\n{kind}: {title}, {args.threads} threads\n", flush=True)
            other = OtherLoad()
            if kind == "evaluate":
                rows = bench.evaluate(args.images)
                print(f"{rows['seconds']:.1f} s, {rows['overhead']:.1%} more than the forward passes alone.")
            else:
                rows = bench.measure(replace(task, height=height, width=width))
                print(results.format_table(rows), flush=True)
                failures += [f"{title}, {n}: {r['failed']}" for n, r in rows.items() if r["ours"] and "failed" in r]
                by_side[height] = rows
            conditions = results.conditions(args.threads, args.device, other.measure())
            section = {title: {"measured": conditions, "contenders": rows}}
            results.merge(args.report / "bench.json", kind, section)
            if args.record and kind != "scaling":
                results.record(kind, section)
    if kind == "scaling":
        plot = args.report / "scaling.svg"
        results.plot(plot, f"{net_name}, {args.threads} threads", by_side)
        print(f"\n{plot}")
    return failures


def _table(kind: str) -> list[Contender]:
    """Return the contenders of one kind of work."""
    return [c for c in (TRAIN if kind == "train" else FORWARD) if kind != "load" or c.loads]


def _known(names: Iterable[str]) -> list[str]:
    return [name for name in names if name in nets.NETS or (PROTOTXT / name / "deploy.prototxt").exists()]


def build_task(net_name: str, folder: str, args: argparse.Namespace) -> Task:
    """Return the task of a net for images of the size that it declares; its files will be in ``folder``."""
    own = net_name in nets.NETS
    net_param = nets.NETS[net_name]() if own else prototxt.load_net(PROTOTXT / net_name / "deploy.prototxt")[0]
    made = build_graph(net_param)
    shape = next(layer.input_param.shape[0].dim for layer in net_param.layer if layer.type == "Input")
    weights, onnx, ncnn = (f"{folder}/{name}" for name in FILES)
    return Task(
        net_name, folder if own else str(PROTOTXT / net_name), weights, onnx, ncnn, made.inputs[0], made.outputs[0],
        *shape[1:4], batch=args.batch, threads=args.threads, device=args.device,
    )  # fmt: skip


def _title(kind: str, task: Task, height: int, width: int, args: argparse.Namespace) -> str:
    title = f"{task.net} {height}x{width}" if kind != "evaluate" else f"{task.net}, {args.images} images of VOC's sizes"
    title += f", {args.batch} images" if args.batch > 1 else ""
    return title + (f" on {args.device}" if args.device != "cpu" else "")


def _sizes(kind: str, task: Task, args: argparse.Namespace) -> Iterator[tuple[int, int]]:
    if kind == "scaling":
        yield from ((side, side) for side in SCALES if not args.quick or side < 150)
    elif kind == "forward":
        declared = [(side, side) for side in TABLE.get(task.net, ())] or [(task.height, task.width)]
        quick = [_quick_size(task.net)] if args.quick and task.net not in nets.NETS else None
        yield from args.size or quick or declared
    else:
        yield (args.size or [_quick_size(task.net) if args.quick else (500, 500)])[0]


def _quick_size(net_name: str) -> tuple[int, int]:
    side = 188 if net_name == "unet" else 96  # U-Net has no padding, and its least size is 188x188
    return side, side


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_mutually_exclusive_group()
    for kind in KINDS[1:]:
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help="see above")
    kinds.add_argument(
        "--busy", type=int, nargs="+", metavar="N", help="plain against compiled in pairs, next to N busy processes"
    )
    kinds.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument(
        "--nets", "--net", type=split_names, metavar="NAMES", nargs="+", default=[],
        help="folders of prototxt/ and nets of bench/nets.py; default: a table, voc-fcn8s for some kinds",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=_size, nargs="+", metavar="HxW",
        help="default: what the table or the net says; the first one, but for the forward pass",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at a time (default 1)")
    parser.add_argument("--images", type=positive, default=60, metavar="N", help="of --evaluate (default 60; VOC: 736)")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="at most; default 7")
    parser.add_argument(
        "--seconds", type=positive, default=40, metavar="N", help="of the rounds after the first (default 40)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders, as the table names them")
    every = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=positive, default=every, metavar="N", help="default all")
    parser.add_argument("--device", choices=("cpu", "cuda"), **shared_options()["--device"])
    parser.add_argument("--quick", action="store_true", help="96x96 pixels, U-Net 188x188, one round")
    parser.add_argument("--report", type=Path, default=ROOT / "reports", metavar="DIR", help="default reports/")
    parser.add_argument("--resume", action="store_true", help="skip what bench.json of --report has")
    parser.add_argument("--record", action="store_true", help="keep the medians in tools/bench/results/")
    parser.set_defaults(kind="forward")
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"want height x width in pixels, as 500x375, not {text!r}")
    return int(height), int(width)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stopped processes are ended, too
    run(main)

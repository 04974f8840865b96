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
every round go to reports/bench.json; with --record, medians go to tools/bench/measured.json, from which `make readme`
writes the README's table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from common import ROOT, run

from bench import results, rounds
from bench.contenders import FORWARD, TRAIN, Task

from reproduction.caffe import tested_devices
from reproduction.caffe.errors import ReproductionError
from reproduction.commands.options import add_device, positive
from reproduction.fcn.nets.registry import PROTOTXT

KINDS = ("forward", "train", "load", "scaling", "evaluate")
SIZES = ((500, 500), (256, 256))  # height and width, pixels
SCALES = (64, 96, 128, 192, 256, 384, 500, 750, 1000, 1500)  # of both, pixels
NETS = dict.fromkeys(KINDS, "voc-fcn8s") | {"train": "voc-fcn32s"}
FILES = ("weights.caffemodel", "net.onnx", "net.param")  # in the order of Task's fields weights, onnx, ncnn


def main() -> None:
    """Measure, print tables, and write the figures."""
    args = _parser().parse_args()
    if args.busy is not None:
        size = args.size[0] if args.size else None
        rounds.measure_pairs(args.net or NETS["forward"], size, args.busy, args.rounds, args.threads)
        return
    tested_devices.warn_if_untested(args.device)  # warn here: the output of the worker processes is captured
    for kind in KINDS if args.all else (args.kind,):
        measure(kind, args)
    print(f"\n{args.report / 'bench.json'} has the figures of every round.")


def measure(kind: str, args: argparse.Namespace) -> None:
    """Measure one kind of work, print its table and write its figures.

    Raises:
        ReproductionError: If there is no such net, if a process fails, or if a contender's scores are wrong.
    """
    net_name = args.net or NETS[kind]
    if not (PROTOTXT / net_name / "deploy.prototxt").exists():
        raise ReproductionError(f"there is no net {net_name!r} in {PROTOTXT.name}/", remedy="Name one of its folders.")
    table = [c for c in (TRAIN if kind == "train" else FORWARD) if kind != "load" or c.loads]
    chosen = [] if kind == "evaluate" else rounds.choose(table, args.only, args.device)
    with tempfile.TemporaryDirectory() as folder:
        weights, onnx, ncnn = (f"{folder}/{name}" for name in FILES)
        sizes = {"batch": args.batch, "threads": args.threads}
        prototxts = str(PROTOTXT / net_name)
        task = Task(net_name, prototxts, weights, onnx, ncnn, *SIZES[0], **sizes, device=args.device)
        bench = rounds.Rounds(kind, task, chosen, 1 if args.quick else args.rounds, folder)
        bench.write_files()
        sections = {}
        for height, width in _sizes(kind, args):
            title = f"{net_name} {height}x{width}" + (f", {args.batch} images" if args.batch > 1 else "")
            title = title if kind != "evaluate" else f"{net_name}, {args.images} images of VOC's sizes"
            title += f" on {args.device}" if args.device != "cpu" else ""
            count = "" if kind == "evaluate" else f", {bench.count} rounds"
            print(f"\n{kind}: {title}, {args.threads} threads{count}\n", flush=True)
            if kind == "evaluate":
                rows = bench.evaluate(args.images)
                print(f"{rows['seconds']:.1f} s, {rows['overhead']:.1%} more than the forward passes alone.")
            else:
                rows = bench.measure(replace(task, height=height, width=width))
                print(results.format_table(rows), flush=True)
                rounds.check_scores(rows)
            sections[title] = {"measured": results.conditions(args.threads, args.device), "contenders": rows}
    results.merge(args.report / "bench.json", kind, sections)
    if args.record and kind != "scaling":
        results.record(kind, sections)
    if kind == "scaling":
        plot = args.report / "scaling.svg"
        by_side = {side: found["contenders"] for side, found in zip(_sides(args), sections.values(), strict=True)}
        results.plot(plot, f"{net_name}, {args.threads} threads", by_side)
        print(f"\n{plot}")


def _sizes(kind: str, args: argparse.Namespace) -> list[tuple[int, int]]:
    if kind == "scaling":
        return [(side, side) for side in _sides(args)]
    sizes = args.size or ([(96, 96)] if args.quick else list(SIZES))
    return sizes if kind == "forward" else sizes[:1]


def _sides(args: argparse.Namespace) -> list[int]:
    return [side for side in SCALES if not args.quick or side < 150]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_mutually_exclusive_group()
    for kind in KINDS[1:]:
        kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help="see above")
    kinds.add_argument(
        "--busy", type=int, nargs="+", metavar="N", help="plain against compiled in pairs, next to N busy processes"
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


if __name__ == "__main__":
    run(main)

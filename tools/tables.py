#!/usr/bin/env python3
"""Compute the paper's tables other than those of scores, and print them next to the published values.

    tools/tables.py                                on Mini-VOC, whose images are drawn (a minute)
    tools/tables.py --fixed                        also train the net of Table 2 whose last layer alone learns
    tools/tables.py voc --only bound shape         upper bounds need only labels, shapes need no data
    tools/tables.py voc --device cuda --trials 20

shape: convolutions, parameters, receptive field and stride of each net (Table 1). time: seconds of a forward pass
(Table 1). bound: mean IU of the true labels after coarsening to a net's stride. skip: nets of strides 32, 16 and 8,
and one whose last layer alone learned (Table 2); their scores are those that tools/reproduce.py wrote to reports/SET.

This tool checks nothing: the tables are for comparison. They are printed, and written to reports/SET/tables.md and
tables.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from common import ROOT, WEIGHTS, run, say, versions
from common.bars import Bars
from common.options import add_device, positive

from reproduction.caffe import devices
from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import files
from reproduction.fcn.datasets import SPECS, Dataset, PublishedNet
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import registry
from reproduction.fcn.reproduce import pipeline
from reproduction.fcn.scoring import upper_bound
from reproduction.fcn.scoring.evaluate import evaluate
from reproduction.fcn.segment import segmenter
from reproduction.fcn.train import ablations, recipes, training
from reproduction.report import record, tables
from reproduction.report.record import LabelScores, ScoreReport
from reproduction.report.tables import Table

NAMES = ("shape", "time", "bound", "skip")


def main() -> None:
    """Compute the tables, print them and write them."""
    args = _parser().parse_args()
    rows = tables.find_nets(args.set)
    names = list(dict.fromkeys(args.only or [name for name in NAMES if name != "skip" or has_skips(args.set)]))
    if "skip" in names and not has_skips(args.set):
        raise ReproductionError(
            f"there is no net '{args.set}-fcn32s' for Table 2", remedy="Leave `skip` out of --only."
        )
    with Bars() as bars:
        # Missing data end the run here, before minutes of timing.
        dataset = data(rows, args.data, bars) if {"bound", "skip"} & set(names) else None
        made = [make(name, args, rows, dataset, bars) for name in names]
    folder = args.report / args.set
    folder.mkdir(parents=True, exist_ok=True)
    text = tables.format_page(made)
    document = {"set": args.set, "versions": versions(), "tables": tables.as_json(made)}
    for path, content in (
        (folder / "tables.md", text),
        (folder / "tables.json", json.dumps(document, indent=1) + "\n"),
    ):
        with files.open_atomic(path) as file:
            file.write(content.encode())
    say(*(json.dumps(document, indent=1) if args.json else f"{text}\n{folder / 'tables.md'}").split("\n"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", default="mini", choices=SPECS, help="the data set; default: mini")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="TABLE", help=f"default: {', '.join(NAMES)}")
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="DIR", help="the data root; default: data/")
    parser.add_argument("--limit", type=positive, metavar="N", help="of the labels, look at the first N only")
    add_device(parser)
    parser.add_argument("--size", type=_size, default=(500, 500), metavar="HxW", help="of timed images; as the paper's")
    parser.add_argument("--trials", type=positive, default=5, metavar="N", help="of each time; default: 5")
    parser.add_argument(
        "--fixed", action="store_true", help="train the net whose last layer alone learns, to runs/tables"
    )
    parser.add_argument("--iterations", type=positive, metavar="N", help="of that training; default: as its net's")
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="its first weights; default: the classifier's, in weights/"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs/tables", metavar="DIR", help="of it; default: runs/tables"
    )
    parser.add_argument("--report", type=Path, default=ROOT / "reports", metavar="DIR", help="default: reports/")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return positive(height), positive(width)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH, such as 500x500") from None


def make(name: str, args: argparse.Namespace, rows: list[PublishedNet], dataset: Dataset | None, bars: Bars) -> Table:
    """Return one of the tables; those other than shape and time need the data set.

    Raises:
        ReproductionError: If data or weights that it needs are missing.
    """
    if name == "shape":
        return tables.shape_table(rows)
    if name == "time":
        device = devices.select_device(args.device)
        seconds = {row.name: forward(row, args) for row in rows}
        return tables.time_table(seconds, devices.describe_device(device), args.trials, args.size)
    assert dataset is not None
    if name == "bound":
        top, count = next(iter(dataset.label_classes)), len(dataset.ids[: args.limit])
        found = upper_bound.compute_upper_bounds(
            dataset, top, limit=args.limit, progress=bars("upper bounds", unit="image")
        )
        return tables.bound_table(found, f"{count} images of {args.set} {dataset.split}")
    return tables.skip_table(scored(args), fixed(args, dataset, bars), args.set)


def data(rows: list[PublishedNet], root: Path, bars: Bars) -> Dataset:
    """Return the data set that the nets of a set are scored on, and draw its images first if they can be drawn.

    Raises:
        DataError: If it is missing.
    """
    without = "The tables `--only shape time` need no data."
    if draw := rows[0].dataset.draw:
        root.mkdir(parents=True, exist_ok=True)
        draw(root, bars("drawing", unit="image"))
    try:
        dataset = pipeline.open_dataset(rows[0], root)
    except DataError as error:
        raise DataError(error.problem, path=error.place, remedy=f"{error.remedy} {without}".strip()) from None
    if lost := dataset.missing():
        raise DataError(f"{len(lost)} files are missing, the first is {lost[0]}", path=dataset.tree, remedy=without)
    return dataset


def forward(row: PublishedNet, args: argparse.Namespace) -> float:
    """Return the mean seconds of a forward pass of a net with weights from its fillers, after one untimed pass."""
    import torch

    from reproduction.caffe.net.net import Net
    from reproduction.caffe.schema import Phase

    shape = (1, 3, *args.size)
    deploy = registry.load_net(row.name)
    tops = {blob: ((1, 1, *args.size) if kind == "depth" else shape) for blob, kind in row.inputs.items()}
    net = Net(deploy, Phase.TEST, inputs=tops, seed=0).to(args.device)
    draw = torch.Generator().manual_seed(0)
    inputs = {blob: torch.randn(size, generator=draw).to(args.device) for blob, size in tops.items()}
    taken = []
    with torch.inference_mode():
        for _ in range(args.trials + 1):
            start = time.perf_counter()
            net(inputs)
            if args.device != "cpu":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return fmean(taken[1:])


def has_skips(set_name: str) -> bool:
    """Return whether a data set has nets that differ only in their stride."""
    return f"{set_name}-fcn32s" in recipes.NAMES


def scored(args: argparse.Namespace) -> ScoreReport | None:
    """Return the scores of a set's nets from the last reproduction, else the recorded ones; None if there are none."""
    for path in (args.report / args.set / "scores.json", WEIGHTS / args.set / "scores.json"):
        if path.is_file():
            return record.load_report(path)
    return None


def fixed(args: argparse.Namespace, dataset: Dataset, bars: Bars) -> LabelScores | None:
    """Score the net whose last layer alone learned; ``--fixed`` trains it first.

    Returns:
        Its scores; None if it was never trained.

    Raises:
        ReproductionError: If its initial weights are missing.
    """
    name = f"{args.set}-fcn32s"
    stage = ablations.fix_all_but_scores(recipes.find_recipe(name))
    result = recipes.final_model_path(stage.name, args.out)
    if args.fixed:
        (parent,) = stage.parents
        start = args.init or weights_of(parent)
        stage = replace(stage, test_net_param=None).with_solver(max_iter=args.iterations)
        bar = bars(stage.name, unit="it")
        watch = training.TrainingCallbacks(step=lambda step: bar(step.iteration + 1, stage.solver_param.max_iter))
        training.train(stage, {parent: start}, training.TrainingOptions(args.out, args.data, limit=args.limit), watch)
    if not result.is_file():
        return None
    row = registry.find_net(name)
    net = segmenter.load_net_with_weights(stage.name, registry.load_net(row.name), result, device=args.device)
    progress = bars(f"{stage.name}, scored", unit="image")
    (scores,) = evaluate(
        net, dataset, device=args.device, limit=args.limit, progress=lambda done, total, _: progress(done, total)
    ).scores.values()
    return LabelScores.from_scores("label", scores, dataset.classes)


def weights_of(name: str) -> Path:
    """Return the path of a classifier's weights.

    Raises:
        ReproductionError: If the file does not exist.
    """
    published = local_files.load_manifest().entries.get(name)
    path = WEIGHTS / (published.path if published else f"{name.partition('-')[0]}/{name}.caffemodel")
    if not path.is_file():
        raise ReproductionError(
            f"there are no weights of {name} to start from", place=str(path), remedy="Name them by --init."
        )
    return path


if __name__ == "__main__":
    run(main)

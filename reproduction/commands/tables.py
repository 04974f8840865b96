"""Compute the paper's tables other than those of scores, and print them next to the published values.

    fcn tables                                on Mini-VOC, whose images are drawn (a minute)
    fcn tables --fixed                        also train the net of Table 2 whose last layer alone learns
    fcn tables voc --only bound shape         upper bounds need only labels, shapes need no data
    fcn tables voc --device cuda --trials 20

shape: convolutions, parameters, receptive field and stride of each net (Table 1). time: seconds of a forward pass
(Table 1). bound: the same as `fcn experiments bounds`. skip: nets of strides 32, 16 and 8, and one whose last layer
alone learned (Table 2); their scores are those that fcn reproduce wrote to reports/SET.

This tool checks nothing: the tables are for comparison. They are printed, and written to reports/SET/tables.md and
tables.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reproduction.caffe import devices
from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.commands.bars import Bars
from reproduction.commands.experiments import measure
from reproduction.commands.parsers import TABLES, make_parser
from reproduction.commands.start import versions
from reproduction.commands.terminal import say
from reproduction.fcn.datasets import NetRecord
from reproduction.fcn.experiments import runs, table
from reproduction.fcn.experiments.runs import Settings
from reproduction.fcn.fetch import local_files
from reproduction.fcn.nets import forward_time, systems
from reproduction.fcn.reproduce import pipeline
from reproduction.fcn.train import recipes
from reproduction.fcn.train.jobs import Job
from reproduction.report import tables
from reproduction.report.experiments import make_table
from reproduction.report.record import LabelScores
from reproduction.report.tables import Table


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the tables, print them and write them."""
    args = make_parser("tables").parse_args(arguments)
    nets = pipeline.select_nets(args.set)
    shaped = [*nets, *(net for net in systems.NETS.values() if net.dataset.name == args.set)]
    has_skips = f"{args.set}-fcn32s" in recipes.NAMES  # nets that differ only in their stride
    names = list(dict.fromkeys(args.only or [name for name in TABLES if name != "skip" or has_skips]))
    if "skip" in names and not has_skips:
        problem = f"there is no net '{args.set}-fcn32s' for Table 2"
        raise ReproductionError(problem, remedy="Leave `skip` out of --only.")
    with Bars() as bars:
        # Missing data end the run here, before minutes of timing.
        if {"bound", "skip"} & set(names):
            check_data(nets[0], args.data, bars)
        computed = [compute_table(name, args, shaped, bars) for name in names]
    folder = args.report / args.set
    texts = tables.write_tables(computed, args.set, versions(), folder)
    text = texts["tables.json"].rstrip("\n") if args.json else f"{texts['tables.md']}\n{folder / 'tables.md'}"
    say(*text.split("\n"))


def compute_table(name: str, args: argparse.Namespace, nets: Sequence[NetRecord], bars: Bars) -> Table:
    """Return one of the tables; those other than shape and time need the data set.

    Raises:
        ReproductionError: If data or weights that it needs are missing.
    """
    if name == "shape":
        return tables.shape_table(nets)
    if name == "time":
        device = devices.describe_device(devices.select_device(args.device))
        seconds = {
            net.name: forward_time.measure_forward_time(net, args.size, args.trials, args.device) for net in nets
        }
        return tables.time_table(seconds, device, args.trials, args.size)
    settings = Settings(args.set, args.data, args.out, limit=args.limit, device=args.device, progress=bars)
    if name == "bound":
        bounds = table.EXPERIMENTS["bounds"]
        return replace(make_table(bounds, measure(bounds, settings)), name=name)
    scores = tables.find_scores(args.report / args.set, local_files.find_weights_path(args.set))
    return tables.skip_table(scores, score_fixed_net(args, settings), args.set)


def check_data(record: NetRecord, root: Path, bars: Bars) -> None:
    """Check that the data set that a net is scored on is there, and draw its images first if they can be drawn.

    Raises:
        DataError: If it is missing.
    """
    try:
        pipeline.open_complete_dataset(record, root, bars("drawing", unit="image"))
    except DataError as error:
        remedy = f"{error.remedy} The tables `--only shape time` need no data.".strip()
        raise DataError(error.problem, path=error.place, remedy=remedy) from None


def score_fixed_net(args: argparse.Namespace, settings: Settings) -> LabelScores | None:
    """Score the net whose last layer alone learned; ``--fixed`` trains it first.

    Returns:
        Its scores; None if it was never trained.
    """
    recipe = table.FIXED.change(recipes.find_recipe(f"{args.set}-{table.FIXED.net}"), args.data)
    recipe = runs.rename(recipe, table.FIXED).with_solver(max_iter=args.iterations)
    job = Job(recipe, seed=None)
    if args.fixed:
        runs.train(runs.make_job(recipe, settings, init=[args.init] if args.init else []), settings)
    elif not job.weights_path(args.out).is_file():
        return None
    return LabelScores.from_scores("label", runs.score(job, settings), settings.open_dataset().classes)

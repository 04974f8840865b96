"""Train thin forms of nets on Mini-VOC at an equal budget, with several seeds, and compare them on one page.

    fcn compare                                  all nets, three seeds: an hour on two cores
    fcn compare --nets mini-fcn8s mini-unet      some of the nets
    fcn compare --seeds 1 --iterations 20 --classifier-iterations 20     a short trial

The nets are FCN-32s, -16s, -8s and -8s at-once on VGG16, FCN-GoogLeNet, FCN-8s and a feature pyramid (FPN) on
ResNet-50, U-Net, and Keras' FCN-8, each with fewer channels. Each net is given the same number of updates after its
classifier, and there is one classifier for each trunk and seed. The page states the numbers.

A line is printed when a training is done. The table, reports/compare/index.html and comparison.json have, for each net,
its mean IU with each seed, parameters, products and time for an image, and receptive field. The same command resumes a
run that was stopped: what is trained and scored in --out is not done again.

--record also writes the scores to weights/results/comparison.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from reproduction.caffe import devices, locks
from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.caffe.formats import files
from reproduction.commands.bars import Bars
from reproduction.commands.parsers import make_parser
from reproduction.commands.start import versions
from reproduction.commands.terminal import say
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import forward_time, mini_family, mini_nets, net_files, registry
from reproduction.fcn.nets.mini_family import Budget, ThinNet
from reproduction.fcn.train import comparison as trainings
from reproduction.fcn.train import jobs
from reproduction.report import comparison, comparison_page, ledger
from reproduction.report.comparison import ComparedNet, Comparison, SeedScores
from reproduction.report.gallery import Gallery
from reproduction.report.record import LabelScores

SIZE = (192, 224)  # height and width of the image that times and products are for: the middle of Mini-VOC's
ROUNDS = 15  # of time measurements


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, score and measure the nets, print the table and write the page."""
    args = make_parser("compare").parse_args(arguments)
    budget = Budget(args.iterations, args.classifier_iterations)
    thin_nets = choose_nets(budget, args.nets)
    with Bars() as bars:
        mini_voc.generate(args.data, progress=bars("drawing Mini-VOC", unit="image"))
    with locks.lock_folder(args.out, "another process is comparing here"):
        nets = train_nets(thin_nets, budget, args)
        nets = measure_times(nets, thin_nets)
        done = describe(nets, budget, args)
    folder = args.report / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "comparison.json", folder / "index.html"]
    files.write_text(paths[0], comparison.format_comparison(done))
    comparison_page.write_page(done, find_galleries(thin_nets, args), paths[1])
    say("", *comparison.format_rows(done).split("\n"), "", done.rule(), "", ", ".join(map(str, paths)))
    if args.record:
        say(f"recorded in {comparison.record_comparison(done, args.weights / ledger.FOLDER / comparison.FOLDER)}")


def choose_nets(budget: Budget, names: Sequence[str]) -> list[ThinNet]:
    """Return the nets to compare.

    Raises:
        ReproductionError: If there is no net of a name.
    """
    known = {thin.record.name: thin for thin in mini_family.list_thin_nets(budget)}
    for name in names:
        if name not in known:
            remedy = did_you_mean(name, known) or f"There are {', '.join(known)}."
            raise ReproductionError(f"there is no net {name!r} to compare", remedy=remedy)
    return [thin for name, thin in known.items() if not names or name in names]


def train_nets(thin_nets: Sequence[ThinNet], budget: Budget, args: argparse.Namespace) -> list[ComparedNet]:
    """Train and score the nets, and print a line when a training is done."""
    names = [thin.record.name for thin in thin_nets]
    list_jobs = partial(trainings.list_jobs, budget, args.seeds, names)
    total, start = len(jobs.collect_jobs(list_jobs())), time.monotonic()
    say(f"{total} trainings, {args.processes} at a time, in {args.out}")
    scores: dict[str, LabelScores] = {}
    for number, result in enumerate(jobs.run_jobs(list_jobs, args.out, args.data, args.processes), 1):
        text = "trained"
        if result.evaluation:
            found = result.evaluation
            (top,) = found.scores
            scores[result.key] = LabelScores.from_scores(top, found.scores[top], mini_voc.CLASSES, images=found.images)
            text = f"mean IU {100 * found.scores[top].mean_iu:.2f}"
        say(f"{number:>3}/{total}  {(time.monotonic() - start) / 60:5.1f} min  {result.key:<40} {text}")
    nets = []
    for thin in thin_nets:
        keys = {seed: trainings.job_key(thin, seed) for seed in args.seeds}
        runs = [SeedScores(seed, scores[key]) for seed, key in keys.items()]
        nets.append(replace(comparison.describe_thin_net(thin, SIZE), runs=runs))
    return nets


def measure_times(nets: Iterable[ComparedNet], thin_nets: Sequence[ThinNet]) -> list[ComparedNet]:
    """Return the nets with the time that each takes for an image."""
    built = {thin.record.name: net_files.build_deploy(thin.record) for thin in thin_nets}
    sizes = {thin.record.name: comparison.framed_size(thin, SIZE) for thin in thin_nets}
    seconds = forward_time.measure_in_turns(built, sizes, ROUNDS)
    return [replace(net, seconds=seconds[net.net]) for net in nets]


def describe(nets: Sequence[ComparedNet], budget: Budget, args: argparse.Namespace) -> Comparison:
    """Return the comparison of nets that are trained and measured."""
    return Comparison(
        set=mini_voc.SPEC.name,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        iterations=budget.iterations,
        classifier_iterations=budget.classifier_iterations,
        classifier_batch=mini_nets.BATCH["train"],
        images=mini_voc.VAL,
        size=SIZE,
        seeds=args.seeds,
        device=devices.describe_device(devices.select_device("cpu")),
        versions=versions(),
        nets=nets,
    )


def find_galleries(thin_nets: Sequence[ThinNet], args: argparse.Namespace) -> dict[str, Gallery]:
    """Return the label maps that the nets of the first seed predicted, by net name."""
    dataset = registry.open_test_split(mini_voc.NETS[0], args.data)
    keys = {thin.record.name: trainings.job_key(thin, args.seeds[0]) for thin in thin_nets}
    return {name: Gallery(dataset, args.out / key / jobs.PREDICTIONS) for name, key in keys.items()}

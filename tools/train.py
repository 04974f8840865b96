#!/usr/bin/env python3
"""Train a net by its published recipe, or a chain of nets, each from the weights of the one before.

    tools/train.py --net voc-fcn32s --init weights/VGG_ILSVRC_16_layers.caffemodel
    tools/train.py --stages voc-fcn32s,voc-fcn16s,voc-fcn8s --device cuda
    tools/train.py --net nyud-fcn32s-color-hha --init color.caffemodel hha.caffemodel
    tools/train.py --net voc-fcn32s --data photos --classes names.txt          your own images: see docs/own_data.md
    tools/train.py --solver mine/solver.prototxt --init some.caffemodel --data ~/data
    torchrun --nproc-per-node 2 tools/train.py --net voc-fcn-alexnet --device cuda

Without --init, the initial weights are those in --out, or else those in weights/, where tools/fetch.py stores the
published ones.

The images of Mini-VOC are drawn if they are missing.

Each net gets a folder in --out: snapshot/train_iter_N.caffemodel and .solverstate, which Caffe can read too, log.jsonl
with one line for each iteration, and NET.caffemodel at the end. index.html in --out shows the curves of all trainings;
tools/page.py writes it again. To resume a stopped run from its newest snapshot, run the same command again; the final
weights are those of an uninterrupted run, bit for bit. Ctrl-C writes a snapshot and stops, SIGHUP writes a
snapshot and continues.

The losses of the published nets are sums over pixels: 1e5 is usual, and learning rates of 1e-10 belong to it. A net
that has learned nothing has a loss of ln(classes) per pixel: 3.04 for VOC. On two cores an image takes a VGG16 net
about 8 seconds, so 100,000 images need a GPU; a snapshot of voc-fcn32s is 1.1 GB, and there are 25 of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NoReturn, Self

from common import ROOT, WEIGHTS, add_device, add_legacy_crop, add_max_pixels, positive, run

from tqdm import tqdm

from reproduction.caffe.errors import DataError, ReproductionError, WeightsError, printable
from reproduction.caffe.training.events import Step
from reproduction.caffe.training.parallel import join_processes
from reproduction.caffe.training.signals import Signals
from reproduction.caffe.typing import Progress
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.nets import registry
from reproduction.fcn.reproduce import sources
from reproduction.fcn.train import custom_nets, recipes, training
from reproduction.fcn.train.custom_nets import CustomData
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from reproduction.fcn.train.validation import Validation
from reproduction.report import training as report
from reproduction.report import training_history
from reproduction.report.reference import METRICS, TITLES

DATA = ROOT / "data"
PAGE_SECONDS = 30.0


def main() -> int:
    """Train the nets; return 130 if Ctrl-C stopped the training, else 0."""
    parser = _parser()
    args = parser.parse_args()
    if not (args.net or args.stages or args.solver):
        parser.error("say what to train: --net, --stages or --solver")
    if args.stages and args.solver:
        parser.error("--stages are several trainings, --solver is one")
    mine = own_data(args)
    chain = asked(args, mine)
    starts = recipes.assign_weights(chain, init(chain, args.init, args.out), args.out)
    plan = TrainingOptions(
        args.out, args.data, args.seed, args.limit, args.check or mine is not None, args.force, args.keep
    )
    with (
        join_processes(args.device) as ranks,
        Screen(quiet=args.quiet, silent=not ranks.is_first) as screen,
        Signals() as signals,
    ):
        if ranks.is_first:
            draw(chain, args.data, screen)
        for note in custom_nets.describe_changes(chain, mine) if mine else ():
            screen.say(note)
        ranks.all_reduce_max(0)  # a barrier: the other processes wait until the images are drawn
        page = Page(args.out, screen) if ranks.is_first else None
        watch = TrainingCallbacks(
            screen.say, screen.begin, screen.step, screen.images, partial(validated, screen, page), signals
        )
        for stage, start in zip(chain, starts, strict=True):
            describe = (
                partial(custom_nets.write_deploy_files, stage, mine, args.out, list(start.values()))
                if mine
                else lambda: None
            )
            trained = training.train(stage, start, plan, watch, ranks, describe)
            if trained is None:
                screen.say("stopped with a snapshot; the same command goes on from here.")
                break
            screen.say(f"{stage.name}: trained, {trained}")
            if mine:
                screen.say(f"{stage.name}: `tools/infer.py --net {trained.parent} PICTURE` segments with it")
        if page:
            page.write()
    return 0 if trained else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what to train").add_mutually_exclusive_group()
    what.add_argument("--net", help=f"one of {', '.join(recipes.NAMES)}")
    what.add_argument("--stages", metavar="NET,NET", type=_names, help="several, in this order")
    parser.add_argument("--solver", type=Path, metavar="FILE", help="a solver's prototxt, whose nets are trained")
    add_legacy_crop(parser)
    parser.add_argument(
        "--init", type=Path, nargs="+", default=[], metavar="FILE", help="weights to start from, one for each parent"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        metavar="DIR",
        help="the data root, or a folder of your own pictures; default: data/",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes of your own pictures")
    parser.add_argument(
        "--palette",
        type=Path,
        metavar="FILE|voc|indices",
        help="colours of your own painted labels, or their indices",
    )
    parser.add_argument(
        "--side",
        type=int,
        default=custom_nets.SIDE,
        metavar="N",
        help=f"shrink longer pictures of your own to N pixels, 0 for never; default: {custom_nets.SIDE}",
    )
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "runs", metavar="DIR", help="default: runs/")
    add_device(parser)
    parser.add_argument(
        "--iterations", type=_counts, metavar="N[,N]", help="updates, for all stages or each; default: as published"
    )
    parser.add_argument("--snapshot", type=positive, metavar="N", help="updates between snapshots")
    parser.add_argument(
        "--keep", type=positive, metavar="N", help="keep the newest N snapshots of each net only; default: all"
    )
    parser.add_argument("--validate", type=positive, metavar="N", help="updates between validations")
    parser.add_argument("--limit", type=positive, metavar="N", help="validate on the first N images only")
    parser.add_argument("--seed", type=int, metavar="N", help="of dropout and the order of the images; default: 1337")
    parser.add_argument("--check", action="store_true", help="look at every label first, not at a few")
    add_max_pixels(parser)
    parser.add_argument("--force", action="store_true", help="train even what cannot learn")
    parser.add_argument("-q", "--quiet", action="store_true", help="no lines of iterations, and no progress")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _counts(text: str) -> list[int]:
    return [positive(part.strip()) for part in text.split(",")]


def own_data(args: argparse.Namespace) -> CustomData | None:
    """Return the custom data in the folder of ``--data``; None for published data and for solvers.

    Raises:
        ReproductionError: If the folder does not exist or its content is invalid.
    """
    if args.solver:
        return None
    if args.classes or args.palette or custom_nets.is_custom_folder(args.data):
        return custom_nets.inspect_folder(args.data, args.classes, args.palette, args.side)
    drawn = any(recipes.find_recipe(name).dataset in sources.DRAWN for name in args.stages or [args.net])
    if not (drawn or args.data.is_dir() or args.data == DATA):
        raise DataError("there is no such folder", path=args.data)
    return None


def asked(args: argparse.Namespace, mine: CustomData | None = None) -> list[Recipe]:
    """Return the stages to train, with the options applied.

    Args:
        args: The options.
        mine: The custom data; None for published data.

    Raises:
        ReproductionError: If there is no such net or solver, or if the options contradict each other.
    """
    if args.solver:
        chain = [recipes.load_solver_recipe(args.solver, args.net, legacy_crop=args.legacy_crop)]
        if not args.net:  # any number of files, copied by layer name
            chain = [replace(chain[0], parents=tuple(str(path) for path in args.init))]
    else:
        names = args.stages or [args.net]
        chain = [custom_nets.adapt_recipe(name, mine) if mine else recipes.find_recipe(name) for name in names]
    counts = args.iterations or [stage.iterations for stage in chain]
    if len(counts) == 1:
        counts *= len(chain)
    if len(counts) != len(chain):
        raise ReproductionError("--iterations is one number, or one for each stage", got=len(counts), want=len(chain))
    return [
        replace(
            stage,
            iterations=count,
            snapshot=args.snapshot or stage.snapshot,
            validate=args.validate or stage.validate,
        )
        for stage, count in zip(chain, counts, strict=True)
    ]


def init(chain: Sequence[Recipe], given: Sequence[Path], out: Path) -> dict[str, Path]:
    """Return the initial weights of a chain, by the name of the net that they come from.

    They are the files of ``--init``, if there are any, else earlier results, else published ones.

    Raises:
        WeightsError: If ``--init`` names too few or too many files, or if weights are missing.
    """
    needed = recipes.find_external_parents(chain)
    if given and len(given) != len(needed):
        raise WeightsError(
            "these are not the weights that the training starts from",
            path="--init",
            got=", ".join(map(str, given)),
            want=" and ".join(f"those of {name}" for name in needed) or "none",
        )
    # A net for other classes cannot start from published scoring layers, whose shapes depend on the classes.
    mine = any(stage.row and not stage.dataset for stage in chain)
    find = trained_here if mine else known
    return dict(zip(needed, given or [find(name, out) for name in needed], strict=True))


def trained_here(name: str, out: Path) -> Path:
    """Return the weights that a training on custom data starts from.

    A net of the catalogue must have been trained in ``out``; a classifier may also be a published one.

    Raises:
        WeightsError: If they are missing.
    """
    place = recipes.final_model_path(name, out)
    if name not in registry.NETS:
        return known(name, out)
    if not place.is_file():
        remedy = f"Train it first by --net {name}, or in one go by --stages {name},NET."
        raise WeightsError(
            f"the training starts from {name} with your classes, which is not here", path=place, remedy=remedy
        )
    return place


def known(name: str, out: Path) -> Path:
    """Return the weights of a net: from the folder of results, else from the place of published ones.

    Raises:
        WeightsError: If they are missing.
    """
    entry = local_files.load_manifest().entries.get(name)
    places = [
        recipes.final_model_path(name, out),
        WEIGHTS / "mini" / f"{name}.caffemodel",
        *([WEIGHTS / entry.path] if entry else []),
    ]
    for place in places:
        if place.is_file():
            return place
    how = f"Fetch them by `tools/fetch.py {name}`" if entry else f"Train {name} first"
    raise WeightsError(
        f"the training starts from the weights of {name}, which are not here",
        path=places[-1] if entry else places[0],
        remedy=f"{how}, or name their file by --init.",
    )


def draw(chain: Sequence[Recipe], root: Path, screen: Screen) -> None:
    """Draw the images that the trainings need, if they can be drawn and are missing.

    Raises:
        ReproductionError: If they cannot be written.
    """
    for name in dict.fromkeys(stage.dataset for stage in chain if stage.dataset in sources.DRAWN):
        watch = sources.Callbacks(pictures=screen.count, note=screen.say)
        for _ in sources.DrawnSource(sources.DRAWN[name]).data(FileRoots(WEIGHTS, root), watch):
            pass


class Page:
    """The page of all trainings in a folder.

    Args:
        out: The folder.
        screen: Shows a message if the page could not be written; the training continues.
    """

    def __init__(self, out: Path, screen: Screen):
        self._out, self._screen = out, screen
        self._written = time.monotonic()

    def is_due(self) -> bool:
        """Return whether the last page is older than ``PAGE_SECONDS``; writing one takes seconds."""
        return time.monotonic() - self._written > PAGE_SECONDS

    def write(self) -> None:
        """Write the page from the logs."""
        try:
            report.dump(training_history.find_run_folders(self._out), self._out / "index.html")
        except (ReproductionError, OSError) as error:
            self._screen.say(f"no page of this training was written: {error}")
        self._written = time.monotonic()


def validated(screen: Screen, page: Page | None, found: Validation, classes: Mapping[str, Sequence[str]]) -> None:
    """Print the scores of a validation, and write the page if it is due."""
    if page and page.is_due():
        page.write()
    screen.validated(found, classes)


class Screen:
    """The output of a training: messages on standard output, and a progress bar on a terminal.

    Args:
        quiet: Whether to hide iterations and print only validations.
        silent: Whether to print nothing, as in all processes but the first.
    """

    def __init__(self, *, quiet: bool, silent: bool):
        self._quiet, self._silent = quiet or silent, silent
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def say(self, text: str) -> None:
        """Print one or more lines."""
        if not self._silent:
            tqdm.write("\n".join(map(printable, text.split("\n"))))
            sys.stdout.flush()

    def count(self, what: str) -> Progress:
        """Return the function that moves a bar of images; the bar appears at the first move."""

        def move(done: int, total: int | None) -> None:
            if self._bar is None:
                self._start_bar(what, total or 0, 0, "picture")
            if self._bar is not None:
                self._bar.update(done - self._bar.n)

        return move

    def begin(self, stage: Recipe, iteration: int) -> None:
        """Print what is trained, and start the clock."""
        self._stage = stage
        self._recent = deque[tuple[Step, float]](maxlen=max(stage.solver.average_loss, 1))
        said = [f"{stage.name}: {stage.iterations} iterations"]
        said += [f"going on from {iteration}"] if iteration else []
        said += [
            f"a {what} every {n}" for what, n in (("snapshot", stage.snapshot), ("validation", stage.validate)) if n
        ]
        self.say(", ".join(said))
        self._start_bar(stage.name, stage.iterations, iteration, "it")
        self._clock = time.monotonic()

    def step(self, step: Step) -> None:
        """Move the bar by an update; print a line every ``display`` iterations, and the norms if the step has them."""
        now = time.monotonic()
        self._recent.append((step, now - self._clock))
        self._clock = now
        if self._bar is not None:
            self._bar.update()
        display = self._stage.solver.display
        if display and step.iteration % display == 0 and not self._quiet:
            self.say(self._line(step))
        if step.norms:
            weights, gradients = zip(step.norms.l1, step.norms.l2, strict=True)
            for what, (l1, l2) in (("weights", weights), ("gradients", gradients)):
                self.say(f"  all {what}: L1 norm {l1:.6g}, L2 norm {l2:.6g}")

    def _line(self, step: Step) -> str:
        """Return the line of an update, with means over the last ``average_loss`` updates."""
        steps, seconds = zip(*self._recent, strict=True)
        pixels = [each.loss_per_pixel for each in steps if each.loss_per_pixel is not None]
        left = round((self._stage.iterations - step.iteration - 1) * fmean(seconds))
        parts = [
            f"iteration {step.iteration}",
            f"loss {fmean(each.loss for each in steps):.6g}" + (f" ({fmean(pixels):.4f} a pixel)" if pixels else ""),
            f"lr {step.lr:g}",
            f"{len(step.images) / fmean(seconds):.2f} images/s",
            f"{timedelta(seconds=left)} left",
        ]
        return ", ".join(parts)

    def images(self, done: int, total: int, seconds: float) -> None:
        """Move the bar of a validation."""
        if done == 0 or self._bar is None:
            self._start_bar("validation", total, done, "image")
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def validated(self, found: Validation, classes: Mapping[str, Sequence[str]]) -> None:
        """Print the outputs and scores of a validation."""
        self._start_bar(self._stage.name, self._stage.iterations, found.iteration, "it")
        self._clock = time.monotonic()
        head = f"{self._stage.name} after {found.iteration} iterations, {found.images} images"
        if found.outputs:
            self.say(head + ": " + ", ".join(f"{name} {value:.4f}" for name, value in found.outputs.items()))
        for top, scores in found.scores.items():
            titles = "  ".join(f"{TITLES[metric]:>10}" for metric in METRICS)
            values = "  ".join(f"{100 * getattr(scores, metric):10.2f}" for metric in METRICS)
            self.say("\n".join([head + (f", {top}" if len(found.scores) > 1 else ""), titles, values]))

    def _start_bar(self, what: str, total: int, done: int, unit: str) -> None:
        self._close()
        if not self._quiet:
            self._bar = tqdm(desc=what, total=total, initial=done, unit=unit, leave=False, disable=None)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


if __name__ == "__main__":
    run(main)

"""Train a net by its published recipe, or several nets, each from the weights of the one before.

    fcn train --net voc-fcn32s --init weights/VGG_ILSVRC_16_layers.caffemodel
    fcn train --stages voc-fcn32s,voc-fcn16s,voc-fcn8s --device cuda
    fcn train --net nyud-fcn32s-color-hha --init color.caffemodel hha.caffemodel
    fcn train --net voc-fcn32s --data photos --classes names.txt          your own images: see docs/own_data.md
    fcn train --net voc-fcn32s --data photos --validate-every 500         and keep the best weights
    fcn train --solver mine/solver.prototxt --init some.caffemodel --data ~/data
    torchrun --nproc-per-node 2 -m reproduction train --net voc-fcn-alexnet --device cuda

Without --init, the initial weights are those in --out, or else those in weights/, where fcn fetch stores the
published ones. The images of Mini-VOC are drawn if they are missing.

Each net gets a folder in --out: snapshot/train_iter_N.caffemodel and .solverstate, which Caffe can load too, log.jsonl
with one line for each iteration, and NET.caffemodel at the end. With --validate-every, NET-best.caffemodel has the
weights of the highest mean IU of all validations; fcn infer and evaluate use it. index.html in --out shows the curves
of all trainings, and reloads itself while one runs; fcn page writes it again. To resume a stopped run from its newest
snapshot, run the same command again; the final weights are those of an uninterrupted run, bit for bit. Ctrl-C writes a
snapshot and stops, SIGHUP writes a snapshot and continues.

The losses of the published nets are sums over pixels: 1e5 is usual, and learning rates of 1e-10 belong to it. An
untrained net has a loss of ln(classes) per pixel: 3.04 for VOC. On two cores, a VGG16 net takes about 8 seconds per
image, so 100,000 images need a GPU; a snapshot of voc-fcn32s is 1.1 GB, and there are 25 of them.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from reproduction.caffe.training.parallel import Ranks, join_processes
from reproduction.caffe.training.signals import Signals
from reproduction.commands.bars import Bars, say_above
from reproduction.commands.parsers import make_parser
from reproduction.fcn import folders
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.reproduce import sources
from reproduction.fcn.train import ablations, best_weights, custom_nets, initial_weights, recipes, training
from reproduction.fcn.train.augmentation import Augmentation
from reproduction.fcn.train.custom_nets import CustomData
from reproduction.fcn.train.progress import TrainingProgress
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions
from reproduction.report.tensorboard import TensorBoardWriter
from reproduction.report.training import LivePage

CALLBACKS = ("begin", "step", "images", "validated", "predicted")  # those of ``TrainingCallbacks`` for listeners


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the nets; return 130 if Ctrl-C stopped the training, else 0."""
    parser = make_parser("train")
    args = parser.parse_args(arguments)
    if not (args.net or args.stages or args.solver):
        parser.error("choose what to train: --net, --stages or --solver")
    if args.stages and args.solver:
        parser.error("--stages are several trainings, --solver is one")
    if args.scratch and (args.init or not args.net or args.solver):
        parser.error("--scratch needs --net, and excludes --init and --solver")
    augmentation = Augmentation.from_names(args.augment) if args.augment else None
    custom = None
    if not args.solver:
        names, is_default = args.stages or [args.net], args.data == folders.find_data_root()
        custom = custom_nets.find_custom_data(
            args.data, args.classes, args.palette, args.side, names, may_be_missing=is_default
        )
    changes = (augmentation,) if augmentation else ()
    stages = [replace(stage, changes=changes) for stage in find_stages(args, custom)]
    weights = initial_weights.find_weights(stages, args.init, args.out, custom=custom is not None)
    options = TrainingOptions(
        args.out, args.data, args.seed, args.limit, args.check or custom is not None, args.force, args.keep,
        keep_best=args.validate_every is not None,
    )  # fmt: skip
    with join_processes(args.device) as ranks, Bars() as bars, Signals() as signals, contextlib.ExitStack() as stack:
        say = say_above if ranks.is_first else lambda text: None
        progress = TrainingProgress(say, bars, quiet=args.quiet or not ranks.is_first)
        listeners: list[Any] = [progress]
        if ranks.is_first:
            callbacks = sources.Callbacks(pictures=lambda what: bars(what, "image"), note=say)
            roots = FileRoots(folders.find_weights_folder(), args.data)
            sources.draw_missing([stage.dataset for stage in stages], roots, callbacks)
            if args.tensorboard:
                listeners.append(stack.enter_context(contextlib.closing(TensorBoardWriter(args.out))))
            listeners.append(stack.enter_context(LivePage(args.out, say)))
        notes = custom_nets.describe_changes(stages, custom) if custom else []
        for note in [*notes, *([f"training images are augmented: {augmentation}"] if augmentation else [])]:
            say(note)
        ranks.all_reduce_max(0)  # a barrier: the other processes wait until the images are drawn
        stages = [change_loss(stage, args) for stage in stages]
        calls: dict[str, Any] = {name: _call_all(listeners, name) for name in CALLBACKS}
        watch = TrainingCallbacks(note=say, action=signals, **calls)
        return _train_stages(stages, weights, options, watch, ranks, custom)


def _call_all(listeners: Sequence[object], name: str) -> Callable[..., None] | None:
    """Return a function that calls the method of a name of all objects that have it; None if none has."""
    methods = [getattr(each, name) for each in listeners if hasattr(each, name)]

    def call(*arguments: Any) -> None:
        for method in methods:
            method(*arguments)

    return call if methods else None


def _train_stages(
    stages: Sequence[Recipe],
    weights: Sequence[Mapping[str, Path]],
    options: TrainingOptions,
    watch: TrainingCallbacks,
    ranks: Ranks,
    custom: CustomData | None,
) -> int:
    """Train the nets one after the other; return the exit code."""
    for stage, files in zip(stages, weights, strict=True):
        parents = tuple(files.values())
        prepare = partial(custom_nets.write_deploy_files, stage, custom, options.out, parents) if custom else None
        model = training.train(stage, files, options, watch, ranks, prepare)
        if model is None:
            watch.note("stopped after a snapshot; run the same command again to resume.")
            return 130
        watch.note(f"{stage.name}: trained, {model}")
        if (best := best_weights.best_path(model.parent)).is_file():
            watch.note(f"{stage.name}: the weights of the highest mean IU are in {best}")
        if custom:
            watch.note(f"{stage.name}: segment images with `fcn infer --net {model.parent} IMAGE`")
    return 0


def find_stages(args: argparse.Namespace, custom: CustomData | None) -> list[Recipe]:
    """Return the recipes of the stages to train, with the options applied."""
    if args.solver:
        stage = recipes.load_solver_recipe(args.solver, args.net, legacy_crop=args.legacy_crop)
        # Without a net's name, any number of files is copied by layer name.
        stages = [stage if args.net else replace(stage, parents=tuple(str(path) for path in args.init))]
    else:
        stages = custom_nets.find_recipes(args.stages or [args.net], custom)
        stages = [recipes.start_from_fillers(stage) for stage in stages] if args.scratch else stages
    return recipes.change_recipes(stages, args.iterations, args.snapshot, args.validate_every or args.validate)


def change_loss(stage: Recipe, args: argparse.Namespace) -> Recipe:
    """Return a recipe with the options that change what its losses count: ``--patches`` and ``--balance``.

    Raises:
        ReproductionError: If the net classifies whole images, or the labels cannot be read.
    """
    if args.patches is not None:
        stage = ablations.sample_patches(stage, args.patches)
    return ablations.balance_classes(stage, args.data) if args.balance else stage

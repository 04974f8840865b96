"""One stage of a training, from its start or its newest snapshot to its end.

A stage writes to a folder of its name: its prototxts, ``log.jsonl``, ``snapshot/train_iter_N`` and, at the end,
``NAME.caffemodel``. When it is run again, it resumes from the newest snapshot; the final weights are bit for bit those
of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from reproduction.caffe import devices
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase, SolverParameter
from reproduction.caffe.training.events import LossError, Saved, Step
from reproduction.caffe.training.parallel import Ranks
from reproduction.caffe.training.signals import Action
from reproduction.caffe.training.solver import Solver
from reproduction.fcn.datasets.base import SEED
from reproduction.fcn.nets import surgery
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.train import feeds, log_file, preflight, recipes, run_folder
from reproduction.fcn.train.feeds import DatasetFeed, Feed, ListFeed
from reproduction.fcn.train.log_file import TrainingLog
from reproduction.fcn.train.losses import Meter, find_losses
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.run_folder import Snapshot
from reproduction.fcn.train.validation import Validation, Validator

_PACKAGES = ("torch", "numpy", "pillow", "scipy")


@dataclass(frozen=True)
class TrainingOptions:
    """The paths and options of a training.

    Attributes:
        out: the folder that contains each stage's folder.
        data: the data root.
        seed: the seed of fillers, dropout and the order of the images; None selects the solver's seed and the published
            order.
        limit: the number of images to validate on, from the start of the split; None for all.
        every: check every training image and label before the start, not only a few.
        force: train even if ``preflight`` finds errors, which are then only reported.
        keep: the number of snapshots of a stage to keep; older ones are deleted. None keeps all.
    """

    out: Path
    data: Path
    seed: int | None = None
    limit: int | None = None
    every: bool = False
    force: bool = False
    keep: int | None = None


@dataclass(frozen=True)
class TrainingCallbacks:
    """Callbacks that report the progress of a training.

    Attributes:
        note: called with a message.
        begin: called with the stage and the iteration that it starts or resumes at.
        step: called after each update.
        images: called during validations with images done, images in all, and seconds since the start.
        validated: called with each validation and the class names by label top.
        action: called after each update, and in a single process after each validated image; returns whether to
            continue, write a snapshot or stop, see ``caffe.training.signals``.
    """

    note: Callable[[str], object] = lambda _: None
    begin: Callable[[Recipe, int], object] = lambda stage, iteration: None
    step: Callable[[Step], object] = lambda _: None
    images: evaluate.TimedProgress | None = None
    validated: Callable[[Validation, Mapping[str, Sequence[str]]], object] = lambda found, classes: None
    action: Callable[[], Action] = lambda: Action.NONE


def train(
    stage: Recipe,
    starts: Mapping[str, Path],
    plan: TrainingOptions,
    watch: TrainingCallbacks | None = None,
    ranks: Ranks | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> Path | None:
    """Train a net, or resume an earlier call that was stopped.

    Args:
        stage: the training.
        starts: the initial weights files, by the names of ``stage.parents``.
        plan: the paths and options.
        watch: the callbacks that report progress and request a stop.
        ranks: the device, and the processes that train together. Each process calls this function with the same
            arguments; only the first one writes files.
        prepare: called in the first process once it has locked the folder, to write further files there.

    Returns:
        The path of the final caffemodel, or None if the training was stopped.

    Raises:
        DataError: If data are missing or invalid, the folder contains another run, or another process trains there.
        WeightsError: If the initial weights are missing or of another net.
        ReproductionError: If ``max_iter`` is not set, a check of ``preflight`` fails, or the loss is no longer finite;
            the snapshots are kept.
    """
    watch, ranks = watch or TrainingCallbacks(), ranks or Ranks()
    if stage.iterations < 1:
        remedy = "Say in the solver how many updates to make, or ask for --iterations."
        raise ReproductionError("max_iter is not set", place=stage.name, remedy=remedy)
    folder = plan.out / stage.name
    feed = feeds.open_feed(stage.train, plan.data, Phase.TRAIN, plan.seed)
    settings = run_folder.collect_settings(stage, starts, _seed(stage, plan), feed)
    with run_folder.lock(folder) if ranks.is_first else contextlib.nullcontext():
        newest = run_folder.find_newest_snapshot(folder)
        if newest:
            run_folder.check_settings(folder, settings, newest, stage.iterations)
        if ranks.is_first:
            prepare()
        return _train(stage, starts, plan, watch, ranks, feed, settings, newest)


def _train(
    stage: Recipe,
    starts: Mapping[str, Path],
    plan: TrainingOptions,
    watch: TrainingCallbacks,
    ranks: Ranks,
    feed: Feed,
    settings: Mapping[str, object],
    newest: Snapshot | None,
) -> Path | None:
    """Train in a folder that is locked."""
    folder, finished = plan.out / stage.name, recipes.final_model_path(stage.name, plan.out)
    if newest and newest.iteration == stage.iterations and finished.is_file():
        watch.note(f"{stage.name}: all {stage.iterations} iterations are made already")
        return finished
    Path(run_folder.snapshot_prefix(folder)).parent.mkdir(parents=True, exist_ok=True)
    run = _build(stage, plan, folder, feed, watch, ranks)
    log = _resume(run, newest) if newest else _start(run, starts, settings)
    with contextlib.closing(log):
        if ranks.is_first and run.solver.iter < stage.iterations:
            finished.unlink(missing_ok=True)  # it has fewer iterations
        whole = _learn(run, log)
    if whole and ranks.is_first:
        caffemodel.dump(run.net.to_proto(), finished)
    ranks.all_reduce_max(0)  # a barrier: the other processes wait until the file is written
    return finished if whole else None


@dataclass(frozen=True)
class _Run:
    """The objects of a running stage."""

    stage: Recipe
    plan: TrainingOptions
    folder: Path
    feed: Feed
    solver: Solver
    meter: Meter
    validator: Validator | None
    watch: TrainingCallbacks

    @property
    def net(self) -> Net:
        return self.solver.net

    @property
    def ranks(self) -> Ranks:
        return self.solver.ranks


def _build(
    stage: Recipe, plan: TrainingOptions, folder: Path, feed: Feed, watch: TrainingCallbacks, ranks: Ranks
) -> _Run:
    param, state = _param(stage, plan, folder), stage.train.state
    devices.select_device(ranks.device)
    torch.backends.cudnn.deterministic = True  # else a resumed run differs in its last bits
    net = Net(
        stage.train,
        Phase.TRAIN,
        level=state.level,
        stages=state.stage,
        inputs=feed.shapes,
        seed=param.random_seed,
    ).to(ranks.device)
    meter = Meter(net, feed)
    validator = None
    if stage.test:
        batches = stage.solver.test_iter[0] if stage.solver.test_iter else 1
        validator = Validator(stage.test, net, plan.data, batches=batches, limit=plan.limit, ranks=ranks)
    solver = Solver(param, net, meter, ranks=ranks)
    solver.action = watch.action
    for note in solver.notes:
        watch.note(note)
    return _Run(stage, plan, folder, feed, solver, meter, validator, watch)


def _param(stage: Recipe, plan: TrainingOptions, folder: Path) -> SolverParameter:
    """Return the solver's settings with the stage's iterations, snapshots and seed, and without tests."""
    param = stage.solver.copy()
    param.max_iter = stage.iterations
    param.snapshot, param.snapshot_prefix = stage.snapshot, run_folder.snapshot_prefix(folder)
    param.random_seed = _seed(stage, plan)
    param.test_interval = 0  # a Validator replaces Caffe's test nets
    return param


def _seed(stage: Recipe, plan: TrainingOptions) -> int:
    own = stage.solver.random_seed if stage.solver.random_seed >= 0 else SEED
    return own if plan.seed is None else plan.seed


def _start(run: _Run, starts: Mapping[str, Path], settings: Mapping[str, object]) -> TrainingLog:
    """Initialize the weights, check that the net can learn, and start the log."""
    stage, net = run.stage, run.net
    parents = {name: weights.read(path).net for name, path in starts.items()}
    if stage.row:
        report = str(surgery.initialize(net, stage.row, parents))
    else:
        report = "\n".join(f"{name}: {net.copy_from(parent, starts[name])}" for name, parent in parents.items())
    if report:
        run.watch.note("\n  ".join([f"{stage.name} starts from", *report.splitlines()]))
    fresh = surgery.find_new_layers(stage.row) if stage.row else None
    _check(run, [*preflight.check_weights(net, fresh), *_problems(run)])
    if run.ranks.is_first:
        prototxt.dump(run.solver.param, run.folder / "solver.prototxt")
        prototxt.dump(stage.train, run.folder / "train.prototxt")
    log = TrainingLog(run.folder / "log.jsonl" if run.ranks.is_first else None)
    log.write(log_file.START, 0, **_about(run), settings=settings, initialised=report)
    run.watch.begin(stage, 0)
    return log


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _about(run: _Run) -> dict[str, object]:
    """Return the fields of a start or resume record: device, versions, solver and class names."""
    return {
        "stage": run.stage.name,
        "time": _now(),
        "device": str(run.ranks.device),
        "processes": run.ranks.size,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        "solver": prototxt.dumps(run.solver.param),
        "classes": {top: list(names) for top, names in (run.validator.classes if run.validator else {}).items()},
    }


def _resume(run: _Run, newest: Snapshot) -> TrainingLog:
    """Restore a snapshot and reopen the log at its iteration."""
    try:
        run.solver.restore(newest.state)
    except ReproductionError as error:
        error.remedy = f"{error.remedy} Delete it to go on from the snapshot before.".strip()
        raise error.at(run.stage.name) from None
    _check(run, _problems(run))
    log = TrainingLog(run.folder / "log.jsonl" if run.ranks.is_first else None, run.solver.iter)
    log.write(log_file.RESUME, run.solver.iter, **_about(run))
    run.watch.begin(run.stage, run.solver.iter)
    return log


def _problems(run: _Run) -> list[ReproductionError]:
    found = find_losses(run.net)
    problems = preflight.check_learning_rate(found, run.solver.param)
    if isinstance(run.feed, ListFeed):
        return [*problems, *(error for loss in found for error in preflight.check_image_list(run.feed.list, loss))]
    assert isinstance(run.feed, DatasetFeed)
    if run.plan.every:
        run.watch.note(f"{run.stage.name}: looking at all {len(run.feed.dataset)} pictures and labels")
    problems += preflight.check_dataset(run.feed.dataset, found, every=run.plan.every)
    if run.validator and run.validator.dataset:
        problems += preflight.check_dataset(run.validator.dataset, found)
        problems += preflight.check_overlap(run.feed.dataset, run.validator.dataset)
    return problems


def _check(run: _Run, problems: list[ReproductionError]) -> None:
    for problem in problems:
        if not run.plan.force:
            raise problem.at(run.stage.name)
        run.watch.note(f"forced in spite of this: {problem}")


def _learn(run: _Run, log: TrainingLog) -> bool:
    """Run the remaining updates, snapshots and validations; return False if a stop was requested."""
    stage, solver = run.stage, run.solver
    saved = solver.iter
    try:
        # Only the first process has a log: if it lacks this validation, all processes validate.
        if solver.iter and _is_due(stage.validate, solver.iter, stage) and run.ranks.all_reduce_max(not log.validated):
            _validate(run, log)
        while solver.iter < stage.iterations:
            every = stage.validate or stage.iterations
            stop = min(stage.iterations, solver.iter - solver.iter % every + every)
            for event in solver.run(stop - solver.iter):
                if isinstance(event, Step):
                    _count(run, log, event)
                elif isinstance(event, Saved):
                    saved = event.iteration
                    _forget(run)
            if solver.stopped:
                raise _StopTraining
            if stop == stage.iterations != saved:
                saved = _save(run, log)
            _validate(run, log)
    except _StopTraining:
        if saved != solver.iter:
            _save(run, log)
        return False
    except LossError as error:
        raise _broken(run, error) from None
    return True


def _save(run: _Run, log: TrainingLog) -> int:
    """Write a snapshot and return its iteration."""
    log.sync()
    run.solver.snapshot()
    _forget(run)
    return run.solver.iter


def _forget(run: _Run) -> None:
    """Delete the snapshots beyond ``plan.keep``, once a newer one is on disk."""
    if run.plan.keep and run.ranks.is_first:
        run_folder.delete_old_snapshots(run.folder, run.plan.keep)


class _StopTraining(Exception):  # noqa: N818 - a request, not an error
    """Raised when ``TrainingCallbacks.action`` requests a stop."""


def _is_due(every: int, iteration: int, stage: Recipe) -> bool:
    return iteration == stage.iterations or bool(every and iteration % every == 0)


def _count(run: _Run, log: TrainingLog, event: Step) -> None:
    """Log an update and report it to the callbacks."""
    size = run.solver.param.iter_size
    pixels = run.ranks.gather(run.meter.pixels, size)
    run.meter.reset()
    loss, per_pixel = run.meter.read(run.solver.sample_losses, pixels)
    draws = range(event.iteration * size, (event.iteration + 1) * size)
    images = [image for draw in draws for image in run.feed.images(draw)]
    lr = float(f"{event.lr:.7g}")  # the digits that float32 holds
    step = replace(event, loss=loss, lr=lr, loss_per_pixel=per_pixel, images=images, outputs={})
    log.write(log_file.ITERATION, step.iteration, loss=loss, loss_per_pixel=per_pixel, lr=lr, images=images)
    if _is_due(run.stage.snapshot, run.solver.iter, run.stage):
        log.sync()
    run.watch.step(step)


def _broken(run: _Run, error: LossError) -> ReproductionError:
    """Add to the error of a loss that is not finite the images of the draw and the last good snapshot."""
    newest = run_folder.find_newest_snapshot(run.folder)
    kept = f"The last good weights are {newest.model}." if newest else "No snapshot was made yet."
    if error.draw is not None:
        images = run.feed.images(error.draw)
        error.place += f", image {images[0]}" if len(images) == 1 else f", images {images[0]} to {images[-1]}"
    error.remedy = f"{error.remedy} {kept}"
    return error.at(run.stage.name)


def _validate(run: _Run, log: TrainingLog) -> None:
    if not run.validator:
        return

    def progress(done: int, total: int, seconds: float) -> None:
        # One of several processes that stopped here would leave the others waiting; they act at the next update.
        action = run.watch.action() if run.ranks.size == 1 else Action.NONE
        if action is Action.SNAPSHOT:
            run.solver.snapshot()
        if action is Action.STOP:
            raise _StopTraining
        if run.watch.images:
            run.watch.images(done, total, seconds)

    try:
        found = run.validator(run.solver.iter, progress)
    except ReproductionError as error:
        raise error.at(run.stage.name) from None
    log.write(log_file.VALIDATION, found.iteration, time=_now(), **found.record())
    run.watch.validated(found, run.validator.classes)
    for note in preflight.describe_collapse(found.scores, run.validator.classes, found.iteration):
        run.watch.note(note)

"""One stage of a training, from its start or its newest snapshot to its end.

A stage writes to a folder of its name: its prototxts, ``log.jsonl``, ``snapshot/train_iter_N`` and, at the end,
``NAME.caffemodel``. Run again, it goes on from the newest snapshot, to weights that are bit for bit those of a run
that was never stopped.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from reproduction.caffe import devices
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt, weights
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase, SolverParameter
from reproduction.caffe.training.apply_update import Norms
from reproduction.caffe.training.events import LossError, Saved, Stepped
from reproduction.caffe.training.parallel import Ranks
from reproduction.caffe.training.signals import Action
from reproduction.caffe.training.solver import Solver
from reproduction.fcn.nets import published_nets, surgery
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.train import feeds, log_file, preflight, recipes, run_folder
from reproduction.fcn.train.feeds import DatasetFeed, Feed, ListFeed
from reproduction.fcn.train.log_file import Log
from reproduction.fcn.train.losses import Meter, losses
from reproduction.fcn.train.recipes import Stage
from reproduction.fcn.train.run_folder import Snapshot
from reproduction.fcn.train.validation import Validation, Validator

_PACKAGES = ("torch", "numpy", "pillow", "scipy")


@dataclass(frozen=True)
class Plan:
    """Where a training finds things, and what it is asked besides its stage.

    Attributes:
        out: the folder that each stage's folder is made in.
        data: the data root.
        seed: of fillers, dropout and the order of the images; None is the solver's own, and the published order.
        limit: validate on the first so many images only.
        every: look at every label before the start, not at a few.
        force: go on in spite of what ``preflight`` finds.
        keep: how many snapshots of a stage are kept, the newest; None is all.
    """

    out: Path
    data: Path
    seed: int | None = None
    limit: int | None = None
    every: bool = False
    force: bool = False
    keep: int | None = None


@dataclass(frozen=True)
class Step:
    """One update.

    Attributes:
        iteration: the updates made before.
        loss: before it, as it is when pixels add up; the net's own for labels that are not of pixels.
        per_pixel: the same as a mean over the pixels; None where there are none.
        lr: its learning rate.
        images: that it learnt from.
        norms: of the gradients, where the solver's ``debug_info`` asks for them.
    """

    iteration: int
    loss: float
    per_pixel: float | None
    lr: float
    images: list[str]
    norms: Norms | None = None


@dataclass(frozen=True)
class Watch:
    """Who is told how far things are.

    Attributes:
        note: called with a sentence.
        begin: called with the stage and the iteration that it goes on from.
        step: called after each update.
        images: as the progress of ``evaluate.evaluate``, while the net is validated.
        validated: called with what was found, and the names of the classes by label top.
        action: asked after each update, and each image of a validation, what to do: see ``caffe.signals``.
    """

    note: Callable[[str], object] = lambda _: None
    begin: Callable[[Stage, int], object] = lambda stage, iteration: None
    step: Callable[[Step], object] = lambda _: None
    images: evaluate.Progress | None = None
    validated: Callable[[Validation, Mapping[str, Sequence[str]]], object] = lambda found, classes: None
    action: Callable[[], Action] = lambda: Action.NONE


def train(
    stage: Stage,
    starts: Mapping[str, Path],
    plan: Plan,
    watch: Watch | None = None,
    ranks: Ranks | None = None,
    prepare: Callable[[], object] = lambda: None,
) -> Path | None:
    """Train a net, or go on where an earlier call was stopped.

    Args:
        stage: what to train, and how.
        starts: the files of weights that it starts from, by the names of ``stage.parents``.
        plan: where, and with what.
        watch: is told how far it is, and says when to stop.
        ranks: where it runs, and the processes that train together, each called with the same arguments; the first
            one writes.
        prepare: called by the first one when the folder is its own, to write more files there.

    Returns:
        The caffemodel; None when it was stopped.

    Raises:
        DataError: data are missing or wrong, or the folder holds another run, or another process trains there.
        WeightsError: the weights to start from are missing or of another net.
        ReproductionError: the training cannot learn, or its loss is no number any more; the snapshots stay.
    """
    watch, ranks = watch or Watch(), ranks or Ranks()
    if stage.iterations < 1:
        remedy = "Say in the solver how many updates to make, or ask for --iterations."
        raise ReproductionError("max_iter is not set", place=stage.name, remedy=remedy)
    folder = plan.out / stage.name
    feed = feeds.open(stage.train, plan.data, Phase.TRAIN, plan.seed)
    settings = run_folder.settings(stage, starts, _seed(stage, plan), feed)
    with run_folder.alone(folder) if ranks.is_first else contextlib.nullcontext():
        newest = run_folder.newest(folder)
        if newest:
            run_folder.check_same(folder, settings, newest, stage.iterations)
        if ranks.is_first:
            prepare()
        return _train(stage, starts, plan, watch, ranks, feed, settings, newest)


def _train(
    stage: Stage,
    starts: Mapping[str, Path],
    plan: Plan,
    watch: Watch,
    ranks: Ranks,
    feed: Feed,
    settings: Mapping[str, object],
    newest: Snapshot | None,
) -> Path | None:
    """Train in a folder that no other process writes to."""
    folder, finished = plan.out / stage.name, recipes.result(stage.name, plan.out)
    if newest and newest.iteration == stage.iterations and finished.is_file():
        watch.note(f"{stage.name}: all {stage.iterations} iterations are made already")
        return finished
    Path(run_folder.prefix(folder)).parent.mkdir(parents=True, exist_ok=True)
    run = _build(stage, plan, folder, feed, watch, ranks)
    log = _resume(run, newest) if newest else _start(run, starts, settings)
    with contextlib.closing(log):
        if ranks.is_first and run.solver.iter < stage.iterations:
            finished.unlink(missing_ok=True)  # of fewer iterations
        whole = _learn(run, log)
    if whole and ranks.is_first:
        caffemodel.dump(run.net.to_proto(), finished)
    ranks.greatest(0)  # the others wait for the file
    return finished if whole else None


@dataclass(frozen=True)
class _Run:
    """A stage that is under way."""

    stage: Stage
    plan: Plan
    folder: Path
    feed: Feed
    solver: Solver
    meter: Meter
    validator: Validator | None
    watch: Watch

    @property
    def net(self) -> Net:
        return self.solver.net

    @property
    def ranks(self) -> Ranks:
        return self.solver.ranks


def _build(stage: Stage, plan: Plan, folder: Path, feed: Feed, watch: Watch, ranks: Ranks) -> _Run:
    param, state = _param(stage, plan, folder), stage.train.state
    devices.use(ranks.device)
    torch.backends.cudnn.deterministic = True  # else a run that goes on is not, to the bit, one that never stopped
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


def _param(stage: Stage, plan: Plan, folder: Path) -> SolverParameter:
    """Complete a solver's settings by what is not its own business."""
    param = stage.solver.copy()
    param.max_iter = stage.iterations
    param.snapshot, param.snapshot_prefix = stage.snapshot, run_folder.prefix(folder)
    param.random_seed = _seed(stage, plan)
    param.test_interval = 0  # what Caffe would do with the test nets is done here by a Validator
    return param


def _seed(stage: Stage, plan: Plan) -> int:
    own = stage.solver.random_seed if stage.solver.random_seed >= 0 else published_nets.SEED
    return own if plan.seed is None else plan.seed


def _start(run: _Run, starts: Mapping[str, Path], settings: Mapping[str, object]) -> Log:
    """Give the net its first weights, and see that it can learn."""
    stage, net = run.stage, run.net
    parents = {name: weights.read(path).net for name, path in starts.items()}
    if stage.row:
        report = str(surgery.initialise(net, stage.row, parents))
    else:
        report = "\n".join(f"{name}: {net.copy_from(parent, starts[name])}" for name, parent in parents.items())
    if report:
        run.watch.note("\n  ".join([f"{stage.name} starts from", *report.splitlines()]))
    fresh = surgery.learned_from_nothing(stage.row) if stage.row else None
    _check(run, [*preflight.weights(net, fresh), *_problems(run)])
    if run.ranks.is_first:
        prototxt.dump(run.solver.param, run.folder / "solver.prototxt")
        prototxt.dump(stage.train, run.folder / "train.prototxt")
    log = Log(run.folder / "log.jsonl" if run.ranks.is_first else None)
    log.write(log_file.START, 0, **_about(run), settings=settings, initialised=report)
    run.watch.begin(stage, 0)
    return log


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _about(run: _Run) -> dict[str, object]:
    """Give what a log says of where and with what a run is made."""
    return {
        "stage": run.stage.name,
        "time": _now(),
        "device": str(run.ranks.device),
        "processes": run.ranks.size,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
        "solver": prototxt.dumps(run.solver.param),
        "classes": {top: list(names) for top, names in (run.validator.classes if run.validator else {}).items()},
    }


def _resume(run: _Run, newest: Snapshot) -> Log:
    """Go on from a snapshot."""
    try:
        run.solver.restore(newest.state)
    except ReproductionError as error:
        error.remedy = f"{error.remedy} Delete it to go on from the snapshot before.".strip()
        raise error.at(run.stage.name) from None
    _check(run, _problems(run))
    log = Log(run.folder / "log.jsonl" if run.ranks.is_first else None, run.solver.iter)
    log.write(log_file.RESUME, run.solver.iter, **_about(run))
    run.watch.begin(run.stage, run.solver.iter)
    return log


def _problems(run: _Run) -> list[ReproductionError]:
    found = losses(run.net)
    problems = preflight.rate(found, run.solver.param)
    if isinstance(run.feed, ListFeed):
        return [*problems, *(error for loss in found for error in preflight.listed(run.feed.list, loss))]
    assert isinstance(run.feed, DatasetFeed)
    if run.plan.every:
        run.watch.note(f"{run.stage.name}: looking at all {len(run.feed.dataset)} pictures and labels")
    problems += preflight.data(run.feed.dataset, found, every=run.plan.every)
    if run.validator and run.validator.dataset:
        problems += preflight.data(run.validator.dataset, found)
        problems += preflight.overlap(run.feed.dataset, run.validator.dataset)
    return problems


def _check(run: _Run, problems: list[ReproductionError]) -> None:
    for problem in problems:
        if not run.plan.force:
            raise problem.at(run.stage.name)
        run.watch.note(f"forced in spite of this: {problem}")


def _learn(run: _Run, log: Log) -> bool:
    """Make the updates, snapshots and validations that are left; return whether all were made."""
    stage, solver = run.stage, run.solver
    saved = solver.iter
    try:
        if solver.iter and _is_due(stage.validate, solver.iter, stage) and run.ranks.greatest(not log.validated):
            _validate(run, log)
        while solver.iter < stage.iterations:
            every = stage.validate or stage.iterations
            stop = min(stage.iterations, solver.iter - solver.iter % every + every)
            for event in solver.run(stop - solver.iter):
                if isinstance(event, Stepped):
                    _count(run, log, event)
                elif isinstance(event, Saved):
                    saved = event.iteration
                    _forget(run)
            if solver.stopped:
                raise _Stopped
            if stop == stage.iterations != saved:
                saved = _save(run, log)
            _validate(run, log)
    except _Stopped:
        if saved != solver.iter:
            _save(run, log)
        return False
    except LossError as error:
        raise _broken(run, error) from None
    return True


def _save(run: _Run, log: Log) -> int:
    """Make a snapshot; return its iteration."""
    log.sync()
    run.solver.snapshot()
    _forget(run)
    return run.solver.iter


def _forget(run: _Run) -> None:
    """Remove the snapshots that are not to be kept, now that a newer one is on the disk."""
    if run.plan.keep and run.ranks.is_first:
        run_folder.forget(run.folder, run.plan.keep)


class _Stopped(Exception):
    """``Watch.action`` asked for a stop."""


def _is_due(every: int, iteration: int, stage: Stage) -> bool:
    return iteration == stage.iterations or bool(every and iteration % every == 0)


def _count(run: _Run, log: Log, event: Stepped) -> None:
    """Log an update and tell of it."""
    size = run.solver.param.iter_size
    pixels = run.ranks.gather(run.meter.pixels, size)
    run.meter.reset()
    loss, per_pixel = run.meter.read(run.solver.sample_losses, pixels)
    draws = range(event.iteration * size, (event.iteration + 1) * size)
    images = [image for draw in draws for image in run.feed.images(draw)]
    lr = float(f"{event.rate:.7g}")  # what single precision holds
    log.write(log_file.ITERATION, event.iteration, loss=loss, loss_per_pixel=per_pixel, lr=lr, images=images)
    if _is_due(run.stage.snapshot, run.solver.iter, run.stage):
        log.sync()
    run.watch.step(Step(event.iteration, loss, per_pixel, lr, images, event.norms))


def _broken(run: _Run, error: LossError) -> ReproductionError:
    """Say what is known of a loss that is no number, and what is left."""
    newest = run_folder.newest(run.folder)
    kept = f"The last good weights are {newest.model}." if newest else "No snapshot was made yet."
    if error.draw is not None:
        images = run.feed.images(error.draw)
        error.place += f", image {images[0]}" if len(images) == 1 else f", images {images[0]} to {images[-1]}"
    error.remedy = f"{error.remedy} {kept}"
    return error.at(run.stage.name)


def _validate(run: _Run, log: Log) -> None:
    if not run.validator:
        return

    def progress(done: int, total: int, seconds: float) -> None:
        # One of several processes that stopped here would leave the others waiting; they heed it at the next update.
        action = run.watch.action() if run.ranks.size == 1 else Action.NONE
        if action is Action.SNAPSHOT:
            run.solver.snapshot()
        if action is Action.STOP:
            raise _Stopped
        if run.watch.images:
            run.watch.images(done, total, seconds)

    try:
        found = run.validator(run.solver.iter, progress)
    except ReproductionError as error:
        raise error.at(run.stage.name) from None
    log.write(log_file.VALIDATION, found.iteration, time=_now(), **found.record())
    run.watch.validated(found, run.validator.classes)
    for note in preflight.collapsed(found.scores, run.validator.classes, found.iteration):
        run.watch.note(note)

"""Train one recipe, from its start or its newest snapshot to its end.

A training writes to a folder of the net's name: its prototxts, ``log.jsonl``, ``snapshot/train_iter_N``, on request
``NAME-best.caffemodel`` and, at the end, ``NAME.caffemodel``. When it is run again, it resumes from the newest
snapshot; the final weights are bit for bit those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import torch

from reproduction.caffe import devices, locks
from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase, SolverParameter
from reproduction.caffe.training.events import LossError, Saved, Step
from reproduction.caffe.training.parallel import Ranks
from reproduction.caffe.training.signals import Action
from reproduction.caffe.training.solver import Solver
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.datasets.base import SEED
from reproduction.fcn.nets import surgery
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.train import best_weights, feeds, initial_weights, log_file, preflight, recipes, run_folder
from reproduction.fcn.train.best_weights import BestWeights
from reproduction.fcn.train.feeds import Feed
from reproduction.fcn.train.image_list import ImageList
from reproduction.fcn.train.log_file import LOG_FILE, Resume, Start, TrainingLog, Validation, format_now
from reproduction.fcn.train.losses import Meter, find_losses
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.run_folder import Snapshot
from reproduction.fcn.train.validation import Validator

_PACKAGES = ("torch", "numpy", "pillow", "scipy")


@dataclass(frozen=True)
class TrainingOptions:
    """The paths and options of a training; of these, only ``data`` and ``seed`` affect its weights.

    Attributes:
        out: the folder that contains a folder for each training.
        data: the data root.
        seed: the seed of fillers, dropout and the order of the images; None selects the solver's seed and the published
            order.
        limit: validate on this number of images, from the start of the split; None for all.
        check_all: if True, check every training image and its labels before the start; if False, only a few.
        force: if True, train even if the checks of ``preflight`` find errors, and only report them.
        keep: the number of newest snapshots to keep, while older ones are deleted; None keeps all.
        keep_best: whether to keep the weights of the highest mean IU of all validations, too; see ``best_weights``.
    """

    out: Path
    data: Path
    seed: int | None = None
    limit: int | None = None
    check_all: bool = False
    force: bool = False
    keep: int | None = None
    keep_best: bool = False


@dataclass(frozen=True)
class TrainingCallbacks:
    """Functions that a training calls, to report its progress and to find out whether to stop.

    Attributes:
        note: called with a message, such as a warning.
        begin: called with the recipe, and the iteration at which it starts (0) or resumes.
        step: called with the record of each update.
        images: called for each image of a validation, with images done, images in all, and seconds since its start.
        validated: called with the record of each validation.
        action: called after each update and, if there is one process, after each validated image; returns whether to
            continue, write a snapshot or stop, such as ``caffe.training.signals`` finds out from SIGINT and SIGHUP.
        predicted: called for each image of a validation with the iteration, the validation data, the image's id, its
            sample and the predictions by label top; dense labels only.
    """

    note: Callable[[str], object] = lambda _: None
    begin: Callable[[Recipe, int], object] = lambda recipe, iteration: None
    step: Callable[[Step], object] = lambda _: None
    images: evaluate.TimedProgress | None = None
    validated: Callable[[Validation], object] = lambda _: None
    action: Callable[[], Action] = lambda: Action.NONE
    predicted: Callable[[int, Dataset, str, Sample, Mapping[str, UInt8]], object] | None = None


def train(
    recipe: Recipe,
    weights: Mapping[str, Path],
    options: TrainingOptions,
    callbacks: TrainingCallbacks | None = None,
    ranks: Ranks | None = None,
    prepare: Callable[[], object] | None = None,
) -> Path | None:
    """Train the net of a recipe, or resume an earlier call that was stopped.

    Args:
        recipe: the net, its solver, and where its weights come from.
        weights: the files of the initial weights, by the net names in ``recipe.parents``.
        options: the paths and options.
        callbacks: functions that report progress and request a stop; None for none.
        ranks: the device, and the processes that train together. Each process calls this function with the same
            arguments; only the first one writes files. None for one process on the CPU.
        prepare: called in the first process once it has locked the folder, to write further files there.

    Returns:
        The path of the final caffemodel, or None if the training was stopped.

    Raises:
        DataError: If data are missing or invalid, the folder contains another run, or another process trains there.
        WeightsError: If the initial weights are missing or of another net.
        ReproductionError: If ``max_iter`` is not set, a check of ``preflight`` fails, or the loss is no longer finite;
            the snapshots are kept.
    """
    callbacks, ranks = callbacks or TrainingCallbacks(), ranks or Ranks()
    max_iter = recipe.solver_param.max_iter
    if max_iter < 1:
        remedy = "Set it in the solver, or use --iterations."
        raise ReproductionError("max_iter is not set", place=recipe.name, remedy=remedy)
    folder, model = options.out / recipe.name, recipes.final_model_path(recipe.name, options.out)
    feed = feeds.open_feed(recipe.train_net_param, options.data, Phase.TRAIN, options.seed, recipe.changes)
    settings = run_folder.collect_settings(recipe, weights, _choose_seed(recipe, options), feed)
    with locks.lock_folder(folder, "another process is training here") if ranks.is_first else contextlib.nullcontext():
        newest = run_folder.find_newest_snapshot(folder)
        if newest:
            run_folder.check_settings(folder, settings, newest, max_iter)
        if ranks.is_first and not newest:
            best_weights.delete_best(folder)
        if ranks.is_first and prepare:
            prepare()
        if newest and newest.iteration == max_iter and model.is_file():
            callbacks.note(f"{recipe.name}: already trained for {max_iter} iterations")
            return model
        training = _Training(recipe, options, callbacks, ranks, feed)
        with contextlib.closing(training.resume(newest) if newest else training.start(weights, settings)) as log:
            if ranks.is_first and training.solver.iter < max_iter:
                model.unlink(missing_ok=True)  # it has fewer iterations
            is_complete = training.run(log)
        if is_complete and ranks.is_first:
            caffemodel.dump(training.net.to_proto(), model)
        ranks.all_reduce_max(0)  # a barrier: the other processes wait until the file is written
        return model if is_complete else None


def _choose_seed(recipe: Recipe, options: TrainingOptions) -> int:
    default = recipe.solver_param.random_seed
    if options.seed is not None:
        return options.seed
    return default if default >= 0 else SEED


class _StopTraining(Exception):  # noqa: N818 - a request, not an error
    """Raised when ``TrainingCallbacks.action`` requests a stop."""


class _Training:
    """A recipe in training: its net, data, solver and validation, in a folder that this process has locked."""

    def __init__(
        self, recipe: Recipe, options: TrainingOptions, callbacks: TrainingCallbacks, ranks: Ranks, feed: Feed
    ):
        self.recipe, self.options, self.callbacks, self.ranks, self.feed = recipe, options, callbacks, ranks, feed
        self.folder = options.out / recipe.name
        Path(run_folder.snapshot_prefix(self.folder)).parent.mkdir(parents=True, exist_ok=True)
        devices.select_device(ranks.device)
        torch.backends.cudnn.deterministic = True  # else a resumed run differs in its last bits
        solver_param = self._make_solver_param()
        state = feeds.with_phase(recipe.train_net_param, Phase.TRAIN)
        self.net = Net(recipe.train_net_param, state, inputs=feed.shapes, seed=solver_param.random_seed)
        self.net.to(ranks.device)
        self.meter = Meter(self.net, feed)
        self.validator = None
        if recipe.test_net_param:
            batches = next(iter(solver_param.test_iter), 1)
            self.validator = Validator(
                recipe.test_net_param, self.net, options.data, batches=batches, limit=options.limit, ranks=ranks
            )
        self.solver = Solver(solver_param, self.net, self.meter, ranks=ranks)
        self.solver.action = callbacks.action
        self.best = BestWeights(self.folder) if options.keep_best and ranks.is_first else None
        for note in self.solver.notes:
            callbacks.note(note)

    def _make_solver_param(self) -> SolverParameter:
        """Return the solver's settings with the paths and the seed of this run, and without Caffe's tests."""
        solver_param = self.recipe.solver_param.copy()
        solver_param.snapshot_prefix = run_folder.snapshot_prefix(self.folder)
        solver_param.random_seed = _choose_seed(self.recipe, self.options)
        solver_param.test_interval = 0  # a Validator replaces Caffe's test nets
        return solver_param

    # ---- start and resume

    def start(self, weights: Mapping[str, Path], settings: Mapping[str, object]) -> TrainingLog:
        """Initialize the weights, check that the net can learn, and start the log."""
        recipe = self.recipe
        report = self._initialize(weights)
        if report:
            self.callbacks.note("\n  ".join([f"{recipe.name} starts from", *report.splitlines()]))
        new_layers = surgery.find_new_layers(recipe.record) if recipe.record and recipe.parents else None
        self._raise_or_note([*preflight.check_weights(self.net, new_layers), *self._check_data()])
        if self.ranks.is_first:
            prototxt.dump(self.solver.param, self.folder / "solver.prototxt")
            prototxt.dump(recipe.train_net_param, self.folder / "train.prototxt")
        log = TrainingLog(self._log_path)
        log.write(Start(**vars(self._environment()), settings=settings, initialised=report))
        self.callbacks.begin(recipe, 0)
        return log

    def resume(self, newest: Snapshot) -> TrainingLog:
        """Restore a snapshot and reopen the log at its iteration."""
        try:
            self.solver.restore(newest.state_path)
        except ReproductionError as error:
            error.remedy = f"{error.remedy} Delete it to resume from the snapshot before it.".strip()
            raise error.at(self.recipe.name) from None
        self._raise_or_note(self._check_data())
        log = TrainingLog(self._log_path, self.solver.iter)
        if self._log_path and (self.options.keep_best or best_weights.best_path(self.folder).is_file()):
            records = log_file.read_log(self._log_path)
            self.best = BestWeights(self.folder, (each for each in records if isinstance(each, Validation)))
        log.write(self._environment())
        self.callbacks.begin(self.recipe, self.solver.iter)
        return log

    @property
    def _log_path(self) -> Path | None:
        return self.folder / LOG_FILE if self.ranks.is_first else None

    def _initialize(self, weights: Mapping[str, Path]) -> str:
        """Copy the weights of the parents to the net, and return a report."""
        found = {name: initial_weights.read_parent(name, path) for name, path in weights.items()}
        parents = {name: net_param for name, (net_param, _) in found.items()}
        lines = [f"{name}: {origin}" for name, (_, origin) in found.items() if origin]
        if self.recipe.record:
            lines.append(str(surgery.initialize(self.net, self.recipe.record, parents)))
        else:
            lines += [f"{name}: {self.net.copy_from(parent, weights[name])}" for name, parent in parents.items()]
        return "\n".join(lines)

    def _environment(self) -> Resume:
        """Return what a log records of each start and resume: device, versions, solver and class names."""
        return Resume(
            iteration=self.solver.iter,
            stage=self.recipe.name,
            time=format_now(),
            device=str(self.ranks.device),
            processes=self.ranks.size,
            versions={"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
            solver=prototxt.dumps(self.solver.param),
            classes={top: list(names) for top, names in (self.validator.classes if self.validator else {}).items()},
        )

    def _check_data(self) -> list[ReproductionError]:
        """Return the problems of the learning rate, the training data and the validation data."""
        losses = find_losses(self.net)
        problems = preflight.check_learning_rate(losses, self.solver.param)
        if isinstance(self.feed, ImageList):
            return [*problems, *(error for loss in losses for error in preflight.check_image_list(self.feed, loss))]
        dataset, check_all = self.feed.dataset, self.options.check_all
        if check_all:
            self.callbacks.note(f"{self.recipe.name}: checking all {len(dataset)} images and labels")
        problems += preflight.check_dataset(dataset, losses, every=check_all)
        if self.validator and self.validator.dataset:
            problems += preflight.check_dataset(self.validator.dataset, losses)
            problems += preflight.check_overlap(dataset, self.validator.dataset)
        return problems

    def _raise_or_note(self, problems: list[ReproductionError]) -> None:
        for problem in problems:
            if not self.options.force:
                raise problem.at(self.recipe.name)
            self.callbacks.note(f"warning, because of --force: {problem}")

    # ---- updates, snapshots and validations

    def run(self, log: TrainingLog) -> bool:
        """Run the remaining updates, snapshots and validations; return False if a stop was requested."""
        solver, max_iter, every = self.solver, self.solver.param.max_iter, self.recipe.solver_param.test_interval
        every = every or max_iter
        saved = solver.iter
        try:
            # Only the first process has a log: if it lacks this validation, all processes validate.
            if solver.iter and self._is_due(every) and self.ranks.all_reduce_max(not log.validated):
                self._validate(log)
            while solver.iter < max_iter:
                stop = min(max_iter, solver.iter - solver.iter % every + every)
                for event in solver.run(stop - solver.iter):
                    if isinstance(event, Step):
                        self._log_step(log, event)
                    elif isinstance(event, Saved):
                        saved = event.iteration
                        self._delete_old_snapshots()
                if solver.stopped:
                    raise _StopTraining
                if stop == max_iter != saved:
                    saved = self._save(log)
                self._validate(log)
        except _StopTraining:
            if saved != solver.iter:
                self._save(log)
            return False
        except LossError as error:
            raise self._locate(error) from None
        return True

    def _is_due(self, every: int) -> bool:
        """Return True at the last iteration and every ``every`` iterations; 0 is only at the last one."""
        return self.solver.iter == self.solver.param.max_iter or bool(every and self.solver.iter % every == 0)

    def _log_step(self, log: TrainingLog, step: Step) -> None:
        """Complete the record of an update, log it and report it."""
        size = self.solver.param.iter_size
        pixels = self.ranks.gather(self.meter.pixels, size)
        self.meter.reset()
        loss, per_pixel = self.meter.read(self.solver.sample_losses, pixels)
        draws = range(step.iteration * size, (step.iteration + 1) * size)
        images = [image for draw in draws for image in self.feed.images(draw)]
        lr = float(f"{step.lr:.7g}")  # the digits that float32 holds
        step = replace(step, loss=loss, lr=lr, loss_per_pixel=per_pixel, images=images, outputs={})
        log.write(step)
        if self._is_due(self.solver.param.snapshot):
            log.sync()  # before the snapshot, so that a resumed run finds the log of every earlier iteration
        self.callbacks.step(step)

    def _validate(self, log: TrainingLog) -> None:
        if not self.validator:
            return

        def progress(done: int, total: int, seconds: float) -> None:
            # One of several processes that stopped here would leave the others waiting; they act at the next update.
            action = self.callbacks.action() if self.ranks.size == 1 else Action.NONE
            if action is Action.SNAPSHOT:
                self.solver.snapshot()
            if action is Action.STOP:
                raise _StopTraining
            if self.callbacks.images:
                self.callbacks.images(done, total, seconds)

        predicted = None
        if self.callbacks.predicted and self.validator.dataset:
            predicted = partial(self.callbacks.predicted, self.solver.iter, self.validator.dataset)
        try:
            validation = self.validator(self.solver.iter, progress, predicted)
        except ReproductionError as error:
            raise error.at(self.recipe.name) from None
        if self.best and self.best.update(validation, self.net):  # before the log, which says that it is done
            self.callbacks.note(f"{self.recipe.name}: kept as the best, {best_weights.describe(validation)}")
        log.write(validation)
        self.callbacks.validated(validation)
        for note in validation.notes:
            self.callbacks.note(note)

    def _save(self, log: TrainingLog) -> int:
        """Write a snapshot and return its iteration."""
        log.sync()
        self.solver.snapshot()
        self._delete_old_snapshots()
        return self.solver.iter

    def _delete_old_snapshots(self) -> None:
        if self.options.keep and self.ranks.is_first:
            run_folder.delete_old_snapshots(self.folder, self.options.keep)

    def _locate(self, error: LossError) -> ReproductionError:
        """Add the images of the draw and the last good snapshot to the error of a loss that is not finite."""
        newest = run_folder.find_newest_snapshot(self.folder)
        kept = f"The last good weights are {newest.weights_path}." if newest else "There is no snapshot yet."
        if error.draw is not None:
            images = self.feed.images(error.draw)
            error.place += f", image {images[0]}" if len(images) == 1 else f", images {images[0]} to {images[-1]}"
        error.remedy = f"{error.remedy} {kept}"
        return error.at(self.recipe.name)

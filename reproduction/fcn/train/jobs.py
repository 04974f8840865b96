"""Train many nets, some of which start from the weights of others, in several processes, and score them.

A ``Job`` is one training with its seed. ``train_job`` trains it, ``score_job`` scores its net, ``run_jobs`` does both
for many, in the order that their parents require. What was trained or scored before is not repeated, so a run that was
stopped is resumed by repeating the call.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.schema import Phase
from reproduction.caffe.training.parallel import join_processes
from reproduction.caffe.training.signals import Action
from reproduction.fcn.scoring.evaluate import evaluate
from reproduction.fcn.scoring.results import Evaluation
from reproduction.fcn.segment import any_net
from reproduction.fcn.train import feeds, recipes, training
from reproduction.fcn.train.recipes import Recipe
from reproduction.fcn.train.sample_changes import ChangedDataset, CueMask
from reproduction.fcn.train.training import TrainingCallbacks, TrainingOptions

STATE = "scored.jsonl"  # the results of a job's images, see ``evaluate``
PREDICTIONS = "predictions"  # the label maps of a job's images


@dataclass(frozen=True)
class Job:
    """One training of many.

    Attributes:
        recipe: the training. Its name, which is also that of its folder, need not be that of a net.
        seed: the seed of the fillers, of dropout and of the order of the images; None selects that of the solver and
            the published order.
        parents: the jobs whose weights it starts from, by the net names in ``recipe.parents``.
        files: the weights files of the parents that no job trains, by the same names.
        scored: whether its net is scored on the validation data of ``recipe.test_net_param``.
    """

    recipe: Recipe
    seed: int | None
    parents: Mapping[str, Job] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    scored: bool = False

    @property
    def key(self) -> str:
        """The folder of the training below that of all jobs: ``seed1/NAME``. Jobs of one key are the same job."""
        return self.recipe.name if self.seed is None else f"seed{self.seed}/{self.recipe.name}"

    def weights_path(self, out: Path) -> Path:
        """Return the path of the weights that the training writes at its end, below the folder of all jobs."""
        return recipes.final_model_path(self.recipe.name, (out / self.key).parent)


#: A function that returns the jobs. Processes call it, rather than being sent the jobs, which hold functions.
ListJobs = Callable[[], Sequence[Job]]


@dataclass(frozen=True)
class TrainedJob:
    """What is known of a job that is done.

    Attributes:
        key: ``Job.key``.
        evaluation: the results of its images and the scores; None if it is not scored.
    """

    key: str
    evaluation: Evaluation | None


def collect_jobs(jobs: Sequence[Job]) -> dict[str, Job]:
    """Return jobs and their parents by key, parents first; a job that several start from is there once.

    A job that is scored on its own account remains so where it is also a parent.
    """
    found: dict[str, Job] = {}
    for job in jobs:
        found |= {key: parent for key, parent in collect_jobs(list(job.parents.values())).items() if key not in found}
        found[job.key] = replace(job, scored=job.scored or (job.key in found and found[job.key].scored))
    return found


def run_jobs(list_jobs: ListJobs, out: Path, data: Path, processes: int = 1) -> Iterator[TrainedJob]:
    """Train and score jobs, and yield the result of each when it is done.

    Args:
        list_jobs: a function that returns the jobs; with several processes, one that can be pickled, such as a
            ``functools.partial`` of a function of a module.
        out: the folder of the trainings; a job writes to ``out/KEY``.
        data: the data root.
        processes: the number of processes, each with one thread; 1 runs the jobs in this one, with its threads.

    Raises:
        ReproductionError: If a training or scoring fails, or a process was killed.
    """
    waiting = collect_jobs(list_jobs())
    if processes == 1:
        for job in waiting.values():
            yield run_job(job, out, data)
        return
    running: dict[Future[TrainedJob], str] = {}
    done: set[str] = set()
    with _open_pool(processes) as pool:
        while waiting or running:
            ready = [key for key, job in waiting.items() if {parent.key for parent in job.parents.values()} <= done]
            for key in ready[: processes - len(running)]:
                running[pool.submit(_run_listed, list_jobs, key, out, data)] = key
                del waiting[key]
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                done.add(running.pop(future))
                yield future.result()


def run_job(job: Job, out: Path, data: Path, action: Callable[[], Action] = lambda: Action.NONE) -> TrainedJob:
    """Train a job unless it is trained, and score it if it asks for it; both are resumed.

    Args:
        job: the job, whose parents are trained.
        out: the folder of all jobs' trainings.
        data: the data root.
        action: called after each update; returns whether to stop, which leaves a snapshot.

    Raises:
        ReproductionError: If it fails, or ``action`` stopped it.
    """
    path = train_job(job, out, data, TrainingCallbacks(action=action))
    if not job.scored:
        return TrainedJob(job.key, None)
    predictions, state = path.parent / PREDICTIONS, path.parent / STATE
    return TrainedJob(job.key, score_job(job, out, data, out_dir=predictions, state=state))


def train_job(job: Job, out: Path, data: Path, callbacks: TrainingCallbacks | None = None, device: str = "cpu") -> Path:
    """Train a job without validations, or resume it; a finished training is not repeated.

    Args:
        job: the job, whose parents are trained.
        out: the folder of all jobs' trainings.
        data: the data root.
        callbacks: functions that report progress and request a stop; None for none.
        device: the device.

    Returns:
        The path of the trained weights.

    Raises:
        ReproductionError: If it fails, or ``callbacks.action`` stopped it, which leaves a snapshot.
    """
    recipe = replace(job.recipe, test_net_param=None)
    weights = {**job.files, **{name: parent.weights_path(out) for name, parent in job.parents.items()}}
    # A snapshot is needed to resume, and the last one to know that the training is complete.
    options = TrainingOptions((out / job.key).parent, data, seed=job.seed, keep=1)
    with join_processes(device) as ranks:
        path = training.train(recipe, weights, options, callbacks, ranks)
    if path is None:
        raise ReproductionError("the training was stopped", place=job.key, remedy="Repeat the command, which resumes.")
    return path


def score_job(
    job: Job, out: Path, data: Path, mask: CueMask | None = None, device: str = "cpu", **options: Any
) -> Evaluation:
    """Score the net of a trained job on the data of its validation net.

    Args:
        job: the job.
        out: the folder of all jobs' trainings.
        data: the data root.
        mask: a change of the images; None for none.
        device: the device.
        **options: further arguments of ``evaluate``.

    Raises:
        ReproductionError: If the weights or the data are broken or missing.
    """
    test = job.recipe.test_net_param
    assert test is not None
    feed = feeds.open_feed(test, data, Phase.TEST)
    assert isinstance(feed, feeds.DatasetFeed)
    net = any_net.load_net_with_weights(job.key, test, job.weights_path(out), inputs=feed.shapes, device=device)
    dataset = ChangedDataset(feed.dataset, mask) if mask else feed.dataset
    return evaluate(net, dataset, device=device, force=True, **options)


@contextlib.contextmanager
def _open_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes; if the block raises an error or is interrupted, the jobs that run are stopped."""
    context = multiprocessing.get_context("spawn")  # a fork does not inherit the threads of torch
    stop = context.Event()
    try:
        with ProcessPoolExecutor(processes, context, _prepare_process, (stop,)) as pool:
            try:
                yield pool
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
    except BrokenProcessPool:
        remedy = "Repeat the command, which resumes."
        raise ReproductionError("a process was killed while it trained", remedy=remedy) from None


class _Worker:
    """The state of a process of the pool.

    Attributes:
        stop: set when the process that opened the pool asks for a stop.
        idle: set while no job runs here.
    """

    stop: Event | None = None
    idle = threading.Event()

    @classmethod
    def action(cls) -> Action:
        """Return STOP if the process that opened the pool asked for it, or is no longer there."""
        parent = multiprocessing.parent_process()
        is_alone = parent is not None and not parent.is_alive()
        return Action.STOP if is_alone or (cls.stop and cls.stop.is_set()) else Action.NONE


def _prepare_process(stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one stops the others
    torch.set_num_threads(1)
    _Worker.stop = stop
    _Worker.idle.set()
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Exit when the process that opened the pool was killed; the pool itself would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _Worker.idle.wait()  # until the job that runs has stopped with a snapshot
    os._exit(1)


def _run_listed(list_jobs: ListJobs, key: str, out: Path, data: Path) -> TrainedJob:
    """Run one of the jobs in a process of the pool."""
    _Worker.idle.clear()
    try:
        return run_job(collect_jobs(list_jobs())[key], out, data, _Worker.action)
    finally:
        _Worker.idle.set()

"""The scoring pipeline: fetch missing data and weights, and evaluate the net.

Each step is skipped if its files are already complete, so that an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import reproduction
from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.typing import Progress
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset, NetRecord
from reproduction.fcn.fetch.availability import Availability
from reproduction.fcn.fetch.download import unavailable_error
from reproduction.fcn.fetch.local_files import FileRoots
from reproduction.fcn.nets import registry
from reproduction.fcn.reproduce.sources import Callbacks, DownloadedSource, Source, WeightsFile
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.scoring.results import Evaluation
from reproduction.fcn.segment import any_net

_NAME_DIGITS = 10  # of a run's fingerprint: enough to distinguish a user's runs


@dataclass(frozen=True)
class ScoringPlan:
    """What a scoring run needs: the source of data and weights, folders, and options.

    Attributes:
        source: the source of the data and the weights, which fetches or finds them.
        roots: the weights folder and the data root.
        out: the folder in which the label maps and the state of the run are written.
        device: the device to run the nets on.
        limit: the number of images to score, from the start of the split; None for all.
        prepare: a function from a net to the callable that is scored, for example one that compiles the net.
    """

    source: Source
    roots: FileRoots
    out: Path
    device: str = "cpu"
    limit: int | None = None
    prepare: Callable[[Net], evaluate.Scorer] = lambda net: net


@dataclass(frozen=True)
class ScoredNet:
    """The result of scoring one net: its scores, and where its weights and label maps are.

    Attributes:
        weights: the weights file.
        evaluation: the result of each image, and the scores.
        predictions: the folder of the predicted label maps.
    """

    weights: WeightsFile
    evaluation: Evaluation
    predictions: Path


def select_nets(name: str, names: Sequence[str] = ()) -> list[NetRecord]:
    """Return the records of a data set's nets: those of the paper, or those that are named.

    Args:
        name: the name of the data set.
        names: the names of the nets to select, systems included; the paper's of the data set if there are none.

    Raises:
        ReproductionError: If a net is unknown or belongs to another data set.
    """
    nets = [registry.find_net(net) for net in dict.fromkeys(names)]
    for record in nets:
        if record.dataset.name != name:
            raise ReproductionError(
                f"{record.name} is not a net of {name}", remedy=f"It belongs to {record.dataset.name}."
            )
    return nets or [record for record in datasets.NETS.values() if record.dataset.name == name]


def open_complete_dataset(record: NetRecord, root: Path, drawing: Progress | None = None) -> Dataset:
    """Open the data set that a net is scored on, after drawing its images if it is one that is drawn.

    Args:
        record: the net.
        root: the data root.
        drawing: called with the images drawn and in all.

    Raises:
        DataError: If the data set or one of its files is missing.
    """
    if draw := record.dataset.draw:
        root.mkdir(parents=True, exist_ok=True)
        draw(root, drawing)
    dataset = registry.open_test_split(record, root)
    if problem := dataset.find_missing():
        raise problem
    return dataset


def check_availability(plan: ScoringPlan, nets: Sequence[NetRecord]) -> list[Availability]:
    """Find out, before a long run, whether all missing data and weights can be fetched, and from where.

    Args:
        plan: the source and the folders.
        nets: the nets to score.

    Returns:
        The answer for each file, to print; an empty list if nothing is missing.
    """
    base = plan.source if isinstance(plan.source, DownloadedSource) else getattr(plan.source, "base", None)
    to_score = [net for net in nets if net.caffemodel is not None or base is not plan.source]
    if not isinstance(base, DownloadedSource) or not to_score:
        return []
    with_data = not all(_has_dataset(plan, net) for net in to_score)
    availability = base.check(to_score if base is plan.source else (), plan.roots, with_data=with_data)
    return [] if all(each.path for each in availability) else availability


def require_available(plan: ScoringPlan, availability: Sequence[Availability]) -> None:
    """Raise an error if no net can be scored with what is present or can be fetched.

    Args:
        plan: the source and the folders.
        availability: the result of ``check_availability``.

    Raises:
        ReproductionError: If the data, or the weights of every net, cannot be fetched.
    """
    missing = [each for each in availability if each.used is None]
    weights = [each for each in availability if each.entry.is_weights]
    for each in missing:
        if not each.entry.is_weights or all(other in missing for other in weights):
            raise unavailable_error(each.entry, plan.roots.file_path(each.entry), each.problems)


def _has_dataset(plan: ScoringPlan, record: NetRecord) -> bool:
    try:
        return not registry.open_test_split(record, plan.roots.data).missing(plan.limit)
    except DataError:
        return False


def fetch_dataset(plan: ScoringPlan, record: NetRecord, callbacks: Callbacks) -> Dataset:
    """Fetch or draw what is missing of the data set that a net is scored on, and open it.

    Args:
        plan: the source of the data, and the data root.
        record: the record of the net.
        callbacks: functions that report progress.

    Raises:
        DataError: If data are missing and cannot be fetched or drawn.
    """
    for _ in plan.source.data(plan.roots, callbacks):
        if _has_dataset(plan, record):  # else the next step may fetch what is missing; the last attempt, below, raises
            break
    return registry.open_test_split(record, plan.roots.data)


def score_net(plan: ScoringPlan, record: NetRecord, dataset: Dataset, callbacks: Callbacks) -> ScoredNet:
    """Fetch a net's weights if they are missing, and score the net on a data set.

    Label maps and the state of the run are written to a folder of ``plan.out``. Its name contains a hash of the weights
    file, the data, the device, and the versions of torch and of this package, so that only the same run resumes there.

    Args:
        plan: the source of the weights, the folders, the device and the limit.
        record: the record of the net.
        dataset: the data set to score it on, as ``fetch_dataset`` returns it.
        callbacks: functions that report progress.

    Raises:
        ReproductionError: If the weights cannot be fetched or read, or the evaluation fails, see ``evaluate.evaluate``.
    """
    weights = plan.source.weights(record, plan.roots, callbacks)
    deploy = registry.load_net(record.name)
    net = plan.prepare(any_net.load_net_with_weights(record.name, deploy, weights.path, device=plan.device))
    run = evaluate.fingerprint(net, dataset, weights.sha256)
    identity = f"{run} {prototxt.dumps(deploy)} {plan.device} {torch.__version__} {reproduction.__version__}"
    part = "" if plan.limit is None else f"-first{plan.limit}"
    folder = plan.out / f"{record.name}-{hashlib.sha256(identity.encode()).hexdigest()[:_NAME_DIGITS]}{part}"
    evaluation = evaluate.evaluate(
        net,
        dataset,
        device=plan.device,
        out_dir=folder,
        state=folder / "state.jsonl",
        weights_sha256=weights.sha256,
        limit=plan.limit,
        progress=callbacks.images,
    )
    return ScoredNet(weights, evaluation, folder)

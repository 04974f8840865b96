"""From nothing to a score: bring what is missing, convert the weights, score the net.

Every step leaves finished files and is skipped where they are; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import weights
from reproduction.caffe.formats.weights import Weights
from reproduction.caffe.net.net import Net
from reproduction.fcn import datasets
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.fetch import local_files
from reproduction.fcn.fetch.local_files import Roots
from reproduction.fcn.nets import published_nets, registry
from reproduction.fcn.nets.published_nets import Published
from reproduction.fcn.reproduce import sources
from reproduction.fcn.reproduce.sources import Supply
from reproduction.fcn.scoring import evaluate
from reproduction.fcn.scoring.score import Scores
from reproduction.fcn.segment import segmenter

_NAME_DIGITS = 10  # of a run's fingerprint: enough to tell a user's runs apart


@dataclass(frozen=True)
class Watch(sources.Watch):
    """Who is told how far things are.

    Attributes:
        images: called with images scored, images in all, and seconds since the start.
    """

    images: evaluate.Progress | None = None


def _as_it_is(net: Net) -> evaluate.Scorer:
    return net


@dataclass(frozen=True)
class Plan:
    """What to score, and where things lie.

    Attributes:
        supply: where the data and the weights come from.
        roots: the weights and the data folder.
        out: the folder of label maps and of the state of the run.
        device: where the nets run.
        limit: score that many images only; None for all.
        prepare: makes of a net what is run.
    """

    supply: Supply
    roots: Roots
    out: Path
    device: str = "cpu"
    limit: int | None = None
    prepare: Callable[[Net], evaluate.Scorer] = _as_it_is


@dataclass(frozen=True)
class Result:
    """What became of a net.

    Attributes:
        weights: the file that they came in.
        weights_sha256: its hash.
        scores: by label top.
        predictions: the folder of its label maps.
        seconds_per_image: mean over the images that this run scored; None when an earlier one had scored them all.
    """

    weights: Path
    weights_sha256: str
    scores: dict[str, Scores]
    predictions: Path
    seconds_per_image: float | None


def chosen(name: str, names: Sequence[str] = ()) -> list[Published]:
    """Look up nets of a data set.

    Args:
        name: the data set.
        names: nets; none: all of the data set.

    Raises:
        ReproductionError: a net is unknown, or of another data set.
    """
    rows = [registry.net(net) for net in dict.fromkeys(names)]
    for row in rows:
        if row.dataset != name:
            raise ReproductionError(f"{row.name} is no net of {name}", remedy=f"It belongs to {row.dataset}.")
    return rows or [row for row in registry.NETS.values() if row.dataset == name]


def dataset(row: Published, root: Path) -> Dataset:
    """Open what a net is scored on.

    Args:
        row: the net.
        root: the data root.

    Raises:
        DataError: it is not there.
    """
    layer = published_nets.net(row, row.splits[1]).layer[0]
    return datasets.from_layer(layer.python_param, list(layer.top), root)


def data(plan: Plan, row: Published, watch: Watch) -> Dataset:
    """Open what a net is scored on; what is missing is brought first.

    Raises:
        DataError: the data are not there and cannot be had.
    """
    for _ in plan.supply.data(plan.roots, watch):
        try:
            found = dataset(row, plan.roots.data)
            if not found.missing(plan.limit):
                return found
        except DataError:  # whatever it was: the next step may mend it, and the last attempt says it
            pass
    return dataset(row, plan.roots.data)


def model(plan: Plan, row: Published, watch: Watch) -> tuple[Path, Path, str]:
    """Bring a net's weights and convert them to safetensors, beside the file that they came in.

    Returns:
        The file, the converted one, and the sha256 of the first.

    Raises:
        ReproductionError: they cannot be had, read or written.
    """
    published = plan.supply.weights(row, plan.roots, watch)
    if isinstance(plan.supply, sources.Given):  # nothing is written beside a file of the user's
        return published, published, local_files.digests(published, ["sha256"])["sha256"]
    converted = published.with_suffix(".safetensors")
    source = weights.read(published)
    if not _holds(converted, source):
        bar = watch.bytes(f"converting {published.name}") if watch.bytes else None
        total, done = published.stat().st_size, 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            if bar:
                bar(done, total)

        weights.write(source, converted, progress)
        watch.note(f"{row.name}: converted, {converted}")
    return published, converted, local_files.digests(published, ["sha256"])["sha256"]


def score(plan: Plan, row: Published, dataset: Dataset, watch: Watch) -> Result:
    """Bring and convert a net's weights, and score it on a data set.

    Label maps and the state of the run go to a folder of ``plan.out`` that is named by the net, its weights, the data,
    the device and the programs: the same run goes on there, another one has a folder of its own.

    Raises:
        ReproductionError: as ``model`` and ``evaluate.evaluate``.
    """
    published, converted, sha256 = model(plan, row, watch)
    net = plan.prepare(segmenter.load(row.name, published_nets.deploy(row), converted, device=plan.device))
    about = f"{evaluate.fingerprint(net, dataset)} {plan.device} {torch.__version__} {_programs()}"
    part = "" if plan.limit is None else f"-first{plan.limit}"
    folder = plan.out / f"{row.name}-{hashlib.sha256(about.encode()).hexdigest()[:_NAME_DIGITS]}{part}"
    clock = _Clock(watch.images)
    scores = evaluate.evaluate(
        net,
        dataset,
        device=plan.device,
        out_dir=folder,
        state=folder / "state.json",
        limit=plan.limit,
        progress=clock,
    )
    return Result(published, sha256, scores, folder, clock.mean())


def split_sha1(ids: Sequence[str]) -> str:
    """Name a split: SHA-1 of its ids, each followed by a newline, as ``sha1sum`` gives it for such a list."""
    return hashlib.sha1("".join(f"{id}\n" for id in ids).encode(), usedforsecurity=False).hexdigest()


@dataclass
class _Clock:
    """Passes progress on, and keeps what the mean time of an image takes."""

    watch: evaluate.Progress | None
    start: int | None = None
    done: int = 0
    seconds: float = 0.0

    def __call__(self, done: int, total: int, seconds: float) -> None:
        self.start = done if self.start is None else self.start
        self.done, self.seconds = done, seconds
        if self.watch:
            self.watch(done, total, seconds)

    def mean(self) -> float | None:
        count = self.done - (self.start or 0)
        return self.seconds / count if count else None


def _programs() -> str:
    """Name this package as it is now: SHA-256 over its sources."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parents[2].rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _holds(path: Path, source: Weights) -> bool:
    """Return whether a converted file has the very floats of its source."""
    if not path.is_file():
        return False
    try:
        mine = weights.read(path).arrays()
    except ReproductionError:
        return False
    theirs = source.arrays()
    return mine.keys() == theirs.keys() and all(
        mine[name].shape == array.shape
        and mine[name].dtype == array.dtype
        and np.array_equal(mine[name].reshape(-1).view(np.uint8), array.reshape(-1).view(np.uint8))
        for name, array in theirs.items()
    )

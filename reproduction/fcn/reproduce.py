"""From nothing to a score: fetch what is missing, convert the weights, score the net.

Every step leaves finished files and is skipped where they are; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reproduction.caffe import weights
from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.weights import Weights
from reproduction.fcn import datasets, download, evaluate, nets, segmenter, zoo
from reproduction.fcn.archives import Progress
from reproduction.fcn.datasets import Dataset
from reproduction.fcn.manifest import Entry, Kind, Manifest
from reproduction.fcn.nets import Published
from reproduction.fcn.score import Scores
from reproduction.fcn.zoo import Roots

_NAME_DIGITS = 10  # of a run's fingerprint: enough to tell a user's runs apart


@dataclass(frozen=True)
class Watch:
    """Who is told how far things are.

    Attributes:
        bytes: called with what is fetched, unpacked or converted; returns what is then called with the bytes done.
        images: called with images scored, images in all, and seconds since the start.
        note: called with a sentence for each file that became usable.
    """

    bytes: Callable[[str], Progress] | None = None
    images: evaluate.Progress | None = None
    note: Callable[[str], object] = lambda _: None


@dataclass(frozen=True)
class Plan:
    """What to score, and where things lie.

    Attributes:
        name: the data set; a set of the manifest.
        manifest: the published files.
        roots: the weights and the data folder.
        out: the folder of label maps and of the state of the run.
        mirror: a URL or a folder to fetch from first.
        device: where the nets run.
        limit: score that many images only; None for all.
    """

    name: str
    manifest: Manifest
    roots: Roots
    out: Path
    mirror: str | None = None
    device: str = "cpu"
    limit: int | None = None


@dataclass(frozen=True)
class Result:
    """What became of a net.

    Attributes:
        weights: the published file.
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
        names: published nets; none: all of the data set.

    Raises:
        ReproductionError: a net is unknown, or of another data set.
    """
    rows = [nets.published(net) for net in dict.fromkeys(names)]
    for row in rows:
        if row.dataset != name:
            raise ReproductionError(f"{row.name} is no net of {name}", remedy=f"It belongs to {row.dataset}.")
    return rows or [row for row in nets.NETS.values() if row.dataset == name]


def data(plan: Plan, row: Published, watch: Watch) -> Dataset:
    """Open what a net is scored on; what is missing is fetched first, the short lists before the long archives.

    Data that lie elsewhere below the data root than they would be fetched to are used as they are.

    Raises:
        DataError: the data are not there and cannot be fetched.
    """
    entries = [entry for entry in plan.manifest.select(plan.name) if entry.kind is not Kind.CAFFEMODEL]
    for kind in (Kind.LIST, Kind.ARCHIVE):
        try:
            found = _open(row, plan.roots.data)
            if not found.missing(plan.limit):
                return found
        except DataError:  # whatever it was: the published files may mend it, and the last attempt says it
            pass
        for entry in entries:
            if entry.kind is kind and not zoo.present(entry, plan.roots):
                _provide(plan, entry, watch)
    return _open(row, plan.roots.data)


def model(plan: Plan, row: Published, watch: Watch) -> tuple[Path, Path, str]:
    """Fetch a net's published weights and convert them to safetensors, beside the published file.

    Returns:
        The published file, the converted one, and the sha256 of the first.

    Raises:
        ReproductionError: they cannot be fetched, read or written.
    """
    published = _provide(plan, plan.manifest[row.name], watch)
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
    return published, converted, zoo.digests(published, ["sha256"])["sha256"]


def score(plan: Plan, row: Published, dataset: Dataset, watch: Watch) -> Result:
    """Fetch and convert a net's weights, and score it on a data set.

    Label maps and the state of the run go to a folder of ``plan.out`` that is named by the net, its weights and the
    data: the same run goes on there, another one has a folder of its own.

    Raises:
        ReproductionError: as ``model`` and ``evaluate.evaluate``.
    """
    published, converted, sha256 = model(plan, row, watch)
    net = segmenter.load(row, nets.deploy(row), converted, device=plan.device)
    part = "" if plan.limit is None else f"-first{plan.limit}"
    folder = plan.out / f"{row.name}-{evaluate.fingerprint(net, dataset)[:_NAME_DIGITS]}{part}"
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


def _open(row: Published, root: Path) -> Dataset:
    layer = nets.net(row, row.splits[1]).layer[0]
    return datasets.from_layer(layer.python_param, list(layer.top), root)


def _provide(plan: Plan, entry: Entry, watch: Watch) -> Path:
    got = download.provide(entry, plan.roots, mirror=plan.mirror, progress=watch.bytes)
    watch.note(f"{entry.name}: {got.how}, {got.path}" + (f"; {got.checked}" if got.checked else ""))
    return got.path


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

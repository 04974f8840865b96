"""Evaluation: run a net over a data set, one image at a time at its own size, and compute the paper's metrics."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, NetError, StrPath
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import at_least
from reproduction.caffe.training.parallel import Ranks
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.images import palette
from reproduction.fcn.scoring.score import Confusion, Scores, compute_scores, confusion_matrix

TimedProgress = Callable[[int, int, float], object]

_WORKERS = 2  # decoding threads
_AHEAD = 4  # samples to prefetch
_SAVE_SECONDS = 10.0
_FORMAT = 1


class Scorer(Protocol):
    """A net that can be evaluated: a ``Net``, or any callable with its signature."""

    def __call__(self, inputs: Mapping[str, Tensor], /, *, blobs: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Compute the requested blobs, (1, classes, H, W), from the inputs, (1, C, H, W)."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the weights by name; they are part of the fingerprint of a run."""


def evaluate(
    net: Scorer,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    out_dir: StrPath | None = None,
    state: StrPath | None = None,
    weights_sha256: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: TimedProgress | None = None,
    ranks: Ranks | None = None,
) -> dict[str, Scores]:
    """Score a net on a data set: predict the class with the highest score and compare it with the labels.

    Images are decoded in background threads while the net computes. On a tie, the lowest class number is predicted.

    Args:
        net: The net, in phase TEST. It must compute the blob ``score`` for the label top ``label``, and ``score_X`` for
            any other label top ``X``.
        dataset: The split.
        device: The device of the net; the inputs are moved there.
        out_dir: Folder for the predictions, palette PNGs: ``ID.png``, or ``TOP/ID.png`` with several tops; or None.
        state: File with the progress of the run, written every ten seconds and when the run is interrupted. A run that
            is started again resumes from it, with the same result. None for no file.
        weights_sha256: The SHA-256 of the weights file, which identifies the run; None to hash the weights in the net.
        limit: Score only the first ``limit`` samples; None for all.
        force: Score the data set even if the published nets were trained on some of its samples.
        progress: Called with the samples done, their total, and the seconds so far; first for those of a resumed run.
        ranks: The processes that score together. Each calls this function with the same arguments, scores its share,
            which ``progress`` reports, and writes its own state file.

    Returns:
        The scores by label top. With several processes, they are computed from the summed counts of all.

    Raises:
        DataError: If there is no sample or no label to score, files are missing or broken, the published nets were
            trained on a sample, the state file belongs to another run, or another process is evaluating there.
        NetError: If the scores have another size or number of classes than the labels, NaN, or do not fit in memory.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 score.py L13-38.
    """
    ranks = ranks or Ranks()
    total = len(dataset) if limit is None else min(limit, len(dataset))
    _check(dataset, total, force)
    share = ranks.share(total)
    blobs = {top: _score_blob(top) for top in dataset.label_classes}
    run = _Run.of(state, fingerprint(net, dataset, weights_sha256), ranks) if state is not None else None
    with _alone(out_dir, run, ranks):
        done = run.load(dataset, len(share)) if run else _start(dataset)
        folders = _folders(dataset, out_dir, share[: done.samples])
        started = saved = time.monotonic()
        report = progress or (lambda *_: None)
        report(done.samples, len(share), 0.0)
        try:
            with contextlib.closing(_ahead(dataset, share[done.samples :])) as samples:
                for image_id, sample in samples:
                    predictions = _predict(net, sample, blobs, device, dataset, image_id)
                    for top, folder in folders.items():
                        palette.write_png(predictions[top], folder / f"{image_id}.png")
                    done = done.plus(_count(dataset, sample, predictions))
                    if run and time.monotonic() - saved > _SAVE_SECONDS:
                        run.save(done)
                        saved = time.monotonic()
                    report(done.samples, len(share), time.monotonic() - started)
        finally:
            if run and done.samples:
                run.save(done)
    return {top: compute_scores(_sum(counts, ranks)) for top, counts in done.counts.items()}


@contextlib.contextmanager
def _alone(out_dir: StrPath | None, run: _Run | None, ranks: Ranks) -> Iterator[None]:
    """Lock the folder of the predictions and the state file; the first process locks the folder for all ranks."""
    problem = "another process is evaluating here"
    with contextlib.ExitStack() as held:
        if out_dir is not None and ranks.is_first:
            held.enter_context(locks.lock_folder(out_dir, problem, again=True))
        if run is not None:
            run.path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.lock_path(run.path, problem))
        yield


def fingerprint(net: Scorer, dataset: Dataset, weights_sha256: str | None = None) -> str:
    """Return the identity of a run: a SHA-256 of the weights, the net's precision, if any, and the data set.

    Of the data set, its name, folder, tops and ids are included. ``weights_sha256``, if given, stands for the weights,
    so that they need not be hashed.
    """
    about = [_FORMAT, dataset.name, str(dataset.tree.resolve()), dataset.tops, dataset.ids]
    about += [net.precision] if hasattr(net, "precision") else []
    about += [weights_sha256] if weights_sha256 else []
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(net.state_dict().items()) if weights_sha256 is None else ():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _score_blob(top: str) -> str:
    return "score" if top == "label" else f"score_{top}"


def _check(dataset: Dataset, total: int, force: bool) -> None:
    where = f"{dataset.name} {dataset.split}"
    if total < 1:
        raise DataError("there is no sample to score", path=where, got=f"limit {total}", want="1 or more")
    if not dataset.label_classes:
        raise DataError("there is no label to score against", path=where, got=f"tops {', '.join(dataset.tops)}")
    trained = dataset.overlap()
    if trained and not force:
        raise DataError(
            f"{len(trained)} of {len(dataset)} images were in the training set of the published nets, the first is"
            f" {trained[0]!r}",
            path=where,
            remedy="Score another split (seg11valid for VOC), or force it if the net was trained on others.",
        )
    missing = dataset.missing(total)
    if missing:
        raise DataError(
            f"{len(missing)} files are missing, the first is {missing[0]}",
            path=where,
            remedy="Extract the data set again.",
        )


def _folders(dataset: Dataset, out_dir: StrPath | None, scored: range) -> dict[str, Path]:
    """Create the folders of the predictions, and check that those of a resumed run's earlier samples exist."""
    if out_dir is None:
        return {}
    tops = list(dataset.label_classes)
    folders = {top: Path(out_dir) / top if len(tops) > 1 else Path(out_dir) for top in tops}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        ids = [dataset.ids[i] for i in scored]
        lost = [image_id for image_id in ids if not (folder / f"{image_id}.png").is_file()]
        if lost:
            raise DataError(
                f"the run goes on after {len(ids)} images, but {len(lost)} of their predictions are not here, the first"
                f" is {lost[0]}.png",
                path=folder,
                remedy="Give the folder of the first part, or delete the state to start again.",
            )
    return folders


def _ahead(dataset: Dataset, wanted: range) -> Generator[tuple[str, Sample], None, None]:
    """Yield (id, sample) in order, with samples prefetched; an exception is raised when its sample is due."""
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Sample]] = deque()
        try:
            for number, i in enumerate(wanted):
                while len(waiting) < _AHEAD and number + len(waiting) < len(wanted):
                    waiting.append(pool.submit(dataset.__getitem__, wanted[number + len(waiting)]))
                yield dataset.ids[i], waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _predict(
    net: Scorer, sample: Sample, blobs: Mapping[str, str], device: str | torch.device, dataset: Dataset, image_id: str
) -> dict[str, UInt8]:
    """Return the most likely classes of each label top, (H, W) uint8."""
    inputs = {top: torch.from_numpy(array)[None].to(device) for top, array in sample.items() if top not in blobs}
    with torch.inference_mode():
        try:
            result = net(inputs, blobs=list(blobs.values()))
        except RuntimeError as error:  # only CUDA has a special exception for running out of memory
            if "alloc" not in str(error) and "memory" not in str(error):
                raise
            raise NetError(
                f"image {image_id!r} does not fit in the memory of {device}", remedy="Free some of it."
            ) from None
        predictions = {}
        for top, blob in blobs.items():
            want = (1, len(dataset.label_classes[top]), *sample[top].shape[1:])
            if tuple(result[blob].shape) != want:
                got = tuple(result[blob].shape)
                raise NetError(f"blob {blob!r} does not fit the labels of image {image_id!r}", got=got, want=want)
            # As in NumPy, max returns the first of equal maxima, and NaN if there is one.
            highest, classes = result[blob][0].max(dim=0)
            if highest.isnan().any():
                raise NetError(
                    f"blob {blob!r} is not a number (NaN) for image {image_id!r}", remedy="Check the weights."
                )
            predictions[top] = classes.to(torch.uint8).cpu().numpy()
    return predictions


def _count(dataset: Dataset, sample: Sample, predictions: Mapping[str, UInt8]) -> dict[str, Confusion]:
    return {
        top: confusion_matrix(sample[top][0], predictions[top], len(names))
        for top, names in dataset.label_classes.items()
    }


def _sum(counts: Confusion, ranks: Ranks) -> Confusion:
    """Sum the counts over all processes."""
    total = torch.from_numpy(counts).to(ranks.device)
    ranks.all_reduce_sum(total)
    summed: Confusion = total.cpu().numpy()
    return summed


@dataclass(frozen=True)
class _Done:
    """The progress of a run: the number of samples scored, and the confusion matrix of each label top."""

    samples: int
    counts: dict[str, Confusion]

    def plus(self, counts: Mapping[str, Confusion]) -> _Done:
        return _Done(self.samples + 1, {top: self.counts[top] + counts[top] for top in self.counts})


def _start(dataset: Dataset) -> _Done:
    return _Done(0, {top: np.zeros((len(c), len(c)), np.int64) for top, c in dataset.label_classes.items()})


@dataclass(frozen=True)
class _State:
    """The content of a state file, except its format number."""

    run: str
    samples: Annotated[int, at_least(0)]
    counts: Mapping[str, Sequence[Sequence[Annotated[int, at_least(0)]]]]

    def check(self) -> str | None:
        """Return what the fields must satisfy together (see ``json_file``), or None if they do."""
        square = all(len(row) == len(rows) for rows in self.counts.values() for row in rows)
        return None if square else "as many rows as columns"


@dataclass(frozen=True)
class _Run:
    """The state file of a run: JSON with the fingerprint, the number of samples done, and the counts."""

    path: Path
    name: str

    @classmethod
    def of(cls, state: StrPath, name: str, ranks: Ranks) -> _Run:
        """Return the state file of this process; with several processes, its name and fingerprint include the rank."""
        path = Path(state)
        if ranks.size > 1:
            part = f"{ranks.rank + 1}of{ranks.size}"
            return cls(path.with_name(f"{path.stem}-{part}{path.suffix}"), f"{name} {part}")
        return cls(path, name)

    def save(self, done: _Done) -> None:
        text = json.dumps(
            {
                "format": _FORMAT,
                "run": self.name,
                "samples": done.samples,
                "counts": {top: counts.tolist() for top, counts in done.counts.items()},
            }
        )
        with files.open_atomic(self.path) as file:
            file.write(text.encode())

    def load(self, dataset: Dataset, total: int) -> _Done:
        empty = _start(dataset)
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return empty
        remedy = "Delete it to start again."
        problem = "this is no state of an evaluation"
        state = json_file.load(self.path, _State, problem, remedy=remedy, version=_FORMAT)
        sizes = {top: len(rows) for top, rows in state.counts.items()}
        fits = sizes == {top: len(counts) for top, counts in empty.counts.items()}
        if state.run != self.name or not fits or state.samples > len(dataset):
            raise DataError(
                "this is the state of another run",
                path=self.path,
                want="the same weights, data and split",
                remedy=remedy,
            )
        done = _Done(state.samples, {top: np.array(state.counts[top], np.int64) for top in empty.counts})
        if done.samples > total:
            got, want = f"{done.samples} samples", f"at most {total}"
            raise DataError(
                "the run is already further than the limit", path=self.path, got=got, want=want, remedy=remedy
            )
        return done

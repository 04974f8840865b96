"""Evaluation: run a net over a data set, one image at a time at its own size, and compute the paper's metrics."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, NetError, StrPath
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.training.parallel import Ranks
from reproduction.caffe.typing import UInt8
from reproduction.fcn.datasets import Dataset, Sample
from reproduction.fcn.datasets.spec import Head
from reproduction.fcn.images import palette
from reproduction.fcn.scoring.results import Evaluation, ImageResult

TimedProgress = Callable[[int, int, float], object]
Predicted = Callable[[str, Sample, Mapping[str, UInt8]], object]

_WORKERS = 2  # decoding threads
_AHEAD = 4  # samples to prefetch
_FORMAT = 2
_MAX_STATE_BYTES = 1 << 30  # far above the 10 MB of PASCAL-Context


class Scorer(Protocol):
    """The interface that ``evaluate`` requires of a net: that of the module ``Net``, or a callable like it."""

    def __call__(self, inputs: Mapping[str, Tensor], /, *, blobs: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Compute the blobs named in ``blobs``, (1, classes, H, W), from the inputs by blob name, (1, C, H, W)."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the weights by name; their hash identifies a run, so that it is resumed with the same weights only."""


def evaluate(
    net: Scorer,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    out_dir: StrPath | None = None,
    colours: UInt8 | None = None,
    state: StrPath | None = None,
    weights_sha256: str | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: TimedProgress | None = None,
    predicted: Predicted | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Score a net on a data set: predict the class with the highest score and compare it with the labels.

    Images are decoded in background threads while the net computes. On a tie, the lowest class number is predicted.

    Args:
        net: The net, in phase TEST. It must compute the blob ``score`` for the data set's label top ``label``, and
            ``score_X`` for any other label top ``X``, as SIFT Flow's ``sem`` and ``geo``.
        dataset: The split.
        device: The device of the net; the inputs are moved there.
        out_dir: Folder for the predicted label maps as palette PNGs: ``ID.png``, or ``TOP/ID.png`` if there are several
            label tops. None to write none.
        colours: (256, 3) uint8, the R, G, B values of each label in these files; None for VOC's.
        state: File to which each image's result is appended; a run resumes after the images in it. None for no file.
        weights_sha256: The SHA-256 of the weights file, which identifies the run; None to hash the weights in the net.
        limit: Score only the first ``limit`` samples; None for all.
        force: Score the data set even if the published nets were trained on some of its samples.
        progress: Called first, and for each image, with the samples done, their total, and the seconds so far.
        predicted: Called for each image with its id, its sample and the predictions, (H, W) uint8 by label top.
        ranks: The processes that score together. Each calls this function with the same arguments, scores its share,
            which ``progress`` reports, and writes its own state file.

    Returns:
        The result of each image and the scores; with several processes, those of the images of all processes.

    Raises:
        DataError: If there is no sample or no label to score, files are missing or broken, the published nets were
            trained on a sample, the state file belongs to another run, or another process is evaluating there.
        NetError: If the scores have another size or number of classes than the labels, NaN, or do not fit in memory.

    Source: shelhamer/fcn.berkeleyvision.org@1305c73 score.py L13-38.
    """
    ranks = ranks or Ranks()
    total = _count_samples(dataset, limit, force)
    share, classes = ranks.share(total), {top: len(names) for top, names in dataset.label_classes.items()}
    path = _state_path(state, ranks)
    run = _StateFile(path, fingerprint(net, dataset, weights_sha256) if path else "", ranks)
    with _lock(out_dir, path, ranks):
        done = run.load(dataset, share)
        folders = _make_folders(dataset, out_dir, [image.id for image in done])
        report, listen = progress or _ignore, predicted or _ignore
        report(len(done), len(share), 0.0)
        started = last = time.monotonic()
        with contextlib.closing(_prefetch(dataset, share[len(done) :])) as samples:
            for image_id, sample in samples:
                predictions = _predict(net, sample, device, dataset, image_id)
                for top, folder in folders.items():
                    palette.write_png(predictions[top], folder / f"{image_id}.png", colours)
                listen(image_id, sample, predictions)
                truth = {top: sample[top][0] for top in classes}
                now = time.monotonic()
                done.append(ImageResult.from_labels(image_id, truth, predictions, classes, now - last))
                last = now
                run.append(done[-1])
                report(len(done), len(share), now - started)
    return Evaluation.from_images(ranks.gather_objects(done), classes)


def _ignore(*_: object) -> None:
    pass


def _state_path(state: StrPath | None, ranks: Ranks) -> Path | None:
    """Return the path of this process's state file; with several processes, its name includes the rank."""
    if state is None or ranks.size == 1:
        return None if state is None else Path(state)
    path = Path(state)
    return path.with_name(f"{path.stem}-{_part(ranks)}{path.suffix}")


def _part(ranks: Ranks) -> str:
    return f"{ranks.rank + 1}of{ranks.size}"


@contextlib.contextmanager
def _lock(out_dir: StrPath | None, state: Path | None, ranks: Ranks) -> Iterator[None]:
    """Lock the folder of the predictions and the state file; the first process locks the folder for all ranks."""
    problem = "another process is evaluating here"
    with contextlib.ExitStack() as held:
        if out_dir is not None and ranks.is_first:
            held.enter_context(locks.lock_folder(out_dir, problem, reentrant=True))
        if state is not None:
            state.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locks.lock_path(state, problem))
        yield


def fingerprint(net: Scorer, dataset: Dataset, weights_sha256: str | None = None) -> str:
    """Return a SHA-256 that identifies a run: it depends on the weights, the net's precision and the data set.

    Of the data set, its name, folder, tops and ids are included.

    Args:
        net: The net.
        dataset: The split.
        weights_sha256: The SHA-256 of the weights file, which stands for the weights; None to hash those in the net.
    """
    about = [_FORMAT, dataset.name, str(dataset.tree.resolve()), dataset.tops, dataset.ids]
    about += [net.precision] if hasattr(net, "precision") else []
    about += [weights_sha256] if weights_sha256 else []
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(net.state_dict().items()) if weights_sha256 is None else ():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _count_samples(dataset: Dataset, limit: int | None, force: bool) -> int:
    """Return the number of samples to score, after a check that they can be scored."""
    where, total = f"{dataset.name} {dataset.split}", len(dataset) if limit is None else min(limit, len(dataset))
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
    if problem := dataset.find_missing(total):
        raise problem
    return total


def _make_folders(dataset: Dataset, out_dir: StrPath | None, ids: Sequence[str]) -> dict[str, Path]:
    """Create the folders of the predictions, and check that those of a resumed run's earlier samples exist."""
    if out_dir is None:
        return {}
    tops = list(dataset.label_classes)
    folders = {top: Path(out_dir) / top if len(tops) > 1 else Path(out_dir) for top in tops}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        lost = [image_id for image_id in ids if not (folder / f"{image_id}.png").is_file()]
        if lost:
            raise DataError(
                f"the run resumes after {len(ids)} images, but {len(lost)} of their predictions are missing, the first"
                f" is {lost[0]}.png",
                path=folder,
                remedy="Name the folder of the first part, or delete the state file to start again.",
            )
    return folders


def _prefetch(dataset: Dataset, wanted: range) -> Generator[tuple[str, Sample], None, None]:
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
    net: Scorer, sample: Sample, device: str | torch.device, dataset: Dataset, image_id: str
) -> dict[str, UInt8]:
    """Return the most likely classes of each label top, (H, W) uint8."""
    blobs = {top: Head(top, names).score for top, names in dataset.label_classes.items()}
    framed = {top: dataset.framing.frame_image(array) for top, array in sample.items() if top not in blobs}
    inputs = {top: torch.from_numpy(array)[None].to(device) for top, array in framed.items()}
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
            height, width = sample[top].shape[1:]
            want = (1, len(dataset.label_classes[top]), height, width)
            scores = dataset.framing.crop_scores(result[blob], (height, width))
            if tuple(scores.shape) != want:
                got = tuple(result[blob].shape)
                raise NetError(f"blob {blob!r} does not fit the labels of image {image_id!r}", got=got, want=want)
            # As in NumPy, max returns the first of equal maxima, and NaN if there is one.
            highest, classes = scores[0].max(dim=0)
            if highest.isnan().any():
                raise NetError(
                    f"blob {blob!r} is not a number (NaN) for image {image_id!r}", remedy="Check the weights."
                )
            predictions[top] = classes.to(torch.uint8).cpu().numpy()
    return predictions


@dataclass(frozen=True)
class _Header:
    """The first line of a state file."""

    run: str


class _StateFile:
    """The state of a run: JSON lines, a header with the fingerprint of the run, then one ``ImageResult`` each.

    Args:
        path: Path of the file; None to keep no state.
        run: The fingerprint.
        ranks: The processes that score together; each has a file.
    """

    def __init__(self, path: Path | None, run: str, ranks: Ranks):
        self.path, self.run = path, run if ranks.size == 1 else f"{run} {_part(ranks)}"

    def append(self, image: ImageResult) -> None:
        """Append a result; it is on disk in whole, or is cut off when the file is loaded again."""
        if self.path is None:
            return
        with self.path.open("ab") as file:
            header = [] if file.tell() else [{"format": _FORMAT, "run": self.run}]
            file.writelines(json_file.dumps(record).encode() + b"\n" for record in (*header, asdict(image)))

    def load(self, dataset: Dataset, share: range) -> list[ImageResult]:
        """Return the results of an earlier run of this process; remove a line that was not written completely.

        Raises:
            DataError: If the file is not a state file, or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return []
        problem, remedy = "not the state of an evaluation", "Delete it to start again."
        text = files.read_regular(self.path, _MAX_STATE_BYTES)
        header, *lines = text[: text.rfind(b"\n") + 1].splitlines() or [text]
        found = json_file.loads(header, _Header, self.path, problem, remedy=remedy, version=_FORMAT)
        images = [json_file.loads(line, ImageResult, self.path, problem, remedy=remedy) for line in lines]
        expected = [dataset.ids[i] for i in share]
        if found.run != self.run or not _fits(images, dataset):
            want = "the same weights, data and split"
            raise DataError("this is the state of another run", path=self.path, want=want, remedy=remedy)
        if len(images) > len(expected):
            got, want = f"{len(images)} samples", f"at most {len(expected)}"
            raise DataError(
                "the run is already further than the limit", path=self.path, got=got, want=want, remedy=remedy
            )
        if not text.endswith(b"\n"):
            os.truncate(self.path, text.rfind(b"\n") + 1)
        return images


def _fits(images: Sequence[ImageResult], dataset: Dataset) -> bool:
    """Return True if the results are of images and classes of a data set."""
    sizes = {top: len(names) for top, names in dataset.label_classes.items()}
    known = set(dataset.ids)
    return all(
        image.id in known
        and image.counts.keys() == sizes.keys()
        and all(max(truth, guess) < sizes[top] for top, rows in image.counts.items() for truth, guess, _ in rows)
        for image in images
    )

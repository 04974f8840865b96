"""Segmentation of image files: find the images, segment those without results, and write the results to a folder."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import image_files
from reproduction.fcn.segment import batches, read_images, result_files
from reproduction.fcn.segment.card import Card
from reproduction.fcn.segment.result_files import ImageJob, ResultRecord, SegmentOptions
from reproduction.fcn.segment.segmenter import Segmenter, SegmenterInput

COMPANIONS = {"depth": "depth images (16-bit millimetres)", "hha": "HHA images (disparity, height, angle)"}


def find_images(names: Sequence[str], output: Path) -> Iterator[ImageJob]:
    """Find the images to segment, and yield an ``ImageJob`` for each.

    The results of images in a folder keep their path relative to the folder; all others go directly into ``output``.

    Args:
        names: files, folders (searched recursively) and patterns such as ``*.jpg``.
        output: the folder of the results; images in it are skipped, since they are earlier results.

    Raises:
        DataError: If no file matches a name, or if a folder holds no image.
    """
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = read_images.list_folder(path)
            images = [p for p in inside if not p.resolve().is_relative_to(output.resolve())]
            if not images:
                raise DataError("there is no image in this folder", path=path)
            yield from (ImageJob(p, output, p.relative_to(path).with_suffix("")) for p in images)
        elif path.exists() or not glob.has_magic(name):
            yield ImageJob(path, output, Path(path.stem))
        else:
            matching = glob.glob(name, recursive=True)  # noqa: PTH207 (pathlib takes no absolute pattern)
            matched = [Path(p) for p in sorted(matching) if Path(p).is_file()]
            if not matched:
                raise DataError("no file matches this pattern", path=name)
            yield from (ImageJob(p, output, Path(p.stem)) for p in matched)


def check_jobs(jobs: Sequence[ImageJob], card: Card, options: SegmentOptions) -> None:
    """Check that a single image exists, that no result would replace another file, and that depth or HHA is given.

    Of several images, those that exist are segmented before the others are reported.

    Args:
        jobs: the images.
        card: the model card of the net.
        options: the options with which the images are segmented.

    Raises:
        ReproductionError: If the only image does not exist, if two results would have the same path, if a result would
            replace an image, or if the folders of depth and HHA images are not those that the net needs.
    """
    if len(jobs) == 1 and not jobs[0].image.exists():
        raise DataError("the image cannot be read (no such file or directory)", path=jobs[0].image)
    images = {job.image.resolve(): job.image for job in jobs}
    endings = result_files.list_endings(card, options)
    written: dict[str, Path] = {}
    for job in jobs:
        for path in map(job.result_path, endings):
            if path.resolve() in images:
                problem = f"the result would replace the image {images[path.resolve()]}"
                raise DataError(problem, path=path, remedy="Choose another folder with -o.")
            other = written.setdefault(str(path.resolve()).casefold(), job.image)
            if other != job.image:
                remedy = "Rename one, or segment them into two folders."
                raise DataError(f"{other} and {job.image} would both be written here", path=path, remedy=remedy)
    for kind, what in COMPANIONS.items():
        needed, given = kind in card.kinds, kind in options.companions
        if needed and not given:
            raise ReproductionError(f"{card.net} needs {what}", remedy=f"Name their folder with --{kind} DIR.")
        if given and not needed:
            raise ReproductionError(f"{card.net} does not use {what}", remedy=f"Leave --{kind} out.")


@dataclass(frozen=True)
class JobResult:
    """What came of an image.

    Attributes:
        number: the position of its job, from 0.
        result: a dict of JSON types, which ``fcn infer --json`` prints: the image, its size, the time, and for each
            kind of labels the paths of the results and the share of each class; ``skipped`` is true if an earlier run
            wrote them. None if the image could not be segmented.
        error: why not, else None.
    """

    number: int
    result: dict[str, Any] | None = None
    error: ReproductionError | None = None


def segment_files(
    segmenter: Segmenter,
    jobs: Sequence[ImageJob],
    options: SegmentOptions,
    weights: str,
    share: tuple[int, int] = (0, 1),
) -> Iterator[JobResult]:
    """Segment image files in batches of one size, write the results, and yield what came of each image.

    Images whose results are there already, of the same net, image and options, are not segmented again. Which images
    are computed together depends on all jobs, not on what is there or on the share, so that an interrupted run that is
    repeated, and several processes that share the images, write the same files as a single run.

    Args:
        segmenter: the net with its weights. Its ``scorer`` must be steady for the above to hold, see ``fast.compile``.
        jobs: the images.
        options: what to read and write.
        weights: the ``fingerprint`` of the net.
        share: the number of this process, from 0, and how many processes share the images.

    Yields:
        The results of this process's share, batch by batch.

    Raises:
        OSError: If the folder of the results cannot be created.
    """
    rank, size = share
    run = _Run(segmenter, options, weights)
    limit = batches.choose_limit(options.batch)
    grouped = batches.group(enumerate(jobs), lambda numbered: _find_size(numbered[1].image), limit)
    for count, batch in enumerate(grouped):
        if count % size == rank:
            yield from run.segment(dict(batch))


def _find_size(image: Path) -> batches.Size:
    """Return height and width of a file's header; (0, 0) for a file that cannot be read, which is reported later."""
    try:
        with image_files.open_image(image) as opened:
            return opened.height, opened.width
    except DataError:
        return 0, 0


@dataclass(frozen=True)
class _Run:
    """The segmentation of several batches with one net and the same options."""

    segmenter: Segmenter
    options: SegmentOptions
    weights: str

    def segment(self, jobs: dict[int, ImageJob]) -> list[JobResult]:
        """Segment the images of a batch, by number, of which some may have results already."""
        found: dict[int, JobResult] = {}
        records: dict[int, ResultRecord] = {}
        card = self.segmenter.card
        for number, job in jobs.items():
            try:
                records[number] = self._record(job)
                earlier = None if self.options.overwrite else result_files.find_earlier(job, card, records[number])
            except ReproductionError as error:
                found[number] = JobResult(number, error=error)
                continue
            if earlier is not None:
                found[number] = JobResult(number, earlier | {"seconds": 0.0})
        if len(found) < len(jobs):
            inputs = self._read(jobs, found)
            for size in dict.fromkeys(each.size for each in inputs.values()):  # EXIF may turn images of one size
                together = {number: each for number, each in inputs.items() if each.size == size}
                self._segment_together(jobs, together, records, found)
        return [found[number] for number in sorted(found)]

    def _pictures(self, job: ImageJob) -> dict[str, Path]:
        """Return the files of an image and of its depth or HHA image, by kind."""
        others = [kind for kind in self.segmenter.input_kinds if kind != "color"]
        folders = {kind: self.options.companions[kind] for kind in others}
        found = {kind: read_images.find_companion(folder, job.name, job.image) for kind, folder in folders.items()}
        return {"color": job.image, **found}

    def _record(self, job: ImageJob) -> ResultRecord:
        scorer = self.segmenter.scorer
        precision, engine = getattr(scorer, "precision", "plain"), getattr(scorer, "engine", "torch")
        precision += "" if engine == "torch" else f", {engine}"
        pictures = self._pictures(job)
        return result_files.make_record(self.segmenter.card, self.weights, precision, pictures, self.options)

    def _read(self, jobs: dict[int, ImageJob], found: dict[int, JobResult]) -> dict[int, SegmenterInput]:
        """Read all images of a batch, also those with results: the others are to be computed as together with them."""
        inputs = {}
        for number, job in jobs.items():
            try:
                pictures = self._pictures(job)
                inputs[number] = self.segmenter.read(pictures.pop("color"), **pictures)
            except ReproductionError as error:
                found.setdefault(number, JobResult(number, error=error))
        return inputs

    def _segment_together(
        self,
        jobs: dict[int, ImageJob],
        inputs: dict[int, SegmenterInput],
        records: dict[int, ResultRecord],
        found: dict[int, JobResult],
    ) -> None:
        missing = [number for number in inputs if number not in found]
        if not missing:
            return
        start, card = time.monotonic(), self.segmenter.card
        try:
            results = self.segmenter.segment_batch(list(inputs.values()), scores=self.options.scores)
        except ReproductionError as error:
            found.update({number: JobResult(number, error=error) for number in missing})
            return
        by_number = dict(zip(inputs, results, strict=True))
        shared = (time.monotonic() - start) / len(inputs)
        for number in missing:
            begin = time.monotonic()
            try:
                result = result_files.write(jobs[number], card, by_number[number], records[number], self.options)
            except ReproductionError as error:
                found[number] = JobResult(number, error=error)
                continue
            seconds = round(shared + time.monotonic() - begin, 2)
            found[number] = JobResult(number, result | {"seconds": seconds})

"""Segmentation of image files: find the images, and write label maps, drawings of them and scores to a folder."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import files
from reproduction.fcn.images import palette
from reproduction.fcn.segment import read_images
from reproduction.fcn.segment.card import Card
from reproduction.fcn.segment.segmentation import DRAWINGS, Segmentation
from reproduction.fcn.segment.segmenter import Segmenter

COMPANIONS = {"depth": "depth images (16-bit millimetres)", "hha": "HHA images (disparity, height, angle)"}


@dataclass(frozen=True)
class ImageJob:
    """An image to segment, and where its results go: to ``output / name`` with an ending such as ``.png`` appended.

    Attributes:
        image: the image file.
        output: the folder of the results.
        name: the path of the results below it, without an ending.
    """

    image: Path
    output: Path
    name: Path

    def result_path(self, ending: str) -> Path:
        """Return the path of one of the results.

        Args:
            ending: what is appended to the name, such as ``.png``.
        """
        return self.output / self.name.with_name(self.name.name + ending)


@dataclass(frozen=True)
class SegmentOptions:
    """What is read besides the images, and what is written besides the label maps and drawings.

    Attributes:
        companions: for nets that take depth or HHA, the folder of these images by kind, e.g. ``{"depth": folder}``;
            their files have the names of the images.
        scores: if True, also write the scores of all classes for each pixel.
    """

    companions: Mapping[str, Path] = field(default_factory=dict)
    scores: bool = False


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
    """Check that no result would replace an image or another result, and that depth and HHA images are given.

    Args:
        jobs: the images.
        card: the model card of the net.
        options: the options with which the images are segmented.

    Raises:
        ReproductionError: If two results would have the same path, if a result would replace an image, or if the
            folders of depth and HHA images are not those that the net needs.
    """
    images = {job.image.resolve(): job.image for job in jobs}
    written: dict[str, Path] = {}
    for job in jobs:
        for path in _result_paths(job, card, options.scores):
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


def _result_paths(job: ImageJob, card: Card, scores: bool) -> list[Path]:
    parts = ("", *(f"_{drawing}" for drawing in DRAWINGS))
    paths = [job.result_path(f"{_suffix(card, top)}{part}.png") for top in card.labels for part in parts]
    return [*paths, job.result_path("_scores.npz")] if scores else paths


def _suffix(card: Card, top: str) -> str:
    """Return the suffix of a label's results: empty for the net's first label, ``_TOP`` for any other."""
    return "" if top == next(iter(card.labels)) else f"_{top}"


def segment_file(segmenter: Segmenter, job: ImageJob, options: SegmentOptions) -> dict[str, Any]:
    """Segment one image, and write its label map, drawings of it (and scores, if requested) to files.

    Args:
        segmenter: the net with its weights.
        job: the image, and where its results go.
        options: the folders of depth and HHA images, and whether to write scores.

    Returns:
        A dict of JSON types, which ``fcn infer --json`` prints: the image, its size, the time, and for each kind
        of labels the paths of the results and the share of each class.

    Raises:
        ReproductionError: If an image is missing or broken, or a result cannot be written.
    """
    start, card = time.monotonic(), segmenter.card
    companions = {
        kind: read_images.find_companion(options.companions[kind], job.name, job.image)
        for kind in segmenter.input_kinds
        if kind != "color"
    }
    segmentations = segmenter.segment(job.image, scores=options.scores, **companions)
    job.result_path("").parent.mkdir(parents=True, exist_ok=True)
    labels = {top: _write_results(segmentation, job, card, top) for top, segmentation in segmentations.items()}
    size = next(iter(segmentations.values())).labels.shape
    result: dict[str, Any] = {"image": str(job.image), "size": list(size), "labels": labels}
    if options.scores:
        with files.open_atomic(job.result_path("_scores.npz")) as file:
            arrays: dict[str, Any] = {output.score: segmentations[top].scores for top, output in card.labels.items()}
            np.savez(file, **arrays)
        result["scores"] = str(job.result_path("_scores.npz"))
    knows = {"knows": card.knows} if card.knows else {}
    return result | knows | {"seconds": round(time.monotonic() - start, 2)}


def _write_results(segmentation: Segmentation, job: ImageJob, card: Card, top: str) -> dict[str, Any]:
    """Write the label map of one label top and its drawings; return their paths and the shares."""
    stem, labels = job.result_path(_suffix(card, top)), job.result_path(f"{_suffix(card, top)}.png")
    drawn = dict(zip(DRAWINGS, segmentation.draw(stem), strict=True))
    palette.write_png(segmentation.labels, labels, segmentation.colours)
    paths = {kind: str(path) for kind, path in ({"png": labels} | drawn).items()}
    return {**paths, "shares": [asdict(share) for share in segmentation.shares]}

"""The files that segmenting an image file writes: their paths, their content, and whether they are there already.

The label map records what it was made from, so that a later run knows whether it would write the same files again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from reproduction.caffe.errors import DataError, cannot_read
from reproduction.caffe.formats import files, hashes, image_files, json_file, prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.images import palette
from reproduction.fcn.segment.card import Card, format_card
from reproduction.fcn.segment.segmentation import DRAWINGS, Segmentation

#: The key of the PNG text in which a label map records what it was made from.
RECORD = "fcn-reproduction"

_SAMPLED = 1024  # values of each parameter from which a net is recognized


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
    """What is read besides the images, what is written besides the label maps, and how images are computed.

    Attributes:
        companions: for nets that take depth or HHA, the folder of these images by kind, e.g. ``{"depth": folder}``;
            their files have the names of the images.
        scores: if True, also write the scores of all classes for each pixel.
        labels_only: if True, write the label maps without overlay, legend and overview.
        overwrite: if True, also segment images whose results are there already.
        batch: the most images that are computed together; None selects the default, see ``batches.BatchLimit``.
    """

    companions: Mapping[str, Path] = field(default_factory=dict)
    scores: bool = False
    labels_only: bool = False
    overwrite: bool = False
    batch: int | None = None

    @property
    def drawings(self) -> tuple[str, ...]:
        """What is drawn for each label map."""
        return () if self.labels_only else DRAWINGS


@dataclass(frozen=True)
class ResultRecord:
    """What a label map was made from, and what was written with it; two runs with equal records write equal files.

    Attributes:
        net: the name of the net.
        weights: a hash of the net's layers, card and weights, see ``fingerprint``.
        precision: the precision of the arithmetic, and what computed it unless that is torch.
        images: the SHA-256 of the image, and of its depth or HHA image, by kind.
        written: the endings of all files of the run, such as ``_overlay.png``.
    """

    net: str
    weights: str
    precision: str
    images: dict[str, str]
    written: tuple[str, ...]

    def covers(self, wanted: ResultRecord) -> bool:
        """Return True if files with this record are those that a run would write, perhaps with others."""
        return replace(self, written=wanted.written) == wanted and {*wanted.written} <= {*self.written}


def fingerprint(card: Card, net: Net) -> str:
    """Return a SHA-256 that identifies a net: of the card, the layers and about 1024 values of each parameter.

    Training changes all values of a layer, so that these values distinguish two trainings, without the time that
    hashing half a gigabyte takes.

    Args:
        card: the net's model card.
        net: the net with its weights, before ``compile`` frees them.
    """
    layers = []
    for node in net.graph.nodes:
        layers.append(node.layer_param.copy())
        layers[-1].clear("blobs")
    digest = hashlib.sha256(f"{format_card(card)}\n{prototxt.dumps(NetParameter(layer=layers))}".encode())
    for name, parameter in net.named_parameters():
        values = parameter.detach().flatten()
        sample = values[:: max(1, len(values) // _SAMPLED)].cpu().numpy()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()


def suffix(card: Card, top: str) -> str:
    """Return the suffix of a label top's results: empty for the net's first label, ``_TOP`` for any other."""
    return "" if top == next(iter(card.labels)) else f"_{top}"


def list_endings(card: Card, options: SegmentOptions) -> tuple[str, ...]:
    """Return the endings of all files that a run writes for an image, such as ``.png`` and ``_overlay.png``.

    Args:
        card: the model card of the net.
        options: the options.
    """
    parts = ("", *(f"_{drawing}" for drawing in options.drawings))
    maps = [f"{suffix(card, top)}{part}.png" for top in card.labels for part in parts]
    return (*maps, "_scores.npz") if options.scores else tuple(maps)


def make_record(
    card: Card, weights: str, precision: str, pictures: Mapping[str, Path], options: SegmentOptions
) -> ResultRecord:
    """Return the record of an image's results.

    Args:
        card: the model card of the net.
        weights: the net's ``fingerprint``.
        precision: the precision of the arithmetic.
        pictures: the files of the image and of its depth or HHA image, by kind.
        options: the options.

    Raises:
        DataError: If a file cannot be read.
    """
    try:
        images = {kind: hashes.hash_file(path) for kind, path in pictures.items()}
    except OSError as error:
        raise cannot_read(error, "the image", error.filename) from None
    return ResultRecord(card.net, weights, precision, images, list_endings(card, options))


def find_earlier(job: ImageJob, card: Card, record: ResultRecord) -> dict[str, Any] | None:
    """Return the result that an earlier run wrote for an image, as ``write`` returned it; None if it is not there.

    Args:
        job: the image.
        card: the model card of the net.
        record: the record of the results that this run would write.
    """
    try:
        with image_files.open_image(job.result_path(".png")) as image:
            text = str(image.info.get(RECORD, ""))
        found = json_file.loads(text.encode("utf-8", "replace"), ResultRecord, job.result_path(".png"), "not a record")
        if not found.covers(record) or not all(job.result_path(ending).is_file() for ending in record.written):
            return None
        labels = {}
        for top, kind in card.labels.items():
            with image_files.open_image(job.result_path(f"{suffix(card, top)}.png")) as image:
                numbers = image_files.decode(image)
            drawings = [name for name in DRAWINGS if f"{suffix(card, top)}_{name}.png" in record.written]
            labels[top] = _describe(job, suffix(card, top), drawings, palette.count_shares(numbers, kind.classes))
    except DataError:  # not a label map of ours, or a damaged one: it is written again
        return None
    return _result(job, card, numbers.shape, labels, "_scores.npz" in record.written) | {"skipped": True}


def write(
    job: ImageJob,
    card: Card,
    segmentations: Mapping[str, Segmentation],
    record: ResultRecord,
    options: SegmentOptions,
) -> dict[str, Any]:
    """Write the results of an image: drawings and scores first, and at last the label map with the record.

    Args:
        job: the image, and where its results go.
        card: the model card of the net.
        segmentations: the results by label top.
        record: the record of the results.
        options: what to write.

    Returns:
        A dict of JSON types: the image, its size, and for each kind of labels the paths of the results and the share of
        each class.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    job.result_path("").parent.mkdir(parents=True, exist_ok=True)
    if options.scores:
        with files.open_atomic(job.result_path("_scores.npz")) as file:
            arrays: dict[str, Any] = {output.score: segmentations[top].scores for top, output in card.labels.items()}
            np.savez(file, **arrays)
    labels = {}
    for top, segmentation in reversed(list(segmentations.items())):  # the record is written with the first one
        ending = suffix(card, top)
        if options.drawings:
            segmentation.draw(job.result_path(ending))
        text = {RECORD: json_file.dumps(asdict(record))} if not ending else {}
        palette.write_png(segmentation.labels, job.result_path(f"{ending}.png"), segmentation.colours, text)
        labels[top] = _describe(job, ending, options.drawings, segmentation.shares)
    size = next(iter(segmentations.values())).labels.shape
    return _result(job, card, size, {top: labels[top] for top in card.labels}, options.scores)


def _describe(job: ImageJob, suffix: str, drawings: Sequence[str], shares: list[palette.Share]) -> dict[str, Any]:
    """Return the paths of one label top's results and the shares of its classes, as JSON types."""
    endings = {"png": f"{suffix}.png"} | {drawing: f"{suffix}_{drawing}.png" for drawing in drawings}
    paths = {kind: str(job.result_path(ending)) for kind, ending in endings.items()}
    return {**paths, "shares": [asdict(share) for share in shares]}


def _result(
    job: ImageJob, card: Card, size: tuple[int, ...], labels: Mapping[str, Any], scores: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {"image": str(job.image), "size": list(size), "labels": labels}
    result |= {"scores": str(job.result_path("_scores.npz"))} if scores else {}
    return result | ({"knows": card.knows} if card.knows else {})

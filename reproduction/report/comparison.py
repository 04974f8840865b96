"""The comparison of nets that were trained at an equal budget, as data and as a table.

``comparison.json`` contains one ``Comparison``; ``weights/results/comparison`` has those that were recorded. Scores are
fractions from 0 to 1, times are seconds of one thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import json_file
from reproduction.caffe.formats.json_file import at_least
from reproduction.fcn.nets import forward_time, net_files, receptive_field
from reproduction.fcn.nets.mini_family import ThinNet
from reproduction.report import ledger
from reproduction.report.markdown import format_table
from reproduction.report.record import LabelScores

FORMAT_VERSION = 1
FOLDER = "comparison"  # of recorded comparisons, below the folder of the ledger

_Count = Annotated[int, at_least(0)]


@dataclass(frozen=True)
class SeedScores:
    """The scores of a net that was trained with one seed."""

    seed: int
    scores: LabelScores


@dataclass(frozen=True)
class TrainedStage:
    """One of the trainings of a net, after that of its classifier.

    Attributes:
        net: the name of the net that is trained.
        iterations: the number of updates, of one image each.
        base_lr: the learning rate at the start.
    """

    net: str
    iterations: _Count
    base_lr: float


@dataclass(frozen=True)
class ComparedNet:
    """One net of a comparison.

    Attributes:
        net: its name.
        title: its name on the page.
        follows: the text that it follows.
        remark: what differs from the full net besides the number of channels; or empty.
        classifier: the classifier that it starts from; empty for none.
        stages: its trainings.
        parameters: the number of learned weights and biases.
        products: how many times a forward pass multiplies an input by a weight, for one image.
        receptive_field: the largest receptive field before the upsampling, in pixels.
        stride: pixels from one prediction to the next before the last upsampling.
        seconds: the time of a forward pass for one image; None if it was not measured.
        runs: its scores with each seed; empty until it is trained.
    """

    net: str
    title: str
    follows: str
    remark: str
    classifier: str
    stages: Sequence[TrainedStage]
    parameters: _Count
    products: _Count
    receptive_field: _Count
    stride: _Count
    seconds: float | None = None
    runs: Sequence[SeedScores] = ()

    @property
    def iterations(self) -> int:
        """The number of updates of all stages."""
        return sum(stage.iterations for stage in self.stages)

    @property
    def mean_ius(self) -> list[float]:
        """The mean IU with each seed."""
        return [run.scores.mean_iu or 0.0 for run in self.runs]

    @property
    def mean_iu(self) -> float:
        """The mean of ``mean_ius``."""
        return fmean(self.mean_ius)

    def class_iu(self) -> dict[str, float]:
        """Return the IU of each class by its name, the mean over the seeds."""
        names = self.runs[0].scores.class_iu
        return {name: fmean(run.scores.class_iu[name] or 0.0 for run in self.runs) for name in names}


@dataclass(frozen=True)
class Comparison:
    """A comparison of nets.

    Attributes:
        set: the name of the data set.
        measured: when, in the form of ISO 8601.
        iterations: the number of updates of each net, of one image each.
        classifier_iterations: the number of updates of each classifier.
        classifier_batch: the number of images in each of these.
        images: the number of images on which the nets were scored.
        size: (height, width) of the image that ``products`` and ``seconds`` are for.
        seeds: the seeds.
        device: a description of the device.
        versions: the versions of the packages.
        nets: the nets.
    """

    set: str
    measured: str
    iterations: _Count
    classifier_iterations: _Count
    classifier_batch: _Count
    images: _Count
    size: tuple[_Count, _Count]
    seeds: Sequence[int]
    device: str
    versions: Mapping[str, str]
    nets: Sequence[ComparedNet]

    def rule(self) -> str:
        """Return in sentences what each net is given."""
        return (
            f"Each net is given {self.iterations:,} updates of one image after its classifier, in all of its stages"
            f" together; each classifier {self.classifier_iterations:,} updates of {self.classifier_batch} images of"
            " single objects. A net without a classifier is given as many more updates of one image as a classifier"
            " has."
        )


def describe_thin_net(thin: ThinNet, size: tuple[int, int]) -> ComparedNet:
    """Return what is known of a net before it is trained.

    Args:
        thin: the net.
        size: (height, width) of the image that the products are counted for.
    """
    record, deploy = thin.record, net_files.build_deploy(thin.record)
    figures = receptive_field.compute_net_figures(deploy)
    return ComparedNet(
        net=record.name,
        title=thin.title,
        follows=thin.follows,
        remark=thin.remark,
        classifier=thin.classifier,
        stages=[TrainedStage(stage.name, stage.solver["max_iter"], stage.base_lr) for stage in thin.stages],
        parameters=figures.learned,
        products=forward_time.count_products(deploy, framed_size(thin, size)),
        receptive_field=figures.receptive_field,
        stride=record.stride,
    )


def framed_size(thin: ThinNet, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of what a net reads for an image of a size: more if it needs a mirrored border."""
    height, width = (length + 2 * thin.record.framing.mirror for length in size)
    return height, width


def format_rows(comparison: Comparison) -> str:
    """Return a table of the nets as Markdown, a row for each."""
    head = ("net", "mean IU", *(f"seed {seed}" for seed in comparison.seeds), "parameters", "products", "time", "field")
    rows = []
    for net in comparison.nets:
        scores = {run.seed: run.scores.mean_iu or 0.0 for run in net.runs}
        cells = [f"{100 * scores[seed]:.2f}" if seed in scores else "" for seed in comparison.seeds]
        seconds = "" if net.seconds is None else f"{1000 * net.seconds:.0f} ms"
        mean = f"{100 * net.mean_iu:.2f}" if net.runs else ""
        figures = [f"{net.parameters:,}", f"{net.products / 1e6:,.0f} M", seconds, f"{net.receptive_field} px"]
        rows.append([net.title, mean, *cells, *figures])
    return format_table(head, rows, text_columns=1)


def format_comparison(comparison: Comparison) -> str:
    """Return the JSON text of a comparison; each matrix of pixel counts is on one line."""
    document = {"format": FORMAT_VERSION, **asdict(comparison)}
    matrices: list[str] = []
    for net in document["nets"]:
        for run in net["runs"]:
            matrices.append(json.dumps(run["scores"]["confusion"]))
            run["scores"]["confusion"] = f"matrix {len(matrices) - 1}"
    text = json_file.dumps(document, indent=1)
    for number, matrix in enumerate(matrices):
        text = text.replace(f'"matrix {number}"', matrix, 1)
    return text + "\n"


def load_comparison(path: StrPath) -> Comparison:
    """Load a comparison from its JSON file.

    Raises:
        DataError: If the file is not one.
        OSError: If it cannot be read.
    """
    remedy = "fcn compare writes such files."
    return json_file.load(path, Comparison, "not a comparison of nets", remedy=remedy, version=FORMAT_VERSION)


def load_newest(folder: StrPath) -> Comparison:
    """Load the newest of the comparisons that were recorded in a folder.

    Raises:
        DataError: If there is none, or a file is not one.
    """
    found = [load_comparison(path) for path in sorted(Path(folder).glob("*.json"))]
    if not found:
        raise DataError("there is no recorded comparison", path=folder, remedy="fcn compare --record writes one.")
    return max(found, key=lambda each: datetime.fromisoformat(each.measured))


def record_comparison(comparison: Comparison, folder: StrPath) -> Path:
    """Write a comparison without the scores of single images to a new file in a folder, and return its path.

    Raises:
        ReproductionError: If the file cannot be written.
    """
    nets = [
        replace(net, runs=[replace(run, scores=replace(run.scores, images=())) for run in net.runs])
        for net in comparison.nets
    ]
    entry = replace(comparison, nets=nets)
    return ledger.add_file(entry.set, entry.measured, format_comparison(entry), folder)

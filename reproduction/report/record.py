"""What a run measured, as data: the one form that tables and pages are made from.

``scores.json`` holds one ``Report``. Scores are fractions from 0 to 1; null where there is nothing to count.

    {
      "format": 1,
      "set": "voc",
      "measured": "2026-01-31T12:00:00+00:00",
      "split": {"name": "seg11valid", "count": 736, "sha1": ...},   sha1 of the ids, each followed by a newline
      "limit": null,                                                or the number of images that were scored
      "device": "cpu", "precision": "float32",
      "versions": {"python": ..., "torch": ..., ...},
      "nets": [
        {
          "net": "voc-fcn8s",
          "note": "",                                               or why nothing was measured
          "weights": "fcn8s-heavy-pascal.caffemodel", "weights_sha256": ...,
          "seconds_per_image": 1.2,                                 null when every image was scored by an earlier run
          "predictions": "predictions/voc-fcn8s-0123456789",        the folder of its label maps, from the file's own
          "measured": [
            {
              "label": "label",                                     the label's top; SIFT Flow has "sem" and "geo"
              "pixel_acc": ..., "mean_acc": ..., "mean_iu": ..., "fw_iu": ...,
              "mean_iu_published_rule": ...,                        see Measured
              "class_iu": {"background": ..., ...},
              "confusion": [[...], ...],                            pixels; rows truth, columns prediction
              "void_pixels": 81234,                                 pixels without a class, which do not count
              "images": [{"id": ..., "pixel_acc": ..., "mean_iu": ...}, ...],
              "references": [
                {
                  "column": "paper",                                a key of reference.COLUMNS
                  "source": ..., "decimals": 1, "unverified": ["mean_acc"],
                  "tolerance_points": null,                         or how far off the net may be
                  "remark": "of other weights, ...",                what speaks against the comparison
                  "values": {"mean_iu": 0.655, ...},
                  "deltas_points": {"mean_iu": 0.01, ...}           measured minus published, percent; null if limited;
                                                                    also of "mean_iu_published_rule"
                }
              ],
              "held_against": "rescored"                            a key of reference.COLUMNS; null: not checked
            }
          ]
        }
      ]
    }
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import at_least, between
from reproduction.fcn.nets import published_nets, registry
from reproduction.fcn.reproduce import paper
from reproduction.fcn.scoring import score
from reproduction.fcn.scoring.score import Scores
from reproduction.report.reference import HOLDS, METRICS, PUBLISHED_RULE, TRAINED_POINTS, Reference, closest

FORMAT = 1

Fraction = Annotated[float, between(0, 1)]
Pixels = Annotated[int, at_least(0)]


@dataclass(frozen=True)
class ImageScore:
    """How well one image was segmented; an image without a pixel that counts has none.

    Attributes:
        id: of the image.
        pixel_acc: of its pixels alone.
        mean_iu: over the classes of its truth.
    """

    id: str
    pixel_acc: Fraction
    mean_iu: Fraction


@dataclass(frozen=True)
class Measured:
    """The scores of one net on one kind of label.

    Attributes:
        label: the label's top: ``label``, or ``sem`` and ``geo``.
        pixel_acc: see ``score.Scores``; None where there is nothing to count, as for the others.
        mean_acc: likewise.
        mean_iu: likewise.
        fw_iu: likewise.
        mean_iu_published_rule: mean IU as the published score.py takes it: a class without truth that is predicted
            counts as 0. Another number than ``mean_iu`` on SIFT Flow alone.
        class_iu: class name -> intersection over union.
        confusion: (C, C) pixels, rows truth, columns prediction, in the order of ``class_iu``.
        references: what others measured for this net and label, or this project did before.
        void_pixels: how many pixels have no class and do not count; None where nobody counted them.
        images: how well each image was segmented; empty where the label maps were not kept.
    """

    extra_names: ClassVar = ("held_against",)  # which follows from the rest

    label: str
    pixel_acc: Fraction | None
    mean_acc: Fraction | None
    mean_iu: Fraction | None
    fw_iu: Fraction | None
    mean_iu_published_rule: Fraction | None
    class_iu: Mapping[str, Fraction | None]
    confusion: Sequence[Sequence[Pixels]]
    references: Sequence[Reference] = ()
    void_pixels: Pixels | None = None
    images: Sequence[ImageScore] = ()

    def check(self) -> str | None:
        """Return what a file says wrong: see ``json_file``."""
        classes = len(self.class_iu)
        if not 0 < classes < 256:
            return "1 to 255 classes"
        if [len(row) for row in self.confusion] != [classes] * classes:
            return f"a confusion of {classes} x {classes} pixels, as there are classes in class_iu"
        return None

    @classmethod
    def of(cls, label: str, scores: Scores, classes: Sequence[str], references: Sequence[Reference] = ()) -> Measured:
        """Take a net's scores over, with what they are compared with; see ``references``."""
        return cls(
            label=label,
            pixel_acc=_number(scores.pixel_acc),
            mean_acc=_number(scores.mean_acc),
            mean_iu=_number(scores.mean_iu),
            fw_iu=_number(scores.fw_iu),
            mean_iu_published_rule=_number(score.scores(scores.confusion, absent="published").mean_iu),
            class_iu={name: _number(iu) for name, iu in zip(classes, scores.class_iu, strict=True)},
            confusion=scores.confusion.tolist(),
            references=references,
        )

    @property
    def held_against(self) -> Reference | None:
        """The reference that the net must match; None where there is none, so that nothing is checked."""
        return closest(self.references)

    @property
    def has_absent(self) -> bool:
        """Whether the two rules for classes without truth make a difference."""
        return self.mean_iu_published_rule not in (None, self.mean_iu)

    def delta(self, reference: Reference, metric: str) -> float | None:
        """Measured minus published, in points (percent); None where either is missing."""
        mine, theirs = getattr(self, metric), reference.values.get("mean_iu" if metric == PUBLISHED_RULE else metric)
        return None if mine is None or theirs is None else 100 * (mine - theirs)

    def misses(self, reference: Reference, metric: str) -> bool:
        """Whether a metric is further off a reference than its tolerance, or was not measured.

        The papers do not state how their mean IU counts absent classes, so that it may match by either rule.
        """
        if reference.tolerance_points is None or metric not in reference.values:
            return False
        rules = (metric, PUBLISHED_RULE) if (metric, reference.column) == ("mean_iu", "paper") else (metric,)
        deltas = [delta for rule in rules if (delta := self.delta(reference, rule)) is not None]
        return not any(abs(delta) <= reference.tolerance_points for delta in deltas)

    def off(self) -> Iterator[tuple[str, float]]:
        """Yield the metrics that miss ``held_against``, with how much, in points; NaN where one was not measured."""
        reference = self.held_against
        for metric in METRICS if reference else ():
            if reference and self.misses(reference, metric):
                delta = self.delta(reference, metric)
                yield metric, math.nan if delta is None else delta


@dataclass(frozen=True)
class NetResult:
    """One net of the run; see the module's example.

    Attributes:
        net: the published name.
        note: why nothing was measured; empty when something was.
        weights: file name of the weights.
        weights_sha256: their hash.
        seconds_per_image: mean over the images that this run scored; None when there were none.
        measured: one entry for each kind of label.
        predictions: the folder of its label maps, from that of the report; empty when they were not kept.
    """

    net: str
    note: str = ""
    weights: str = ""
    weights_sha256: str = ""
    seconds_per_image: Annotated[float, between(0, 1e9)] | None = None
    measured: Sequence[Measured] = ()
    predictions: str = ""

    def title(self, measured: Measured) -> str:
        """Return the name of the net, with the label where there are several."""
        return self.net if len(self.measured) == 1 else f"{self.net}, {measured.label}"


@dataclass(frozen=True)
class Split:
    """What was scored.

    Attributes:
        name: of the list.
        count: its length; with a limit, more than were scored.
        sha1: of its ids, each followed by a newline.
    """

    name: str
    count: Annotated[int, at_least(0)]
    sha1: str


@dataclass(frozen=True)
class Rise:
    """How much better a stage is than the one that it was trained from.

    Attributes:
        net: the stage.
        parent: the one before.
        points: of mean IU, in percent.
        least: what is asked for; None for nothing.
    """

    net: str
    parent: str
    points: float
    least: float | None

    @property
    def is_enough(self) -> bool:
        """Whether it is as much as is asked for."""
        return self.least is None or self.points >= self.least


@dataclass(frozen=True)
class Report:
    """A run; see the module's example.

    Attributes:
        set: the data set.
        measured: when, ISO 8601.
        split: what was scored.
        limit: how many images were scored; None for all.
        device: what the nets ran on.
        precision: of their arithmetic.
        versions: of the packages that the result depends on.
        nets: the results.
    """

    set: str
    measured: str
    split: Split | None
    limit: Annotated[int, at_least(1)] | None
    device: str
    precision: str
    versions: Mapping[str, str]
    nets: Sequence[NetResult]

    def off(self) -> list[tuple[str, Measured, str, float]]:
        """List what misses its reference: net, scores, metric, points. Nothing when only a part was scored."""
        if self.limit is not None:
            return []
        return [
            (net.net, measured, metric, delta)
            for net in self.nets
            for measured in net.measured
            for metric, delta in measured.off()
        ]

    def unchecked(self) -> list[tuple[str, str]]:
        """List what was not checked, and why: the title of the net, and the reason."""
        found = [(net.net, net.note) for net in self.nets if not net.measured]
        for net in self.nets:
            for measured in net.measured:
                if self.limit is not None and self.split:
                    found.append((net.title(measured), f"only {self.limit} of {self.split.count} images were scored"))
                elif measured.held_against is None:
                    other = "these weights need not match what was published"
                    found.append((net.title(measured), other if measured.references else "no score of it is known"))
        return found

    def rises(self) -> list[Rise]:
        """Compare each stage with the one before, in its first labelling. Nothing when only a part was scored."""
        mean_iu = {net.net: net.measured[0].mean_iu for net in self.nets if net.measured}
        least = published_nets.DATASETS[self.set].least_rise_points if self.set in published_nets.DATASETS else None
        found = []
        for name, mine in mean_iu.items() if self.limit is None else ():
            for parent in registry.NETS[name].parents if name in registry.NETS else ():
                before = mean_iu.get(parent)
                if mine is not None and before is not None:
                    found.append(Rise(name, parent, 100 * (mine - before), least))
        return found


def references(
    net: str, label: str = "label", earlier: Report | None = None, *, trained: bool = False
) -> list[Reference]:
    """Look up what a net's scores are compared with, at most one row for each of ``COLUMNS``.

    Args:
        net: its name.
        label: the label's top.
        earlier: what was measured before, see ``load``.
        trained: whether the weights are the user's own; then they must match within ``TRAINED_POINTS``.
    """
    rows = {"paper": paper.published(net), "readme": paper.readme(net), "rescored": paper.rescored(net)}
    found = [Reference.of(column, row, label) for column, row in rows.items() if row]
    found += [_recorded(earlier, net, label)] if earlier else []
    kept = [reference for reference in found if reference]
    if trained:
        kept = [dataclasses.replace(row, tolerance_points=TRAINED_POINTS) for row in kept]
    return kept


def _recorded(report: Report, net: str, label: str) -> Reference | None:
    """Return what an earlier report measured of a net; None where it has nothing of it, or of this label."""
    for result in report.nets:
        for found in result.measured:
            if (result.net, found.label) == (net, label):
                values = {metric: getattr(found, metric) for metric in METRICS}
                known = {metric: value for metric, value in values.items() if value is not None}
                torch = report.versions.get("torch", "unknown")
                source = f"measured here {report.measured[:10]}, torch {torch}; weights {result.weights_sha256}"
                return Reference("recorded", source, 4, known, (), HOLDS["recorded"])
    return None


def dumps(report: Report) -> str:
    """Write a report as JSON, see the module's example."""
    document = {"format": FORMAT, **dataclasses.asdict(report)}
    for net, result in zip(document["nets"], report.nets, strict=True):
        for entry, measured in zip(net["measured"], result.measured, strict=True):
            for row, reference in zip(entry["references"], measured.references, strict=True):
                metrics = [*row["values"], *([PUBLISHED_RULE] if "mean_iu" in row["values"] else [])]
                row["deltas_points"] = {metric: _delta(report, measured, reference, metric) for metric in metrics}
            entry["held_against"] = measured.held_against and measured.held_against.column
    return json_file.dumps(document, indent=1) + "\n"


def load(path: StrPath) -> Report:
    """Read a report from a file.

    Raises:
        DataError: it is not there, or is no report; says what is wrong with it.
    """
    remedy = "tools/reproduce.py writes such files."
    try:
        return json_file.load(path, Report, "this is no report of scores", remedy=remedy, version=FORMAT)
    except FileNotFoundError:
        raise DataError("there is no such report of scores", path=path, remedy=remedy) from None


def dump(report: Report, path: StrPath) -> None:
    """Write a report to a file, whole or not at all.

    Raises:
        ReproductionError: it cannot be written.
    """
    text = dumps(report)
    with files.atomic(path) as file:
        file.write(text.encode())


def _delta(report: Report, measured: Measured, reference: Reference, metric: str) -> float | None:
    return None if report.limit is not None else measured.delta(reference, metric)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

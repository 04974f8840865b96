"""The results of a scoring run as data, from which tables and pages are formatted.

``scores.json`` contains one ``ScoreReport``. Scores are fractions from 0 to 1; null if there is nothing to count.

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
          "seconds_per_image": 1.2,                                 null if an earlier run scored every image
          "predictions": "predictions/voc-fcn8s-0123456789",        the folder of its label maps, relative to the file
          "measured": [
            {
              "label": "label",                                     the label's top; SIFT Flow has "sem" and "geo"
              "pixel_acc": ..., "mean_acc": ..., "mean_iu": ..., "fw_iu": ...,
              "mean_iu_published_rule": ...,                        see Measured
              "class_iu": {"background": ..., ...},
              "confusion": [[...], ...],                            pixels; rows truth, columns prediction
              "void_pixels": 81234,                                 pixels labelled void, which do not count
              "images": [{"id": ..., "pixel_acc": ..., "mean_iu": ...}, ...],
              "references": [
                {
                  "column": "paper",                                a key of reference.COLUMNS
                  "source": ..., "decimals": 1, "unverified": ["mean_acc"],
                  "tolerance_points": null,                         or the largest difference allowed, in points
                  "remark": "of other weights, ...",                why the scores may not be comparable
                  "values": {"mean_iu": 0.655, ...},
                  "deltas_points": {"mean_iu": 0.01, ...}           measured minus published; null with a limit;
                                                                    also of "mean_iu_published_rule"
                }
              ],
              "compared_with": "rescored"                           a key of reference.COLUMNS; null: not checked
            }
          ],
          "weights_origin": ""                                      or how the file was made from the published one
        }
      ],
      "images": "VOC2011",                                          the folder of the images; empty if not known
      "by": ""                                                      in the ledger: who measured it
    }
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import at_least, between
from reproduction.fcn.datasets import SPECS
from reproduction.fcn.nets import registry
from reproduction.fcn.reproduce import paper
from reproduction.fcn.scoring import score
from reproduction.fcn.scoring.results import ImageResult
from reproduction.fcn.scoring.score import METRICS, Scores
from reproduction.report.reference import PUBLISHED_RULE, TOLERANCES, TRAINED_POINTS, Reference, choose_reference

FORMAT_VERSION = 1

Fraction = Annotated[float, between(0, 1)]
FindReferences = Callable[[str, str], Sequence[Reference]]  # from the names of a net and a label top
PixelCount = Annotated[int, at_least(0)]


@dataclass(frozen=True)
class ImageScore:
    """The scores of one image; images in which every pixel is void have none.

    Attributes:
        id: the id of the image.
        pixel_acc: the pixel accuracy in this image, 0 to 1.
        mean_iu: the mean IU over the classes that occur in its true labels, 0 to 1.
    """

    id: str
    pixel_acc: Fraction
    mean_iu: Fraction


@dataclass(frozen=True)
class LabelScores:
    """The scores of one net for one label top: one of the kinds of labels that it predicts.

    Attributes:
        label: the label top, the data layer's top with the true labels: ``label``; for SIFT Flow ``sem`` or ``geo``.
        pixel_acc: pixel accuracy, 0 to 1, see ``score.Scores``. This and the following scores are None if there is
            nothing to count.
        mean_acc: mean accuracy over the classes.
        mean_iu: mean IU; classes without a true pixel are left out.
        fw_iu: frequency-weighted IU.
        mean_iu_published_rule: mean IU as the published score.py computes it: a class without a true pixel counts as 0
            if it is predicted. Among the published data sets it differs from ``mean_iu`` on SIFT Flow only.
        class_iu: class name -> intersection over union.
        confusion: (C, C) pixel counts, rows truth, columns prediction, in the order of ``class_iu``.
        references: published and recorded scores of this net and label top, at most one from each source.
        void_pixels: the number of void pixels, which do not count; None if they were not counted.
        images: the scores of each image; empty if they are not recorded.
    """

    extra_names: ClassVar = ("compared_with", "held_against")  # computed when a report is written

    label: str
    pixel_acc: Fraction | None
    mean_acc: Fraction | None
    mean_iu: Fraction | None
    fw_iu: Fraction | None
    mean_iu_published_rule: Fraction | None
    class_iu: Mapping[str, Fraction | None]
    confusion: Sequence[Sequence[PixelCount]]
    references: Sequence[Reference] = ()
    void_pixels: PixelCount | None = None
    images: Sequence[ImageScore] = ()

    def check(self) -> str | None:
        """Return what should be there if the number of classes or the matrix size is wrong, else None."""
        classes = len(self.class_iu)
        if not 0 < classes < 256:
            return "1 to 255 classes"
        if [len(row) for row in self.confusion] != [classes] * classes:
            return f"a confusion of {classes} x {classes} pixels, as there are classes in class_iu"
        return None

    @classmethod
    def from_scores(
        cls,
        label: str,
        scores: Scores,
        classes: Sequence[str],
        references: Sequence[Reference] = (),
        images: Sequence[ImageResult] = (),
    ) -> LabelScores:
        """Convert the ``Scores`` that an evaluation computed to the form of a report, in which NaN is None.

        Args:
            label: the label top.
            scores: the scores.
            classes: the class names, in the order of the labels.
            references: the published and recorded scores to compare with, see ``find_references``.
            images: the result of each image; empty to record no scores of single images.
        """
        return cls(
            label=label,
            **{metric: _to_json_number(getattr(scores, metric)) for metric in METRICS},
            mean_iu_published_rule=_to_json_number(score.compute_scores(scores.confusion, absent="published").mean_iu),
            class_iu={name: _to_json_number(iu) for name, iu in zip(classes, scores.class_iu, strict=True)},
            confusion=scores.confusion.tolist(),
            references=references,
            void_pixels=sum(image.void[label] for image in images) if images else None,
            images=_score_images(label, images, len(classes)),
        )

    @property
    def compared_with(self) -> Reference | None:
        """The reference that the scores must match within its tolerance; None if there is none: nothing is checked."""
        return choose_reference(self.references)

    @property
    def has_absent(self) -> bool:
        """True if ``mean_iu`` and ``mean_iu_published_rule`` differ: some class has no true pixel, but is predicted."""
        return self.mean_iu_published_rule not in (None, self.mean_iu)

    def delta(self, reference: Reference, metric: str) -> float | None:
        """Return the measured minus the published value of a metric, in points (percent); None if either is missing.

        Args:
            reference: the published scores.
            metric: a key of ``METRICS`` such as ``mean_iu``, or ``mean_iu_published_rule``, which is compared with
                ``mean_iu``.
        """
        mine, theirs = getattr(self, metric), reference.values.get("mean_iu" if metric == PUBLISHED_RULE else metric)
        return None if mine is None or theirs is None else 100 * (mine - theirs)

    def misses(self, reference: Reference, metric: str) -> bool:
        """Return True if a metric differs from a reference by more than the reference's tolerance, or was not measured.

        False if the reference has no tolerance or does not state the metric.

        The papers do not state how their mean IU counts classes without a true pixel, so there ``mean_iu`` or
        ``mean_iu_published_rule`` may match.
        """
        if reference.tolerance_points is None or metric not in reference.values:
            return False
        rules = (metric, PUBLISHED_RULE) if (metric, reference.column) == ("mean_iu", "paper") else (metric,)
        deltas = [delta for rule in rules if (delta := self.delta(reference, rule)) is not None]
        return not any(abs(delta) <= reference.tolerance_points for delta in deltas)

    def mismatches(self) -> Iterator[tuple[str, float]]:
        """Yield (metric, difference in points) for each metric that misses the reference in ``compared_with``.

        The difference is NaN if the metric was not measured.
        """
        reference = self.compared_with
        for metric in METRICS if reference else ():
            if reference and self.misses(reference, metric):
                delta = self.delta(reference, metric)
                yield metric, math.nan if delta is None else delta


def _score_images(label: str, images: Sequence[ImageResult], classes: int) -> list[ImageScore]:
    """Return the scores of each image; images without a pixel that counts have none and are left out."""
    image_scores = []
    for image in images:
        if image.counts[label]:
            scores = score.compute_scores(image.confusion(label, classes))
            image_scores.append(ImageScore(image.id, scores.pixel_acc, scores.mean_iu))
    return image_scores


@dataclass(frozen=True)
class NetResult:
    """The result of scoring one net; the module's docstring has an example.

    Attributes:
        net: the name of the net.
        note: why nothing was measured, e.g. that its weights were never published; empty if something was.
        weights: the file name of the weights.
        weights_sha256: the SHA-256 of this file.
        seconds_per_image: the mean time for an image, over the images that this run scored; None if it scored none.
        measured: the scores, one entry for each label top.
        predictions: the folder of the label maps, relative to the report's; empty if they were not kept.
        weights_origin: how the weights file was made; empty if it is the published file, or the user's own.
    """

    net: str
    note: str = ""
    weights: str = ""
    weights_sha256: str = ""
    seconds_per_image: Annotated[float, between(0, 1e9)] | None = None
    measured: Sequence[LabelScores] = ()
    predictions: str = ""
    weights_origin: str = ""

    def title(self, measured: LabelScores) -> str:
        """Return the name of the net, followed by the label top of ``measured`` if the net has several."""
        return self.net if len(self.measured) == 1 else f"{self.net}, {measured.label}"


@dataclass(frozen=True)
class ScoredSplit:
    """The split that was scored.

    Attributes:
        name: the name of the split, such as ``seg11valid``.
        count: the number of its ids, including those that a limit left out.
        sha1: the SHA-1 of its ids, each followed by a newline.
    """

    name: str
    count: Annotated[int, at_least(0)]
    sha1: str


@dataclass(frozen=True)
class StageGain:
    """The gain in mean IU from one stage to the next, e.g. from voc-fcn32s to voc-fcn16s, which starts from it.

    Attributes:
        net: the name of the later stage's net.
        parent: the name of the net that it was trained from.
        points: the gain in mean IU, in points (percent).
        least: the required gain in points; None if none is required.
    """

    net: str
    parent: str
    points: float
    least: float | None

    @property
    def is_enough(self) -> bool:
        """True if the gain is at least ``least``, or no gain is required."""
        return self.least is None or self.points >= self.least


@dataclass(frozen=True)
class ScoreReport:
    """The results of a scoring run; the module's docstring has an example.

    Attributes:
        set: the name of the data set.
        measured: the time of the run, ISO 8601.
        split: the split that was scored; None if no data set was opened.
        limit: the number of images that were scored, from the start of the split; None for all.
        device: the device that the nets ran on.
        precision: the name of the arithmetic's precision, such as ``float32``.
        versions: the versions of the packages that the result depends on.
        nets: the result of each net.
        images: the name of the folder of the images, such as ``VOC2012``; empty if it is not known.
        by: the name of the person who measured it, in entries of the ledger; else empty.
    """

    set: str
    measured: str
    split: ScoredSplit | None
    limit: Annotated[int, at_least(1)] | None
    device: str
    precision: str
    versions: Mapping[str, str]
    nets: Sequence[NetResult]
    images: str = ""
    by: str = ""

    @property
    def scored(self) -> list[tuple[NetResult, LabelScores]]:
        """The scores of each net and label top, with the result of the net that they belong to."""
        return [(net, measured) for net in self.nets for measured in net.measured]

    @property
    def references(self) -> list[Reference]:
        """The references of all scores."""
        return [reference for _, measured in self.scored for reference in measured.references]

    def delta(self, measured: LabelScores, reference: Reference, metric: str) -> float | None:
        """Return ``measured.delta(reference, metric)``; None if only some of the images were scored (``limit``)."""
        return None if self.limit is not None else measured.delta(reference, metric)

    def mismatches(self) -> list[tuple[str, LabelScores, str, float]]:
        """Return (net name, scores, metric, difference in points) for each metric that misses its reference.

        If only some of the images were scored (``limit``), the list is empty: the published scores are of all images.
        """
        if self.limit is not None:
            return []
        return [
            (net.net, measured, metric, delta)
            for net, measured in self.scored
            for metric, delta in measured.mismatches()
        ]

    def unchecked(self) -> list[tuple[str, str]]:
        """Return (title, reason) for each net whose scores were not compared; for the title see ``NetResult.title``."""
        reasons = [(net.net, net.note) for net in self.nets if not net.measured]
        for net, measured in self.scored:
            if self.limit is not None and self.split:
                reasons.append((net.title(measured), f"only {self.limit} of {self.split.count} images were scored"))
            elif measured.compared_with is None:
                other = "these weights need not match what was published"
                reasons.append((net.title(measured), other if measured.references else "no score of it is known"))
        return reasons

    def stage_gains(self) -> list[StageGain]:
        """Return the gain in mean IU of each net over the net that it was trained from, where both were scored.

        Of a net with several kinds of labels (SIFT Flow), the first kind counts. The list is empty
        if only some of the images were scored (``limit``).
        """
        mean_iu = {net.net: net.measured[0].mean_iu for net in self.nets if net.measured}
        least = SPECS[self.set].least_rise_points if self.set in SPECS else None
        gains = []
        for name, mine in mean_iu.items() if self.limit is None else ():
            for parent in registry.NETS[name].parents if name in registry.NETS else ():
                before = mean_iu.get(parent)
                if mine is not None and before is not None:
                    gains.append(StageGain(name, parent, 100 * (mine - before), least))
        return gains


def find_references(
    net_name: str, label: str = "label", earlier: ScoreReport | None = None, *, trained: bool = False
) -> list[Reference]:
    """Return the published and recorded scores to compare a net's scores with, at most one for each of ``COLUMNS``.

    Args:
        net_name: the name of the net.
        label: the label top: ``label``; for SIFT Flow ``sem`` or ``geo``.
        earlier: an earlier report, as ``load_report`` returns it, whose scores become the reference ``recorded``; None
            for none.
        trained: True if the user trained the weights; the tolerance of all references is then ``TRAINED_POINTS``.
    """
    rows = {
        "paper": paper.find_paper_row(net_name),
        "readme": paper.find_readme_row(net_name),
        "rescored": paper.find_rescored_row(net_name),
    }
    known = [Reference.from_row(column, row, label) for column, row in rows.items() if row]
    known += [_find_recorded(earlier, net_name, label)] if earlier else []
    references = [reference for reference in known if reference]
    if trained:
        references = [dataclasses.replace(each, tolerance_points=TRAINED_POINTS) for each in references]
    return references


def _find_recorded(report: ScoreReport, net_name: str, label: str) -> Reference | None:
    """Return an earlier report's scores of a net and label top as a reference; None if it has none."""
    for result, measured in report.scored:
        if (result.net, measured.label) == (net_name, label):
            known = {metric: value for metric in METRICS if (value := getattr(measured, metric)) is not None}
            torch = report.versions.get("torch", "unknown")
            source = f"measured here {report.measured[:10]}, torch {torch}; weights {result.weights_sha256}"
            return Reference("recorded", source, 4, known, (), TOLERANCES["recorded"])
    return None


def format_report(report: ScoreReport) -> str:
    """Format a report as JSON text, as the example in the module's docstring."""
    document = {"format": FORMAT_VERSION, **dataclasses.asdict(report)}
    entries = [entry for net in document["nets"] for entry in net["measured"]]
    for entry, (_, measured) in zip(entries, report.scored, strict=True):
        for row, reference in zip(entry["references"], measured.references, strict=True):
            metrics = [*row["values"], *([PUBLISHED_RULE] if "mean_iu" in row["values"] else [])]
            row["deltas_points"] = {metric: report.delta(measured, reference, metric) for metric in metrics}
        entry["compared_with"] = measured.compared_with and measured.compared_with.column
    return json_file.dumps(document, indent=1) + "\n"


def load_report(path: StrPath) -> ScoreReport:
    """Load a report from its JSON file, ``scores.json``.

    Raises:
        DataError: If the file does not exist or is not a report; the message names the field that is wrong.
    """
    remedy = "fcn reproduce writes such files."
    try:
        return json_file.load(path, ScoreReport, "not a report of scores", remedy=remedy, version=FORMAT_VERSION)
    except FileNotFoundError:
        raise DataError("there is no such report of scores", path=path, remedy=remedy) from None


def write_report(report: ScoreReport, path: StrPath) -> None:
    """Write a report to a JSON file atomically.

    Raises:
        ReproductionError: If the file cannot be written.
    """
    files.write_text(path, format_report(report))


def _to_json_number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

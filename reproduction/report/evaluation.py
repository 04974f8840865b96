"""The scores of one net, as files of a report, as lines of text and as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reproduction.caffe.errors import printable
from reproduction.caffe.formats import hashes
from reproduction.fcn.reproduce.net_to_score import NetToScore
from reproduction.fcn.scoring.results import Evaluation
from reproduction.fcn.scoring.score import METRICS, TITLES, compute_scores
from reproduction.report import record, scoring_run
from reproduction.report.gallery import Gallery
from reproduction.report.record import LabelScores, NetResult, ScoredSplit
from reproduction.report.reference import PUBLISHED_RULE, Reference
from reproduction.report.scoring_run import ScoringRun


def write_evaluation(
    scored: NetToScore,
    evaluation: Evaluation,
    predictions: Path,
    folder: Path,
    device: str,
    precision: str,
    versions: Mapping[str, str],
) -> None:
    """Write the result of an evaluation to ``scores.json``, ``scores.md`` and the page ``index.html``.

    Published scores are shown for comparison but without a tolerance, because these weights need not match them.

    Args:
        scored: The net, its weights file and its data set.
        evaluation: The result.
        predictions: The folder to which the evaluation wrote the predicted label maps.
        folder: The folder to write to.
        device: The device that the net ran on.
        precision: The name of the arithmetic's precision, such as ``float32``.
        versions: The versions of the packages that the result depends on.

    Raises:
        ReproductionError: If a file cannot be written.
    """
    dataset = scored.dataset

    def references(net_name: str, top: str) -> list[Reference]:
        known = record.find_references(net_name, top) if scored.is_published_split else []
        return [replace(reference, tolerance_points=None) for reference in known]

    measured = scoring_run.measure_labels(scored.name, dataset, evaluation, references)
    maps, seconds = os.path.relpath(predictions, folder), evaluation.seconds_per_image
    run = ScoringRun(
        [NetResult(scored.name, "", scored.weights.name, scored.weights_sha256, seconds, measured, maps)],
        {scored.name: Gallery(dataset, predictions, scored.colours)},
        ScoredSplit(dataset.split, len(dataset), hashes.hash_lines(dataset.ids)),
    )
    report = run.make_report(scored.set_name, len(evaluation.images), device, precision, versions)
    scoring_run.write_files(report, folder, run.galleries)


def format_scores(scored: NetToScore, evaluation: Evaluation) -> list[str]:
    """Format the scores of an evaluation in percent, as the lines of a table.

    Args:
        scored: the net and its data set.
        evaluation: the result.
    """
    lines, dataset = [], scored.dataset
    for top, result in evaluation.scores.items():
        what = "" if len(evaluation.scores) == 1 else f", {top}"
        lines += [f"{scored.name} on {dataset.name} {dataset.split}, {len(evaluation.images)} images{what}", ""]
        lines += ["  ".join(f"{TITLES[metric]:>10}" for metric in METRICS)]
        lines += ["  ".join(f"{100 * getattr(result, metric):10.2f}" for metric in METRICS), ""]
        published = compute_scores(result.confusion, absent="published").mean_iu
        if published != result.mean_iu:
            lines += [f"mean IU as the published score.py computes it, absent classes as 0: {100 * published:.2f}", ""]
        names = [printable(name) for name in dataset.label_classes[top]]
        width = max(map(len, names))
        pairs = zip(names, result.class_iu, strict=True)
        lines += [f"{name:{width}}  " + ("     -" if iu != iu else f"{100 * iu:6.2f}") for name, iu in pairs]
        lines += [""]
    return lines[:-1]


def scores_as_json(scored: NetToScore, evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores as fractions, with the net, weights and split that they belong to; all of JSON types.

    A score is None if there is nothing to count.

    Args:
        scored: the net, its weights file and its data set.
        evaluation: the result.
    """
    by_label, dataset = {}, scored.dataset
    for top, result in evaluation.scores.items():
        measured = LabelScores.from_scores(top, result, dataset.label_classes[top])
        by_label[top] = {name: getattr(measured, name) for name in (*METRICS, PUBLISHED_RULE, "class_iu", "confusion")}
    return {
        "net": scored.name,
        "weights": str(scored.weights),
        "dataset": dataset.name,
        "tree": str(dataset.tree),
        "split": dataset.split,
        "images": len(evaluation.images),
        "scores": by_label,
    }

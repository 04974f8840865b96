"""The ledger: who measured which scores with which weights, one JSON file for each run in ``weights/results``.

A file contains a ``record.ScoreReport`` with the name of the person in ``by``, and without label maps and the scores of
single images. Everyone can add one; what it contains can be checked without the data, since its scores follow from its
confusions.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from reproduction.caffe.errors import DataError, ReproductionError, StrPath
from reproduction.caffe.formats import files
from reproduction.fcn.scoring import score
from reproduction.fcn.scoring.score import METRICS
from reproduction.report import record
from reproduction.report.record import LabelScores, ScoreReport

FOLDER = "results"  # below the weights folder
_SAME = 1e-9  # a score is a quotient of two sums in double precision


def write_entry(report: ScoreReport, by: str, folder: StrPath) -> Path:
    """Write a report to the ledger as a new file, see ``add_file``, and return its path.

    Args:
        report: The report of a run over all images.
        by: The name of the person who ran it.
        folder: The folder of the ledger; it is created if it does not exist.

    Raises:
        ReproductionError: If the report covers only a part of the images or no net, or if the file cannot be written.
    """
    measured = [
        replace(net, predictions="", measured=[replace(scores, references=(), images=()) for scores in net.measured])
        for net in report.nets
        if net.measured
    ]
    entry = replace(report, by=by.strip(), nets=measured)
    if problem := find_problem(entry):
        raise ReproductionError(f"this run cannot be added to the ledger: {problem}")
    return add_file(entry.set, entry.measured, record.format_report(entry), folder)


def add_file(set_name: str, measured: str, text: str, folder: StrPath) -> Path:
    """Write a record as a new file, and return its path.

    The file is named after the data set, the day, and a hash of its content, so that records of several people can be
    merged.

    Args:
        set_name: The name of the data set.
        measured: The time of the run, ISO 8601.
        text: The content.
        folder: The folder to write to; it is created if it does not exist.

    Raises:
        ReproductionError: If the file cannot be written.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = Path(folder) / f"{set_name}-{measured[:10]}-{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)
    return path


def load_entries(folder: StrPath) -> list[ScoreReport]:
    """Load and check all reports of the ledger, the oldest first; an empty list if the folder does not exist.

    Raises:
        DataError: If a file is not a report, or is incomplete, or if its scores do not follow from its confusions.
    """
    entries = []
    for path in sorted(Path(folder).glob("*.json")):
        entry = record.load_report(path)
        if problem := find_problem(entry):
            raise DataError(f"not an entry of the ledger: {problem}", path=path)
        entries.append(entry)
    return sorted(entries, key=lambda entry: datetime.fromisoformat(entry.measured))


def find_newest(entries: Sequence[ScoreReport], net_name: str) -> tuple[ScoreReport, LabelScores] | None:
    """Return the newest report that has scores of a net, and these scores; None if nobody measured the net.

    Args:
        entries: the reports of the ledger, the oldest first, as ``load_entries`` returns them.
        net_name: the name of the net.

    Returns:
        (report, scores); of a net with several kinds of labels (SIFT Flow), the scores of the first kind.
    """
    for entry in reversed(entries):
        for net, measured in entry.scored:
            if net.net == net_name:
                return entry, measured
    return None


def find_problem(entry: ScoreReport) -> str:
    """Return the first problem of a ledger's report as text, e.g. ``not all images were scored``; empty if none."""
    if not entry.by or not entry.by.isprintable():
        return "there is no name of the person who measured it"
    if entry.split is None or entry.limit is not None:
        return "not all images were scored"
    try:
        datetime.fromisoformat(entry.measured)
    except ValueError:
        return f"the time is not in the form of ISO 8601, but {entry.measured!r}"
    if not any(net.measured for net in entry.nets):
        return "no net was scored"
    return next(_find_wrong_scores(entry), "")


def _find_wrong_scores(entry: ScoreReport) -> Iterator[str]:
    for net in entry.nets:
        if not re.fullmatch("[0-9a-f]{64}", net.weights_sha256):
            yield f"{net.net}: there is no SHA-256 of the weights"
        for measured in net.measured:
            scores = score.compute_scores(np.asarray(measured.confusion, np.int64))
            follows = LabelScores.from_scores(measured.label, scores, list(measured.class_iu))
            values = {metric: (getattr(measured, metric), getattr(follows, metric)) for metric in METRICS}
            values |= {f"IU of {name}": (iu, follows.class_iu[name]) for name, iu in measured.class_iu.items()}
            for name, (got, want) in values.items():
                if got != want and (got is None or want is None or not math.isclose(got, want, abs_tol=_SAME)):
                    yield f"{net.title(measured)}: {name} is {got}, but follows from the confusion as {want}"

"""The course of trainings, read from their logs: what was learnt from, losses, validations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from reproduction.caffe import prototxt
from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.schema import SolverParameter
from reproduction.fcn import card, trainlog

LOG = "log.jsonl"
_PARENT = "weights of "  # how a log's settings call what a stage starts from, see fcn/runs.py


@dataclass(frozen=True)
class Check:
    """One validation.

    Attributes:
        iteration: of the stage.
        images: how many were scored; None for nets whose labels are not of pixels.
        scores: by label top, the paper's metrics, fractions; empty for the others.
        class_iu: by label top, in the order of the classes.
        outputs: the means of the test net's outputs; empty for nets whose labels are of pixels.
        time: when, ISO 8601; empty where the log does not say.
    """

    iteration: int
    images: int | None
    scores: Mapping[str, Mapping[str, float]]
    class_iu: Mapping[str, Sequence[float | None]]
    outputs: Mapping[str, float]
    time: str


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of the net.
        start: the log's first record: time, device, versions, solver, settings.
        planned: iterations in all.
        iterations: the updates that were made, as the iteration before each.
        losses: of these, a mean over pixels where labels are of pixels.
        checks: the validations.
        resumed: how often it went on after a stop.
        classes: their names by label top; empty for nets whose labels are not of pixels.
        parents: the nets whose weights it started from.
        colours: R, G, B of the classes by label top, where the net's card says them.
        took: from the start to the last validation; None where the log does not say it, or there was a stop.
    """

    name: str
    start: Mapping[str, Any]
    planned: int
    iterations: Sequence[int]
    losses: Sequence[float]
    checks: Sequence[Check]
    resumed: int
    classes: Mapping[str, Sequence[str]]
    parents: Sequence[str]
    colours: Mapping[str, Sequence[tuple[int, int, int]]]
    took: timedelta | None

    @property
    def done(self) -> int:
        """The updates that were made."""
        return self.iterations[-1] + 1 if self.iterations else 0


def find(folder: Path) -> list[Path]:
    """List the folders of trainings in a folder of results, or the folder itself if it is one.

    Raises:
        DataError: there is none.
    """
    found = [folder] if (folder / LOG).is_file() else sorted(path.parent for path in folder.glob(f"*/{LOG}"))
    if not found:
        raise DataError("there is no training here", path=folder, want=f"NET/{LOG}", remedy="tools/train.py writes it.")
    return found


def read(folder: Path) -> Stage:
    """Read the log of one training.

    Raises:
        DataError: it is missing, or is no log of a training.
    """
    path = folder / LOG
    records = list(trainlog.read(path))
    if not records or records[0]["record"] != trainlog.START:
        raise DataError("this log has no start", path=path)
    first = records[0]
    about = card.load(folder / card.FILE) if (folder / card.FILE).is_file() else None
    try:
        steps = [record for record in records if record["record"] == trainlog.ITERATION]
        per_pixel = [record["loss_per_pixel"] for record in steps]
        checks = [_check(record) for record in records if record["record"] == trainlog.VALIDATION]
        resumed = sum(record["record"] == trainlog.RESUME for record in records)
        return Stage(
            name=str(first["stage"]),
            start=first,
            planned=prototxt.loads(first["solver"], SolverParameter).max_iter,
            iterations=[record["iteration"] for record in steps],
            losses=[
                float(record["loss"] if mean is None else mean) for record, mean in zip(steps, per_pixel, strict=True)
            ],
            checks=checks,
            resumed=resumed,
            classes=first.get("classes", {}),
            parents=[name.removeprefix(_PARENT) for name in first["settings"] if name.startswith(_PARENT)],
            colours={top: said.colours for top, said in about.labels.items()} if about else {},
            took=None if resumed or not checks else _between(first["time"], checks[-1].time),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ReproductionError):
            raise error.at(str(path)) from None
        raise DataError("this is no log of a training", path=path) from None


def _between(began: str, ended: str) -> timedelta | None:
    if not ended:
        return None
    took = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
    return timedelta(seconds=round(took.total_seconds()))


def _check(record: Mapping[str, Any]) -> Check:
    scores = record.get("scores", {})
    return Check(
        iteration=record["iteration"],
        images=record.get("images"),
        scores={
            top: {name: float(value) for name, value in found.items() if name != "class_iu"}
            for top, found in scores.items()
        },
        class_iu={top: found["class_iu"] for top, found in scores.items()},
        outputs={name: float(value) for name, value in record.get("outputs", {}).items()},
        time=str(record.get("time", "")),
    )


def chains(stages: Iterable[Stage]) -> list[list[Stage]]:
    """Put together the stages that were trained one from the other; those of a chain in the order of their start."""
    ordered = sorted(stages, key=lambda stage: str(stage.start.get("time", "")))
    found: list[list[Stage]] = []
    for stage in ordered:
        mine = [chain for chain in found if any(before.name in stage.parents for before in chain)]
        rest = [chain for chain in found if chain not in mine]
        found = [*rest, [*(before for chain in mine for before in chain), stage]]
    return found

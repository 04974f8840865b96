"""The history of trainings, loaded from their logs: settings, losses and validations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar

from reproduction.caffe.errors import DataError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.formats.json_file import Constraint as Condition
from reproduction.caffe.formats.json_file import at_least, between, matching
from reproduction.caffe.schema import SolverParameter
from reproduction.fcn.segment import card
from reproduction.fcn.train import log_file
from reproduction.report.record import Fraction

LOG = "log.jsonl"
_PARENT = "weights of "  # prefix of the initial weights in a log's settings, see fcn/train/run_folder.py


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


Loss = Annotated[float, between(-1e100, 1e100)]
Time = Annotated[str, Condition("a time as 2026-01-31T12:00:00+00:00", _is_time)]
Name = Annotated[str, matching("(?s).{1,255}", "a name")]
Classes = Annotated[Sequence[str], Condition("1 to 255 names", lambda names: 0 < len(names) < 256)]


@dataclass(frozen=True)
class _Start:
    """The fields of the first record of a log that a page displays."""

    extra_names: ClassVar = ("*",)

    stage: Name
    time: Time
    device: str
    processes: Annotated[int, at_least(1)]
    versions: Mapping[str, str]
    solver: str
    settings: Mapping[str, Any]
    initialised: str
    classes: Mapping[str, Classes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Step:
    """The record of an iteration."""

    extra_names: ClassVar = ("*",)

    iteration: log_file.Iteration
    loss: Loss
    loss_per_pixel: Loss | None


@dataclass(frozen=True)
class _Scores:
    """The scores of one labelling."""

    pixel_acc: Fraction | None
    mean_acc: Fraction | None
    mean_iu: Fraction | None
    fw_iu: Fraction | None
    class_iu: Sequence[Fraction | None]


@dataclass(frozen=True)
class _Validation:
    """The record of a validation."""

    extra_names: ClassVar = ("*",)

    iteration: log_file.Iteration
    images: Annotated[int, at_least(0)] | None = None
    scores: Mapping[str, _Scores] = field(default_factory=dict)
    outputs: Mapping[str, Loss] = field(default_factory=dict)
    time: Time | Annotated[str, matching("", "a time or nothing")] = ""


@dataclass(frozen=True)
class Check:
    """One validation.

    Attributes:
        iteration: the number of updates of the stage made before.
        images: the number of images scored; None for nets without dense labels.
        scores: by label top, the paper's metrics as fractions; empty for nets without dense labels.
        class_iu: by label top, the IU of each class in the order of the classes.
        outputs: the mean of each output of the test net; empty for nets with dense labels.
        time: the time of the validation, ISO 8601; empty if the log does not contain it.
    """

    iteration: int
    images: int | None
    scores: Mapping[str, Mapping[str, float | None]]
    class_iu: Mapping[str, Sequence[float | None]]
    outputs: Mapping[str, float]
    time: str


@dataclass(frozen=True)
class TrainingHistory:
    """One training.

    Attributes:
        name: the name of the net.
        start: the log's first record: time, device, versions, solver, settings.
        planned: the total number of iterations that the solver asks for.
        iterations: the number of each update, from 0.
        losses: the loss before each update; the mean per pixel for dense labels.
        checks: the validations.
        resumed: the number of times that the training was resumed.
        classes: the class names by label top; empty for nets without dense labels.
        parents: the names of the nets whose weights it started from.
        colours: the R, G, B values of the classes by label top; empty if the folder has no card.
        took: the time from the start to the last validation; None if the log does not contain both, or the training was
            resumed.
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
        """The number of updates made."""
        return self.iterations[-1] + 1 if self.iterations else 0


def find_run_folders(folder: Path) -> list[Path]:
    """Return the training folders in a folder of results, or the folder itself if it is a training's.

    Raises:
        DataError: If there is no log in the folder or directly below it.
    """
    found = [folder] if (folder / LOG).is_file() else sorted(path.parent for path in folder.glob(f"*/{LOG}"))
    if not found:
        raise DataError("there is no training here", path=folder, want=f"NET/{LOG}", remedy="tools/train.py writes it.")
    return found


def load_history(folder: Path) -> TrainingHistory:
    """Load the log of one training, and the class colours of its card if there is one.

    Raises:
        DataError: If the log is missing or invalid, or the card is broken.
    """
    path = folder / LOG
    records = list(enumerate(log_file.read_records(path), 1))
    if not records or records[0][1]["record"] != log_file.START:
        raise DataError("this log has no start", path=path)
    about = card.load_card(folder / card.CARD_FILE) if (folder / card.CARD_FILE).is_file() else None
    start = log_file.convert_record(records[0][1], _Start, f"{path}:1")
    steps, checks, resumed = [], [], 0
    for number, record in records:
        if record["record"] == log_file.ITERATION:
            steps.append(log_file.convert_record(record, _Step, f"{path}:{number}"))
        elif record["record"] == log_file.VALIDATION:
            checks.append(
                _check(log_file.convert_record(record, _Validation, f"{path}:{number}"), start, f"{path}:{number}")
            )
        resumed += record["record"] == log_file.RESUME
    return TrainingHistory(
        name=start.stage,
        start=records[0][1],
        planned=_planned(start, path),
        iterations=[step.iteration for step in steps],
        losses=[step.loss if step.loss_per_pixel is None else step.loss_per_pixel for step in steps],
        checks=checks,
        resumed=resumed,
        classes=start.classes,
        parents=[name.removeprefix(_PARENT) for name in start.settings if name.startswith(_PARENT)],
        colours={top: said.colours for top, said in about.labels.items()} if about else {},
        took=None if resumed or not checks else _between(start.time, checks[-1].time),
    )


def _planned(start: _Start, path: Path) -> int:
    try:
        solver = prototxt.loads(start.solver, SolverParameter)
    except ReproductionError as error:
        raise error.at(str(path)) from None
    return max(0, solver.max_iter)


def _between(began: str, ended: str) -> timedelta | None:
    if not ended:
        return None
    took = datetime.fromisoformat(ended) - datetime.fromisoformat(began)
    return timedelta(seconds=round(took.total_seconds()))


def _check(found: _Validation, start: _Start, place: str) -> Check:
    for top, scores in found.scores.items():
        want = len(start.classes.get(top, ()))
        if len(scores.class_iu) != want:
            got, problem = f"{len(scores.class_iu)} values", f"{log_file.NO_LOG}: scores.{top}.class_iu"
            raise DataError(problem, path=place, got=got, want=f"{want}, one for each class")
    return Check(
        iteration=found.iteration,
        images=found.images,
        scores={
            top: {name: value for name, value in asdict(scores).items() if name != "class_iu"}
            for top, scores in found.scores.items()
        },
        class_iu={top: scores.class_iu for top, scores in found.scores.items()},
        outputs=found.outputs,
        time=found.time,
    )


def group_chains(stages: Iterable[TrainingHistory]) -> list[list[TrainingHistory]]:
    """Group stages into chains by their parents; the stages of a chain are in the order of their start times."""
    ordered = sorted(stages, key=lambda stage: str(stage.start.get("time", "")))
    found: list[list[TrainingHistory]] = []
    for stage in ordered:
        # A stage with parents in several chains merges them.
        mine = [chain for chain in found if any(before.name in stage.parents for before in chain)]
        rest = [chain for chain in found if chain not in mine]
        found = [*rest, [*(before for chain in mine for before in chain), stage]]
    return found

"""The log of a training: one JSON object per line, for the start, each resume, each update and each validation.

    {"record": "start", "iteration": 0, "stage": "voc-fcn32s", "solver": "...", ...}
    {"record": "iteration", "iteration": 0, "loss": 541234.5, "loss_per_pixel": 3.04, "lr": 1e-10, "images": [...]}
    {"record": "validation", "iteration": 4000, "scores": {"label": {"pixel_acc": 0.7, ...}}, "time": "2026-...", ...}
    {"record": "resume", "iteration": 4000, ...}

``iteration`` is the number of updates made before, so the loss of iteration 0 is that of the initial weights. A run
that resumes from a snapshot first removes the later records, so that the log contains each iteration once.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from reproduction.caffe.errors import DataError, StrPath, cannot_write
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import Constraint, OpenRecord, at_least, between, matching
from reproduction.caffe.training.events import Iteration, LossValue, Step

LOG_FILE = "log.jsonl"
NOT_A_LOG = "not a training log"
_LIMIT = 2 << 30  # bytes, ten times the log of the longest published training


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


Time = Annotated[str, Constraint("a time as 2026-01-31T12:00:00+00:00", _is_time)]
_NetName = Annotated[str, matching("(?s).{1,255}", "a name")]
_ClassNames = Annotated[Sequence[str], Constraint("1 to 255 names", lambda names: 0 < len(names) < 256)]
_Fraction = Annotated[float, between(0, 1)] | None


@dataclass(frozen=True)
class Resume(OpenRecord):
    """The record that a resumed training adds to its log; ``Start``, a log's first record, has the same fields too.

    Attributes:
        iteration: the number of updates made before.
        stage: the name of the net that is trained.
        time: the time of the start or resume, ISO 8601.
        device: a description of the device that the net is on.
        processes: the number of processes that train together.
        versions: the versions of Python and of the packages that results depend on.
        solver: the solver's settings, as prototxt text.
        classes: the class names by label top, e.g. ``{"label": ["background", ...]}``; empty if the net is a classifier
            of whole images.
    """

    iteration: Iteration
    stage: _NetName
    time: Time
    device: str
    processes: Annotated[int, at_least(1)]
    versions: Mapping[str, str]
    solver: str
    classes: Mapping[str, _ClassNames] = field(default_factory=dict)


@dataclass(frozen=True)
class Start(Resume):
    """The first record of a log: the fields of ``Resume``, the run's settings, and where its weights came from.

    Attributes:
        settings: everything that the trained weights depend on, as ``run_folder.collect_settings`` returns it.
        initialised: which layers were copied from which weights file, as text.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    initialised: str = ""


@dataclass(frozen=True)
class Metrics:
    """The paper's metrics and class IUs for one kind of labels, 0 to 1; None if there was nothing to count.

    Attributes:
        pixel_acc: pixel accuracy.
        mean_acc: mean accuracy over the classes.
        mean_iu: mean intersection over union.
        fw_iu: frequency-weighted intersection over union.
        class_iu: the intersection over union of each class, in the order of the class numbers.
    """

    pixel_acc: _Fraction
    mean_acc: _Fraction
    mean_iu: _Fraction
    fw_iu: _Fraction
    class_iu: Sequence[_Fraction]


@dataclass(frozen=True)
class Validation(OpenRecord):
    """The record of one validation: the net with its present weights, evaluated on the validation images.

    Attributes:
        iteration: the number of updates made before.
        images: the number of images that were evaluated; None if the log does not contain it.
        scores: the metrics by label top (``label``; SIFT Flow has ``sem`` and ``geo``); empty for a classifier of whole
            images.
        outputs: for a classifier, the mean of each output blob of the test net, such as loss and accuracy; else empty.
        time: the time when the validation ended, ISO 8601; empty if the log does not contain it.
        notes: warnings, such as that the net predicts one class for every pixel.
    """

    iteration: Iteration
    images: Annotated[int, at_least(0)] | None = None
    scores: Mapping[str, Metrics] = field(default_factory=dict)
    outputs: Mapping[str, LossValue] = field(default_factory=dict)
    time: Time | Annotated[str, matching("", "a time or nothing")] = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Record(OpenRecord):
    """The fields of every record of a log; others depend on its kind."""

    record: str
    iteration: Iteration


LogRecord = Start | Resume | Step | Validation
_KINDS: dict[str, type[LogRecord]] = {"start": Start, "resume": Resume, "iteration": Step, "validation": Validation}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_STEP_FIELDS = ("iteration", "loss", "loss_per_pixel", "lr", "images")  # the others of a Step are not logged


class TrainingLog:
    """A writer of a training's log, which starts a new file or continues that of an interrupted run.

    Args:
        path: the file; it and its folder are created if they do not exist. None writes nothing: of several processes
            that train together, only the first has a log.
        iteration: the number of updates made so far. 0 starts a new log; otherwise the records of later iterations are
            removed from the existing one.

    Attributes:
        validated: True if the log already has a validation at ``iteration``, so that it need not be repeated; also if
            ``path`` is None.

    Raises:
        DataError: If the file is not a log, or ``iteration`` is not 0 and there is no file.
        ReproductionError: If the file cannot be written.
    """

    def __init__(self, path: StrPath | None, iteration: int = 0):
        self.validated = path is None
        self._path = path
        self._file: io.FileIO | None = None
        if path is None:
            return
        files.make_folder(Path(path).parent)
        kept = [record for _, record in _read_json(path) if _is_before(record, iteration)] if iteration else []
        self.validated = any(record["record"] == "validation" and record["iteration"] == iteration for record in kept)
        with files.open_atomic(path) as file:
            file.writelines(map(_to_line, kept))
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 (closed by ``close``)

    def write(self, record: LogRecord) -> None:
        """Append a record; it is not buffered, so that readers see it immediately.

        Raises:
            ReproductionError: If it cannot be written, as on a full disk.
        """
        if isinstance(record, Step):
            fields = {name: getattr(record, name) for name in _STEP_FIELDS}
        else:
            fields = dataclasses.asdict(record)
        left = memoryview(_to_line({"record": _NAMES[type(record)], **fields}))
        try:
            while self._file and left:
                left = left[self._file.write(left) :]  # an unbuffered write may be partial
        except OSError as error:
            raise cannot_write(error, str(self._path)) from None

    def sync(self) -> None:
        """Wait until all records are on the disk (fsync); call it before a snapshot: a run resumed there needs them.

        Raises:
            ReproductionError: If the flush fails, as on a full disk.
        """
        try:
            if self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(error, str(self._path)) from None

    def close(self) -> None:
        """Close the log's file."""
        if self._file:
            self._file.close()


def format_now() -> str:
    """Return the present time in UTC in the format of the log, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_log(path: StrPath) -> Iterator[LogRecord]:
    """Yield the records of a log, one for each line; a last line that was not written completely is skipped.

    Raises:
        DataError: If the file does not exist, is not a log, or does not begin with a ``Start``.
    """
    classes: Mapping[str, Sequence[str]] | None = None
    for place, fields in _read_json(path):
        if fields["record"] not in _KINDS:
            continue  # written by a later version
        record = _convert(_KINDS[fields["record"]], fields, place)
        if classes is None:
            if not isinstance(record, Start):
                break
            classes = record.classes
        if isinstance(record, Validation):
            _check_classes(record, classes, place)
        yield record
    if classes is None:
        raise DataError("this log has no start", path=path)


def copy_thinned(path: StrPath, copy: StrPath, every: int) -> None:
    """Copy a log, with only every n-th update but all other records, to publish it with the weights.

    Args:
        path: the log.
        copy: the path of the copy.
        every: n; with 10, the updates of iterations 0, 10, 20 and so on are copied.

    Raises:
        DataError: If the file does not exist or is not a log.
        ReproductionError: If the copy cannot be written.
    """
    records = (each for _, each in _read_json(path) if each["record"] != "iteration" or each["iteration"] % every == 0)
    with files.open_atomic(copy) as file:
        file.writelines(map(_to_line, records))


def _read_json(path: StrPath) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the JSON object of each line."""
    try:
        lines = files.read_regular(path, _LIMIT).split(b"\n")
    except FileNotFoundError:
        raise DataError("there is no training log", path=path) from None
    for number, line in enumerate(lines[:-1], 1):
        place = f"{os.fspath(path)}:{number}"
        record = json_file.loads(line, dict, place, NOT_A_LOG)
        _convert(_Record, record, place)
        yield place, record


def _convert(kind: type[Any], record: Mapping[str, Any], place: str) -> Any:
    try:
        return json_file.convert(kind, record)
    except json_file.MismatchError as error:
        raise DataError(f"{NOT_A_LOG}: {error}", path=place, want=error.want) from None


def _check_classes(validation: Validation, classes: Mapping[str, Sequence[str]], place: str) -> None:
    for top, metrics in validation.scores.items():
        got, want = len(metrics.class_iu), len(classes.get(top, ()))
        if got != want:
            problem = f"{NOT_A_LOG}: scores.{top}.class_iu"
            raise DataError(problem, path=place, got=f"{got} values", want=f"{want}, one for each class")


def _is_before(record: Mapping[str, Any], iteration: int) -> bool:
    """Return True if a record belongs to a run with ``iteration`` updates made."""
    made: int = record["iteration"]
    return made < iteration if record["record"] == "iteration" else made <= iteration


def _to_line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"

"""The log of a training: one JSON object per line, for the first start and every resumption.

    {"record": "start", "iteration": 0, "stage": "voc-fcn32s", "solver": "...", ...}
    {"record": "iteration", "iteration": 0, "loss": 541234.5, "loss_per_pixel": 3.04, "lr": 1e-10, "images": [...]}
    {"record": "validation", "iteration": 4000, "time": "2026-...", "scores": {"label": {"pixel_acc": 0.7, ...}}}
    {"record": "resume", "iteration": 4000, ...}

``iteration`` counts the updates made before: the loss of iteration 0 is that of the initial weights. A run that resumes
from a snapshot first removes the later records, so that the log contains each iteration once.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from reproduction.caffe.errors import DataError, StrPath, cannot_write
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import between

T = TypeVar("T")
Record = dict[str, Any]
Iteration = Annotated[int, between(0, 2**31 - 1)]
_LIMIT = 2 << 30  # bytes, ten times the log of the longest published training

NO_LOG = "this is no log of a training"
START, RESUME, ITERATION, VALIDATION = "start", "resume", "iteration", "validation"


@dataclass(frozen=True)
class _Line:
    """The fields of every record of a log; others depend on its kind."""

    extra_names: ClassVar = ("*",)

    record: str
    iteration: Iteration
    settings: Mapping[str, Any] = field(default_factory=dict)


class TrainingLog:
    """A log that is open for writing.

    Args:
        path: the file, which is created with its folder if it does not exist. None writes nothing, as in processes
            other than the first.
        iteration: the number of updates made so far. Records of later iterations are removed; 0 starts a new log.

    Attributes:
        validated: True if the log already has a validation at ``iteration``, or ``path`` is None.

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
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(error, path) from None
        kept = [record for record in read_records(path) if _before(record, iteration)] if iteration else []
        self.validated = any(record["record"] == VALIDATION and record["iteration"] == iteration for record in kept)
        with files.open_atomic(path) as file:
            file.writelines(map(_line, kept))
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 (closed by ``close``)

    def write(self, record: str, iteration: int, **fields: Any) -> None:
        """Append a record, unbuffered, so that readers see it immediately.

        Raises:
            ReproductionError: If it cannot be written, as on a full disk.
        """
        left = memoryview(_line({"record": record, "iteration": iteration, **fields}))
        try:
            while self._file and left:
                left = left[self._file.write(left) :]  # an unbuffered write may be partial
        except OSError as error:
            raise cannot_write(error, str(self._path)) from None

    def sync(self) -> None:
        """Flush the log to disk (fsync); call it before writing the snapshot of the same iteration.

        Raises:
            ReproductionError: If the flush fails, as on a full disk.
        """
        try:
            if self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(error, str(self._path)) from None

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def read_records(path: StrPath) -> Iterator[Record]:
    """Yield the records of a log; a last line without a newline is skipped.

    Raises:
        DataError: If the file does not exist or is not a log.
    """
    try:
        lines = files.read_regular(path, _LIMIT).split(b"\n")
    except FileNotFoundError:
        raise DataError("there is no such log of a training", path=path) from None
    for number, line in enumerate(lines[:-1], 1):
        place = f"{os.fspath(path)}:{number}"
        record = json_file.loads(line, dict, place, NO_LOG)
        convert_record(record, _Line, place)
        yield record


def convert_record(record: Record, kind: type[T], place: str) -> T:
    """Convert a record to an instance of the dataclass ``kind``.

    Args:
        record: the record.
        kind: the dataclass.
        place: the file and line, for error messages.

    Raises:
        DataError: If a field is missing or has another type or range.
    """
    try:
        return json_file.convert(kind, record)
    except json_file.MismatchError as error:
        raise DataError(f"{NO_LOG}: {error}", path=place, want=error.want) from None


def copy_thinned(path: StrPath, copy: StrPath, every: int) -> None:
    """Copy a log with only every n-th iteration record and all other records, to publish it with the weights.

    Args:
        path: the log.
        copy: the file to write.
        every: 10 copies the iterations 0, 10, 20 and so on.

    Raises:
        DataError: If the file does not exist or is not a log.
        ReproductionError: If the copy cannot be written.
    """
    records = (each for each in read_records(path) if each["record"] != ITERATION or each["iteration"] % every == 0)
    with files.open_atomic(copy) as file:
        file.writelines(map(_line, records))


def _before(record: Record, iteration: int) -> bool:
    """Return True if a record belongs to a run with ``iteration`` updates made."""
    made: int = record["iteration"]
    return made < iteration if record["record"] == ITERATION else made <= iteration


def _line(record: Record) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"

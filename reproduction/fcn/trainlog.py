"""The log of a training: one JSON object a line, from the start through every restart.

    {"record": "start", "iteration": 0, "stage": "voc-fcn32s", "solver": "...", ...}
    {"record": "iteration", "iteration": 0, "loss": 541234.5, "loss_per_pixel": 3.04, "lr": 1e-10, "images": [...]}
    {"record": "validation", "iteration": 4000, "time": "2026-...", "scores": {"label": {"pixel_acc": 0.7, ...}}}
    {"record": "resume", "iteration": 4000, ...}

``iteration`` counts the updates made before: the loss of iteration 0 is that of the first weights. A run that goes on
from a snapshot takes up the log where the snapshot was made, so that every iteration stands there once.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reproduction.caffe import files
from reproduction.caffe.errors import DataError, ReproductionError, StrPath

Record = dict[str, Any]

START, RESUME, ITERATION, VALIDATION = "start", "resume", "iteration", "validation"


class Log:
    """A log that is being written.

    Args:
        path: the file; made, with its folder, when it is not there. None writes nothing, as of processes that are not
            the first.
        iteration: how far the run is: what was written of later iterations is removed.

    Attributes:
        validated: whether the net of this iteration was validated already.

    Raises:
        DataError: the file is no log.
        ReproductionError: it cannot be written.
    """

    def __init__(self, path: StrPath | None, iteration: int = 0):
        self.validated = path is None
        self._path = path
        self._file: io.FileIO | None = None
        if path is None:
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        kept = [record for record in read(path) if _before(record, iteration)] if iteration else []
        self.validated = any(record["record"] == VALIDATION and record["iteration"] == iteration for record in kept)
        with files.atomic(path) as file:
            file.writelines(map(_line, kept))
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 (closed by ``close``)

    def write(self, record: str, iteration: int, **fields: Any) -> None:
        """Add a record; a reader sees it at once.

        Raises:
            ReproductionError: it cannot be written, as on a full disk.
        """
        left = memoryview(_line({"record": record, "iteration": iteration, **fields}))
        try:
            while self._file and left:
                left = left[self._file.write(left) :]
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ReproductionError(f"cannot be written: {reason}", place=str(self._path)) from None

    def sync(self) -> None:
        """Wait until all of it is on the disk, as it must be before a snapshot that goes with it."""
        if self._file:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """End it."""
        if self._file:
            self._file.close()


def read(path: StrPath) -> Iterator[Record]:
    """Read the records of a log; a last line that was cut off is left out.

    Raises:
        DataError: the file is not there, or is no log.
    """
    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise DataError("there is no such log of a training", path=path) from None
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
            if not isinstance(record["record"], str) or not isinstance(record["iteration"], int):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            raise DataError("this is no log of a training", path=f"{os.fspath(path)}:{number}") from None
        yield record


def thin(path: StrPath, copy: StrPath, every: int) -> None:
    """Copy a log with only each so many-th of its iterations, to keep it beside the weights.

    Args:
        path: the log.
        copy: the file to write.
        every: 10 keeps the iterations 0, 10, 20 and so on.

    Raises:
        DataError: the file is no log.
        ReproductionError: the copy cannot be written.
    """
    records = (each for each in read(path) if each["record"] != ITERATION or each["iteration"] % every == 0)
    with files.atomic(copy) as file:
        file.writelines(map(_line, records))


def _before(record: Record, iteration: int) -> bool:
    """Say whether a record is of the first so many updates."""
    made: int = record["iteration"]
    return made < iteration if record["record"] == ITERATION else made <= iteration


def _line(record: Record) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"

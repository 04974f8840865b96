"""The partial file of a download: locked by one process, resumable, and checked against the free disk space."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Self

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, cannot_write
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import at_least, matching
from reproduction.fcn.fetch import archives
from reproduction.fcn.fetch.manifest import Entry


@dataclass(frozen=True)
class DownloadOrigin:
    """Where the bytes in a partial file come from, recorded next to it so that the download can be resumed.

    Attributes:
        url: The URL that they were downloaded from.
        validator: The ETag or Last-Modified date that the server sent: if it changes, the file has changed.
        size: Size of the complete file in bytes; None if not known.
    """

    url: str
    validator: Annotated[str, matching("[ -~]+", "an ETag or a date")]
    size: Annotated[int, at_least(0)] | None = None


class PartialFile:
    """The partial file ``FILE.part`` of a download, which is renamed to ``FILE`` when it is complete.

    Its origin is recorded in ``FILE.part.json``. Use it as a context manager, which locks the file. If the ``with``
    block is left before ``finish`` is called, the bytes are kept, so that a later download can resume.

    Args:
        target: Path of the complete file, in an existing folder.
        entry: The file's entry in the manifest, for errors.

    Raises:
        DataError: If another process is fetching the same file.
    """

    def __init__(self, target: Path, entry: Entry):
        self.target = target
        self.entry = entry
        self.path = target.with_name(target.name + ".part")
        self._origin = target.with_name(target.name + ".part.json")
        self._file: IO[bytes]
        self._stack: contextlib.ExitStack

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Lock a separate file: another process may rename the partial file before this one locks it.
            lock = locks.hidden_sibling(self.target, "lock")
            problem, remedy = "another process is fetching it", "Wait for it."
            stack.enter_context(locks.lock_file(lock, problem, place=self.path, remedy=remedy))
            try:
                self._file = stack.enter_context(self.path.open("ab", buffering=0))
            except OSError as error:
                raise cannot_write(error, self.path) from None
            stack.callback(self._tidy)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _tidy(self) -> None:
        if self.path.exists() and self.size() == 0:
            self.path.unlink()
        if not self.path.exists():
            self._origin.unlink(missing_ok=True)

    def size(self) -> int:
        """Return the number of bytes that are in the partial file."""
        return os.fstat(self._file.fileno()).st_size

    def clear(self) -> None:
        """Discard the bytes in the file, and the record of where they came from."""
        self._file.truncate(0)
        self._origin.unlink(missing_ok=True)

    def finish(self) -> None:
        """Rename the partial file to the complete file, after it has been checked."""
        self.path.replace(self.target)

    def origin(self, url: str) -> DownloadOrigin | None:
        """Return where the bytes came from, or None if that is not recorded or was another URL than ``url``."""
        try:
            origin = json_file.load(self._origin, DownloadOrigin, "not the origin of a download")
        except (OSError, DataError):
            return None
        return origin if origin.url == url else None

    def begin(self, url: str, validator: str | None, size: int | None) -> None:
        """Discard the bytes, and record where the next bytes come from; without a validator, nothing is recorded.

        Args:
            url: The URL of the new download.
            validator: The ETag or Last-Modified date that the server sent, or None.
            size: Size of the complete file in bytes; None if not known.
        """
        self.clear()
        if validator:
            files.write_text(self._origin, json_file.dumps({"url": url, "validator": validator, "size": size}))

    def write(self, block: bytes, total: int | None) -> None:
        """Append bytes to the file.

        Args:
            block: The bytes.
            total: Size of the complete file in bytes, for the error on a full disk; None if not known.

        Raises:
            WeightsError or DataError: If the disk is full. The bytes written so far are kept, and the download can be
                resumed.
        """
        view = memoryview(block)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            if error.errno not in archives.DISK_FULL:
                raise
            have = self.size()
            reason = (error.strerror or "the disk is full").lower()
            missing = f", {total - have:,} are missing" if total else ""
            raise self.entry.error(
                f"it cannot be written ({reason}); {have:,} bytes are here{missing}",
                self.path,
                remedy="Free some space and run it again to resume.",
            ) from None

    def need(self, total: int | None) -> None:
        """Check that the disk has enough free space for the rest of the file.

        Args:
            total: Size of the complete file; if None, nothing is checked.

        Raises:
            WeightsError or DataError: If less space is free than the file still needs.
        """
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - self.size() > free:
            raise self.entry.error(
                "the disk has too little space for it",
                self.target,
                got=f"{free:,} bytes free",
                want=f"{total - self.size():,}",
                remedy="Free some space, or choose another folder with --weights or --data.",
            )

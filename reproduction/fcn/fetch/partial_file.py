"""The file that a download grows: locked for one process, resumable, and never larger than the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, cannot_write
from reproduction.caffe.formats import files, json_file
from reproduction.caffe.formats.json_file import at_least, matching
from reproduction.fcn.fetch.manifest import Entry

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Origin:
    """Where the bytes of a part came from.

    Attributes:
        url: the address.
        validator: the ETag or the date that it gave.
        size: of the complete file.
    """

    url: str
    validator: Annotated[str, matching("[ -~]+", "an ETag or a date")]
    size: Annotated[int, at_least(0)] | None = None


class Part:
    """``FILE.part``, which takes the name ``FILE`` when it is whole; ``FILE.part.json`` says where it came from.

    Used in a ``with``, which holds the lock; bytes stay when it is left before ``finish``.

    Args:
        target: the file that it will be; its folder is there.
        entry: the published file that it should become, for errors.

    Raises:
        DataError: another process is fetching the same file.
    """

    def __init__(self, target: Path, entry: Entry):
        self.target = target
        self.entry = entry
        self.path = target.with_name(target.name + ".part")
        self._origin = target.with_name(target.name + ".part.json")
        self._file: IO[bytes]
        self._stack: contextlib.ExitStack

    def __enter__(self) -> Part:
        with contextlib.ExitStack() as stack:
            # The lock is not the part itself, which another process may rename before it is locked here.
            lock = locks.hidden(self.target, "lock")
            problem, remedy = "another process is fetching it", "Wait for it."
            stack.enter_context(locks.hold(lock, problem, place=self.path, remedy=remedy))
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
        """Return the bytes that are here."""
        return os.fstat(self._file.fileno()).st_size

    def clear(self) -> None:
        """Forget the bytes that are here."""
        self._file.truncate(0)
        self._origin.unlink(missing_ok=True)

    def finish(self) -> None:
        """Take the target's name."""
        self.path.replace(self.target)

    def origin(self, url: str) -> Origin | None:
        """Return what this URL said with the bytes that are here; None where they are not from there."""
        try:
            origin = json_file.load(self._origin, Origin, "this is no origin of a download")
        except (OSError, DataError):
            return None
        return origin if origin.url == url else None

    def begin(self, url: str, validator: str | None, size: int | None) -> None:
        """Start again with the bytes of a URL, and keep its ETag or date, and its size where it is known."""
        self.clear()
        if validator:
            with files.atomic(self._origin) as file:
                file.write(json_file.dumps({"url": url, "validator": validator, "size": size}).encode())

    def write(self, block: bytes, total: int | None) -> None:
        """Add bytes.

        Args:
            block: the bytes.
            total: the size of the whole file, where it is known.

        Raises:
            WeightsError or DataError: the disk is full; what is here stays, and the download can go on from there.
        """
        view = memoryview(block)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            have = self.size()
            reason = (error.strerror or "the disk is full").lower()
            missing = f", {total - have:,} are missing" if total else ""
            raise self.entry.error(
                f"it cannot be written ({reason}); {have:,} bytes are here{missing}",
                self.path,
                remedy="Free some space and run it again: it goes on from there.",
            ) from None

    def need(self, total: int | None) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            WeightsError or DataError: less is free than the file still needs.
        """
        free = shutil.disk_usage(self.path.parent).free
        if total is not None and total - self.size() > free:
            raise self.entry.error(
                "there is no room for it",
                self.target,
                got=f"{free:,} bytes free",
                want=f"{total - self.size():,}",
                remedy="Free some space, or choose another folder with --weights or --data.",
            )

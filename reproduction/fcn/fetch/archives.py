"""Unpack the data sets' archives (tar, tar.gz, zip) without trusting them.

An archive is unpacked into a hidden folder next to its destination, and moved into place when it is complete, so an
interrupted run leaves nothing that looks like a data set. Only files and folders are extracted: links, devices, paths
that leave the folder, duplicate names and implausible compression ratios raise an error before they do harm. The
libraries only read members: tarfile's data filter permits links, it and zipfile change names silently, and neither
limits sizes.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, StrPath
from reproduction.caffe.formats import files
from reproduction.caffe.typing import Progress

_CHUNK_BYTES = 1 << 20
UNFINISHED_MARK = ".unfinished"
"""The file that marks a folder into which an archive is being moved."""

# What the standard library raises for damaged or forged archives.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    NotImplementedError,
    RuntimeError,
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ArchiveLimits:
    """The limits on what an archive may contain, against malicious ones; the published archives stay far below.

    Args:
        total_bytes: Largest number of bytes of all files together.
        members: Largest number of files and folders.
        ratio: Largest number of bytes written for each byte of the archive, after the first ``floor_bytes``. Label maps
            of a few classes compress about a hundredfold; whole data sets, images included, hardly at all.
        floor_bytes: Bytes that any archive may unpack to, however small it is.
        header_bytes: Largest number of bytes in the headers of one file; a path needs a few hundred.
    """

    total_bytes: int = 64 << 30
    members: int = 500_000
    ratio: int = 100
    floor_bytes: int = 64 << 20
    header_bytes: int = 64 << 10


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    open: Callable[[], IO[bytes]]


def plain_path(name: str) -> PurePosixPath | None:
    """Return the name of a file in an archive as a path, or None if it is not safe to write to.

    A safe path is relative, does not leave its folder, has no drive, backslash or control character, and is within the
    length limits of file systems.
    """
    path = PurePosixPath(name)
    plain = (
        name
        and not name.startswith("/")
        and ".." not in path.parts
        and not re.match(r"[A-Za-z]:", name)
        and not re.search(r"[\\\x00-\x1f\x7f]", name)
        and not re.search("[\ud800-\udb7f\udd00-\udfff]", name)  # surrogates that os.fsdecode never produces
        and len(_bytes(name)) <= 1024
        and all(len(_bytes(part)) <= 255 for part in path.parts)
    )
    return path if plain else None


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def contains(folder: StrPath, patterns: Sequence[str]) -> bool:
    """Return True if a folder was unpacked completely and every pattern, such as ``JPEGImages/*.jpg``, has a match."""
    base = Path(folder)
    if not base.is_dir() or (base / UNFINISHED_MARK).exists():
        return False
    return all(any(base.glob(pattern)) for pattern in patterns)


def extract(
    archive: StrPath,
    folder: StrPath,
    *,
    holding: Sequence[str] = (),
    limits: ArchiveLimits | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Unpack an archive into ``folder``.

    If the archive has a folder that contains a match of every pattern in ``holding``, only its content is unpacked; if
    there are several, that of the shallowest. Without patterns, the whole archive is unpacked. Files that exist in
    ``folder`` are kept, unless the archive has a file of the same name.

    Args:
        archive: Path of a tar, tar.gz or zip file; the format is detected from its first bytes.
        folder: The destination, which is created if it does not exist.
        holding: Patterns of files that the data set's folder contains, such as ``JPEGImages/*.jpg``.
        limits: Limits of what is unpacked; None for the defaults.
        progress: Called with the number of archive bytes read and their total.

    Returns:
        The path ``folder``.

    Raises:
        DataError: If the archive is damaged, unsafe, too large, or does not match the patterns, if the disk is full, or
            if another process is unpacking there. ``folder`` is then unchanged or, if files had to be moved into an
            existing folder, marked as unfinished.
        ReproductionError: If ``folder`` cannot be written.
    """
    path, target = Path(archive), Path(folder)
    files.make_folder(target.parent)
    with (
        locks.lock_path(target, "another process is unpacking here", reentrant=True),
        files.staging_folder(target, "unpacking") as staging,
    ):
        try:
            with files.open_regular(path) as raw:
                _unpack(raw, path, staging, limits or ArchiveLimits(), progress)
            inner = _find_folder(path, staging, holding)
            _move(inner, target)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise DataError(
                f"cannot unpack it into {target}: {(error.strerror or 'the disk is full').lower()}",
                path=path,
                remedy="Free some space and run it again; what was unpacked so far has been removed.",
            ) from None
    return target


def _unpack(raw: IO[bytes], path: Path, staging: Path, limits: ArchiveLimits, progress: Progress) -> None:
    size = os.fstat(raw.fileno()).st_size
    free = shutil.disk_usage(staging).free
    if free < size:
        raise DataError(
            "the disk has too little space to unpack it",
            path=path,
            got=f"{free:,} bytes free",
            want=f"at least {size:,}",
            remedy="Free some space, or put the data elsewhere with --data.",
        )
    ceiling = min(limits.total_bytes, max(limits.floor_bytes, limits.ratio * size))
    written = 0
    try:
        for count, member in enumerate(_members(raw, limits), 1):
            if count > limits.members:
                raise DataError("it has too many members", want=f"at most {limits.members:,}")
            inner = plain_path(member.name)
            if inner is None:
                shown = member.name if len(member.name) <= 120 else member.name[:117] + "..."
                raise DataError("a member's name is not a plain path below the archive's folder", got=repr(shown))
            destination = staging / inner
            if member.is_folder:
                destination.mkdir(parents=True, exist_ok=True)
                continue
            destination.parent.mkdir(parents=True, exist_ok=True)
            with destination.open("xb") as out, member.open() as source:
                while block := source.read(_CHUNK_BYTES):
                    written += len(block)
                    if written > ceiling:
                        raise DataError(
                            "it unpacks to more than a data set of its size could",
                            got=f"over {ceiling:,} bytes",
                            want=f"at most {ceiling:,} from {size:,}",
                        )
                    out.write(block)
                    progress(raw.tell(), size)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError("a member occurs twice", path=path, got=repr(member.name), remedy=_FETCH_AGAIN) from None
    except DataError as error:
        error.remedy = error.remedy or _FETCH_AGAIN
        raise error.at(str(path)) from None
    except _BROKEN as error:
        raise _damaged_error(path, error) from None
    except OSError as error:
        # Seeking to a forged offset raises EINVAL; bz2 raises an OSError without errno for damaged data.
        if error.errno not in (errno.EINVAL, None):
            raise
        raise _damaged_error(path, error) from None
    progress(size, size)


_FETCH_AGAIN = "Delete it and fetch it again; if that does not help, do not trust its source."


def _damaged_error(path: Path, error: Exception) -> DataError:
    lines = str(error).splitlines()
    got = repr(lines[0][:120]) if lines else type(error).__name__
    return DataError("it is damaged or not an archive", path=path, got=got, remedy=_FETCH_AGAIN)


def _members(raw: IO[bytes], limits: ArchiveLimits) -> Iterator[_Member]:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=raw) as plain:
            yield from _tar_members(plain, limits)
    elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip_members(raw)
    else:
        yield from _tar_members(raw, limits)


class _Bounded:
    """A tar file in which headers may read only a limited number of bytes.

    tarfile reads a long name or a pax header at once, however large the archive claims it to be.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, budget: int):
        self.file = file
        self.budget = budget
        self.left: int | None = budget
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if self.left is not None:
            if size < 0 or size > self.left:
                raise DataError("a member's headers are too large", want=f"at most {self.budget:,} bytes")
            self.left -= size
        self.last = self.file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def _tar_members(plain: IO[bytes] | gzip.GzipFile, limits: ArchiveLimits) -> Iterator[_Member]:
    file = _Bounded(plain, limits.header_bytes)
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
        info = tar.next()
        while info is not None:
            if not (info.isdir() or (info.isreg() and not info.issparse())):
                raise DataError("a member is neither a file nor a folder", got=f"{_member_kind(info)} {info.name!r}")
            file.left = None
            open_file = cast(Callable[..., IO[bytes]], tar.extractfile)  # None for links, which were refused
            yield _Member(info.name, info.isdir(), partial(open_file, info))
            file.left = limits.header_bytes
            tar.members.clear()
            info = tar.next()
        # tarfile treats an unreadable header as the end of the archive.
        if file.last.strip(b"\0") or 0 < len(file.last) < tarfile.BLOCKSIZE:
            raise DataError("it is damaged or not an archive", got="an invalid header")


def _member_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    return "device" if info.isdev() else "sparse file" if info.issparse() else "member"


def _zip_members(raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "link" if stat.S_ISLNK(mode) else "device"
                raise DataError("a member is neither a file nor a folder", got=f"{kind} {info.orig_filename!r}")
            if info.flag_bits & 1:
                raise DataError("a member is encrypted", got=repr(info.orig_filename))
            yield _Member(info.orig_filename, info.is_dir(), partial(archive.open, info))


def _find_folder(path: Path, staging: Path, holding: Sequence[str]) -> Path:
    """Return the shallowest folder in ``staging`` that matches every pattern."""
    level = [staging]
    while level:
        for folder in level:
            if contains(folder, holding):
                return folder
        level = sorted(entry for folder in level for entry in folder.iterdir() if entry.is_dir())
    top = ", ".join(sorted(entry.name for entry in staging.iterdir())[:5]) or "nothing"
    raise DataError("it is not the archive that was expected", path=path, got=top, want=" and ".join(holding))


def _move(source: Path, target: Path) -> None:
    """Move a folder into place: by one rename if ``target`` does not exist, else file by file, marked as unfinished."""
    if not target.exists():
        source.replace(target)
        return
    mark = target / UNFINISHED_MARK
    mark.touch()
    _merge(source, target)
    mark.unlink()


def _merge(source: Path, target: Path) -> None:
    for entry in sorted(source.iterdir()):
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            _merge(entry, there)
        elif there.exists() and (entry.is_dir() or there.is_dir()):
            raise DataError(
                "the archive has a file instead of a folder here, or the reverse",
                path=there,
                remedy="Move it out of the way.",
            )
        else:
            entry.replace(there)

"""Unpack the data sets' archives (tar, tar.gz, zip) without trusting them.

An archive is written to a hidden folder beside its destination and moved into place when it is whole, so a run that is
stopped leaves nothing that looks like a data set. Only files and folders come out: links, devices, paths that leave the
folder, names given twice and archives that swell beyond reason end the run before they do harm.
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
from typing import IO, Protocol

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, StrPath, cannot_write
from reproduction.caffe.formats import files

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and, where it is known, their total."""

CHUNK = 1 << 20
UNFINISHED = ".unfinished"
"""The file that marks a folder into which an archive is being moved."""

# What a damaged or forged archive makes the standard library raise.
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
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Limits:
    """How large an archive may grow; the published ones stay far below.

    Args:
        total_bytes: of all files together.
        members: files and folders.
        ratio: bytes written for each byte of the archive, once ``floor_bytes`` are passed. Labels of a few classes
            shrink about a hundredfold; whole data sets, pictures included, hardly at all.
        floor_bytes: what any archive may hold, however small it is.
        header_bytes: of one member's headers; a path needs a few hundred.
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
    """Return a name as a path below some folder; None when it is not one.

    A plain path is relative, stays in its folder, names no drive, holds no backslash and no control character, and is
    no longer than file systems take.
    """
    path = PurePosixPath(name)
    plain = (
        name
        and not name.startswith("/")
        and ".." not in path.parts
        and not re.match(r"[A-Za-z]:", name)
        and not re.search(r"[\\\x00-\x1f\x7f]", name)
        and not re.search("[\ud800-\udb7f\udd00-\udfff]", name)  # no bytes of a file name are written so
        and len(_bytes(name)) <= 1024
        and all(len(_bytes(part)) <= 255 for part in path.parts)
    )
    return path if plain else None


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def holds(folder: StrPath, patterns: Sequence[str]) -> bool:
    """Return whether a folder holds something for each pattern, such as ``JPEGImages/*.jpg``, and is not half moved."""
    base = Path(folder)
    if not base.is_dir() or (base / UNFINISHED).exists():
        return False
    return all(any(base.glob(pattern)) for pattern in patterns)


def extract(
    archive: StrPath,
    folder: StrPath,
    *,
    holding: Sequence[str] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Path:
    """Unpack an archive so that ``folder`` holds what ``holding`` asks for.

    The archive's own leading folders are dropped: the shallowest folder that matches every pattern becomes ``folder``,
    and what lies outside it is left behind. Without patterns, all of it goes to ``folder``. Files that are in
    ``folder`` already stay, unless the archive has one of the same name.

    Args:
        archive: a tar, tar.gz or zip file, told by its first bytes.
        folder: the destination, made if need be.
        holding: patterns as for ``holds``.
        limits: how large it may grow.
        progress: called with bytes of the archive.

    Returns:
        ``folder``.

    Raises:
        DataError: the archive is damaged, unsafe, too large, or holds something else; the disk is full; or another
            process is unpacking it. ``folder`` is then as it was, or is marked as unfinished where files had to be
            moved into one that was there.
        ReproductionError: ``folder`` cannot be written.
    """
    path, target = Path(archive), Path(folder)
    rules = limits or Limits()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, target.parent) from None
    with (
        locks.beside(target, "another process is unpacking here", again=True),
        files.staging(target, "unpacking") as staging,
    ):
        try:
            _unpack(path, staging, rules, progress)
            inner = _find(path, staging, holding)
            _move(inner, target)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DataError(
                f"cannot unpack it into {target}: {(error.strerror or 'the disk is full').lower()}",
                path=path,
                remedy="Free some space and run it again; what was unpacked so far has been removed.",
            ) from None
    return target


def _unpack(path: Path, staging: Path, limits: Limits, progress: Progress | None) -> None:
    with files.open_regular(path) as raw:
        _unpack_opened(raw, path, staging, limits, progress)


def _unpack_opened(raw: IO[bytes], path: Path, staging: Path, limits: Limits, progress: Progress | None) -> None:
    size = os.fstat(raw.fileno()).st_size
    free = shutil.disk_usage(staging).free
    if free < size:
        raise DataError(
            "there is no room to unpack it",
            path=path,
            got=f"{free:,} bytes free",
            want=f"at least {size:,}",
            remedy="Free some space, or put the data elsewhere with --data.",
        )
    ceiling = min(limits.total_bytes, max(limits.floor_bytes, limits.ratio * size))
    written = count = 0
    try:
        for member in _members(raw, limits):
            count += 1
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
                while block := source.read(CHUNK):
                    written += len(block)
                    if written > ceiling:
                        raise DataError(
                            "it unpacks to more than a data set of its size could",
                            got=f"over {ceiling:,} bytes",
                            want=f"at most {ceiling:,} from {size:,}",
                        )
                    out.write(block)
                    if progress:
                        progress(raw.tell(), size)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError("a member is there twice", path=path, got=repr(member.name), remedy=_AGAIN) from None
    except DataError as error:
        error.remedy = error.remedy or _AGAIN
        raise error.at(str(path)) from None
    except _BROKEN as error:
        raise _damaged(path, error) from None
    except OSError as error:
        # What seeking to a forged offset raises, and what bz2 does for damaged bytes.
        if error.errno not in (errno.EINVAL, None):
            raise
        raise _damaged(path, error) from None
    if progress:
        progress(size, size)


_AGAIN = "Delete it and fetch it again; if it stays so, its source is not to be trusted."


def _damaged(path: Path, error: Exception) -> DataError:
    lines = str(error).splitlines()
    got = repr(lines[0][:120]) if lines else type(error).__name__
    return DataError("it is damaged, or no archive at all", path=path, got=got, remedy=_AGAIN)


def _members(raw: IO[bytes], limits: Limits) -> Iterator[_Member]:
    magic = raw.read(4)
    raw.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=raw) as plain:
            yield from _tar_members(plain, limits)
    elif magic in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip_members(raw)
    else:
        yield from _tar_members(raw, limits)


class _Readable(Protocol):
    """What is needed of a plain file and of a gunzipped one."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class _Bounded:
    """A tar's bytes, of which headers may ask only for so many.

    tarfile reads a long name or a pax header in one piece, as large as the archive says that it is.
    """

    def __init__(self, file: _Readable, budget: int):
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


def _tar_members(plain: _Readable, limits: Limits) -> Iterator[_Member]:
    file = _Bounded(plain, limits.header_bytes)
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
        info = tar.next()
        while info is not None:
            if not (info.isdir() or (info.isreg() and not info.issparse())):
                raise DataError("a member is neither a file nor a folder", got=f"{_kind(info)} {info.name!r}")
            file.left = None
            yield _Member(info.name, info.isdir(), partial(_whole, tar, info))
            file.left = limits.header_bytes
            tar.members.clear()
            info = tar.next()
        # tarfile takes a header that it cannot read for the end of the archive.
        if file.last.strip(b"\0") or 0 < len(file.last) < tarfile.BLOCKSIZE:
            raise DataError("it is damaged, or no archive at all", got="a header that is none")


def _kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    return "device" if info.isdev() else "sparse file" if info.issparse() else "member"


def _whole(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None, "links were refused before"
    return file


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


def _find(path: Path, staging: Path, holding: Sequence[str]) -> Path:
    """Return the shallowest folder that holds what was asked for."""
    level = [staging]
    while level:
        for folder in level:
            if holds(folder, holding):
                return folder
        level = sorted(entry for folder in level for entry in folder.iterdir() if entry.is_dir())
    top = ", ".join(sorted(entry.name for entry in staging.iterdir())[:5]) or "nothing"
    raise DataError("it is not the archive that was expected", path=path, got=top, want=" and ".join(holding))


def _move(source: Path, target: Path) -> None:
    """Move a folder into place: at once where there is none, else file by file under a mark."""
    if not target.exists():
        source.replace(target)
        return
    mark = target / UNFINISHED
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
                "a file and a folder of the archive meet here", path=there, remedy="Move it out of the way."
            )
        else:
            entry.replace(there)

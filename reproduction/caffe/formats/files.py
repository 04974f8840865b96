"""Files on disk: read as a mapped view, written atomically, recognised by their first bytes."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from reproduction.caffe import locks
from reproduction.caffe.errors import (
    CaffemodelError,
    DataError,
    PrototxtError,
    ReproductionError,
    StrPath,
    WeightsError,
    cannot_write,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

HDF5, ZIP, SAFETENSORS, TORCH = "an HDF5 file", "a zip archive", "a safetensors file", "a torch pickle"
HTML, TEXT, ZEROS = "a web page", "text", "nothing but zeros at its start"

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", TORCH),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"version https://git-lfs", "a pointer that Git LFS left in place of the file"),
)
_HEAD = 512  # bytes that tell what a file is
_SPARE = 48 << 20  # with what Python's objects take it is 64 MiB
_STEP = 16 << 20
_PART = re.compile(r"\..*\.[0-9a-f]{16}\.part", re.DOTALL)  # what ``atomic`` calls a file that is being written

_swept: set[str] = set()  # folders that this process has removed old parts from

FileError = type[DataError] | type[WeightsError] | type[CaffemodelError] | type[PrototxtError]


def kind(data: bytes | mmap.mmap | memoryview) -> str | None:
    """Say in words what a file is by its first bytes; None where they are no sign, as those of a caffemodel."""
    head = bytes(data[:_HEAD])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return SAFETENSORS
    if head[257:262] == b"ustar":
        return "a tar archive"
    if len(head) > 8 and not head.strip(b"\0"):
        return ZEROS
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return HTML
    if re.fullmatch(rb"[\t\n\r\x20-\x7e\x80-\xff]+", head) and re.search(rb"[#:{<]", head):
        return TEXT
    return None


def open_regular(path: StrPath, error: FileError = DataError) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device would block or never end.

    Args:
        path: the file; a link is followed.
        error: the class of the error.

    Raises:
        DataError, or the class that is asked for: it is a folder, a pipe, a socket or a device, or
            no file can have this name.
        OSError: it cannot be opened.
    """
    try:
        mode = Path(path).stat().st_mode
    except ValueError:  # a zero byte, or half of a character
        raise error("this cannot be the name of a file", path=ascii(os.fspath(path))) from None
    _check_regular(mode, path, error)
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 (pathlib takes no opener)
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path, error)
    except BaseException:
        file.close()
        raise
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(mode: int, path: StrPath, error: FileError) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        got = kinds.get(stat.S_IFMT(mode), "a device")
        raise error("this is not a file", path=path, got=got, remedy="Name a file on a disk.")


def read_regular(path: StrPath, limit: int, error: FileError = DataError) -> bytes:
    """Read a regular file that may have at most ``limit`` bytes.

    Raises:
        DataError, or the class that is asked for: it is larger, or not a regular file.
        OSError: it cannot be read.
    """
    with open_regular(path, error) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise error("the file is too large", path=path, want=f"at most {limit:,} bytes")
    return data


def read_text(path: StrPath, limit: int = 64 << 20, error: FileError = DataError) -> str:
    """Read a regular file of UTF-8 text, with or without a byte order mark.

    Raises:
        DataError, or the class that is asked for: it is larger than ``limit`` bytes, not UTF-8, or not a regular file.
        OSError: it cannot be read.
    """
    try:
        return read_regular(path, limit, error).decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        got = f"byte {wrong.object[wrong.start]:#04x} at {wrong.start}"
        raise error("this is not a text file", path=path, got=got, want="UTF-8") from None


def mapped(path: StrPath) -> mmap.mmap:
    """Map a file into memory, read only: nothing is read or allocated before it is touched.

    Raises:
        CaffemodelError: the file is empty, or it is not a regular file.
        OSError: it cannot be opened.
    """
    with open_regular(path, CaffemodelError) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise CaffemodelError("the file is empty", path=path, remedy="Download or write it again.")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check_declared(size: int, path: StrPath, ratio: int = 2, spare: int = _SPARE) -> None:
    """Refuse a file whose arrays need far more memory than it has bytes, before any is allocated.

    Trained weights hardly compress. What takes more than this is a file that was made to fill the memory, or arrays
    of little but zeros, which their owner can store without compression.

    Args:
        size: the bytes of all arrays that are to be allocated.
        path: the file.
        ratio: how many times the file's size they may take.
        spare: bytes that they may take besides, for small files.

    Raises:
        CaffemodelError: they are more.
    """
    stored = Path(path).stat().st_size
    if size > spare + ratio * stored:
        raise CaffemodelError(
            f"the file declares {size} bytes of weights",
            path=path,
            got=f"{stored} bytes",
            want=f"at most {ratio} times that and {spare >> 20} MiB",
            remedy="It is damaged; if it is not, write it without compression.",
        )


def release(data: mmap.mmap, start: int, stop: int) -> None:
    """Remove bytes of a mapped file from memory once they were used; they load again when they are touched."""
    start -= start % mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED") and start < stop:
        data.madvise(mmap.MADV_DONTNEED, start, stop - start)


def is_file(path: StrPath) -> bool:
    """Return whether a path names a regular file; False for what cannot be a name, such as one with a zero in it."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_utf8(text: str) -> bool:
    """Say whether the text can be written as UTF-8; a name that came from other bytes cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Reporting(io.FileIO):
    """A file that says how many bytes it wrote, in steps that are small enough to watch, and why it could not."""

    progress: Callable[[int], object] | None = None
    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(memoryview(data)[:_STEP])
        except OSError as error:
            self.failure = error
            raise
        if self.progress:
            self.progress(written)
        return written

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        try:
            os.fsync(self.fileno())
        except OSError as error:
            self.failure = error
            raise


@contextlib.contextmanager
def atomic(path: StrPath, progress: Callable[[int], object] | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    It is written next to its place, as ``.NAME.XXXXXXXXXXXXXXXX.part``, and moved there at the end; on any failure it
    is removed, and what was at ``path`` stays as it was. A link is followed. The part is locked while it is written:
    see ``remove_parts``.

    Args:
        path: the file.
        progress: called with a number of bytes after each write.

    Raises:
        ReproductionError: the file cannot be written, as on a full disk or in a folder that does not exist.
    """
    if "\0" in os.fspath(path):
        raise ReproductionError("this cannot be the name of a file", place=repr(path))
    target = Path(os.path.realpath(path))
    _check_writable(target, path)
    part, raw, lock = None, None, None
    try:
        part, raw, lock = _new_part(target)
        raw.progress = progress
        with io.BufferedRandom(raw) as file:
            yield file
        part.replace(target)
    except Exception as error:
        # A library that writes may have another word for the failure, so the file remembers it.
        failure = raw.failure if raw else None
        if isinstance(error, OSError) and (part is None or os.fspath(error.filename or "") == os.fspath(part)):
            failure = error
        if failure is None:
            raise
        raise cannot_write(failure, path) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def _check_writable(target: Path, path: StrPath) -> None:
    """Refuse what is not a file, and remove old parts from a folder that this process has not written to before."""
    try:
        if target.exists() and not target.is_file():
            raise ReproductionError("this is not a file", place=os.fspath(path), remedy="Name a file to write.")
    except OSError as error:  # a name that is too long
        raise cannot_write(error, path) from None
    if str(target.parent) not in _swept:
        _swept.add(str(target.parent))
        remove_parts(target.parent)


def _new_part(target: Path) -> tuple[Path, _Reporting, int]:
    """Create the part of a file; return it with a descriptor that holds its lock, until after it has its name."""
    while True:
        part = locks.hidden(target, f"{secrets.token_hex(8)}.part")
        raw = _Reporting(os.fspath(part), "x+")
        lock = os.dup(raw.fileno())
        locks.try_lock(lock)
        if locks.is_at(lock, part):  # and was not removed as an old one before it was locked
            return part, raw, lock
        raw.close()
        os.close(lock)


@contextlib.contextmanager
def together(*paths: StrPath) -> Iterator[list[BinaryIO]]:
    """Open files that appear under their names when all of them are whole and on the disk, in this order.

    Whatever stops this, a power cut too, leaves no file beside an earlier one that it was not written with: what was
    under the later names goes before the first appears.

    Raises:
        ReproductionError: as ``atomic``; then all is as it was.
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(atomic(path)) for path in reversed(paths)][::-1]
        yield opened
        for file in opened:
            file.flush()
            file.raw.sync()  # type: ignore[attr-defined]
        for path in paths[1:]:
            Path(path).resolve().unlink(missing_ok=True)
    for folder in {Path(path).resolve().parent for path in paths}:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(folder: StrPath) -> None:
    """Remove what ``atomic`` left in a folder when a process was killed while it wrote.

    A part that another process is still writing is locked, and stays.
    """
    try:
        found = [Path(entry) for entry in os.scandir(folder) if _PART.fullmatch(entry.name) and entry.is_file()]
    except OSError:  # whatever is wrong with the folder is reported when the file is opened
        return
    for part in found:
        with contextlib.suppress(OSError):
            descriptor = os.open(part, os.O_RDWR)
            try:
                if locks.try_lock(descriptor):
                    part.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def staging(target: StrPath, ending: str) -> Iterator[Path]:
    """Make an empty folder ``.NAME.ENDING`` next to a path to prepare its new content in; it is removed at the end.

    The caller holds a lock of the path, so that a folder that is there already is that of a process that was killed.

    Raises:
        ReproductionError: it cannot be made.
    """
    folder = locks.hidden(target, ending)
    try:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    except OSError as error:
        raise cannot_write(error, target) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

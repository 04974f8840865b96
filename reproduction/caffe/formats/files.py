"""Files on disk: memory-mapped reading, atomic writing, and recognition of a file's kind by its first bytes."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
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
    cannot_read,
    cannot_write,
)
from reproduction.caffe.typing import Progress

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
_HEAD = 512  # bytes that ``kind`` examines
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_SPARE = 48 << 20  # together with Python's objects, about 64 MiB
_STEP = 16 << 20
_PART = re.compile(r"\..*\.[0-9a-f]{16}\.part", re.DOTALL)  # the temporary names that ``open_atomic`` creates

_swept: set[str] = set()  # folders from which this process has already removed old parts

FileError = type[DataError] | type[WeightsError] | type[CaffemodelError] | type[PrototxtError]


def kind(data: bytes | mmap.mmap | memoryview) -> str | None:
    """Return a phrase for the kind of file that begins with ``data``, such as ``"an HDF5 file"``; None if unknown.

    A caffemodel has no signature, so its kind is None.
    """
    head = bytes(data[:_HEAD])
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # A safetensors file begins with the size of its JSON header, in 8 bytes.
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


def has_control_bytes(data: bytes) -> bool:
    """Return True if ``data`` contains a control byte that no text has, such as a zero."""
    return _CONTROL.search(data) is not None


def open_regular(path: StrPath, error: FileError = DataError) -> BinaryIO:
    """Open a regular file for binary reading; pipes and devices, which could block or never end, are rejected.

    Args:
        path: the file; a link is followed.
        error: the class of the error to raise.

    Raises:
        DataError, or the class ``error``: If the path is a folder, a pipe, a socket or a device, or is not a valid file
            name.
        OSError: If the file cannot be opened.
    """
    try:
        mode = Path(path).stat().st_mode
    except ValueError:  # a zero byte, or a lone surrogate
        raise error("this cannot be the name of a file", path=ascii(os.fspath(path))) from None
    _check_regular(mode, path, error)
    file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115 (pathlib takes no opener)
    try:
        _check_regular(os.fstat(file.fileno()).st_mode, path, error)
    except BaseException:
        file.close()
        raise
    return file


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(mode: int, path: StrPath, error: FileError) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        got = kinds.get(stat.S_IFMT(mode), "a device")
        raise error("this is not a file", path=path, got=got, remedy="Name a file on a disk.")


def read_regular(path: StrPath, limit: int, error: FileError = DataError) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: the file; a link is followed.
        limit: the most bytes that it may have.
        error: the class of the error to raise.

    Raises:
        DataError, or the class ``error``: If the file is larger, or not a regular file.
        OSError: If the file cannot be read.
    """
    with open_regular(path, error) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise error("the file is too large", path=path, want=f"at most {limit:,} bytes")
    return data


def read_text(path: StrPath, limit: int = 64 << 20, error: FileError = DataError, want: str = "UTF-8") -> str:
    """Return the text of a regular file in UTF-8, without the byte order mark.

    Args:
        path: the file; a link is followed.
        limit: the most bytes that it may have.
        error: the class of the error to raise.
        want: what the error for a file that is not UTF-8 asks for.

    Raises:
        DataError, or the class ``error``: If the file is larger, not UTF-8, or not a regular file.
        OSError: If the file cannot be read.
    """
    try:
        return read_regular(path, limit, error).decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        got = f"byte {wrong.object[wrong.start]:#04x} at {wrong.start}"
        raise error("this is not a text file", path=path, got=got, want=want) from None


def read_list(path: StrPath, what: str, want: str, limit: int = 1 << 20) -> list[str]:
    """Return the lines of a small text file of the user, such as a list of names.

    Args:
        path: the file; a link is followed.
        what: what the file is in errors, such as ``the palette``.
        want: what its lines should be, in errors.
        limit: the most bytes that it may have.

    Raises:
        DataError: If the file cannot be read, is larger, not UTF-8, or not a regular file.
    """
    try:
        return read_text(path, limit, want=want).splitlines()
    except OSError as error:
        raise cannot_read(error, what, path, f"a file, {want}") from None


def map_file(path: StrPath, *, writable: bool = False) -> mmap.mmap:
    """Map a file into memory. The system reads each page from the disk when it is first accessed.

    Args:
        path: the file.
        writable: whether the memory can be changed, which does not change the file.

    Raises:
        CaffemodelError: If the file is empty, or not a regular file.
        OSError: If the file cannot be opened.
    """
    with open_regular(path, CaffemodelError) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise CaffemodelError("the file is empty", path=path, remedy="Download or write it again.")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY if writable else mmap.ACCESS_READ)


def check_declared_size(size: int, path: StrPath, ratio: int = 2, spare: int = _SPARE) -> None:
    """Check, before arrays are allocated, that they do not need far more memory than their file has bytes.

    Trained weights hardly compress. So a file that exceeds the limit was probably written to exhaust memory. Arrays
    that consist mostly of zeros may exceed it too; they can be stored without compression.

    Args:
        size: the bytes of all arrays to be allocated.
        path: the file that declares them.
        ratio: the limit, as a multiple of the file's size.
        spare: bytes that are allowed in addition, for small files.

    Raises:
        CaffemodelError: If ``size`` exceeds ``spare + ratio * file size``.
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


def release_pages(data: mmap.mmap, start: int, stop: int) -> None:
    """Release the memory of bytes ``start`` to ``stop`` of a mapped file; they are loaded again on the next access."""
    start -= start % mmap.PAGESIZE
    if hasattr(mmap, "MADV_DONTNEED") and start < stop:
        data.madvise(mmap.MADV_DONTNEED, start, stop - start)


def is_file(path: StrPath) -> bool:
    """Return True if a path names a regular file; False for an invalid name, such as one with a zero byte."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_utf8(text: str) -> bool:
    """Return True if a text can be encoded as UTF-8; the name of a file may contain bytes that cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _ReportingFile(io.FileIO):
    """A file that reports the bytes of each write, of at most 16 MiB, and records the last error in ``failure``."""

    progress: Progress | None = None
    written = 0
    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(memoryview(data)[:_STEP])
        except OSError as error:
            self.failure = error
            raise
        self.written += written
        if self.progress:
            self.progress(self.written, None)
        return written

    def sync(self) -> None:
        """Flush the written bytes to the disk with ``fsync``."""
        try:
            os.fsync(self.fileno())
        except OSError as error:
            self.failure = error
            raise


@contextlib.contextmanager
def open_atomic(path: StrPath, progress: Progress | None = None) -> Iterator[BinaryIO]:
    """Context manager that writes a file atomically: ``path`` has its old content or the new, never a part of it.

    The content is written to a temporary file ``.NAME.XXXXXXXXXXXXXXXX.part`` in the same folder, which replaces
    ``path`` at the end. On any failure it is removed, and an existing file at ``path`` is unchanged. A link is
    followed. The temporary file is locked while it is written; see ``remove_parts``.

    Args:
        path: the file to write.
        progress: called after each write with the number of bytes written so far.

    Yields:
        The temporary file, open for binary reading and writing.

    Raises:
        ReproductionError: If the file cannot be written, as on a full disk or in a folder that does not exist.
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
        # A library that writes to the file may raise its own error, so the file records the OSError.
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


def write_text(path: StrPath, text: str) -> None:
    """Write a text to a file in UTF-8, atomically.

    Raises:
        ReproductionError: If the file cannot be written; see ``open_atomic``.
    """
    with open_atomic(path) as file:
        file.write(text.encode())


def _check_writable(target: Path, path: StrPath) -> None:
    """Check that ``target`` is a file or does not exist; before the first write to its folder, remove old parts."""
    try:
        if target.exists() and not target.is_file():
            raise ReproductionError("this is not a file", place=os.fspath(path), remedy="Name a file to write.")
    except OSError as error:  # a name that is too long
        raise cannot_write(error, path) from None
    if str(target.parent) not in _swept:
        _swept.add(str(target.parent))
        remove_parts(target.parent)


def _new_part(target: Path) -> tuple[Path, _ReportingFile, int]:
    """Create and lock the part of a file; return its path, the open file, and a second descriptor of the same file.

    The second descriptor keeps the lock until it is closed, after the part was renamed.
    """
    while True:
        part = locks.hidden_sibling(target, f"{secrets.token_hex(8)}.part")
        raw = _ReportingFile(os.fspath(part), "x+")
        lock = os.dup(raw.fileno())
        locks.try_lock(lock)
        if locks.names_open_file(lock, part):  # false if another process removed it as an old part before it was locked
            return part, raw, lock
        raw.close()
        os.close(lock)


@contextlib.contextmanager
def open_together(*paths: StrPath) -> Iterator[list[BinaryIO]]:
    """Context manager that writes several files, which replace the old ones only when all are complete and on the disk.

    The old files of all paths but the first are deleted; then the new files are renamed, in the order of ``paths``. So
    even a power cut never leaves a new file next to an old one, but it may leave some of the files missing.

    Args:
        *paths: the files to write.

    Yields:
        The files, open for binary writing, in the order of ``paths``.

    Raises:
        ReproductionError: If a file cannot be written; see ``open_atomic``. Then the old files are unchanged.
    """
    with contextlib.ExitStack() as stack:
        # The stack exits in reverse order, so that the file of the first path is renamed first.
        opened = [stack.enter_context(open_atomic(path)) for path in reversed(paths)][::-1]
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
    """Remove the temporary ``.part`` files of ``open_atomic`` that killed processes left in a folder.

    One that another process is still writing is locked, and is kept.
    """
    try:
        found = [Path(entry) for entry in os.scandir(folder) if _PART.fullmatch(entry.name) and entry.is_file()]
    except OSError:  # a problem with the folder is reported when the file is opened
        return
    for part in found:
        with contextlib.suppress(OSError):
            descriptor = os.open(part, os.O_RDWR)
            try:
                if locks.try_lock(descriptor):
                    part.unlink()
            finally:
                os.close(descriptor)


def make_folder(path: StrPath) -> None:
    """Create a folder and those that it is in, unless they exist.

    Raises:
        ReproductionError: If it cannot be created.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, path) from None


@contextlib.contextmanager
def staging_folder(target: StrPath, ending: str) -> Iterator[Path]:
    """Context manager that creates an empty folder ``.NAME.ENDING`` next to ``target``, to prepare its new content in.

    The folder is removed at the end. The caller must hold a lock of ``target``: a folder that already exists is taken
    for that of a killed process, and is removed.

    Args:
        target: the folder that the caller will replace.
        ending: the ending of the new folder's name, such as ``unpacking``.

    Yields:
        The new folder.

    Raises:
        ReproductionError: If the folder cannot be created.
    """
    folder = locks.hidden_sibling(target, ending)
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

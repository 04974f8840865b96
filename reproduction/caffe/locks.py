"""File locks between processes, so that only one process at a time writes to a shared file or folder.

A lock is an empty hidden file, locked with ``flock`` by the process that has it open. The system releases the lock
when that process ends, even if it is killed; the next process reuses the file that was left.

Where the system has no such locks (Windows, some network file systems), nothing is locked.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from reproduction.caffe.errors import DataError, StrPath, cannot_write

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_POLL_SECONDS = 0.1
_LONGEST = 50  # characters of a name that its lock's name repeats; at four bytes each, the result is a valid file name

_mine = threading.local()  # the locks that this thread holds


def hidden_sibling(path: StrPath, ending: str) -> Path:
    """Return the path ``.NAME.ENDING`` in the folder of ``path``, for a lock or a temporary file.

    Args:
        path: a file or folder; ``NAME`` is its name, cut to 50 characters.
        ending: the ending, without a dot.
    """
    target = Path(path)
    return target.with_name(f".{target.name[:_LONGEST]}.{ending}")


def try_lock(descriptor: int) -> bool | None:
    """Try to lock an open file for this process, without waiting.

    Args:
        descriptor: the file descriptor; the lock is released when it is closed.

    Returns:
        True if the file is now locked, False if another process holds the lock, None if the system cannot lock it.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def names_open_file(descriptor: int, path: StrPath) -> bool:
    """Return True if an open file is still the one at ``path``; False if that was removed or replaced since.

    Args:
        descriptor: the file descriptor of the open file.
        path: the path at which it was opened.
    """
    try:
        return os.path.samestat(os.fstat(descriptor), Path(path).lstat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def lock_folder(path: StrPath, problem: str, *, wait: bool = False, reentrant: bool = False) -> Iterator[None]:
    """Context manager that locks a folder by a file ``.lock`` in it, so that only one process at a time writes to it.

    The folder is created if it does not exist. It is removed again at the end if it is still empty.

    Args:
        path: the folder.
        problem: the error's text if another process holds the lock, such as ``another process is training here``.
        wait: if True, wait until the other process releases the lock, instead of raising an error.
        reentrant: if True, do nothing if this thread already holds the lock, instead of raising an error.

    Raises:
        DataError: If another process holds the lock and ``wait`` is False.
        ReproductionError: If the folder or the lock cannot be created.
    """
    new = [each for each in (Path(path), *Path(path).parents) if not each.exists()]
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, path) from None
    try:
        with lock_file(Path(path) / ".lock", problem, place=path, wait=wait, reentrant=reentrant):
            yield
    finally:
        with contextlib.suppress(OSError):
            for each in new:  # rmdir removes only empty folders
                each.rmdir()


@contextlib.contextmanager
def lock_path(path: StrPath, problem: str, *, wait: bool = False, reentrant: bool = False) -> Iterator[None]:
    """Context manager that locks a file or folder by a hidden file ``.NAME.lock`` next to it.

    Args:
        path: the file or folder, which need not exist.
        problem: the error's text if another process holds the lock, such as ``another process is unpacking here``.
        wait: if True, wait until the other process releases the lock, instead of raising an error.
        reentrant: if True, do nothing if this thread already holds the lock, instead of raising an error.

    Raises:
        DataError: If another process holds the lock and ``wait`` is False.
        ReproductionError: If the lock cannot be created, as in a read-only folder.
    """
    with lock_file(hidden_sibling(path, "lock"), problem, place=path, wait=wait, reentrant=reentrant):
        yield


@contextlib.contextmanager
def lock_file(
    path: StrPath,
    problem: str,
    *,
    place: StrPath = "",
    remedy: str = "Wait for it, or end it.",
    wait: bool = False,
    reentrant: bool = False,
) -> Iterator[None]:
    """Context manager that creates and locks a file, so that only one process at a time runs what is inside it.

    Args:
        path: the lock file; it is created at the start and removed at the end.
        problem: the error's text if another process holds the lock.
        place: the file or folder that the lock protects, named in errors; ``path`` if empty.
        remedy: the remedy of the same error.
        wait: if True, wait until the other process releases the lock, instead of raising an error.
        reentrant: if True, do nothing if this thread already holds the lock, instead of raising an error.

    Raises:
        DataError: If another process holds the lock and ``wait`` is False.
        ReproductionError: If the file cannot be created, as in a read-only folder.
    """
    file = os.path.realpath(path)
    held: set[str] = _mine.__dict__.setdefault("held", set())
    if fcntl is None or (reentrant and file in held):
        yield
        return
    busy = None if wait else DataError(problem, path=place or path, remedy=remedy)
    descriptor = _acquire(file, place or path, busy)
    held.add(file)
    try:
        yield
    finally:
        held.discard(file)
        with contextlib.suppress(OSError):
            os.unlink(file)  # noqa: PTH108 (while it is locked, so that nobody else's lock is removed)
        os.close(descriptor)


def _acquire(file: str, place: StrPath, busy: DataError | None) -> int:
    # O_NOFOLLOW: a link at this path must not create or lock a file in another place.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    while True:
        try:
            descriptor = os.open(file, flags, 0o666)
        except OSError as error:
            raise cannot_write(error, place) from None
        locked = try_lock(descriptor)
        # The process that held the lock before may have removed the file between the two calls.
        if locked is None or (locked and names_open_file(descriptor, file)):
            return descriptor
        os.close(descriptor)
        if locked is False:
            if busy:
                raise busy
            time.sleep(_POLL_SECONDS)

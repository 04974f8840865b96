"""pycaffe's functions for multi-process training, which support one process only, and its timer.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L327-L372, L395-L405, L560-L585.
"""

from __future__ import annotations

import time

from reproduction.pycaffe.net.errors import CaffeError

_REMEDY = "Use tools/train.py, which trains with several."


def has_nccl() -> bool:
    """Return False: this interface does not use NCCL."""
    return False


class NCCL:
    """A stub of pycaffe's NCCL class, which joins the solvers of several processes.

    Raises:
        CaffeError: Always, since this interface trains with one process.
    """

    def __init__(self, solver: object, uid: object):
        raise CaffeError("this interface trains with one process", remedy=_REMEDY)


def solver_count() -> int:
    """Return the number of training processes, always 1."""
    return 1


def set_solver_count(count: int) -> None:
    """Check that the number of training processes is 1.

    Raises:
        CaffeError: If ``count`` is not 1.
    """
    _want(count, 1)


def solver_rank() -> int:
    """Return the rank of this process, always 0."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Check that the rank of this process is 0.

    Raises:
        CaffeError: If ``rank`` is not 0.
    """
    _want(rank, 0)


def set_multiprocess(wanted: bool) -> None:
    """Check that multi-process training is off.

    Raises:
        CaffeError: If ``wanted`` is True.
    """
    _want(wanted, False)


def _want(got: int, want: int) -> None:
    if got != want:
        raise CaffeError("this interface trains with one process", got=got, want=want, remedy=_REMEDY)


class Timer:
    """A stopwatch for wall-clock time."""

    def __init__(self) -> None:
        self._start = self._stop = 0.0

    def start(self) -> None:
        """Record the start time."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Record the stop time."""
        self._stop = time.perf_counter()

    @property
    def ms(self) -> float:
        """The milliseconds between the last ``start`` and the last ``stop``."""
        return (self._stop - self._start) * 1000

"""What pycaffe has for training with several processes and for timing; the former is not to be had here.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L327-L372, L395-L405, L560-L585.
"""

from __future__ import annotations

import time

from reproduction.pycaffe.net.errors import CaffeError

_REMEDY = "Use tools/train.py, which trains with several."


def has_nccl() -> bool:
    """Say that there is no NCCL here."""
    return False


class NCCL:
    """Would join the solvers of several processes.

    Raises:
        CaffeError: always.
    """

    def __init__(self, solver: object, uid: object):
        raise CaffeError("this interface trains with one process", remedy=_REMEDY)


def solver_count() -> int:
    """Return 1, the number of processes that train together."""
    return 1


def set_solver_count(count: int) -> None:
    """Accept 1.

    Raises:
        CaffeError: another number.
    """
    _want(count, 1)


def solver_rank() -> int:
    """Return 0, the place of this process among those that train together."""
    return 0


def set_solver_rank(rank: int) -> None:
    """Accept 0.

    Raises:
        CaffeError: another number.
    """
    _want(rank, 0)


def set_multiprocess(wanted: bool) -> None:
    """Accept False.

    Raises:
        CaffeError: True.
    """
    _want(wanted, False)


def _want(got: int, want: int) -> None:
    if got != want:
        raise CaffeError("this interface trains with one process", got=got, want=want, remedy=_REMEDY)


class Timer:
    """A clock: ``start``, ``stop``, and ``ms`` between them."""

    def __init__(self) -> None:
        self._start = self._stop = 0.0

    def start(self) -> None:
        """Start."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Stop."""
        self._stop = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds from the last start to the last stop."""
        return (self._stop - self._start) * 1000

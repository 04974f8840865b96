"""pycaffe's timer.

Source: BVLC/caffe@9b89154 python/caffe/_caffe.cpp L574-L579; src/caffe/util/benchmark.cpp.
"""

import time


class Timer:
    """A stopwatch for wall-clock time, like ``caffe.Timer``: call ``start`` and ``stop``, then read ``ms``."""

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

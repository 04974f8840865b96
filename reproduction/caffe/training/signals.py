"""Signals that ask a running solver for something: Ctrl-C to stop, a hang-up for a snapshot.

Source: BVLC/caffe@9b89154 src/caffe/util/signal_handler.cpp, tools/caffe.cpp L51-L56.
"""

from __future__ import annotations

import enum
import signal
from types import FrameType, TracebackType
from typing import Any


class Action(enum.IntEnum):
    """What a solver is asked for; the greater one wins."""

    NONE = 0
    SNAPSHOT = 1
    STOP = 2


class Signals:
    """Take signals while a block runs; call it to learn, once, what was asked for.

    Install it from the main thread: ``with Signals() as signals: solver.action = signals``. A second SIGINT before the
    first was heeded raises KeyboardInterrupt, for a net whose iterations take minutes.

    Args:
        sigint: what SIGINT asks for.
        sighup: what SIGHUP asks for.
    """

    def __init__(self, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT):
        self._asks = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._before: dict[signal.Signals, Any] = {}
        self._asked: set[signal.Signals] = set()

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._take) for number in self._asks}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> Action:
        """Return what was asked for since the last call; a snapshot before a stop, as Caffe does."""
        for number in (signal.SIGHUP, signal.SIGINT):
            if number in self._asked:
                self._asked.discard(number)
                return self._asks[number]
        return Action.NONE

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in self._asked:
            raise KeyboardInterrupt
        self._asked.add(signal.Signals(number))

"""Handle signals to a running solver: SIGINT (Ctrl-C) stops it, SIGHUP makes it write a snapshot.

Source: BVLC/caffe@9b89154 src/caffe/util/signal_handler.cpp, tools/caffe.cpp L51-L56.
"""

from __future__ import annotations

import enum
import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Action(enum.IntEnum):
    """A request to a running solver; if processes receive different requests, the greater value takes precedence.

    Attributes:
        NONE: Continue.
        SNAPSHOT: Write a snapshot and continue.
        STOP: Stop before the next update.
    """

    NONE = 0
    SNAPSHOT = 1
    STOP = 2


class Signals:
    """A context manager that handles SIGINT (Ctrl-C) and SIGHUP; a call returns the action that they request.

    Use it in the main thread: ``with Signals() as signals: solver.action = signals``. A second SIGINT before the solver
    has read the first one raises KeyboardInterrupt, so that a long iteration can be interrupted.

    Args:
        sigint: The action that SIGINT requests.
        sighup: The action that SIGHUP requests.
    """

    def __init__(self, sigint: Action = Action.STOP, sighup: Action = Action.SNAPSHOT):
        self._asks = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._before: dict[signal.Signals, Any] = {}
        self._asked: set[signal.Signals] = set()

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in self._asks}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> Action:
        """Return and clear one pending action, or NONE; as in Caffe, SIGHUP comes before SIGINT."""
        for number in (signal.SIGHUP, signal.SIGINT):
            if number in self._asked:
                self._asked.discard(number)
                return self._asks[number]
        return Action.NONE

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in self._asked:
            raise KeyboardInterrupt
        self._asked.add(signal.Signals(number))

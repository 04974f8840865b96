"""Support for nets in other processes: generators that can be pickled, and OpenMP after a fork."""

from __future__ import annotations

import os
import threading
from typing import Any

import torch


class Generator(torch.Generator):
    """A ``torch.Generator`` that can be sent to another process.

    torch pickles the state of a generator as a tensor in shared memory, which is freed before a process that
    was started by ``spawn`` reads it. This class pickles the state as bytes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (str(self.device), self.get_state().numpy().tobytes())


def _restore(device: str, state: bytes) -> Generator:
    made = Generator(device)
    made.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return made


_forked = threading.Event()  # set in a forked process until ``limit_threads_after_fork`` is called

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forked.set)


def limit_threads_after_fork() -> None:
    """Set torch to one thread if this process was forked.

    A fork does not copy the threads of OpenMP, and GNU's implementation then waits for them forever. The workers of
    torch's ``DataLoader`` use one thread for the same reason.

    Source: torch's notes on multiprocessing, "Poison fork in multiprocessing"; pytorch/pytorch issue 17199.
    """
    if _forked.is_set():
        torch.set_num_threads(1)
        _forked.clear()

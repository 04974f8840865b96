"""What a net needs to be used in a process other than the one that built it: copies of generators, and forks."""

from __future__ import annotations

import os
from typing import Any

import torch


class Generator(torch.Generator):
    """A ``torch.Generator`` that can be sent to another process.

    torch pickles a generator's state as a tensor of its own, whose shared memory is gone before a process that was
    started by ``spawn`` reads it. Bytes travel with the pickle.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (str(self.device), self.get_state().numpy().tobytes())


def _restore(device: str, state: bytes) -> Generator:
    made = Generator(device)
    made.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return made


class _Fork:
    """Whether this process was forked by one that had loaded this module, and has not computed yet."""

    pending = False

    @classmethod
    def note(cls) -> None:
        cls.pending = True


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_Fork.note)


def settle() -> None:
    """Use one thread from now on if this process was forked.

    The threads of OpenMP stay in the parent, and GNU's waits for them for ever. Workers of torch's ``DataLoader``
    compute with one thread for the same reason.

    Source: torch's notes on multiprocessing, "Poison fork in multiprocessing"; pytorch/pytorch issue 17199.
    """
    if _Fork.pending:
        torch.set_num_threads(1)
        _Fork.pending = False

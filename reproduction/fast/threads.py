"""How the threads of OpenMP wait for each other."""

from __future__ import annotations

import threading
from functools import lru_cache

import torch


def spin_less() -> None:
    """Let threads that wait for each other sleep soon, rather than spin, for the rest of the process.

    torch's CPU build waits by GNU's OpenMP, whose threads spin 300,000 times at each end of a parallel region before
    they sleep. If another program needs the CPU, the spinning threads take the time that the thread they wait for
    needs: a compiled net, of more and shorter regions than a plain one, became several times slower. OpenMP spins
    only 100 times if it manages more threads than there are CPUs; one parked thread that has a team makes it so.
    ``OMP_WAIT_POLICY=PASSIVE`` does the same, but only before torch is loaded.

    Source: GNU libgomp manual, GOMP_SPINCOUNT.
    """
    if torch.get_num_threads() > 1:
        _park()


@lru_cache(maxsize=1)
def _park() -> None:
    """Start a thread that runs one parallel region, to have a team of OpenMP's threads, and then sleeps."""
    started = threading.Event()

    def sleep() -> None:
        torch.zeros(1 << 17).add_(1)  # more values than torch leaves to one thread
        started.set()
        threading.Event().wait()

    threading.Thread(target=sleep, name="parked OpenMP team", daemon=True).start()
    started.wait()

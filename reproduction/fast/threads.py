"""Set how OpenMP's threads wait for each other."""

from __future__ import annotations

import threading
from functools import lru_cache

import torch


def reduce_spinning() -> None:
    """Reduce the time that waiting OpenMP threads spin before they sleep, for the rest of the process.

    torch's CPU build uses GNU's OpenMP, whose threads spin 300,000 times at the end of each parallel region before
    they sleep. If another program needs the CPU, the spinning threads use the CPU time of the thread that they wait
    for; this made compiled nets, which have more and shorter parallel regions, several times slower. OpenMP spins only
    100 times if it manages more threads than there are CPUs, which a sleeping thread with an OpenMP team causes.
    ``OMP_WAIT_POLICY=PASSIVE`` has the same effect, but only if it is set before torch is loaded.

    Source: GNU libgomp manual, GOMP_SPINCOUNT.
    """
    if torch.get_num_threads() > 1:
        _park_thread_team()


@lru_cache(maxsize=1)
def _park_thread_team() -> None:
    """Start a thread that runs one parallel region, which creates an OpenMP team, and then sleeps."""
    started = threading.Event()

    def sleep() -> None:
        torch.zeros(1 << 17).add_(1)  # large enough for torch to use several threads
        started.set()
        threading.Event().wait()

    threading.Thread(target=sleep, name="parked OpenMP team", daemon=True).start()
    started.wait()

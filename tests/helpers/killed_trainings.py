"""Train the tiny net, kill it at random moments with SIGKILL, and resume it from its last snapshot, many times.

``python -m tests.helpers.killed_trainings FOLDER KILLS SEED`` prints a line for each kill: the number of updates in the
newest snapshot, and the number of partial files that the kill left. It exits with 0 if nothing was lost: every state
restores, the newest snapshot never goes back, and the final weights equal those of an uninterrupted run bit for bit.
torch is imported once; each run is a fork.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from reproduction.caffe.training import snapshot
from tests.helpers import tiny_training

EVERY = 2


def text(prefix: Path, max_iter: int, form: str) -> str:
    return (
        f'max_iter: {max_iter} snapshot: {EVERY} snapshot_prefix: "{prefix}" snapshot_format: {form}'
        ' type: "Adam" iter_size: 2 lr_policy: "step" gamma: 0.9 stepsize: 3 snapshot_after_train: true'
    )


def train(prefix: Path, max_iter: int, form: str) -> None:
    run = tiny_training.built(text(prefix, max_iter, form), resume=snapshot.latest(prefix))
    for _ in run.solve():
        pass


def forked(prefix: Path, max_iter: int, form: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            train(prefix, max_iter, form)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return child


def reached(prefix: Path, form: str) -> int:
    """Restore the newest snapshot and return its number of updates; 0 if there is none."""
    newest = snapshot.latest(prefix)
    return (
        tiny_training.built(text(prefix, 10**6, form).replace(f"snapshot: {EVERY} ", ""), resume=newest).iter
        if newest
        else 0
    )


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)  # a fork does not inherit its parent's threads
    rng = random.Random(seed)
    form = rng.choice(["BINARYPROTO", "HDF5"])
    prefix = folder / "killed"
    began = time.monotonic()
    train(folder / "pace", 20, form)
    pace = (time.monotonic() - began) / 20  # seconds per update, snapshots included
    far, done = 0, 0
    while done < kills:
        child = forked(prefix, 10**6, form)
        time.sleep(pace * rng.uniform(0, 8))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the run ended by itself"
        done += 1
        parts = len(list(folder.glob(".killed*.part")))
        now = reached(prefix, form)
        assert now >= far, f"the newest snapshot went back from {far} to {now}"
        far = now
        print(f"kill {done}: {far} updates, {parts} files half written", flush=True)
    end = far + EVERY + 1
    _, status = os.waitpid(forked(prefix, end, form), 0)
    assert status == 0, "the last run failed"
    train(folder / "whole", end, form)
    ending = ".h5" if form == "HDF5" else ""
    one, other = (folder / f"{name}_iter_{end}.caffemodel{ending}" for name in ("killed", "whole"))
    assert one.read_bytes() == other.read_bytes(), "the weights differ from those of a run that was never killed"
    assert not list(folder.glob(".*.part")), "something half written is left"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

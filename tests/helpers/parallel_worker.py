"""The process that ``test_parallel`` starts: ``torchrun ... -m tests.helpers.parallel_worker FOLDER``."""

import sys
from pathlib import Path

import numpy as np
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.net.net import Net
from reproduction.caffe.training import parallel
from reproduction.caffe.training.events import LossError, Saved
from reproduction.caffe.training.signals import Action
from reproduction.caffe.training.solver import Solver
from tests.helpers import tiny_training

CASES = {
    "sgd": "iter_size: 4",
    "uneven": "iter_size: 5 type: 'Adam'",
    "clip": "iter_size: 4 clip_gradients: 0.5",
    "adagrad": "iter_size: 4 type: 'AdaGrad' momentum: 0 regularization_type: 'L1'",
}
STEPS = 5


def bad_from(draw: int):
    def feed(number: int):
        fed = tiny_training.feed(number)
        return fed | {"data": np.full_like(fed["data"], np.nan)} if number >= draw else fed

    return feed


def main(folder: Path) -> None:
    with parallel.join_processes() as ranks:
        found: dict[str, object] = {"rank": ranks.rank, "size": ranks.size}
        for name, text in CASES.items():
            drawn = []

            def feed(draw: int, drawn=drawn):
                drawn.append(draw)
                return tiny_training.feed(draw)

            run = tiny_training.built(f"random_seed: 7 {text}", feed=feed, ranks=ranks)
            losses = []
            for _ in range(STEPS):
                run.step()
                losses.append(run.sample_losses)
            found |= {f"{name}/{key}": value for key, value in tiny_training.weights(run).items()}
            found |= {f"{name}/losses": losses, f"{name}/drawn": drawn}

        torch.manual_seed(ranks.rank)
        net = Net(tiny_training.net())  # no seed: each process starts with other weights
        parted = Solver(tiny_training.param("iter_size: 4"), net, tiny_training.feed, ranks=ranks)
        found |= {f"first/{key}": value for key, value in tiny_training.weights(parted).items()}

        prefix = f'snapshot_prefix: "{folder}/s"'
        run = tiny_training.built(f"iter_size: 4 snapshot: 2 max_iter: 4 {prefix}", ranks=ranks)
        saved = [event.iteration for event in run.solve() if isinstance(event, Saved)]
        ranks.all_reduce_max(0)  # a barrier: wait until the first process has written
        again = tiny_training.built(f"iter_size: 4 {prefix}", ranks=ranks, resume=folder / "s_iter_2.solverstate")
        again.step(2)
        found |= {
            "saved": saved,
            "resumed": tiny_training.same(tiny_training.weights(run), tiny_training.weights(again)),
        }

        run.action = lambda: Action.STOP if ranks.rank == ranks.size - 1 and run.iter == 6 else Action.NONE
        run.step(5)
        found |= {"stopped": run.iter}

        run = tiny_training.built("iter_size: 4", feed=bad_from(6), ranks=ranks)
        try:
            run.step(3)
        except LossError as error:
            found |= {"error": str(error)}
        try:
            tiny_training.built("iter_size: 1", ranks=ranks)
        except ReproductionError as error:
            found |= {"few": str(error)}

        random = np.random.RandomState(ranks.rank)
        mine = torch.from_numpy((random.randn(7, 3) * 10.0 ** random.randint(-4, 4, (7, 3))).astype(np.float32))
        found |= {"mine": mine.numpy().copy()}
        ranks.all_reduce_sum(mine)
        found |= {"sum": mine.numpy()}
        np.savez(folder / f"rank{ranks.rank}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

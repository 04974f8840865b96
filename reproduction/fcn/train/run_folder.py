"""The folder of a training: which run it holds, its newest snapshot, and that one process at a time writes there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reproduction.caffe import locks
from reproduction.caffe.errors import DataError, WeightsError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.training import snapshot
from reproduction.fcn.fetch import local_files
from reproduction.fcn.train import log_file
from reproduction.fcn.train.feeds import Feed
from reproduction.fcn.train.recipes import Stage

# What a run may be given anew when it goes on: nothing here changes the weights of an iteration.
_FREE = {
    *("train_net", "test_net", "net", "test_iter", "test_interval", "test_initialization", "test_compute_loss"),
    *("display", "average_loss", "debug_info", "solver_mode", "device_id", "max_iter", "random_seed"),
    *("snapshot", "snapshot_prefix", "snapshot_diff", "snapshot_format", "snapshot_after_train"),
}


@dataclass(frozen=True)
class Snapshot:
    """A state that was written, and the weights that go with it.

    Attributes:
        iteration: updates made.
        state: the file of the solver's state.
        model: the caffemodel.
    """

    iteration: int
    state: Path
    model: Path


def newest(folder: Path) -> Snapshot | None:
    """Find the newest snapshot of a run."""
    return next(iter(_snapshots(folder)), None)


def forget(folder: Path, keep: int) -> None:
    """Remove all but the newest snapshots of a run.

    Args:
        folder: of the run.
        keep: how many stay, at least 1.
    """
    for old in _snapshots(folder)[max(keep, 1) :]:
        old.state.unlink(missing_ok=True)  # first, so that no state is without its model
        old.model.unlink(missing_ok=True)


def _snapshots(folder: Path) -> list[Snapshot]:
    """List the snapshots of a run, the newest first."""
    return [
        Snapshot(iteration, path, path.with_name(path.name.replace(".solverstate", ".caffemodel")))
        for iteration, path in snapshot.states(prefix(folder))
    ]


def prefix(folder: Path) -> str:
    """Return how the snapshots of a run begin."""
    return str(folder / "snapshot" / "train")


def settings(stage: Stage, starts: Mapping[str, Path], seed: int, feed: Feed) -> dict[str, object]:
    """Name all that a run's weights depend on.

    Args:
        stage: what is trained.
        starts: the files of weights that it starts from.
        seed: of fillers and dropout.
        feed: what it learns from.

    Raises:
        WeightsError: a file of weights is not there.
    """
    found: dict[str, object] = {"seed": seed, "data": feed.about}
    for name, path in starts.items():
        if not path.is_file():
            raise WeightsError("no such file of weights", path=path)
        found[f"weights of {name}"] = f"sha256 {local_files.digests(path, ['sha256'])['sha256']}"
    found["net"] = f"sha256 {hashlib.sha256(prototxt.dumps(stage.train).encode()).hexdigest()}"
    solver = stage.solver.copy()
    solver.max_iter = stage.iterations
    for field, value in solver.set_fields():
        if field.name not in _FREE or (field.name == "max_iter" and solver.lr_policy == "poly"):
            found[field.name] = list(value) if field.repeated else value
    return found


def check_same(folder: Path, mine: Mapping[str, object], last: Snapshot, iterations: int) -> None:
    """Refuse to go on in a folder that holds another run.

    Args:
        folder: of the run.
        mine: the settings of what would go on.
        last: the newest snapshot of the folder.
        iterations: how far it would go.

    Raises:
        DataError: the run there is another, or further already.
    """
    remedy = "Give what that run was given, or another folder to write to."
    path = folder / "log.jsonl"
    if not path.is_file():
        raise DataError("it has snapshots, but nothing says of what run", path=folder, want=path.name, remedy=remedy)
    start = next(log_file.read(path), {})
    theirs = start.get("settings", {})
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            got, want = mine.get(name, "none"), theirs.get(name, "none")
            raise DataError(f"another run is here, of another {name}", path=folder, got=got, want=want, remedy=remedy)
    if last.iteration > iterations:
        raise DataError(
            "the run is further already",
            path=folder,
            got=f"iteration {last.iteration}",
            want=f"at most {iterations}",
            remedy="Ask for more iterations, or give another folder to write to.",
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the folder of a training, which is made if need be.

    Raises:
        DataError: another process is training there.
        ReproductionError: it cannot be written.
    """
    with locks.folder(folder, "another process is training here"):
        yield

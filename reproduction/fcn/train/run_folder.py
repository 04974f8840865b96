"""The folder of a training: the settings of its run, its snapshots, and a lock for the process that writes to it."""

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
from reproduction.fcn.train.recipes import Recipe

# Solver fields that may change when a run resumes: none affects the weights at an iteration. The seed is compared
# separately; max_iter is compared under the poly policy, whose rate depends on it.
_FREE = {
    *("train_net", "test_net", "net", "test_iter", "test_interval", "test_initialization", "test_compute_loss"),
    *("display", "average_loss", "debug_info", "solver_mode", "device_id", "max_iter", "random_seed"),
    *("snapshot", "snapshot_prefix", "snapshot_diff", "snapshot_format", "snapshot_after_train"),
}


@dataclass(frozen=True)
class Snapshot:
    """The two files of a snapshot.

    Attributes:
        iteration: the number of updates made.
        state: the path of the solverstate.
        model: the path of the caffemodel.
    """

    iteration: int
    state: Path
    model: Path


def find_newest_snapshot(folder: Path) -> Snapshot | None:
    """Return the newest snapshot of a run, or None."""
    return next(iter(_snapshots(folder)), None)


def delete_old_snapshots(folder: Path, keep: int) -> None:
    """Delete all but the newest snapshots of a run.

    Args:
        folder: the folder of the run.
        keep: the number of snapshots that are not deleted; values below 1 count as 1.
    """
    for old in _snapshots(folder)[max(keep, 1) :]:
        old.state.unlink(missing_ok=True)  # first, so that a state always has its model
        old.model.unlink(missing_ok=True)


def _snapshots(folder: Path) -> list[Snapshot]:
    """Return the snapshots of a run, newest first."""
    return [
        Snapshot(iteration, path, path.with_name(path.name.replace(".solverstate", ".caffemodel")))
        for iteration, path in snapshot.states(snapshot_prefix(folder))
    ]


def snapshot_prefix(folder: Path) -> str:
    """Return the ``snapshot_prefix`` of a run."""
    return str(folder / "snapshot" / "train")


def collect_settings(stage: Recipe, starts: Mapping[str, Path], seed: int, feed: Feed) -> dict[str, object]:
    """Return all settings that a run's weights depend on, by name; files and nets as their SHA-256.

    Args:
        stage: the training.
        starts: the initial weights files by net name.
        seed: the seed of fillers and dropout.
        feed: the training data.

    Raises:
        WeightsError: If a weights file does not exist.
    """
    found: dict[str, object] = {"seed": seed, "data": feed.about}
    for name, path in starts.items():
        if not path.is_file():
            raise WeightsError("no such file of weights", path=path)
        found[f"weights of {name}"] = f"sha256 {local_files.compute_hashes(path, ['sha256'])['sha256']}"
    found["net"] = f"sha256 {hashlib.sha256(prototxt.dumps(stage.train).encode()).hexdigest()}"
    solver = stage.solver.copy()
    solver.max_iter = stage.iterations
    for field, value in solver.set_fields():
        if field.name not in _FREE or (field.name == "max_iter" and solver.lr_policy == "poly"):
            found[field.name] = list(value) if field.repeated else value
    return found


def check_settings(folder: Path, mine: Mapping[str, object], last: Snapshot, iterations: int) -> None:
    """Check that the run in a folder has the same settings, so that it can be resumed.

    Args:
        folder: the folder of the run.
        mine: the settings to resume with, see ``collect_settings``.
        last: the newest snapshot in the folder.
        iterations: the total number of updates to make.

    Raises:
        DataError: If the log is missing, a setting differs, or the snapshot has more than ``iterations`` updates.
    """
    remedy = "Give what that run was given, or another folder to write to."
    path = folder / "log.jsonl"
    if not path.is_file():
        raise DataError("it has snapshots, but nothing says of what run", path=folder, want=path.name, remedy=remedy)
    start = next(log_file.read_records(path), {})
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
def lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a training, which is created if it does not exist.

    Raises:
        DataError: If another process has locked the folder.
        ReproductionError: If the folder cannot be written.
    """
    with locks.lock_folder(folder, "another process is training here"):
        yield

"""The folder that a training writes: its settings and its snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reproduction.caffe.errors import DataError, WeightsError
from reproduction.caffe.formats import hashes, prototxt
from reproduction.caffe.training import snapshot
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


PARENT_PREFIX = "weights of "  # of the names of the initial weights in the settings


@dataclass(frozen=True)
class Snapshot:
    """The two files of a snapshot: solver state and weights after some iteration.

    Attributes:
        iteration: the number of updates made.
        state_path: the path of the ``.solverstate`` file.
        weights_path: the path of the ``.caffemodel`` file.
    """

    iteration: int
    state_path: Path
    weights_path: Path


def find_newest_snapshot(folder: Path) -> Snapshot | None:
    """Return the snapshot with the highest iteration in the folder of a run, or None if there is none."""
    return next(iter(_snapshots(folder)), None)


def delete_old_snapshots(folder: Path, keep: int) -> None:
    """Delete all snapshots of a run except the newest ones.

    Args:
        folder: the folder of the run.
        keep: the number of newest snapshots to keep; values below 1 count as 1.
    """
    for old in _snapshots(folder)[max(keep, 1) :]:
        old.state_path.unlink(missing_ok=True)  # first, so that a state always has its weights
        old.weights_path.unlink(missing_ok=True)


def _snapshots(folder: Path) -> list[Snapshot]:
    """Return the snapshots of a run, newest first."""
    return [
        Snapshot(iteration, path, path.with_name(path.name.replace(".solverstate", ".caffemodel")))
        for iteration, path in snapshot.states(snapshot_prefix(folder))
    ]


def snapshot_prefix(folder: Path) -> str:
    """Return the solver's ``snapshot_prefix`` for a run folder: the start of the paths of all its snapshots."""
    return str(folder / "snapshot" / "train")


def collect_settings(recipe: Recipe, weights: Mapping[str, Path], seed: int, feed: Feed) -> dict[str, object]:
    """Return all settings that the trained weights depend on, by name; files and nets are represented by their SHA-256.

    Args:
        recipe: the recipe.
        weights: the files of the initial weights, by net name.
        seed: the seed of fillers and dropout.
        feed: the training data, represented by their description.

    Raises:
        WeightsError: If a weights file does not exist.
    """
    found: dict[str, object] = {"seed": seed, "data": feed.description}
    for name, path in weights.items():
        if not path.is_file():
            raise WeightsError("there is no such weights file", path=path)
        found[PARENT_PREFIX + name] = f"sha256 {hashes.hash_file(path)}"
    found["net"] = f"sha256 {hashlib.sha256(prototxt.dumps(recipe.train_net_param).encode()).hexdigest()}"
    for field, value in recipe.solver_param.set_fields():
        if field.name not in _FREE or (field.name == "max_iter" and recipe.solver_param.lr_policy == "poly"):
            found[field.name] = list(value) if field.repeated else value
    return found


def check_settings(folder: Path, settings: Mapping[str, object], newest: Snapshot, max_iter: int) -> None:
    """Check that the run in a folder has the same settings as this one, so that it can be resumed.

    Args:
        folder: the folder of the run.
        settings: the settings of this run, see ``collect_settings``; those of the run in the folder are in its log.
        newest: the newest snapshot in the folder, from which the run would be resumed.
        max_iter: the total number of updates that this run makes.

    Raises:
        DataError: If the log is missing, a setting differs, or the snapshot has more than ``max_iter`` updates.
    """
    remedy = "Repeat the options of that run, or choose another output folder."
    path = folder / log_file.LOG_FILE
    if not path.is_file():
        raise DataError("the folder has snapshots, but no log", path=folder, want=path.name, remedy=remedy)
    start = next(log_file.read_log(path))
    assert isinstance(start, log_file.Start)
    for name in [*settings, *start.settings]:
        got, want = settings.get(name, "none"), start.settings.get(name, "none")
        if got != want:
            raise DataError(f"the folder has a run with another {name}", path=folder, got=got, want=want, remedy=remedy)
    if newest.iteration > max_iter:
        raise DataError(
            "the run has more iterations already",
            path=folder,
            got=newest.iteration,
            want=f"at most {max_iter}",
            remedy="Ask for more iterations, or choose another output folder.",
        )

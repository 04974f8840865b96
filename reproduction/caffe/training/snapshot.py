"""Write and read snapshots, the weights and state of a solver, in files that Caffe itself can load.

The model and the state that refers to it are renamed to their final paths, the model first, once both are written to
the disk. A crash or a full disk therefore destroys no earlier snapshot and leaves no state without its model.

Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L410-L480, src/caffe/solvers/sgd_solver.cpp L255-L400.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import CaffemodelError, ReproductionError, StrPath, WeightsError
from reproduction.caffe.formats import blobs, caffemodel, file_kinds, files, hdf5, weights
from reproduction.caffe.formats.hdf5_file.objects import HDF5Group
from reproduction.caffe.net.copy_weights import old_shape, to_blob
from reproduction.caffe.schema import BlobProto, NetParameter, SnapshotFormat, SolverParameter, SolverState


@dataclass(frozen=True)
class State:
    """The contents of a state file, with which a training can be resumed.

    Attributes:
        iter: The number of updates made.
        current_step: How many times a step or multistep schedule has multiplied the learning rate by ``gamma``.
        history: The history blobs of the update rule, in the shapes of the solver's history.
        model: The weights; None if the file names no model.
        model_path: Path of the weights; empty if there are none.
    """

    iter: int
    current_step: int
    history: list[Tensor]
    model: NetParameter | None
    model_path: str


def paths(param: SolverParameter, iteration: int) -> tuple[str, str]:
    """Return the paths of the two files of a snapshot: the model (weights) and the state of the solver.

    They are ``PREFIX_iter_N.caffemodel`` and ``PREFIX_iter_N.solverstate``, with ``.h5`` appended in HDF5 format.
    """
    stem = f"{param.snapshot_prefix}_iter_{iteration}"
    ending = ".h5" if param.snapshot_format is SnapshotFormat.HDF5 else ""
    return f"{stem}.caffemodel{ending}", f"{stem}.solverstate{ending}"


def prepare(param: SolverParameter) -> None:
    """Check that snapshots can be written, and remove incomplete files of a killed process.

    Raises:
        ReproductionError: If ``snapshot_prefix`` is not set, or if its folder does not exist or is not writable.

    Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L439-L455.
    """
    if not param.snapshot_prefix:
        raise ReproductionError("snapshot_prefix is not set", place="solver", remedy="Set a path prefix.")
    folder = Path(param.snapshot_prefix).parent
    if not folder.is_dir():
        raise ReproductionError(
            f"snapshot_prefix {param.snapshot_prefix!r} is in a folder that is not there",
            place="solver",
            remedy=f"Make the folder {str(folder)!r}.",
        )
    files.remove_parts(folder)
    probe = f"{param.snapshot_prefix}_iter_0.tempfile"
    with files.open_atomic(probe):
        pass
    Path(probe).unlink()


def save(
    param: SolverParameter, net: NetParameter, iteration: int, current_step: int, history: Sequence[Tensor]
) -> tuple[str, str]:
    """Write a snapshot: the model (weights) and the state of the solver.

    Args:
        param: The solver's settings; ``snapshot_prefix`` and ``snapshot_format`` define the paths.
        net: The weights.
        iteration: The number of updates made.
        current_step: How many times a step or multistep schedule has multiplied the learning rate by ``gamma``.
        history: The history blobs of the update rule.

    Returns:
        The paths of the model and the state.

    Raises:
        ReproductionError: If a file cannot be written; earlier snapshots are then unchanged.
    """
    model, state = paths(param, iteration)
    written = SolverState(
        iter=iteration, learned_net=model, current_step=current_step, history=[to_blob(blob) for blob in history]
    )
    with files.open_together(model, state) as (model_file, state_file):
        if param.snapshot_format is SnapshotFormat.HDF5:
            with hdf5.create_in(model_file) as file:
                hdf5.write(net, file, model)
            _write_hdf5(written, state_file)
        else:
            caffemodel.write(net, model_file)
            caffemodel.write(written, state_file)
    return model, state


def latest(prefix: StrPath) -> str | None:
    """Return the path of the latest state file, or None if there is none.

    Args:
        prefix: The ``snapshot_prefix`` of the solver.
    """
    found = states(prefix)
    return str(found[0][1]) if found else None


def states(prefix: StrPath) -> list[tuple[int, Path]]:
    """Return the iteration and path of each state file, the latest first.

    Args:
        prefix: The ``snapshot_prefix`` of the solver.
    """
    pattern = re.compile(re.escape(Path(prefix).name) + r"_iter_(\d+)\.solverstate(\.h5)?")
    folder = Path(prefix).parent
    matches = [(pattern.fullmatch(path.name), path) for path in (folder.iterdir() if folder.is_dir() else ())]
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def load(path: StrPath, like: Sequence[Tensor]) -> State:
    """Load a state file, binary or HDF5, and the model that it names.

    Args:
        path: Path of the state; the ending ``.h5`` means HDF5.
        like: The solver's own history; the blobs in the file must have the same number and shapes.

    Raises:
        CaffemodelError: If the file is damaged or not a solver state; the error says what the file is, if it can.
        WeightsError: If the state belongs to another net or solver type, or if its model does not exist.
        OSError: If the file cannot be opened.
    """
    try:
        state, history = _load(path, like)
    except ReproductionError as error:
        raise file_kinds.wrong_kind_error(path, file_kinds.STATE) or error from None
    if not state.has("learned_net"):
        return State(state.iter, state.current_step, history, None, "")
    model = _find_model(state.learned_net, path)
    return State(state.iter, state.current_step, history, weights.read(model).net, str(model))


def _load(path: StrPath, like: Sequence[Tensor]) -> tuple[SolverState, list[Tensor]]:
    state = _load_hdf5(path) if os.fspath(path).endswith(".h5") else caffemodel.load(path, SolverState)
    if not state.has("iter") or state.iter < 0 or state.current_step < 0:
        raise CaffemodelError("this is not a solver state", path=path, got=f"iteration {state.iter}")
    if len(state.history) != len(like):
        raise WeightsError(
            "the history has another number of blobs",
            path=path,
            got=len(state.history),
            want=f"{len(like)}, as this net and solver type",
        )
    pairs = zip(state.history, like, strict=True)
    return state, [_restored(i, blob, mine, path) for i, (blob, mine) in enumerate(pairs)]


def _restored(index: int, blob: BlobProto, mine: Tensor, path: StrPath) -> Tensor:
    values = blobs.to_array(blob, f"{path}: history blob {index}")
    want = tuple(mine.shape)
    if values.shape != want and not (blobs.is_legacy(blob) and values.shape == old_shape(want)):
        raise WeightsError(f"history blob {index} has another shape", path=path, got=values.shape, want=want)
    return torch.from_numpy(np.array(values)).view(want)


def _find_model(named: str, state: StrPath) -> Path:
    """Return the path of the model.

    The state's folder is searched first, since snapshots may have been moved, and then the path in the state.
    """
    for candidate in (Path(state).parent / Path(named).name, Path(named)):
        if files.is_file(candidate):
            return candidate
    raise WeightsError(
        f"the model {named!r} of this state is not there",
        path=state,
        remedy="Put it where the state says, or next to the state.",
    )


def _write_hdf5(state: SolverState, raw: BinaryIO) -> None:
    with hdf5.create_in(raw) as file:
        import h5py  # after the line that finds out whether it is installed

        file.create_dataset("iter", data=np.array([state.iter], np.int32))
        # Caffe: `learned_net` is read as a C string, so that it must end with a zero byte (hdf5.cpp L101-L109).
        name = state.learned_net.encode("utf-8", "surrogateescape")
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(name) + 1)
        dataset = h5py.h5d.create(file.id, b"learned_net", kind, h5py.h5s.create(h5py.h5s.SCALAR))
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(name + b"\0", f"S{len(name) + 1}"), kind)
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        group = file.create_group("history")
        for i, blob in enumerate(state.history):
            group.create_dataset(str(i), data=blobs.to_array(blob))


def _load_hdf5(path: StrPath) -> SolverState:
    """Load an HDF5 state as a SolverState message."""
    reader = hdf5.HDF5Reader(path)
    members = dict(reader.members(reader.root))
    missing = {"iter", "current_step", "history"} - set(members)
    history = members.get("history")
    if missing or not isinstance(history, HDF5Group):
        raise CaffemodelError("this is not a solver state", path=path, got=sorted(members), want=sorted(missing))
    state = SolverState(iter=reader.integer(members["iter"]), current_step=reader.integer(members["current_step"]))
    if "learned_net" in members:
        state.learned_net = reader.string(members["learned_net"]).decode("utf-8", "surrogateescape")
    numbered = {reader.number(name, member): reader.array(member) for name, member in reader.members(history)}
    state.history.extend(blobs.from_numbered_arrays(numbered, path))
    return state

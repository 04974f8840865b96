"""Snapshots: the weights and the state of a solver, in files that Caffe itself loads.

The model is written first, then the state that names it, each whole or not at all, so that a crash or a full disk
never costs an earlier snapshot and never leaves a state without its model.

Source: BVLC/caffe@9b89154 src/caffe/solver.cpp L410-L480, src/caffe/solvers/sgd_solver.cpp L255-L400.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe import blobs, caffemodel, hdf5, weights
from reproduction.caffe.errors import CaffemodelError, StrPath, WeightsError
from reproduction.caffe.net import Net
from reproduction.caffe.schema import NetParameter, SnapshotFormat, SolverParameter, SolverState
from reproduction.caffe.transfer import to_blob


@dataclass(frozen=True)
class State:
    """What a state file holds.

    Attributes:
        iter: updates made.
        current_step: steps of a multistep schedule made.
        history: the rule's blobs, as tensors of the shapes of the solver's own.
        model: the weights that belong to it; None where the file names none.
        model_path: where they were found.
    """

    iter: int
    current_step: int
    history: list[Tensor]
    model: NetParameter | None
    model_path: str


def save(
    param: SolverParameter, net: Net, iteration: int, current_step: int, history: Sequence[Tensor]
) -> tuple[str, str]:
    """Write ``PREFIX_iter_N.caffemodel`` and ``.solverstate``, with ``.h5`` at the end for that format.

    Returns:
        The paths of the model and the state.

    Raises:
        CaffemodelError: the solver has no ``snapshot_prefix``.
        ReproductionError: a file cannot be written.
    """
    if not param.snapshot_prefix:
        raise CaffemodelError("snapshot_prefix is not set", path="solver", remedy="Say where snapshots go.")
    stem = f"{param.snapshot_prefix}_iter_{iteration}"
    message = net.to_proto(diff=param.snapshot_diff)
    if param.snapshot_format is SnapshotFormat.HDF5:
        model, state = f"{stem}.caffemodel.h5", f"{stem}.solverstate.h5"
        hdf5.dump(message, model)
        _dump_hdf5(state, iteration, model, current_step, history)
    else:
        model, state = f"{stem}.caffemodel", f"{stem}.solverstate"
        caffemodel.dump(message, model)
        caffemodel.dump(
            SolverState(
                iter=iteration,
                learned_net=model,
                current_step=current_step,
                history=[to_blob(blob) for blob in history],
            ),
            state,
        )
    return model, state


def load(path: StrPath, like: Sequence[Tensor]) -> State:
    """Read a state file of either format, with the model that it names.

    Args:
        path: the state; ``.h5`` at the end means HDF5.
        like: the solver's history, whose number and shapes the file must have.

    Raises:
        CaffemodelError: not a state file, or damaged.
        WeightsError: the state of another net or solver type, or its model is not there.
    """
    state = _load_hdf5(path) if os.fspath(path).endswith(".h5") else caffemodel.load(path, SolverState)
    if len(state.history) != len(like):
        raise WeightsError(
            "the history has another number of blobs",
            path=path,
            got=len(state.history),
            want=f"{len(like)}, as this net and solver type",
        )
    history = []
    for i, (blob, mine) in enumerate(zip(state.history, like, strict=True)):
        values = blobs.array(blob, path)
        want = tuple(mine.shape)
        if values.shape != want:
            raise WeightsError(f"history blob {i} has another shape", path=path, got=values.shape, want=want)
        history.append(torch.from_numpy(np.array(values)))
    if not state.has("learned_net"):
        return State(state.iter, state.current_step, history, None, "")
    model = _find_model(state.learned_net, path)
    return State(state.iter, state.current_step, history, weights.read(model).net, str(model))


def _find_model(named: str, state: StrPath) -> Path:
    """Find the model where the state says, or beside the state, since snapshots are moved together."""
    for candidate in (Path(named), Path(state).parent / Path(named).name):
        if candidate.is_file():
            return candidate
    raise WeightsError(
        f"the model {named!r} of this state is not there",
        path=state,
        remedy="Put it where the state says, or beside the state.",
    )


def _dump_hdf5(path: str, iteration: int, model: str, current_step: int, history: Sequence[Tensor]) -> None:
    with hdf5.writing(path) as file:
        file.create_dataset("iter", data=np.array([iteration], np.int32))
        file.create_dataset("learned_net", data=np.bytes_(model.encode()))
        file.create_dataset("current_step", data=np.array([current_step], np.int32))
        group = file.create_group("history")
        for i, blob in enumerate(history):
            group.create_dataset(str(i), data=blob.detach().cpu().numpy())


def _load_hdf5(path: StrPath) -> SolverState:
    """Read an HDF5 state as the message that the binary format has."""
    with hdf5.reading(path) as reader:
        members = dict(reader.members(reader.file))
        missing = {"iter", "current_step", "history"} - set(members)
        if missing:
            raise CaffemodelError("this is not a solver state", path=path, got=sorted(members), want=sorted(missing))
        state = SolverState(
            iter=int(reader.array(members["iter"]).reshape(-1)[0]),
            current_step=int(reader.array(members["current_step"]).reshape(-1)[0]),
        )
        if "learned_net" in members:
            state.learned_net = bytes(members["learned_net"][()]).decode("utf-8", "surrogateescape")
        numbered = {int(name): reader.array(member) for name, member in reader.members(members["history"])}
        state.history.extend(blobs.from_numbered(numbered, path))
    return state

"""Snapshots: Caffe's files byte for byte, written atomically in pairs, and refused for other nets."""

import os
import re
import resource
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import caffemodel, files
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase, SnapshotFormat, SolverParameter, SolverState
from reproduction.caffe.training import snapshot
from reproduction.caffe.training.solver import Solver, build_solver
from tests.caffe.training.test_solver_golden import thinned
from tests.helpers import paths, tiny_training

GOLDEN = paths.GOLDEN / "snapshot"
STATES = [GOLDEN / f"snapshot_iter_3.solverstate{ending}" for ending in ("", ".h5")]


def caffes(param: SolverParameter) -> Solver:
    """A solver of the net whose snapshots Caffe recorded."""
    net = thinned("voc-fcn16s", 32, 5)
    data = net.layer[0].python_param
    data.module, data.layer, data.param_str = "golden_layers", "Seq", "solver_public/data.npz"  # what fed the recording
    inputs = {"data": (1, 3, 64, 64), "label": (1, 1, 64, 64)}
    return Solver(param, Net(net, Phase.TRAIN, inputs=inputs), lambda draw: {})


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("state", STATES, ids=["binary", "hdf5"])
def test_binary_snapshots_are_caffes_to_the_byte(state, tmp_path, monkeypatch):
    run = caffes(SolverParameter(lr_policy="fixed", momentum=0.9, snapshot_prefix="solver_public/snapshot"))
    run.restore(state)
    monkeypatch.chdir(tmp_path)
    Path("solver_public").mkdir()
    for path in run.snapshot():
        assert Path(path).read_bytes() == (GOLDEN / Path(path).name).read_bytes()


def test_hdf5_snapshots_have_caffes_structure_and_values(tmp_path, monkeypatch):
    run = caffes(
        SolverParameter(
            lr_policy="fixed",
            momentum=0.9,
            snapshot_prefix="solver_public/snapshot",
            snapshot_format=SnapshotFormat.HDF5,
        )
    )
    run.restore(STATES[0])
    monkeypatch.chdir(tmp_path)
    Path("solver_public").mkdir()
    for path in run.snapshot():
        assert listed(path) == listed(GOLDEN / Path(path).name)


def listed(path) -> dict[str, object]:
    """Everything in an HDF5 file: groups, and the type, shape, layout and bytes of each data set."""
    found: dict[str, object] = {}

    def visit(name, member):
        found[name] = "group"
        if isinstance(member, h5py.Dataset):
            kind = member.id.get_type()
            text = (kind.get_size(), kind.get_strpad()) if kind.get_class() == h5py.h5t.STRING else None
            raw = np.asarray(member[()]).tobytes()
            found[name] = (kind.get_class(), member.dtype, text, member.shape, member.chunks, raw)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("form", SnapshotFormat)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_snapshot_comes_back_whole(form, kind, tmp_path):
    text = f'type: "{kind}" snapshot_prefix: "{tmp_path}/s" snapshot_format: {form.name} lr_policy: "multistep"'
    text += " gamma: 0.5 stepvalue: 1"
    run, other = tiny_training.built(text), tiny_training.built(text)
    run.step(3)
    model, state = run.snapshot()
    assert [Path(path).name.removesuffix(".h5") for path in (model, state)] == [
        "s_iter_3.caffemodel",
        "s_iter_3.solverstate",
    ]
    assert Path(state).suffix == (".h5" if form is SnapshotFormat.HDF5 else ".solverstate")
    other.restore(state)
    assert (other.iter, other.current_step) == (3, 1)
    assert tiny_training.same(tiny_training.weights(run), tiny_training.weights(other))
    for mine, theirs in zip(run.history, other.history, strict=True):
        assert torch.equal(mine, theirs)
    run.step(2)
    other.step(2)
    assert tiny_training.same(tiny_training.weights(run), tiny_training.weights(other))


@pytest.mark.parametrize("form", SnapshotFormat)
def test_gradients_go_along_with_snapshot_diff(form, tmp_path):
    run = tiny_training.built(f'snapshot_diff: true snapshot_prefix: "{tmp_path}/s" snapshot_format: {form.name}')
    run.step(2)
    model, _ = run.snapshot()
    if form is SnapshotFormat.HDF5:
        with h5py.File(model) as file:
            found = file["diff/fc/0"][()]
    else:
        layers = {layer.name: layer for layer in caffemodel.load(model).layer}
        found = layers["fc"].blobs[0].diff.reshape(5, -1)
        assert not layers["up"].blobs[0].diff.any()
    np.testing.assert_array_equal(found, run.history[3].numpy())  # Caffe's diff is the update by then


def test_the_model_is_looked_for_beside_the_state_first(tmp_path):
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s"')
    run.step()
    model, state = run.snapshot()
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(state, moved)
    tiny_training.built().restore(moved / Path(state).name)
    shutil.move(model, moved)
    tiny_training.built().restore(moved / Path(state).name)
    with pytest.raises(ReproductionError) as caught:
        tiny_training.built().restore(state)
    assert str(caught.value) == (
        f"{state}: the model {model!r} of this state is not there. Put it where the state says, or next to the state."
    )


def test_the_latest_is_that_of_the_greatest_iteration(tmp_path):
    assert snapshot.latest(tmp_path / "s") is None
    assert snapshot.latest(tmp_path / "no" / "s") is None
    for name in ("s_iter_9.solverstate", "s_iter_10.solverstate.h5", "s_iter_11.caffemodel", "ss_iter_12.solverstate",
                 "s_iter_13.solverstate.bak", ".s_iter_14.solverstate.0123456789abcdef.part"):  # fmt: skip
        (tmp_path / name).touch()
    assert snapshot.latest(tmp_path / "s") == str(tmp_path / "s_iter_10.solverstate.h5")


# ---- what does not fit


def changed(tmp_path, **fields) -> Path:
    """A state of the tiny net with some fields changed."""
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s"')
    run.step()
    _, path = run.snapshot()
    state = caffemodel.load(path, SolverState)
    for name, value in fields.items():
        setattr(state, name, value)
    caffemodel.dump(state, path)
    return Path(path)


def other_net(tmp_path, old: str, new: str) -> Path:
    param = tiny_training.param(f'snapshot_prefix: "{tmp_path}/s"')
    param.net_param = tiny_training.net(tiny_training.NET.replace(old, new))
    run = build_solver(param, feed=tiny_training.feed)
    return Path(run.snapshot()[1])


def cut(tmp_path, name: str) -> Path:
    state = changed(tmp_path)
    path = state.with_name(name)
    path.write_bytes(path.read_bytes()[:-7])
    return state


def hdf5_without(tmp_path, name: str) -> Path:
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s" snapshot_format: HDF5')
    _, path = run.snapshot()
    with h5py.File(path, "a") as file:
        del file[name]
    return Path(path)


BAD = [
    (lambda at: changed(at, iter=-1), "PATH: this is not a solver state; got iteration -1."),
    (
        lambda at: changed(at, iter=2000),
        (
            "PATH: max_iter 1000 is below iteration 2000 of this state. Raise max_iter, or resume from an earlier"
            " snapshot."
        ),
    ),
    (
        lambda at: changed(at, history=[]),
        "PATH: the history has another number of blobs; got 0, want 5, as this net and solver type.",
    ),
    (
        lambda at: other_net(at, "num_output: 5", "num_output: 6"),
        "PATH: history blob 3 has another shape; got (6, 400), want (5, 400).",
    ),
    (
        lambda at: other_net(at, '"fc"', '"fc9"'),
        "AT/s_iter_0.caffemodel: the net has no layer 'fc9'. They belong to another net.",
    ),
    (
        lambda at: cut(at, "s_iter_1.solverstate"),
        r"PATH, byte \d+: .*",
    ),
    (
        lambda at: cut(at, "s_iter_1.caffemodel"),
        r"AT/s_iter_1.caffemodel, byte \d+: .*",
    ),
    (
        lambda at: GOLDEN / "snapshot_iter_3.caffemodel",
        "PATH: this is a caffemodel, not a solver's state. The state is 'snapshot_iter_3.solverstate', in the same .*",
    ),
    (
        lambda at: STATES[0],
        r"PATH: the history has another number of blobs; got 36, want 5, as this net and solver type.",
    ),
    (
        lambda at: hdf5_without(at, "history"),
        r"PATH: this is not a solver state; got \['current_step', 'iter', 'learned_net'\], want \['history'\].",
    ),
    (lambda at: hdf5_without(at, "history/1"), r"PATH: history blob 1: the shape \(\) and the data disagree; .*"),
    (lambda at: GOLDEN / "snapshot_iter_3.caffemodel.h5", r"PATH: this is a caffemodel, not a solver's state\. .*"),
]


@pytest.mark.parametrize(("make", "text"), BAD)
def test_a_state_that_does_not_fit_is_one_line_and_changes_nothing(make, text, tmp_path):
    path = make(tmp_path)
    run = tiny_training.built()
    run.step(2)
    weights, history = tiny_training.weights(run), [blob.clone() for blob in run.history]
    with pytest.raises(ReproductionError) as caught:
        run.restore(path)
    message = str(caught.value).replace(str(path), "PATH").replace(str(tmp_path), "AT")
    assert message == text or re.fullmatch(text, message)
    assert "\n" not in message
    assert run.iter == 2
    assert tiny_training.same(weights, tiny_training.weights(run))
    assert all(torch.equal(one, other) for one, other in zip(history, run.history, strict=True))


def test_a_state_that_is_not_there_names_itself(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        tiny_training.built().restore(tmp_path / "no.solverstate")
    assert caught.value.filename == str(tmp_path / "no.solverstate")


def test_an_old_history_with_four_axes_is_taken(tmp_path):
    path = changed(tmp_path)
    state = caffemodel.load(path, SolverState)
    for blob in state.history:
        blob.num, blob.channels, blob.height, blob.width = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
        blob.clear("shape")
    caffemodel.dump(state, path)
    run = tiny_training.built()
    run.restore(path)
    assert run.history[1].shape == (4,)
    assert run.history[1].any()


# ---- disks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snapshot: 5", "solver: snapshot_prefix is not set. Set a path prefix."),
        (
            'snapshot: 5 snapshot_prefix: "AT/no/s"',
            "solver: snapshot_prefix 'AT/no/s' is in a folder that is not there. Make the folder 'AT/no'.",
        ),
        pytest.param(
            'snapshot: 5 snapshot_prefix: "/proc/s"',
            "/proc/s_iter_0.tempfile: cannot be written: no such file or directory.",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc"),
        ),
    ],
)
def test_a_prefix_that_cannot_be_written_is_known_before_the_start(text, message, tmp_path):
    with pytest.raises(ReproductionError) as caught:
        tiny_training.built(text.replace("AT", str(tmp_path)))
    assert str(caught.value).replace(str(tmp_path), "AT") == message


def test_what_a_killed_process_left_half_written_is_removed_at_the_next_start(tmp_path):
    mine = [".s_iter_5.caffemodel.0123456789abcdef.part", ".s_iter_5.solverstate.0123456789abcdef.part"]
    others = ["s_iter_5.caffemodel", ".s_iter_5.part", "x.part"]
    for name in (*mine, *others):
        (tmp_path / name).touch()
    with files.open_atomic(tmp_path / "other_iter_5.caffemodel"):
        others += [path.name for path in parts(tmp_path) if path.name.startswith(".other")]
        for name in mine:
            (tmp_path / name).touch()
        tiny_training.built(f'snapshot: 5 snapshot_prefix: "{tmp_path}/s"')
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_names_of_parts_fit_the_file_system_and_are_found_again(tmp_path):
    prefix = tmp_path / ("ö" * 100)
    with files.open_atomic(f"{prefix}_iter_5.caffemodel"):
        (part,) = parts(tmp_path)
    part.touch()
    files.remove_parts(tmp_path)
    assert parts(tmp_path) == []


@pytest.mark.parametrize("form", SnapshotFormat)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.75, 0.99])
def test_a_full_disk_costs_nothing(form, share, tmp_path):
    """Any amount of room that is too little, from a part of the model to almost the whole state."""
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s" snapshot_format: {form.name}')
    run.step()
    paths = [Path(path) for path in run.snapshot()]
    before = [path.read_bytes() for path in paths]
    run.iter = 1
    run.net.params["fc"][0].data.add_(1)
    room = int(share * max(map(len, before)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(ReproductionError, match="cannot be written: file too large"):
            run.snapshot()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize("fault", ["first fsync", "second fsync", "unlink", "first replace", "second replace"])
def test_wherever_writing_breaks_no_state_stands_beside_another_runs_model(fault, tmp_path, monkeypatch):
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s"')
    model, state = map(Path, run.snapshot())
    old = model.read_bytes(), state.read_bytes()
    run.net.params["fc"][0].data.add_(1)
    calls = {"fsync": 0, "replace": 0, "unlink": 0}

    def breaking(name, call):
        def wrapped(*args, **kwargs):
            if name == "unlink" and args[0] != state:
                return call(*args, **kwargs)
            calls[name] += 1
            if fault in (f"{('first', 'second', 'third', 'fourth')[calls[name] - 1]} {name}", name):
                raise OSError(5, "Input/output error")
            return call(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(os, "fsync", breaking("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", breaking("replace", Path.replace))
    monkeypatch.setattr(Path, "unlink", breaking("unlink", Path.unlink))
    with pytest.raises((ReproductionError, OSError)):
        run.snapshot()
    monkeypatch.undo()
    assert not parts(tmp_path)
    if state.exists():
        assert (model.read_bytes(), state.read_bytes()) == old
    else:
        assert fault.endswith("replace")
    assert snapshot.latest(tmp_path / "s") == (str(state) if state.exists() else None)


def test_a_snapshot_of_weights_that_are_no_numbers_is_not_made(tmp_path):
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s"')
    run.step()
    run.net.params["conv"][1].data[2] = float("nan")
    with pytest.raises(ReproductionError) as caught:
        run.snapshot()
    assert str(caught.value) == (
        "iteration 1: the weights of layer 'conv' are not finite, so no snapshot is written."
        " Resume from the last snapshot with a lower learning rate."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_net_of_a_snapshot_says_what_it_is(tmp_path):
    run = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s"')
    model, _ = run.snapshot()
    net = caffemodel.load(model, NetParameter)
    assert net.name == "tiny"
    assert [layer.name for layer in net.layer] == ["data", "conv", "relu", "up", "drop", "fc", "loss"]
    assert all(layer.phase is Phase.TRAIN for layer in net.layer)

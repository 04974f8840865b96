"""pycaffe's solvers: attributes, steps, callbacks, snapshots, and Caffe's recorded runs."""

import logging
import re

import numpy as np
import pytest

from reproduction import pycaffe as caffe
from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.pycaffe.net import settings, solver
from tests.caffe.training.test_solver_golden import golden, thinned
from tests.golden import seeded
from tests.helpers import parity
from tests.helpers.paths import GOLDEN
from tests.helpers.pycaffe_nets import INPUT, IP, LABEL, LOSS, python, write

SNAPSHOT = GOLDEN / "snapshot"
X = np.random.RandomState(0).randn(2, 3).astype(np.float32)


def raises(text, kind=ReproductionError):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


def solver_file(folder, net=INPUT + LABEL + IP + LOSS, text='base_lr: 0.5 lr_policy: "fixed" max_iter: 3'):
    path = write(folder, net)
    return write(folder, f'net: "{path}" snapshot_prefix: "{folder}/s" {text}', "solver.prototxt")


def made(folder, kind=caffe.SGDSolver, **rest):
    """A solver with the same weights at every call and samples in its blobs."""
    run = kind(solver_file(folder, **rest))
    run.net.params["ip"][0].data[...] = np.linspace(-1, 1, 12).reshape(4, 3)
    for net in (run.net, *run.test_nets):
        net.blobs["x"].data[...] = X
        net.blobs["label"].data[...] = [1, 3]
    return run


# ---- looking


def test_a_solver_shows_its_nets_parameters_rate_and_iteration(tmp_path):
    text = 'base_lr: 0.5 lr_policy: "step" gamma: 0.1 stepsize: 2 max_iter: 9 display: 4 test_iter: 1 test_interval: 7'
    run = made(tmp_path, text=text)
    assert isinstance(run.net, caffe.Net)
    assert run.test_nets[0].params["ip"][0].data is not run.net.params["ip"][0].data
    assert np.shares_memory(run.test_nets[0].params["ip"][0].data, run.net.params["ip"][0].data)
    assert (run.param.max_iter, run.param.display, run.param.base_lr, run.param.layer_wise_reduce) == (9, 4, 0.5, True)
    assert (run.iter, run.lr) == (0, 0.5)
    run.step(2)
    assert (run.iter, run.lr) == (2, pytest.approx(0.05))
    run.param.base_lr = 5
    assert run.lr == pytest.approx(0.5)


def test_get_solver_takes_the_type_that_the_file_names(tmp_path):
    assert set(solver.SOLVERS) == {"SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"}
    for name, kind in solver.SOLVERS.items():
        run = caffe.get_solver(solver_file(tmp_path, text=f'base_lr: 0.1 lr_policy: "fixed" type: "{name}"'))
        assert type(run) is kind
        assert isinstance(run, caffe.SGDSolver)
        assert len(run._solver.history) == (4 if name in ("AdaDelta", "Adam") else 2)
    assert type(caffe.get_solver(solver_file(tmp_path))) is caffe.SGDSolver
    path = solver_file(tmp_path, text='base_lr: 0.1 lr_policy: "fixed" type: "adam"')
    with raises(f"{path}: unknown solver type 'adam'. Did you mean 'Adam'?"):
        caffe.get_solver(path)
    assert caffe.AdamSolver(path).param.type == "Adam"  # the class wins over the file


def test_a_missing_file_is_a_runtime_error(tmp_path):
    run = made(tmp_path)
    for call in (caffe.SGDSolver, caffe.get_solver, run.restore, run.solve):
        with raises("none: the file cannot be opened: no such file or directory.", RuntimeError):
            call("none")


# ---- training


def test_step_leaves_gradients_updates_and_losses_in_the_blobs(tmp_path):
    run = made(tmp_path)
    weight, bias = run.net.params["ip"]
    held, before = weight.data, weight.data.copy()
    run.net.forward()
    loss = float(run.net.blobs["loss"].data)
    run.net.backward()
    gradient = weight.diff.copy()
    run.step(1)
    assert float(run.net.blobs["loss"].data) == pytest.approx(loss)
    assert np.allclose(held, before - 0.5 * gradient, atol=1e-6)
    assert np.allclose(weight.diff, 0.5 * gradient, atol=1e-6)  # Caffe keeps the update there
    run.net.forward()
    assert float(run.net.blobs["loss"].data) < loss
    assert bias.data.any()


def test_step_is_forward_backward_and_apply_update(tmp_path):
    text = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 max_iter: 9'
    one, other = made(tmp_path, text=text), made(tmp_path, text=text)
    one.step(3)
    for _ in range(3):
        other.net.clear_param_diffs()
        other.net.forward()
        other.net.backward()
        other.apply_update()
    assert np.array_equal(one.net.params["ip"][0].data, other.net.params["ip"][0].data)
    assert (one.iter, other.iter) == (3, 0)


def test_iter_size_adds_samples_up(tmp_path):
    text = 'base_lr: 0.5 lr_policy: "fixed" iter_size: {}'
    one, two = (made(tmp_path, text=text.format(size)) for size in (1, 2))
    one.step(1)
    two.step(1)  # the same sample twice
    assert np.allclose(one.net.params["ip"][0].data, two.net.params["ip"][0].data, atol=1e-6)


def test_solve_stops_at_max_iter_and_snapshots(tmp_path):
    run = made(tmp_path)
    run.solve()
    assert run.iter == 3
    again = made(tmp_path)
    again.restore(str(tmp_path / "s_iter_3.solverstate"))
    assert again.iter == 3
    assert np.array_equal(run.net.params["ip"][0].data, again.net.params["ip"][0].data)
    again.solve(str(tmp_path / "s_iter_3.solverstate"))
    assert again.iter == 3


def test_a_run_that_goes_on_is_one_that_never_stopped(tmp_path):
    text = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 9 type: "Nesterov"'
    run, again = made(tmp_path, caffe.get_solver, text=text), made(tmp_path, caffe.get_solver, text=text)
    run.step(2)
    run.snapshot()
    run.step(2)
    again.restore(str(tmp_path / "s_iter_2.solverstate"))
    again.step(2)
    assert np.array_equal(run.net.params["ip"][0].data, again.net.params["ip"][0].data)


def test_test_nets_run_with_the_weights_of_the_training(tmp_path):
    run = made(tmp_path, text='base_lr: 0.5 lr_policy: "fixed" test_iter: 2 test_interval: 2')
    run.step(2)
    before = float(run.test_nets[0].blobs["loss"].data)  # of iteration 0
    run.step(1)
    after = float(run.test_nets[0].blobs["loss"].data)  # of iteration 2
    assert after < before
    other = made(tmp_path).net
    run.share_weights(other)
    assert np.shares_memory(other.params["ip"][0].data, run.net.params["ip"][0].data)


def test_callbacks_run_before_the_forward_and_after_the_backward(tmp_path):
    run, seen = made(tmp_path), []
    weight = run.net.params["ip"][0]

    def ready():
        seen.append(float(np.abs(weight.diff).sum()))
        weight.diff[...] = 0

    before = weight.data.copy()
    run.add_callback(lambda: seen.append(float(np.abs(weight.diff).sum())), ready)
    run.step(1)
    assert seen[0] == 0 < seen[1]
    assert np.array_equal(weight.data, before)


def test_weights_that_the_solver_names_are_loaded_everywhere(tmp_path):
    path = str(tmp_path / "w.caffemodel")
    first = made(tmp_path).net
    first.save(path)
    text = f'base_lr: 0.1 lr_policy: "fixed" weights: "{path}" test_iter: 1 test_interval: 9'
    run = caffe.SGDSolver(solver_file(tmp_path, text=text))
    for net in (run.net, run.test_nets[0]):
        assert np.array_equal(net.params["ip"][0].data, first.params["ip"][0].data)


def test_a_layer_that_raises_in_a_step_names_itself(tmp_path):
    from tests.helpers.python_layers import OwnError

    net = INPUT + LABEL + python("me", "Broken", "x", "y", "'forward'") + IP.replace('"x"', '"y"') + LOSS
    run = caffe.SGDSolver(solver_file(tmp_path, net))
    with raises("layer 'me' (Python), line 3: forward() of Broken raised OwnError: no forward today.", OwnError):
        run.step(1)
    assert run.iter == 0


def test_labels_that_are_none_stop_the_step(tmp_path):
    run = made(tmp_path)
    run.net.blobs["label"].data[...] = 9
    with raises(
        "layer 'loss' (SoftmaxWithLoss), line 4: label 9 is out of range; got 2 such of 2, want 0..3.", NetError
    ):
        run.step(1)


def test_a_solve_without_an_end_is_refused(tmp_path):
    with raises("solver: max_iter is not set. Set it to the number of updates."):
        made(tmp_path, text='base_lr: 1 lr_policy: "fixed"').solve()


# ---- the log


def test_the_log_is_in_caffes_words(tmp_path, caplog):
    run = made(tmp_path, text='base_lr: 0.5 lr_policy: "fixed" display: 1 test_iter: 1 test_interval: 2 max_iter: 2')
    with caplog.at_level(logging.INFO, "caffe"):
        run.solve()
    number = r"[\d.e-]+"
    wanted = [
        r"Iteration 0, Testing net \(#0\)",
        rf"    Test net output #0: loss = {number} \(\* 1 = {number} loss\)",
        rf"Iteration 0, loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)",
        r"Iteration 0, lr = 0.5",
        rf"Iteration 1, loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)",
        r"Iteration 1, lr = 0.5",
        rf"Snapshotting to {tmp_path}/s_iter_2.caffemodel",
        rf"Snapshotting solver state to {tmp_path}/s_iter_2.solverstate",
        rf"Iteration 2, loss = {number}",
        r"Iteration 2, Testing net \(#0\)",
        rf"    Test net output #0: loss = {number} \(\* 1 = {number} loss\)",
        r"Optimization Done\.",
    ]
    lines = [record.message for record in caplog.records]
    assert len(lines) == len(wanted)
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.fullmatch(pattern, line), line


# ---- Caffe's recorded runs


# In torch's order, since these nets take ten times as long in Caffe's; `test_golden` has a net in that.


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(settings, "uses_blas_order", lambda: False)


@pytest.mark.usefixtures("_quick")
def test_losses_and_weights_follow_caffe(tmp_path):
    case = "policy_multistep"
    recorded = {key.split("|")[1]: value for key, value in golden("trajectories.npz").items() if key.startswith(case)}
    net = thinned(bytes(recorded["net"]).decode(), int(recorded["thin"]))
    _feed(net.layer[0], "data.npz")
    text = re.sub(r'(train_net|snapshot_prefix):\s*"[^"]*"', "", bytes(recorded["solver"]).decode())
    run = caffe.get_solver(solver_file(tmp_path, prototxt.dumps(net), text))
    for layer, blobs in run.net.params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = seeded.make_weight(layer, i, blob.shape, "up" in layer, 1)
    for iteration, want in enumerate(recorded["losses"], 1):
        run.step(1)
        assert float(run.net.blobs["loss"].data) == pytest.approx(float(want), rel=2e-3)
        for key in [key for key in recorded if key.startswith(f"iter{iteration}/") and key.endswith("/delta")]:
            _, layer, index, _ = key.split("/")
            got = run.net.params[layer][int(index)].data.reshape(-1)[recorded[key[:-5] + "idx"]]
            off = np.abs(got - recorded[key[:-5] + "val"]).max()
            assert off <= parity.KINK_TOLERANCE * np.abs(recorded[key]).max()


@pytest.mark.usefixtures("_quick")
def test_a_run_goes_on_from_caffes_own_snapshot(tmp_path):
    net = thinned("voc-fcn16s", 32, 5)
    _feed(net.layer[0], "snapshot_data.npz")
    text = 'base_lr: 5e-8 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed" max_iter: 1000'
    run = caffe.SGDSolver(solver_file(tmp_path, prototxt.dumps(net), text))
    run.restore(SNAPSHOT / "snapshot_iter_3.solverstate")
    assert run.iter == 3
    feed = run.net.layers[0]
    feed.next = 3 % len(feed.samples)
    run.step(3)
    resumed = golden("snapshot_resumed.npz")
    for key in [key for key in resumed if key.startswith("iter6/")]:
        _, layer, i = key.split("/")[:3]
        got = run.net.params[layer][int(i)].data
        assert np.abs(got - resumed[key]).max() <= 1e-3 * np.abs(resumed[key]).max()


def test_a_snapshot_of_another_net_is_refused(tmp_path):
    with pytest.raises(ReproductionError, match="the history has another number of blobs"):
        made(tmp_path).restore(SNAPSHOT / "snapshot_iter_3.solverstate")


def _feed(layer, name):
    """Let a Python data layer give recorded samples."""
    layer.python_param.module, layer.python_param.layer = "tests.helpers.python_layers", "Feed"
    layer.python_param.param_str = str(SNAPSHOT.parent / "solver" / name)


def test_a_file_given_in_the_place_of_another_is_named(tmp_path):
    run = made(tmp_path)
    run.step(1)
    run.snapshot()
    model, state = (f"{tmp_path}/s_iter_1.{ending}" for ending in ("caffemodel", "solverstate"))
    text = (
        f"{model}: this is a caffemodel, not a solver's state. The state is 's_iter_1.solverstate', in the same folder."
    )
    for call in (run.restore, run.solve):
        with raises(text):
            call(model)
    with raises(f"{state}: this is a solver's state, not weights. They are in the .caffemodel of the same name."):
        run.net.copy_from(state)
    net, solver_path = f"{tmp_path}/net.prototxt", f"{tmp_path}/solver.prototxt"
    with raises(f"{net}: this is a net's prototxt, not weights. Name the binary file; a prototxt contains no weights."):
        caffe.Net(net, net, caffe.TEST)
    with raises(f"{solver_path}: this is a solver, not a net. Its net is {net!r}."):
        caffe.Net(solver_path, caffe.TEST)
    with raises(f"{net}: this is a net, not a solver. A solver names its net in 'net:'."):
        caffe.get_solver(net)
    with raises(f"{state}: this is not a prototxt; got a solver's state."):
        caffe.Net(state, caffe.TEST)

"""The solver's loop: its settings, the order of its steps, its events, and resuming."""

import inspect
import itertools
import math
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase, SolverParameter
from reproduction.caffe.training import apply_update, snapshot, solver, solver_nets, update_rules
from reproduction.caffe.training.events import Evaluated, FinalLoss, LossError, Saved, Step
from reproduction.caffe.training.signals import Action, Signals
from tests.helpers import tiny_training
from tests.helpers.paths import ROOT

STATES = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "train" type: "InnerProduct" bottom: "data" top: "train" include { phase: TRAIN }
  inner_product_param { num_output: 1 } }
layer { name: "test" type: "InnerProduct" bottom: "data" top: "test" include { phase: TEST }
  inner_product_param { num_output: 1 } }
layer { name: "deep" type: "InnerProduct" bottom: "data" top: "deep" include { min_level: 2 }
  inner_product_param { num_output: 1 } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" include { stage: "a" }
  inner_product_param { num_output: 1 } }
layer { name: "b" type: "InnerProduct" bottom: "data" top: "b" include { stage: "b" }
  inner_product_param { num_output: 1 } }
"""


def described(event) -> str:
    if isinstance(event, Saved):
        return f"saved {event.iteration}"
    if isinstance(event, Evaluated):
        return f"tested {event.iteration} net {event.net}"
    return f"{'step' if isinstance(event, Step) else 'measured'} {event.iteration}"


def told(text: str, tmp_path, **kwargs) -> list[str]:
    run = tiny_training.built(text + f' snapshot_prefix: "{tmp_path}/s"', **kwargs)
    return [described(event) for event in run.solve()]


def error(call, *args, **kwargs) -> str:
    with pytest.raises(ReproductionError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- which nets


def layers(text: str, base: Path | str = ".") -> list[list[str]]:
    """The layers with weights of the net to train, and of those to test."""
    param = prototxt.loads(text, SolverParameter)
    messages = [solver_nets.load_train_net(param, base), *solver_nets.load_test_nets(param, base)]
    made = [Net(message, None, seed=0) for message in messages]
    return [list(net.params) for net in made]


def test_one_net_is_built_for_training_and_once_for_each_test_iter():
    assert layers(f"net_param {{ {STATES} }}") == [["train"]]
    assert layers(f"net_param {{ {STATES} }} test_iter: 1 test_iter: 2 test_interval: 5") == [
        ["train"],
        ["test"],
        ["test"],
    ]


def test_nets_have_files_of_their_own_below_the_base(tmp_path):
    (tmp_path / "t.prototxt").write_text(STATES)
    (tmp_path / "v.prototxt").write_text(STATES.replace('"test"', '"own"'))
    text = 'train_net: "t.prototxt" test_net: "v.prototxt" test_iter: 1 test_interval: 1'
    assert layers(text, tmp_path) == [["train"], ["own"]]
    text = f'net: "t.prototxt" test_net: "v.prototxt" test_net_param {{ {STATES} state {{ level: 2 }} }}'
    text += "test_iter: 1 test_iter: 1 test_iter: 1 test_interval: 1"
    assert layers(text, tmp_path) == [["train"], ["test", "deep"], ["own"], ["test"]]
    assert layers(f'net: "{tmp_path}/t.prototxt"') == [["train"]]


def test_the_solvers_state_is_merged_over_the_nets_own():
    text = f'net_param {{ {STATES} state {{ level: 2 stage: "a" }} }} train_state {{ stage: "b" }}'
    assert layers(text) == [["train", "deep", "a", "b"]]
    text = f"net_param {{ {STATES} state {{ level: 2 }} }} train_state {{ level: 1 phase: TEST }}"
    assert layers(text) == [["test"]]
    text = f'net_param {{ {STATES} }} test_iter: 1 test_iter: 1 test_interval: 1 test_state {{ stage: "a" }}'
    assert layers(text + "test_state { level: 3 }") == [["train"], ["test", "a"], ["test", "deep"]]


def test_published_solvers_name_their_nets(tmp_path):
    for folder in sorted((ROOT / "prototxt").glob("*/solver.prototxt")):
        param = prototxt.load_solver(folder)
        assert solver_nets.load_train_net(param, folder.parent).state.phase is Phase.TRAIN
        (test,) = solver_nets.load_test_nets(param, folder.parent)
        assert test.state.phase is Phase.TEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            (
                "solver: the solver must name one net to train; got none, want one of net, net_param, train_net,"
                " train_net_param."
            ),
        ),
        (
            'net: "a" train_net: "b"',
            (
                "solver: the solver must name one net to train; got net and train_net, want one of net, net_param,"
                " train_net, train_net_param."
            ),
        ),
        (
            "net_param { } test_net_param { } test_interval: 1",
            "solver: test_iter does not fit the test nets; got 0, want at least 1, one for each test net.",
        ),
        (
            "train_net_param { } test_iter: 1 test_interval: 1",
            "solver: test_iter does not fit the test nets; got 1, want 0, one for each test net.",
        ),
        (
            "net_param { } test_iter: 1 test_interval: 1 test_state { } test_state { }",
            "solver: test_state does not fit the test nets; got 2, want 1.",
        ),
        ("net_param { } test_iter: 1", "solver: there is a test net, but test_interval is not positive."),
        ("net_param { } test_iter: 0 test_interval: 1", "solver: there is a test net, but test_iter is not positive."),
    ],
)
def test_nets_that_do_not_fit_are_one_line(text, message):
    assert error(layers, text) == message


def test_a_net_that_is_not_there_names_its_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        layers('net: "no.prototxt"', tmp_path)
    assert caught.value.filename == str(tmp_path / "no.prototxt")


def test_a_solver_given_as_its_own_net_is_one_line(tmp_path):
    (tmp_path / "s.prototxt").write_text('net: "s.prototxt" base_lr: 1')
    assert "this is a solver, not a net" in error(layers, 'net: "s.prototxt"', tmp_path)


# ---- settings


def test_every_field_of_a_solver_is_read_or_said_to_change_nothing():
    sources = "".join(
        inspect.getsource(module) for module in (solver, solver_nets, apply_update, update_rules, snapshot)
    )
    for field in SolverParameter.by_number.values():
        if field.name != "solver_type":  # an older form, which loading a solver upgrades
            assert f"param.{field.name}" in sources or f'"{field.name}"' in sources, field.name


def test_settings_that_change_nothing_are_named():
    run = tiny_training.built("solver_mode: GPU device_id: 1 layer_wise_reduce: false gamma: 0.1 delta: 0.5")
    assert run.notes == [
        "solver_mode changes nothing here: the device is chosen when the solver is built.",
        "device_id changes nothing here: the device is chosen when the solver is built.",
        "layer_wise_reduce changes nothing here: gradients are added up after the backward.",
        "gamma changes nothing: lr_policy 'fixed' and type 'SGD' do not read it.",
        "delta changes nothing: lr_policy 'fixed' and type 'SGD' do not read it.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iter_size: 0", "solver: iter_size is too small; got 0, want 1."),
        ("average_loss: 0", "solver: average_loss is too small; got 0, want 1."),
        ('lr_policy: "often"', None),
        ('type: "Sgd"', None),
        ('regularization_type: "L3"', "solver: unknown regularization_type; got L3, want L1 or L2."),
    ],
)
def test_settings_that_cannot_be_are_one_line(text, message):
    assert error(tiny_training.built, text) == message or message is None


def test_the_old_form_of_the_type_is_upgraded(tmp_path):
    (tmp_path / "s.prototxt").write_text("solver_type: ADAM")
    assert prototxt.load_solver(tmp_path / "s.prototxt").type == "Adam"


def test_weights_are_loaded_in_turn_into_all_nets(tmp_path):
    for name, value in (("one", 1.0), ("two", 2.0)):
        run = tiny_training.built()
        run.net.params["conv"][1].data.fill_(value)
        run.net.params["fc"][1].data.fill_(value)
        message = run.net.to_proto()
        if name == "two":
            message.layer[:] = [layer for layer in message.layer if layer.name == "fc"]
        caffemodel.dump(message, tmp_path / f"{name}.caffemodel")
    text = 'weights: "one.caffemodel, two.caffemodel" test_iter: 1 test_interval: 1'
    run = tiny_training.built(text, base=tmp_path)
    assert run.net.params["conv"][1].unique().tolist() == [1]
    assert run.net.params["fc"][1].unique().tolist() == [2]
    assert run.test_nets[0].params["conv"][1].data_ptr() == run.net.params["conv"][1].data_ptr()
    assert run.notes == [
        f"{tmp_path}/one.caffemodel: 3 layers copied.",
        f"{tmp_path}/two.caffemodel: 1 layers copied; untouched: conv, up.",
    ]
    state = tiny_training.built(f'snapshot_prefix: "{tmp_path}/s"').snapshot()[1]
    assert tiny_training.built('weights: "no.caffemodel"', resume=state).iter == 0, (
        "as Caffe's tool, which then ignores them"
    )


# ---- the loop


def test_tests_steps_snapshots_and_the_end_come_in_caffes_order(tmp_path):
    text = "max_iter: 4 test_iter: 1 test_interval: 2 snapshot: 3 snapshot_after_train: true display: 2"
    assert told(text, tmp_path) == [
        "tested 0 net 0", "step 0", "step 1", "tested 2 net 0", "step 2", "saved 3", "step 3", "saved 4", "measured 4",
        "tested 4 net 0",
    ]  # fmt: skip


def test_what_need_not_be_is_left_out(tmp_path):
    text = "test_iter: 1 test_iter: 1 test_interval: 2 test_initialization: false snapshot: 2 "
    assert told(text + "max_iter: 2 snapshot_after_train: true", tmp_path) == [
        "step 0", "step 1", "saved 2", "tested 2 net 0", "tested 2 net 1",
    ]  # fmt: skip
    assert told(text + "max_iter: 1", tmp_path) == ["step 0"]
    assert told(text + "max_iter: 2", tmp_path, tests=False) == ["step 0", "step 1", "saved 2"]


def test_a_step_reports_loss_rate_and_outputs():
    run = tiny_training.built("iter_size: 3 display: 2 average_loss: 2 lr_policy: 'exp' gamma: 0.5")
    events = list(run.run(4))
    assert all(isinstance(event, Step) for event in events)
    assert [event.is_displayed for event in events] == [True, False, True, False]
    assert [event.lr for event in events] == [pytest.approx(0.01 * 0.5**i) for i in range(4)]
    losses = [event.loss for event in events]
    smoothed = [losses[0], *((one + two) / 2 for one, two in itertools.pairwise(losses))]
    assert [event.smoothed_loss for event in events] == pytest.approx(smoothed)
    assert len(run.sample_losses) == 3
    assert run.loss == pytest.approx(np.mean(run.sample_losses))
    assert events[-1].outputs["loss"].item() == run.sample_losses[-1]
    assert not events[-1].outputs["loss"].requires_grad


def test_norms_are_reported_when_shown_with_debug_info():
    run = tiny_training.built("debug_info: true display: 2")
    events = list(run.run(2))
    assert set(events[0].norms.blobs) == {"conv/0", "conv/1", "up/0", "fc/0", "fc/1"}
    assert events[1].norms is None
    other = tiny_training.built()
    other.step(2)
    assert tiny_training.same(tiny_training.weights(run), tiny_training.weights(other))


def test_samples_are_drawn_by_number():
    seen = []

    def feed(draw):
        seen.append(draw)
        return tiny_training.feed(draw)

    run = tiny_training.built("iter_size: 3", feed=feed)
    run.step(2)
    assert seen == list(range(6))


def test_a_test_averages_outputs_over_its_own_draws_and_weights_stay(tmp_path):
    seen = []

    def feed(draw):
        seen.append(draw)
        return tiny_training.feed(100 + draw)

    text = "test_iter: 3 test_interval: 2 test_compute_loss: true max_iter: 4"
    run = tiny_training.built(text, test_feeds=[feed])
    found = [event for event in run.solve() if isinstance(event, Evaluated)]
    assert seen == list(range(9)), "each test goes on where the one before it ended"
    want = []
    for draw in range(6, 9):
        run.net.eval()
        want.append(run.net(tiny_training.feed(100 + draw))["loss"].item())
    assert found[-1].outputs["loss"].item() == pytest.approx(np.mean(want))
    assert found[-1].loss == pytest.approx(np.mean(want))
    plain = tiny_training.built("max_iter: 4")
    list(plain.solve())
    assert tiny_training.same(tiny_training.weights(plain), tiny_training.weights(run))


def test_outputs_that_change_their_size_cannot_be_averaged():
    param = tiny_training.param("test_iter: 2 test_interval: 1")
    param.net_param = tiny_training.net(
        tiny_training.NET + 'layer { name: "copy" type: "Power" bottom: "data" top: "copy" }'
    )

    def feed(draw):
        fed = tiny_training.feed(draw)
        return {name: value[: 1 + draw] for name, value in fed.items()}

    run = solver.build_solver(param, feed=tiny_training.feed, test_feeds=[feed])
    assert error(list, run.test_all()) == (
        "test net 0: output 'copy' cannot be averaged, since its size changes from sample to sample;"
        " got (2, 3, 6, 6), want (1, 3, 6, 6)."
    )


def test_a_run_is_a_function_of_its_seed():
    def after(text):
        run = tiny_training.built(text)
        run.step(3)
        return tiny_training.weights(run)

    assert tiny_training.same(after("random_seed: 1"), after("random_seed: 1"))
    assert not tiny_training.same(after("random_seed: 1"), after("random_seed: 2"))
    assert tiny_training.same(after("random_seed: -1"), after("random_seed: -1")), (
        "without one too, so that it can go on"
    )


@pytest.mark.parametrize("kind", update_rules.RULES)
@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_that_goes_on_is_one_that_never_stopped(kind, stop, tmp_path):
    text = f'type: "{kind}" iter_size: 2 max_iter: 6 lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 3'
    text += f' snapshot_prefix: "{tmp_path}/s"' + (" momentum: 0" if kind in ("AdaGrad", "RMSProp") else "")
    whole = tiny_training.built(text)
    list(whole.solve())
    first = tiny_training.built(text)
    first.step(stop)
    second = tiny_training.built(text)
    list(second.solve(resume=first.snapshot()[1]))
    assert second.iter == 6
    assert tiny_training.same(tiny_training.weights(whole), tiny_training.weights(second))


def test_a_net_with_data_of_its_own_goes_on_with_the_samples_that_it_would_have_read(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        samples = [tiny_training.feed(draw) for draw in range(7)]
        for name in ("data", "label"):
            file[name] = np.concatenate([sample[name] for sample in samples])
    (tmp_path / "list.txt").write_text(f"{tmp_path}/rows.h5\n")
    own = f'type: "HDF5Data" top: "data" top: "label" hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 2'
    start, end = tiny_training.NET.index('type: "Input"'), tiny_training.NET.index('layer { name: "conv"')
    param = tiny_training.param(f'iter_size: 3 max_iter: 6 snapshot_prefix: "{tmp_path}/s"')
    param.net_param = tiny_training.net(
        tiny_training.NET[:start] + own + " shuffle: true } }\n" + tiny_training.NET[end:]
    )
    whole, first, second = (solver.build_solver(param) for _ in range(3))
    whole.step(6)
    first.step(4)
    second.restore(first.snapshot()[1])
    second.step(2)
    assert tiny_training.same(tiny_training.weights(whole), tiny_training.weights(second))


def test_an_end_that_is_passed_or_missing_is_one_line(tmp_path):
    run = tiny_training.built(f'max_iter: 3 snapshot_prefix: "{tmp_path}/s"')
    run.step(3)
    _, state = run.snapshot()
    assert [described(event) for event in tiny_training.built("max_iter: 3").solve(resume=state)] == []
    assert error(list, tiny_training.built("max_iter: 2").solve(resume=state)) == (
        f"{state}: max_iter 2 is below iteration 3 of this state. Raise max_iter, or resume from an earlier snapshot."
    )
    run.param.clear("max_iter")
    assert error(list, run.solve()) == "solver: max_iter is not set. Set it to the number of updates."


def test_a_last_snapshot_that_cannot_be_written_is_known_before_the_start():
    run = tiny_training.built("snapshot_after_train: true")
    assert error(list, run.solve()) == "solver: snapshot_prefix is not set. Set a path prefix."
    assert run.iter == 0


# ---- what a loss that is no number does


@pytest.mark.parametrize("text", ["", "iter_size: 3", "clip_gradients: 1"])
def test_a_loss_that_is_no_number_leaves_the_weights_of_before(text):
    bad = 7

    def feed(draw):
        fed = tiny_training.feed(draw)
        return fed | {"data": fed["data"] * np.float32(math.nan)} if draw == bad else fed

    run = tiny_training.built(text, feed=feed)
    size = run.param.iter_size
    run.step(bad // size)
    before, history = tiny_training.weights(run), [blob.clone() for blob in run.history]
    with pytest.raises(LossError) as caught:
        run.step()
    assert str(caught.value) == (
        f"iteration {bad // size}, draw 7: the loss is nan."
        " The learning rate is too high for this loss, or the weights or the sample are broken."
    )
    assert (caught.value.iteration, caught.value.draw) == (bad // size, 7)
    assert str(caught.value.at("dog.jpg")).startswith("dog.jpg: iteration")
    assert run.iter == bad // size
    assert tiny_training.same(before, tiny_training.weights(run))
    assert all(torch.equal(one, other) for one, other in zip(history, run.history, strict=True))
    assert all(p.grad is None for p, _ in run.updates.learned)


def test_statistics_of_a_batch_with_a_broken_loss_are_forgotten():
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }'
    param = tiny_training.param()
    param.net_param = tiny_training.net(
        tiny_training.NET.replace('layer { name: "relu"', norm + ' layer { name: "relu"')
    )
    run = solver.build_solver(param, feed=tiny_training.feed)
    run.step(2)
    before = tiny_training.weights(run)
    run.feed = lambda draw: tiny_training.feed(draw) | {"data": np.full((2, 3, 6, 6), math.nan)}
    with pytest.raises(LossError):
        run.step()
    assert tiny_training.same(before, tiny_training.weights(run))


# ---- signals


def test_actions_are_heeded_after_the_update(tmp_path):
    asked = iter([Action.NONE, Action.SNAPSHOT, Action.NONE, Action.STOP])
    run = tiny_training.built(f'max_iter: 9 snapshot_after_train: true display: 1 test_iter: 1 test_interval: 9'
                     f' test_initialization: false snapshot_prefix: "{tmp_path}/s"')  # fmt: skip
    run.action = lambda: next(asked)
    assert [described(event) for event in run.solve()] == [
        "step 0", "step 1", "saved 2", "step 2", "step 3", "saved 4",
    ]  # fmt: skip
    assert run.stopped
    run.action = lambda: Action.NONE
    assert run.step() == run.loss
    assert not run.stopped


def test_actions_are_heeded_in_the_middle_of_a_test(tmp_path):
    asked = iter([Action.NONE, Action.SNAPSHOT, Action.NONE, Action.STOP, Action.NONE])
    run = tiny_training.built(f'max_iter: 9 test_iter: 5 test_interval: 2 snapshot_prefix: "{tmp_path}/s"')
    run.action = lambda: next(asked)
    assert [described(event) for event in run.solve()] == ["saved 0"]
    assert run.stopped
    assert run.iter == 0


def test_signals_are_taken_while_the_block_runs():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)
    with Signals() as signals:
        assert signals() is Action.NONE
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert [signals(), signals(), signals()] == [Action.SNAPSHOT, Action.STOP, Action.NONE]
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGHUP)) == before


def test_ctrl_c_stops_with_a_snapshot_and_a_hang_up_makes_one(tmp_path):
    run = tiny_training.built(f'max_iter: 100 snapshot_after_train: true snapshot_prefix: "{tmp_path}/s"')
    seen = []
    with Signals() as signals:
        run.action = signals
        for event in run.solve():
            seen.append(described(event))
            if seen[-1] == "step 2":
                os.kill(os.getpid(), signal.SIGHUP)
            if seen[-1] == "step 4":
                os.kill(os.getpid(), signal.SIGINT)
    assert seen[3:] == ["saved 3", "step 3", "step 4", "saved 5"]
    again = tiny_training.built(f'max_iter: 7 snapshot_prefix: "{tmp_path}/s"', resume=snapshot.latest(tmp_path / "s"))
    assert [described(event) for event in again.solve()] == ["step 5", "step 6"]


def test_the_loss_at_the_end_is_measured_without_an_update(tmp_path):
    run = tiny_training.built("max_iter: 2 display: 1 average_loss: 3")
    *steps, last = run.solve()
    assert isinstance(last, FinalLoss)
    assert run.iter == last.iteration == 2
    assert last.smoothed_loss == pytest.approx(np.mean([*(step.loss for step in steps), last.loss]))
    assert all(p.grad is None for p, _ in run.updates.learned)

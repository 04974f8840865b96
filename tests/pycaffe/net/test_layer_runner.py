"""Single layers: arrays of their blobs, shared memory, gradients, and the data that a backward pass needs."""

import re

import numpy as np
import pytest
import torch

from reproduction import pycaffe as caffe
from reproduction.caffe.errors import NetError
from reproduction.caffe.net.net import Net as CoreNet
from tests.helpers.pycaffe_nets import IMAGE, INPUT, IP, LABEL, LOSS, layer, net, python

FORCE = "force_backward: true "
CONV = layer("conv", "Convolution", top="c", rest='convolution_param { num_output: 3 kernel_size: 3 '
             'weight_filler { type: "gaussian" std: 1 } }')  # fmt: skip
X = np.random.RandomState(0).randn(2, 3).astype(np.float32)
Y = np.random.RandomState(1).randn(2, 3).astype(np.float32)


def raises(text):
    return pytest.raises(NetError, match=f"^{re.escape(text)}$")


# ---- arrays


def test_an_array_taken_once_is_live_for_good(tmp_path):
    made = net(tmp_path, INPUT + layer("abs", "AbsVal"))
    x, y = made.blobs["x"].data, made.blobs["y"].data
    for value in (-1, -2):
        x[...] = value
        made.forward()
        assert (y == -value).all()


def test_no_layer_copies_what_nobody_holds(tmp_path, monkeypatch):
    tops = []
    run = CoreNet.run

    def recorded(*args):
        tops.append(run(*args))
        return tops[-1]

    monkeypatch.setattr(CoreNet, "run", recorded)
    made = net(tmp_path, FORCE + IMAGE + CONV + layer("relu", "ReLU", "c", "c") + layer("sig", "Sigmoid", "c", "s"))
    made.forward()
    addresses = [top.data_ptr() for (top,) in tops]
    assert addresses[0] == addresses[1] == made.blobs["c"].data.ctypes.data
    assert addresses[2] == made.blobs["s"].data.ctypes.data


def test_a_layer_in_place_works_in_the_place_that_is_held(tmp_path):
    made = net(tmp_path, FORCE + IMAGE + CONV + layer("relu", "ReLU", "c", "c"))
    held = made.blobs["c"].data
    made.blobs["x"].data[...] = np.random.RandomState(0).randn(1, 2, 5, 6)
    made.forward(end="conv")
    before = held.copy()
    assert before.min() < 0
    made.forward(start="relu")
    assert np.array_equal(held, before.clip(0))
    made.blobs["c"].diff[...] = 1
    made.backward(end="relu")
    assert np.array_equal(made.blobs["c"].diff, before > 0)


def test_a_top_equal_to_its_bottom_has_memory_of_its_own(tmp_path):
    made = net(
        tmp_path, INPUT + layer("drop", "Dropout") + layer("cut", "Slice", "y", "a b", "slice_param { axis: 0 }")
    )
    made.forward(x=X)
    made.blobs["y"].data[...] = 7
    assert np.array_equal(made.blobs["x"].data, X)
    assert np.array_equal(made.blobs["b"].data, X[1:])


@pytest.mark.parametrize(
    ("text", "diff"),
    [
        (layer("y", "Reshape", rest="reshape_param { shape { dim: 3 dim: 2 } }"), True),
        (layer("y", "Flatten", rest="flatten_param { axis: 0 }"), False),
        (layer("y", "Concat"), True),
        (layer("y", "Slice"), True),
        (layer("y", "Split", top="y z"), False),
    ],
    ids=["Reshape", "Flatten", "Concat", "Slice", "Split"],
)
def test_layers_that_move_nothing_share_their_memory_as_in_caffe(tmp_path, text, diff):
    made = net(tmp_path, FORCE + INPUT + text)
    for _ in range(2):
        x, y = made.blobs["x"], made.blobs["y"]
        assert np.shares_memory(x.data, y.data)
        assert np.shares_memory(x.diff, y.diff) is diff
        made.forward(x=X)
        assert np.array_equal(y.data.ravel(), X.ravel())
        y.diff[...] = 2
        made.backward()
        assert (x.diff == 2).all()
        x.reshape(4, 6)
        x.reshape(2, 3)
        made.reshape()


# ---- gradients


def test_gradients_of_blobs_are_written_and_those_of_parameters_added_up(tmp_path):
    made = net(tmp_path, FORCE + INPUT + IP)
    weight, bias = made.params["ip"]
    for times in (1, 2, 3):
        made.forward(x=X)
        made.backward(ip=np.ones((2, 4)))
        assert np.allclose(made.blobs["x"].diff, np.ones((2, 4)) @ weight.data, atol=1e-6)
        assert np.allclose(weight.diff, times * np.ones((2, 4)).T @ X, atol=1e-5)
        assert (bias.diff == 2 * times).all()
    held = weight.diff
    made.clear_param_diffs()
    assert not held.any()
    assert not bias.diff.any()


def test_backward_starts_from_the_weights_of_the_losses(tmp_path):
    text = INPUT + LABEL + IP + LOSS.replace('top: "loss"', 'top: "loss" loss_weight: 4')
    made = net(tmp_path, text)
    made.forward(x=X, label=[1, 3])
    diffs = made.backward(diffs=["ip"])
    assert list(diffs) == ["x", "label", "ip"]
    want = np.exp(made.blobs["ip"].data) / np.exp(made.blobs["ip"].data).sum(1, keepdims=True)
    want[[0, 1], [1, 3]] -= 1
    assert np.allclose(diffs["ip"], want * 4 / 2, atol=1e-6)
    assert not diffs["x"].any()  # nothing needs it


def test_backward_from_start_to_end_reads_the_gradients_as_they_are(tmp_path):
    made = net(tmp_path, FORCE + INPUT + layer("a", "Power", "x", "a", "power_param { scale: 2 }")
               + layer("b", "Power", "a", "b", "power_param { scale: 3 }"))  # fmt: skip
    made.forward()
    made.blobs["a"].diff[...] = 1
    assert (made.backward(start="a", end="a")["x"] == 2).all()
    assert list(made.backward(start="b", end="b")) == ["a"]
    assert not made.blobs["a"].diff.any()


def test_a_value_that_is_written_between_forward_and_backward_counts(tmp_path):
    made = net(tmp_path, FORCE + INPUT + IP)
    made.forward(x=X)
    made.blobs["x"].data[...] = Y
    made.backward(ip=np.ones((2, 4)))
    assert np.allclose(made.params["ip"][0].diff, np.ones((4, 2)) @ Y, atol=1e-5)


def test_only_layers_under_a_loss_go_backward_unless_forced(tmp_path):
    text = INPUT + LABEL + IP + layer("side", "InnerProduct", "x", "side", "inner_product_param { num_output: 1 }")
    for force, want in (("", 0), (FORCE, 2)):
        made = net(tmp_path, force + text + LOSS)
        made.forward(x=X, label=[0, 1])
        made.blobs["side"].diff[...] = 1
        made.backward()
        assert (made.params["side"][1].diff == want).all()
        assert made.params["ip"][1].diff.any()


def test_propagate_down_and_lr_mult_stop_gradients(tmp_path):
    ip = IP.replace('name: "ip"', 'name: "ip" param { lr_mult: 0 }')
    top = layer("act", "TanH", "ip", "act", "propagate_down: false")
    made = net(tmp_path, INPUT + LABEL + ip + top + LOSS.replace('"ip"', '"act"'))
    made.forward(x=X, label=[0, 1])
    made.backward()
    assert made.blobs["act"].diff.any()
    assert not made.blobs["ip"].diff.any()
    made = net(tmp_path, INPUT + LABEL + ip + LOSS)
    made.forward(x=X, label=[0, 1])
    made.backward()
    weight, bias = made.params["ip"]
    assert bias.diff.any()
    assert not weight.diff.any()


def test_a_blob_with_several_readers_gets_the_sum_of_their_gradients(tmp_path):
    made = net(tmp_path, FORCE + INPUT + layer("a", "AbsVal", "x", "a") + layer("b", "Power", "x", "b"))
    made.forward(x=np.ones((2, 3)))
    assert (made.backward(a=np.ones((2, 3)), b=np.full((2, 3), 5.0))["x"] == 6).all()


def test_one_gradient_for_two_bottoms_is_two_arrays(tmp_path):
    other = INPUT.replace('"x"', '"z"')
    made = net(tmp_path, FORCE + INPUT + other + layer("sum", "Eltwise", "x z"))
    made.forward()
    made.backward(y=np.ones((2, 3)))
    made.blobs["x"].diff[...] = 5
    assert (made.blobs["z"].diff == 1).all()
    assert (made.blobs["y"].diff == 1).all()


def test_a_python_layer_goes_backward_on_the_nets_own_blobs(tmp_path):
    made = net(
        tmp_path, FORCE + INPUT + IP + python("times", "Times", "ip", "y", "3") + python("own", "Learned", "y", "z")
    )
    made.forward(x=X)
    made.backward(z=np.ones((2, 4)))
    assert made.layers[2].propagate_down == [True]
    assert (made.blobs["ip"].diff == 9).all()
    assert made.params["own"][0].diff[0] == pytest.approx(made.blobs["y"].data.sum(), rel=1e-5)


def test_dropout_goes_backward_through_what_it_kept(tmp_path):
    made = net(tmp_path, FORCE + INPUT + layer("drop", "Dropout", "x", "x"), caffe.TRAIN)
    made.forward(x=np.ones((2, 3)))
    kept = made.blobs["x"].data.copy()
    made.backward(x=np.ones((2, 3)))
    assert set(np.unique(kept)) <= {0, 2}
    assert np.array_equal(made.blobs["x"].diff, kept)


def test_a_loss_that_grows_keeps_its_gradient(tmp_path):
    made = net(tmp_path, INPUT + IP + layer("sum", "Power", "ip", "s", "loss_weight: 2"))
    made.blobs["x"].reshape(4, 3)
    made.forward()
    made.backward()
    assert (made.params["ip"][1].diff == 8).all()


# ---- a backward without its forward


def test_what_needs_no_forward_goes_backward_without_one(tmp_path):
    made = net(tmp_path, FORCE + IMAGE + CONV)
    image = np.random.RandomState(0).randn(1, 2, 5, 6).astype(np.float32)
    made.blobs["x"].data[...] = image
    made.backward(c=np.ones((1, 3, 3, 4)))
    first = made.params["conv"][0].diff.copy()
    made.clear_param_diffs()
    made.forward(x=image)
    made.backward()
    assert np.array_equal(first, made.params["conv"][0].diff)
    assert first.any()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (LABEL + IP + LOSS, "layer 'loss' (SoftmaxWithLoss), line 4"),
        (layer("act", "Sigmoid"), "layer 'act' (Sigmoid), line 2"),
        (layer("drop", "Dropout"), "layer 'drop' (Dropout), line 2"),
    ],
)
def test_what_needs_one_says_so(tmp_path, text, place):
    made = net(tmp_path, FORCE + INPUT + text)
    with raises(f"{place}: there was no forward pass. Call forward first."):
        made.backward()


def test_a_backward_uses_the_blobs_of_the_last_forward_of_each_layer(tmp_path):
    made = net(
        tmp_path, FORCE + INPUT + layer("a", "Power", "x", "a", "power_param { scale: 2 }") + IP.replace('"x"', '"a"')
    )
    made.forward(x=X)
    made.forward(x=Y, end="a")  # ip is not run again, and reads what is there now, as in Caffe
    made.backward(ip=np.ones((2, 4)))
    assert np.allclose(made.params["ip"][0].diff, np.ones((4, 2)) @ (2 * Y), atol=1e-5)


def test_sizes_and_parameters_that_changed_since_are_said(tmp_path):
    made = net(tmp_path, FORCE + INPUT + layer("act", "PReLU"))
    made.forward()
    made.blobs["y"].reshape(3, 2)
    with raises("layer 'act' (PReLU), line 2: a top was reshaped since the forward pass; got (3, 2), want (2, 3)."):
        made.backward()
    made.forward()
    with torch.no_grad():
        next(made.module.parameters()).add_(1)
    with raises("layer 'act' (PReLU), line 2: the parameters have changed since the forward pass. Call forward again."):
        made.backward()
    made.params["act"][0].reshape(5)
    with raises("layer 'act' (PReLU), line 2: blob 0 was reshaped; got (5,), want (3,)."):
        made.forward()

"""pycaffe's Net: attributes, forward and backward, weights, callbacks, and errors."""

import gc
import re
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch

from reproduction import pycaffe as caffe
from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.net import net as core
from reproduction.pycaffe.net.errors import CaffeError
from tests.helpers.pycaffe_nets import IMAGE, INPUT, IP, LABEL, LOSS, layer, net, python, write

X = np.ones((2, 3), np.float32)


def raises(text, kind=ReproductionError):
    return pytest.raises(kind, match=f"^{re.escape(text)}$")


# ---- making


def test_every_form_of_the_constructor_makes_the_same_net(tmp_path):
    path, weights = write(tmp_path, INPUT + IP), str(tmp_path / "w.caffemodel")
    first = caffe.Net(path, caffe.TEST)
    first.save(weights)
    nets = [
        caffe.Net(path, weights, caffe.TEST),
        caffe.Net(path, caffe.TEST, weights=weights),
        caffe.Net(path, caffe.TEST, 0, None, weights),
        caffe.Net(network_file=path, phase=caffe.TEST, level=0, stages=["any"], weights=weights),
    ]
    for made in nets:
        assert np.array_equal(made.params["ip"][0].data, first.params["ip"][0].data)


def test_level_stages_and_phase_choose_layers(tmp_path):
    text = INPUT + layer("a", "ReLU", top="a", rest='include { stage: "s" }')
    text += layer("b", "TanH", top="b", rest="include { min_level: 2 }")
    text += layer("c", "AbsVal", top="c", rest="include { phase: TRAIN }")
    names = lambda **state: [name for name in net(tmp_path, text, **state)._layer_names if len(name) == 1]  # noqa: E731
    assert names() == ["x"]
    assert names(stages=["s"], level=2) == ["x", "a", "b"]
    assert names(phase=caffe.TRAIN) == ["x", "c"]
    text = f'state {{ level: 2 stage: "s" }} {text}'
    assert names() == ["x", "a"], "the stages of the file stay, and its level does not"
    assert names(phase=caffe.TRAIN, level=2) == ["x", "a", "b", "c"]


def test_a_missing_file_is_a_runtime_error_as_in_pycaffe(tmp_path):
    path = write(tmp_path, INPUT)
    for arguments in [("none.prototxt", caffe.TEST), (path, "none.caffemodel", caffe.TEST)]:
        missing = next(a for a in arguments if str(a).startswith("none"))
        with raises(f"{missing}: the file cannot be opened: no such file or directory.", RuntimeError):
            caffe.Net(*arguments)
    with raises(f"{tmp_path}: the file cannot be opened: is a directory.", CaffeError):
        caffe.Net(tmp_path, caffe.TEST)


def test_a_phase_that_is_none_is_refused(tmp_path):
    with raises("the phase is neither caffe.TRAIN nor caffe.TEST; got 2, want 0 or 1."):
        net(tmp_path, INPUT, 2)


def test_an_unknown_layer_type_names_layer_and_line(tmp_path):
    with raises("layer 'y' (Convoluton), line 2: unknown layer type 'Convoluton'. Did you mean 'Convolution'?"):
        net(tmp_path, INPUT + layer("y", "Convoluton"))


def test_a_blob_and_a_net_outlive_each_other(tmp_path):
    made = net(tmp_path, INPUT + IP)
    made.forward()
    blobs, gone = list(made.blobs.values()), weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None
    assert sum(blob.data.sum() + blob.diff.sum() for blob in blobs) != 0


# ---- looking


def test_layers_blobs_and_names_are_pycaffes(tmp_path):
    made = net(tmp_path, INPUT + LABEL + IP + layer("act", "TanH", "ip", "act") + LOSS)
    split = "ip_ip_0_split"
    assert made._layer_names == ["x", "label", "ip", split, "act", "loss"]
    assert [each.type for each in made.layers] == [
        "Input", "Input", "InnerProduct", "Split", "TanH", "SoftmaxWithLoss",
    ]  # fmt: skip
    assert isinstance(made.blobs, OrderedDict)
    assert made._blob_names == ["x", "label", "ip", f"{split}_0", f"{split}_1", "act", "loss"]
    assert [blob.shape for blob in made._blobs] == [(2, 3), (2,), *[(2, 4)] * 4, ()]
    assert (made.inputs, made._inputs) == (["x", "label"], [0, 1])
    assert (made.outputs, made._outputs) == (["act", "loss"], [5, 6])
    assert made.top_names[split] == [f"{split}_0", f"{split}_1"]
    assert made.bottom_names == OrderedDict(
        [("x", []), ("label", []), ("ip", ["x"]), (split, ["ip"]), ("act", [f"{split}_0"]),
         ("loss", [f"{split}_1", "label"])]
    )  # fmt: skip
    assert (made._top_ids(3), made._bottom_ids(5)) == ([3, 4], [4, 1])
    assert made.blob_loss_weights == {**dict.fromkeys(made.blobs, 0.0), "loss": 1.0}
    assert made._blob_loss_weights == [0, 0, 0, 0, 0, 0, 1]
    assert made.layer_dict["ip"] is made.layers[2]
    assert [blob.shape for blob in made.layers[2].blobs] == [(4, 3), (4,)]
    assert list(made.params) == ["ip"]
    assert made.params["ip"] is made.layers[2].blobs


def test_a_python_layer_is_the_authors_own_object_with_the_nets_blobs(tmp_path):
    made = net(tmp_path, INPUT + python("times", "Times", param_str="3"))
    user = made.layers[1]
    assert (type(user).__name__, user.type, user.factor) == ("Times", "Python", 3)
    assert isinstance(user, caffe.Layer)
    bottom, top = vars(user)["seen"]
    assert bottom[0] is made.blobs["x"]
    assert top[0] is made.blobs["y"]


def test_a_python_layer_may_add_parameters_late_and_keeps_its_attributes(tmp_path):
    made = net(tmp_path, INPUT + python("late", "Late"))
    for count in (1, 2):
        made.forward()
        assert made.layers[1].blobs[0].data.tolist() == [count, count]
    assert made.layers[1].type == "mine"
    made.save(str(tmp_path / "w.caffemodel"))
    made.copy_from(str(tmp_path / "w.caffemodel"))


def test_an_unnamed_loss_is_no_output(tmp_path):
    made = net(tmp_path, INPUT + LABEL + IP + LOSS.replace('top: "loss"', ""))
    assert made.outputs == []
    assert made._forward(0, 3) > 0


# ---- forward


def test_forward_returns_live_outputs_and_more_blobs_if_asked(tmp_path):
    made = net(tmp_path, INPUT + IP + layer("act", "TanH", "ip", "act"))
    out = made.forward(blobs=["ip"], x=np.ones((2, 3)))
    assert list(out) == ["act", "ip"]
    assert np.allclose(out["act"], np.tanh(out["ip"]))
    assert np.shares_memory(out["ip"], made.blobs["ip"].data)


def test_forward_from_start_to_end_reads_the_blobs_as_they_are(tmp_path):
    made = net(tmp_path, INPUT + IP + layer("act", "TanH", "ip", "act") + layer("abs", "AbsVal", "act", "abs"))
    made.blobs["ip"].data[...] = -0.5
    assert list(made.forward(start="act", end="act")) == ["act"]
    assert np.allclose(made.blobs["act"].data, np.tanh(-0.5))
    assert not made.blobs["abs"].data.any()
    made.forward(start="abs")
    assert np.allclose(made.blobs["abs"].data, -np.tanh(-0.5))


def test_the_loss_of_a_forward_is_each_loss_times_its_weight(tmp_path):
    made = net(tmp_path, INPUT + LABEL + IP + LOSS.replace('top: "loss"', 'top: "loss" loss_weight: 3'))
    made.blobs["x"].data[...] = np.random.RandomState(0).randn(2, 3)
    assert made._forward(0, 3) == pytest.approx(3 * float(made.blobs["loss"].data))
    assert made.blobs["loss"].diff == 3


def test_the_drop_in_computes_what_the_module_computes(tmp_path):
    text = IMAGE + layer("conv", "Convolution", top="c", rest='convolution_param { num_output: 3 kernel_size: 3 '
                         'weight_filler { type: "gaussian" std: 1 } }')  # fmt: skip
    text += layer("relu", "ReLU", "c", "c") + layer("pool", "Pooling", "c", "p", "pooling_param { kernel_size: 2 }")
    made = net(tmp_path, text)
    module = core.load(tmp_path / "net.prototxt")
    module.share_with(made.module)
    image = np.random.RandomState(0).randn(1, 2, 5, 6).astype(np.float32)
    got = made.forward(x=image)["p"]
    assert np.array_equal(got, module({"x": image})["p"].detach().numpy())
    assert np.array_equal(made.blobs["c"].data, module({"x": image}, ["c"])["c"].detach().numpy())


def test_another_size_reaches_every_blob(tmp_path):
    made = net(tmp_path, INPUT + layer("cut", "Slice", top="a b", rest="slice_param { axis: 0 }"))
    made.blobs["x"].reshape(6, 5)
    made.reshape()
    assert [made.blobs[name].shape for name in "xab"] == [(6, 5), (3, 5), (3, 5)]
    made.blobs["x"].reshape(2, 7)
    made.blobs["x"].data[...] = [[1] * 7, [2] * 7]
    out = made.forward()
    assert (out["a"].tolist(), out["b"].tolist()) == ([[1] * 7], [[2] * 7])


def test_a_size_that_does_not_fit_names_the_layer(tmp_path):
    made = net(tmp_path, IMAGE + layer("c", "Convolution", rest="convolution_param { num_output: 1 kernel_size: 1 }"))
    made.blobs["x"].reshape(1, 4, 5, 6)
    for run in (made.reshape, made.forward):
        with raises("layer 'c' (Convolution), line 2: the bottom's channels do not fit the weights; got 4, want 2."):
            run()


WRONG = {
    "input 'x' has another shape; got (2, 4), want (2, 3). Call blobs['x'].reshape(2, 4) first.": lambda net: (
        net.forward(x=np.ones((2, 4)))
    ),
    "input 'x' has another shape; got (3, 3), want (2, 3). Call blobs['x'].reshape(3, 3) first.": lambda net: (
        net.forward(x=np.ones((3, 3)))
    ),
    "input 'x' is not an array of numbers: could not convert string to float: 'a'.": lambda net: net.forward(
        x=["a", "b"]
    ),
    "these are not the inputs of the net; got ['y'], want ['x'].": lambda net: net.forward(y=1),
    "the net has no layer 'ipp'. Did you mean 'ip'?": lambda net: net.forward(end="ipp"),
    "the net has no blob 'score'.": lambda net: net.forward(blobs=["score"]),
    "output 'ip' has another shape; got (2, 3), want (2, 4).": lambda net: net.backward(ip=np.ones((2, 3))),
    "these are not the outputs of the net; got ['x'], want ['ip'].": lambda net: net.backward(x=1),
    "a blob cannot have negative sizes; got (-1, 3).": lambda net: net.blobs["x"].reshape(-1, 3),
    "set_input_arrays is for nets whose first layer is a MemoryData layer.": lambda net: net.set_input_arrays(X, X),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_use_says_what_is_wrong(tmp_path, text):
    made = net(tmp_path, INPUT + IP)
    with raises(text):
        WRONG[text](made)


def test_a_wrong_shape_assigned_to_a_blob_is_numpys_error(tmp_path):
    made = net(tmp_path, INPUT)
    with pytest.raises(
        ValueError, match=re.escape("could not broadcast input array from shape (4,3) into shape (2,3)")
    ):
        made.blobs["x"].data[...] = np.ones((4, 3))


def test_any_number_of_samples_goes_through_in_batches(tmp_path):
    made = net(tmp_path, "force_backward: true " + INPUT + IP)
    x = np.random.RandomState(0).randn(5, 3).astype(np.float32)
    weight, bias = (blob.data for blob in made.params["ip"])
    outs = made.forward_all(x=x)
    assert np.allclose(outs["ip"], x @ weight.T + bias, atol=1e-5)
    outs, diffs = made.forward_backward_all(x=x, ip=np.ones((5, 4), np.float32))
    assert np.allclose(outs["ip"], x @ weight.T + bias, atol=1e-5)
    assert np.allclose(diffs["x"], np.ones((5, 4)) @ weight, atol=1e-5)
    for run in (made.forward_all, made.forward_backward_all):
        with raises("there are no samples. Pass an array for each input, or call forward() for one batch."):
            run()


def test_memory_data_takes_the_callers_arrays(tmp_path):
    made = net(tmp_path, layer("data", "MemoryData", "", "data label", "memory_data_param { batch_size: 2 channels: 1 "
                               "height: 1 width: 3 }"))  # fmt: skip
    data = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    made.set_input_arrays(data, np.arange(4, dtype=np.float32))
    assert [made.forward()["label"].ravel().tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]
    assert np.array_equal(made.blobs["data"].data, data[:2])
    with raises("data must be float32; got float64.", CaffeError):
        made.set_input_arrays(data.astype(np.float64), np.zeros(4, np.float32))
    with raises("the data must be a multiple of batch_size; got 3, want a multiple of 2.", CaffeError):
        made.set_input_arrays(data[:3], np.zeros(3, np.float32))


def test_what_is_written_over_constant_data_stays(tmp_path):
    filler = 'shape { dim: 2 } data_filler { type: "constant" value: 4 } data_filler { type: "gaussian" }'
    made = net(tmp_path, layer("d", "DummyData", "", "a b", f"dummy_data_param {{ {filler} }}"))
    assert made.blobs["a"].data.tolist() == [4, 4]
    made.blobs["a"].data[...] = 7
    first = made.forward()["b"].copy()
    assert made.forward()["a"].tolist() == [7, 7]
    assert not np.array_equal(first, made.blobs["b"].data)


# ---- weights


def test_weights_go_to_files_and_back(tmp_path):
    text = INPUT + IP + python("own", "Learned", "ip", "own")
    first, second = net(tmp_path, text), net(tmp_path, text)
    for save, load, name in [("save", "copy_from", "w.caffemodel"), ("save_hdf5", "copy_from", "a.h5"),
                             ("save_hdf5", "load_hdf5", "b")]:  # fmt: skip
        first.params["own"][0].data[0] += 1
        getattr(first, save)(str(tmp_path / name))
        held = second.params["ip"][0].data
        held[...] = 0
        getattr(second, load)(str(tmp_path / name))
        assert np.array_equal(held, first.params["ip"][0].data)
        assert second.layers[2].weight[0] == first.params["own"][0].data[0]
    second.params["ip"][1].data[...] = 9
    second.copy_from(first)
    assert second.params["ip"][1].data.tolist() == [2] * 4


def test_weights_of_another_net_are_refused_and_a_missing_file_too(tmp_path):
    made, path = net(tmp_path, INPUT + IP), str(tmp_path / "w.caffemodel")
    net(tmp_path, INPUT + IP.replace("num_output: 4", "num_output: 5")).save(path)
    text = f"{path}: layer 'ip' blob 0 has another shape; got (5, 3), want (4, 3), as the net. "
    with raises(text + "To train this layer from its filler, rename it."):
        made.copy_from(path)
    for load in (made.copy_from, made.load_hdf5):
        with raises("none: the file cannot be opened: no such file or directory.", RuntimeError):
            load("none")


def test_shared_weights_are_one_memory_and_gradients_are_not(tmp_path):
    text = "force_backward: true " + INPUT + IP
    first, second = net(tmp_path, text), net(tmp_path, text)
    second.share_with(first)
    first.params["ip"][0].data[...] = 5
    assert (second.params["ip"][0].data == 5).all()
    assert np.array_equal(first.forward(x=np.ones((2, 3)))["ip"], second.forward(x=np.ones((2, 3)))["ip"])
    second.backward(ip=np.ones((2, 4)))
    assert second.params["ip"][0].diff.any()
    assert not first.params["ip"][0].diff.any()


def test_parameters_of_one_name_share_values_and_gradients(tmp_path):
    shared = (
        'param { name: "w" } inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } }'
    )
    text = "force_backward: true " + INPUT + layer("a", "InnerProduct", "x", "a", shared)
    made = net(tmp_path, text + layer("b", "InnerProduct", "a", "b", shared))
    made.forward(x=np.ones((2, 3)))
    made.backward(b=np.ones((2, 3)))
    weight, x = made.params["a"][0].data, torch.ones(2, 3)
    assert np.shares_memory(weight, made.params["b"][0].data)
    learned = torch.tensor(weight, requires_grad=True)
    (x @ learned.T @ learned.T).sum().backward()
    for name in "ab":
        assert np.allclose(made.params[name][0].diff, learned.grad, atol=1e-6)


# ---- callbacks


def test_callbacks_run_around_every_layer_in_order(tmp_path):
    made, seen = net(tmp_path, "force_backward: true " + INPUT + IP), []
    for when in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(made, when)(lambda index, when=when: seen.append((when, index)))
    made.forward(start="ip")
    made.backward()
    assert seen == [
        ("before_forward", 1), ("after_forward", 1), ("before_backward", 1), ("after_backward", 1),
        ("before_backward", 0), ("after_backward", 0),
    ]  # fmt: skip


def test_a_callback_may_change_what_the_next_layer_reads(tmp_path):
    made = net(tmp_path, INPUT + layer("a", "AbsVal", top="a") + layer("b", "AbsVal", "a", "b"))
    made.after_forward(lambda index: made.blobs["a"].data.fill(index) if index == 1 else None)
    assert (made.forward(x=-5 * np.ones((2, 3)))["b"] == 1).all()


# ---- Python layers that raise


@pytest.mark.parametrize("method", ["setup", "reshape", "forward", "backward"])
def test_what_a_python_layer_raises_is_caught_as_that_and_names_the_layer(tmp_path, method):
    from tests.helpers.python_layers import OwnError

    text = "force_backward: true " + INPUT + python("me", "Broken", param_str=f"'{method}'")

    def use():
        made = net(tmp_path, text)
        made.forward()
        made.backward()

    with pytest.raises(OwnError) as raised:
        use()
    assert str(raised.value) == f"layer 'me' (Python), line 2: {method}() of Broken raised OwnError: no {method} today."
    assert isinstance(raised.value, NetError)
    assert type(raised.value.__cause__) is OwnError


def test_a_python_layer_that_is_not_there_names_its_module(tmp_path):
    with raises("layer 'me' (Python), line 2: the Python class 'tests.helpers.python_layers.None_' was not found: "
                "AttributeError: module 'tests.helpers.python_layers' has no attribute 'None_'."):  # fmt: skip
        net(tmp_path, INPUT + python("me", "None_"))
    with pytest.raises(ImportError, match=r"layer 'me' \(Python\), line 2: .*No module named 'no_such'"):
        net(tmp_path, INPUT + python("me", "L").replace("tests.helpers.python_layers", "no_such"))


def test_a_net_and_a_solver_with_a_database_take_inputs(tmp_path):
    text = """layer { name: "d" type: "Data" top: "data" top: "label" data_param { batch_size: 1 } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""
    path, inputs = write(tmp_path, text), {"data": (2, 4), "label": (2,)}
    with raises(
        "<no source>: LevelDB databases are not read; want an LMDB database, as Caffe's convert_imageset -backend lmdb "
        "writes. Pass inputs={'data': (1, C, H, W), 'label': (1,)}."
    ):
        caffe.Net(path, caffe.TRAIN)
    net = caffe.Net(path, caffe.TRAIN, inputs=inputs)
    assert net.inputs == ["data", "label"]
    assert net.forward(data=np.ones((2, 4)), label=np.zeros(2))["loss"] == pytest.approx(np.log(3))
    solver_path = tmp_path / "solver.prototxt"
    solver_path.write_text(f'net: "{path}" base_lr: 1 lr_policy: "fixed" max_iter: 2')
    solver = caffe.SGDSolver(str(solver_path), inputs=inputs)
    solver.net.blobs["data"].data[...] = 1
    solver.step(2)
    assert solver.net.blobs["loss"].data < np.log(3)

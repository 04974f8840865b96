"""A net as one module: blobs, shapes, gradients, shared parameters, and copying weights."""

import re

import numpy as np
import pytest
import torch

from reproduction.caffe import fillers
from reproduction.caffe.errors import NetError, ReproductionError, WeightsError
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.net.net import Net, load
from reproduction.caffe.schema import LayerParameter, NetParameter, Phase

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 decay_mult: 1 }
  param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "score" type: "Convolution" bottom: "conv" top: "score"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "up" type: "Deconvolution" bottom: "score" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 5 kernel_size: 1 bias_term: false weight_filler { type: "constant" value: 0.2 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "up" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 normalize: false } }
"""


def message(text: str = NET) -> NetParameter:
    return prototxt.loads(text, NetParameter)


def small(phase: Phase = Phase.TEST, text: str = NET, **more) -> Net:
    return Net(message(text), phase, seed=1, **more)


def sample(n: int = 1, size: int = 8) -> dict[str, torch.Tensor]:
    images = torch.randn(n, 3, size, size)
    return {"data": images, "label": torch.randint(0, 5, (n, 1, size, size))}


def test_the_outputs_come_by_name():
    out = small()(sample())
    assert list(out) == ["loss"]
    assert out["loss"].shape == ()


def test_any_blob_may_be_asked_for_and_only_what_it_needs_is_run():
    net = small()
    out = net({"data": sample()["data"]}, ["score", "conv", "data"])
    assert {name: tuple(blob.shape) for name, blob in out.items()} == {
        "score": (1, 5, 8, 8),
        "conv": (1, 4, 8, 8),
        "data": (1, 3, 8, 8),
    }
    assert (out["conv"] >= 0).all(), "conv has its last values: after the ReLU in place"


def test_an_unknown_blob_or_a_missing_input_is_one_line():
    net = small()
    with pytest.raises(NetError, match=r"^the net has no blob 'scores'\. Did you mean 'score'\?$"):
        net(sample(), ["scores"])
    with pytest.raises(
        NetError, match=r"^input 'label' is missing; got 'data': \(1, 3, 8, 8\) float32, want data, label\.$"
    ):
        net({"data": sample()["data"]})
    with pytest.raises(
        NetError, match=r"^input 'data' has 3 axes; got \(3, 8, 8\) float32, want 4 axes \(N, C, H, W\)\.$"
    ):
        net({"data": torch.zeros(3, 8, 8)}, ["score"])


def test_images_may_have_another_size_at_every_call_and_come_in_batches():
    net = small()
    for n, size in ((1, 8), (3, 11), (2, 5)):
        assert net(sample(n, size), ["up"])["up"].shape == (n, 5, size, size)


def test_a_wrong_number_of_channels_names_the_layer():
    with pytest.raises(NetError, match=r"^layer 'conv' \(Convolution\), line 5: the bottom's channels do not fit"):
        small()({"data": torch.zeros(1, 4, 8, 8)}, ["score"])


def test_numpy_arrays_and_labels_of_bytes_are_taken():
    out = small()({"data": np.zeros((1, 3, 8, 8), np.float32), "label": np.zeros((1, 1, 8, 8), np.uint8)})
    assert torch.isfinite(out["loss"])


def test_the_caller_s_tensor_is_never_overwritten():
    text = NET[: NET.index('layer { name: "conv"')] + 'layer { name: "r" type: "ReLU" bottom: "data" top: "data" }'
    net = small(text=text)
    data = -torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        assert (net({"data": data}, ["data"])["data"] == 0).all()
    assert (data == -1).all()


def test_gradients_follow_lr_mult():
    net = small(Phase.TRAIN)
    net.loss(net(sample())).backward()
    assert net.params["conv"][0].grad is not None
    assert net.params["up"][0].grad is None
    assert not net.params["up"][0].requires_grad


def test_force_backward_reaches_frozen_parameters_and_inputs():
    net = small(text="force_backward: true" + NET)
    blobs = net(sample(), ["loss", "data"])
    net.loss(blobs).backward()
    assert net.params["up"][0].grad is not None
    assert blobs["data"].grad is not None


def test_without_gradients_the_result_is_the_same():
    net = small()
    inputs = sample()
    with torch.no_grad():
        free = net(inputs, ["up", "conv"])
    for name, blob in net(inputs, ["up", "conv"]).items():
        assert torch.equal(blob, free[name])


def test_the_loss_is_the_weighted_sum_of_the_losses():
    text = NET.replace('top: "loss"', 'top: "loss" loss_weight: 3')
    inputs = sample()
    plain, tripled = small(), small(text=text)
    assert tripled.loss(tripled(inputs)) == 3 * plain.loss(plain(inputs))
    with pytest.raises(NetError, match=r"^no loss among these blobs; got \['score'\], want \['loss'\]\.$"):
        plain.loss(plain(inputs, ["score"]))


def test_training_and_testing_switch_dropout():
    net = small(Phase.TRAIN)
    inputs = sample()
    net.reseed(0)
    first = net(inputs, ["conv"])["conv"]
    net.reseed(1)
    assert not torch.equal(first, net(inputs, ["conv"])["conv"])
    net.reseed(0)
    assert torch.equal(first, net(inputs, ["conv"])["conv"]), "the draw decides"
    net.eval()
    assert torch.equal(net(inputs, ["conv"])["conv"], net(inputs, ["conv"])["conv"])


def test_double_precision_on_request():
    net = small().double()
    assert net(sample(), ["up"])["up"].dtype == torch.float64


def test_parameters_are_named_by_layer():
    assert list(small().state_dict()) == ["conv.weight", "conv.bias", "score.weight", "score.bias", "up.weight"]


def test_a_layer_may_be_called_as_a_method_of_modules_is():
    text = NET.replace('name: "score"', 'name: "train"').replace('name: "conv"', 'name: "a/b"')
    net = small(text=text)
    assert "train.weight" in net.state_dict()
    other = small(text=text)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(sample_ := sample(), ["up"])["up"], other(sample_, ["up"])["up"])


def test_the_summary_shows_layers_shapes_and_how_they_learn():
    assert small().summary().splitlines() == [
        "layer  type             tops        shape            parameters  lr_mult/decay_mult",
        "data   Input            data label  1x3x8x8 1x1x8x8",
        "conv   Convolution      conv        1x4x8x8          112         1/1 2/0",
        "relu   ReLU             conv        1x4x8x8",
        "drop   Dropout          conv        1x4x8x8",
        "score  Convolution      score       1x5x8x8          25          1/1 1/1",
        "up     Deconvolution    up          1x5x8x8          25          0/1",
        "loss   SoftmaxWithLoss  loss",
        "total                                                162",
    ]


def test_a_notebook_shows_a_table_of_the_layers():
    page = small()._repr_html_()
    assert page.count("<tr>") == 8
    assert "<caption>small: 162 parameters</caption>" in page
    cells = re.findall("<td[^>]*>([^<]*)</td>", page)
    assert cells[12:18] == ["relu", "ReLU", "conv → conv", "1x4x8x8", "", ""]
    assert cells[30:36] == ["up", "Deconvolution", "score → up", "1x5x8x8", "25", "0"]
    named = small(text=NET.replace('name: "relu"', 'name: "<relu>"'))._repr_html_()
    assert '<td style="text-align:left">&lt;relu&gt;</td>' in named


def test_a_net_on_the_meta_device_takes_no_memory():
    with torch.device("meta"):
        net = small()
    assert all(parameter.is_meta for parameter in net.parameters())
    assert net.blob_shapes["up"] == (1, 5, 8, 8)


# ---- shared parameters

SHARED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" lr_mult: 3 }
  inner_product_param { num_output: 4 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  inner_product_param { num_output: 4 bias_term: false } }
"""


def test_parameters_of_one_name_are_one():
    net = small(text=SHARED)
    assert net.params["a"][0] is net.params["b"][0]
    assert len(net.learnable) == 1
    x = torch.randn(2, 4)
    w = net.params["a"][0]
    torch.testing.assert_close(net({"data": x})["b"], x @ w.T @ w.T)


def test_a_permissive_share_sees_another_shape():
    text = SHARED.replace("dim: 4 }", "dim: 2 }", 1).replace("num_output: 4", "num_output: 4", 1)
    text = text.replace(
        'param { name: "w" }\n  inner_product_param { num_output: 4',
        'param { name: "w" share_mode: PERMISSIVE }\n  inner_product_param { num_output: 2',
    )
    net = small(text=text)
    x = torch.randn(2, 2)
    w = net.params["a"][0]
    assert w.shape == (4, 2)
    assert net.params["b"][0].shape == (2, 4)
    for _ in range(2):
        out = net({"data": x})["b"]
        torch.testing.assert_close(out, x @ w.T @ w.view(2, 4).T)
        out.sum().backward()
        with torch.no_grad():
            w.sub_(0.1 * w.grad)
    assert list(net.state_dict()) == ["a.weight"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("num_output: 4 bias_term: false }", "num_output: 3 bias_term: false }"),
            "layer 'b' (InnerProduct), line 5: cannot share param 'w' with layer 'a'; got (3, 4), want (4, 4).",
        ),
        (
            ('param { name: "w" }', 'param { name: "w" lr_mult: 2 }'),
            "layer 'b' (InnerProduct), line 5: shared param 'w' has two values of lr_mult; got 2.0, want 3.0.",
        ),
        (
            ('param { name: "w" }', "param { } param { }"),
            "layer 'b' (InnerProduct), line 5: more param blocks than parameter blobs; got 2, want at most 1.",
        ),
    ],
)
def test_shares_that_caffe_refuses(change, message):
    with pytest.raises(NetError) as error:
        small(text=SHARED.replace(*change))
    assert str(error.value) == message


# ---- Python data layers

PYTHON = NET[: NET.index('layer { name: "data"')] + """
layer { name: "data" type: "Python" top: "data" top: "label" python_param { module: "m" layer: "L" } }
""" + NET[NET.index('layer { name: "conv"') :]  # fmt: skip


def test_a_data_layer_says_what_it_needs():
    with pytest.raises(NetError) as error:
        small(text=PYTHON)
    assert str(error.value) == (
        "layer 'data' (Python), line 4: Caffe learns these shapes from data. "
        "Pass inputs={'data': (1, C, H, W), 'label': (1, C, H, W)}."
    )
    net = small(text=PYTHON, inputs={"data": (1, 3, 8, 8), "label": (1, 1, 8, 8)})
    assert net.inputs == ["data", "label"]
    assert net(sample(2, 9), ["up"])["up"].shape == (2, 5, 9, 9)


def test_inputs_that_the_net_does_not_have_are_refused():
    with pytest.raises(NetError, match=r"^the net has no such inputs; got \['depth'\], want some of \['data'"):
        small(inputs={"depth": (1, 1, 4, 4)})


def test_a_python_layer_of_the_caller_feeds_the_net():
    class Feed:
        def setup(self, bottom, top):
            self.drawn = 0

        def reshape(self, bottom, top):
            top[0].reshape(1, 3, 6, 6)
            top[1].reshape(1, 1, 6, 6)

        def forward(self, bottom, top):
            top[0].data[...] = self.drawn
            top[1].data[...] = 1
            self.drawn += 1

    net = small(text=PYTHON, python_layers={"L": Feed})
    assert net.inputs == []
    assert [float(net(blobs=["data"])["data"].mean()) for _ in range(3)] == [0, 1, 2]


# ---- weights


def test_weights_go_out_and_come_back(tmp_path):
    net, other = small(), Net(message(), seed=2)
    caffemodel.dump(net.to_proto(), tmp_path / "w.caffemodel")
    report = other.copy_from(caffemodel.load(tmp_path / "w.caffemodel"))
    assert str(report) == "3 layers copied"
    for mine, theirs in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_saved_net_holds_the_layers_that_caffe_s_holds():
    saved = small().to_proto()
    assert [layer.name for layer in saved.layer] == ["data", "conv", "relu", "drop", "score", "up", "loss"]
    assert saved.layer[-1].loss_weight == [1]
    assert all(layer.has("phase") for layer in saved.layer)


def test_the_report_says_what_was_not_met():
    source = small().to_proto()
    source.layer[1].name = "stem"
    report = small().copy_from(source)
    assert (report.copied, report.ignored, report.untouched) == (["score", "up"], ["stem"], ["conv"])
    assert str(report) == "2 layers copied; ignored: stem; untouched: conv"


def test_weights_that_do_not_fit_change_nothing():
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    source = Net(
        message(
            NET.replace("num_output: 5 kernel_size: 1 weight", "num_output: 6 kernel_size: 1 weight").replace(
                "num_output: 5 kernel_size: 1 bias_term", "num_output: 6 kernel_size: 1 bias_term"
            )
        )
    )
    with pytest.raises(WeightsError) as error:
        net.copy_from(source.to_proto(), "six.caffemodel")
    assert str(error.value) == (
        "six.caffemodel: layer 'score' blob 0 has another shape; got (6, 4, 1, 1), want (5, 4, 1, 1), as the net. "
        "To train this layer from its filler, rename it."
    )
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_weights_of_another_net_are_refused():
    other = Net(message(SHARED))
    with pytest.raises(WeightsError) as error:
        small().copy_from(other.to_proto(), "other.caffemodel")
    assert str(error.value) == (
        "other.caffemodel: no layer of these weights has the name of a layer of the net; got a, b, "
        "want conv, score, up. They belong to another net."
    )


def test_another_number_of_blobs_is_refused():
    source = small().to_proto()
    del source.layer[1].blobs[1]
    with pytest.raises(WeightsError, match=r"^w: layer 'conv' has another number of blobs; got 1, want 2, as the net"):
        small().copy_from(source, "w")


def test_the_old_four_axes_fit_a_bias_and_a_matrix():
    source = small(text=SHARED).to_proto()
    for layer in source.layer:
        for blob in layer.blobs:
            blob.clear("shape")
            blob.num, blob.channels, blob.height, blob.width = 1, 1, 4, 4
    target = Net(message(SHARED), seed=5)
    target.copy_from(source)
    np.testing.assert_array_equal(target.params["a"][0].detach().numpy().reshape(-1), source.layer[1].blobs[0].data)


def test_two_nets_may_share_their_memory():
    net, other = small(Phase.TRAIN), small(Phase.TEST)
    other.share_with(net)
    with torch.no_grad():
        net.params["conv"][0].fill_(7)
    assert (other.params["conv"][0] == 7).all()
    wide = NET.replace("num_output: 4 kernel_size: 3", "num_output: 6 kernel_size: 3")
    with pytest.raises(
        WeightsError, match=r"^cannot share the weights of layer 'conv'; got \[\(6, 3, 3, 3\), \(6,\)\]"
    ):
        net.share_with(small(text=wide))


def test_load_reads_a_net_and_its_weights_from_files(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    source = small()
    caffemodel.dump(source.to_proto(), tmp_path / "w.caffemodel")
    net = load(tmp_path / "net.prototxt", tmp_path / "w.caffemodel")
    assert torch.equal(net.params["conv"][0], source.params["conv"][0])


TRAIN_VAL = """
layer { name: "d" type: "%s" top: "data" top: "label" include { phase: TRAIN } transform_param { crop_size: 4 } %s }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
MISSING = 'source: "missing" batch_size: 2'


@pytest.mark.parametrize(
    ("kind", "param"),
    [("Data", f"data_param {{ {MISSING} }}"), ("ImageData", f"image_data_param {{ {MISSING} }}"),
     ("WindowData", f"window_data_param {{ {MISSING} }}")],
)  # fmt: skip
def test_a_train_val_net_is_loaded_and_fed_where_its_data_are_missing(kind, param, tmp_path):
    path = tmp_path / "train_val.prototxt"
    path.write_text(TRAIN_VAL % (kind, param))
    net = load(path, state=Phase.TRAIN, inputs={"data": (2, 1, 4, 4), "label": (2,)})
    assert net.inputs == ["data", "label"]
    loss = net({"data": torch.zeros(5, 1, 4, 4), "label": torch.zeros(5)})["loss"]
    assert loss.item() == pytest.approx(np.log(3))
    with pytest.raises(ReproductionError) as error:
        load(path, state=Phase.TRAIN)
    assert error.value.remedy == "Pass inputs={'data': (2, C, 4, 4), 'label': (2,)}."


def stored(net, *layers):
    """Return the weights of some layers as a message."""
    proto = net.to_proto()
    proto.layer = [layer for layer in proto.layer if layer.name in layers]
    return proto


@pytest.mark.parametrize(("phase", "layers"), [(Phase.TEST, ["conv", "up"]), (Phase.TRAIN, ["conv", "score", "up"])])
def test_fillers_that_run_late_draw_the_same_numbers(phase, layers):
    weights = stored(Net(message(), seed=5), *layers)
    torch.manual_seed(3)
    want = Net(message(), phase)
    want.copy_from(weights)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    with fillers.postpone() as fillings:
        got = Net(message(), phase)
    got.copy_from(weights, fillings=fillings)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, got.state_dict().values(), want.state_dict().values()))


def test_no_number_is_drawn_for_weights_that_a_file_has(tmp_path):
    trained = Net(message(), seed=5)
    caffemodel.dump(trained.to_proto(), tmp_path / "all.caffemodel")
    (tmp_path / "net.prototxt").write_text(NET)
    state = torch.get_rng_state()
    net = load(tmp_path / "net.prototxt", tmp_path / "all.caffemodel")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, net.state_dict().values(), trained.state_dict().values()))


def test_a_filler_is_checked_also_if_it_never_runs():
    with pytest.raises(NetError, match=r"the gaussian filler needs a positive std; got -1\.0"), fillers.postpone():
        small(text=NET.replace("std: 0.1", "std: -1"))


def test_values_that_a_layer_sets_itself_are_not_filled_over():
    with fillers.postpone() as fillings:
        blob = Layer(LayerParameter(top=["x"]), [(1,)]).add_blob((2, 3))
        blob.data[0] = 4
    for fill in fillings:
        fill()
    assert blob.tolist() == [[4, 4, 4], [0, 0, 0]]

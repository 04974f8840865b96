"""Compiled nets, compared with the nets that they were compiled from."""

import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.fast import compiler, convolution, kernels, precisions
from reproduction.fast.convolution import ConvolutionOp
from reproduction.fast.precisions import PRECISIONS, supported_precision
from reproduction.fcn.nets import published_nets
from tests.golden import seeded
from tests.helpers import thin_nets
from tests.helpers.parity import relative

EXACT = 2e-5

pytestmark = pytest.mark.usefixtures("always_winograd")

MIXED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 20 dim: 20 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 32 kernel_size: 3 pad: 30 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 weight_filler { type: "xavier" }
  bias_filler { type: "constant" value: 0.3 } } }
layer { name: "leaky" type: "ReLU" bottom: "conv2" top: "conv2" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv2" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" lrn_param { local_size: 5 alpha: 0.1 } }
layer { name: "drop" type: "Dropout" bottom: "norm" top: "norm" }
layer { name: "conv3" type: "Convolution" bottom: "norm" top: "conv3"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 4
  weight_filler { type: "xavier" } } }
layer { name: "average" type: "Pooling" bottom: "norm" top: "average"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "halves" type: "Slice" bottom: "average" top: "left" top: "right" }
layer { name: "join" type: "Concat" bottom: "left" bottom: "right" bottom: "average" top: "join" }
layer { name: "reduce" type: "Convolution" bottom: "join" top: "reduce"
  convolution_param { num_output: 8 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "small" type: "Crop" bottom: "reduce" bottom: "conv3" top: "small" crop_param { axis: 2 offset: 0 } }
layer { name: "sum" type: "Eltwise" bottom: "small" bottom: "conv3" top: "sum" }
layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up"
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "up" top: "prob" }
layer { name: "mean" type: "Pooling" bottom: "conv3" top: "mean" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "mean" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "best" type: "ArgMax" bottom: "fc" top: "best" }
"""


def images(net, height, width, batch=1, seed=3):
    made = [seeded.inputs(net.inputs, height, width, 21, seed + i) for i in range(batch)]
    return {name: torch.cat([torch.from_numpy(one[name]) for one in made]) for name in net.inputs}


def differ(net, compiled, inputs, blobs):
    """The greatest error of any of these blobs."""
    with torch.inference_mode():
        want = net(inputs, blobs)
    got = compiled(inputs, blobs)
    assert list(got) == list(want)
    assert not compiled._buffers._in_use, "all buffers are released"
    return max(relative(got[name].numpy(), want[name].numpy()) for name in want)


def blobs_of(net):
    return [name for name in net.blob_shapes if "_split" not in name]


@pytest.mark.parametrize("name", published_nets.NETS)
def test_every_blob_of_the_published_nets_equals_that_of_the_uncompiled_net(name):
    net = thin_nets.net(name, divisor=16)
    compiled = compiler.compile(net)
    inputs = images(net, 75, 102)
    assert differ(net, compiled, inputs, blobs_of(net)) < EXACT
    assert differ(net, compiled, inputs, None) < EXACT


@pytest.mark.parametrize("precision", ["exact", "winograd", "bf16"])
def test_sizes_and_batches_change_at_every_call(monkeypatch, precision):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)  # torch supports it, if not the processor
    net = thin_nets.net("voc-fcn8s", divisor=16)
    compiled = compiler.compile(net, precision)
    assert compiled.precision == precision
    allowed = {"exact": EXACT, "winograd": 1e-4, "bf16": 3e-2}[precision]
    for height, width, batch in [(160, 96, 1), (160, 97, 2), (31, 260, 1), (160, 96, 3), (1, 1, 1), (224, 128, 1)]:
        assert differ(net, compiled, images(net, height, width, batch), ["score"]) < allowed


def test_a_net_of_compiled_and_uncompiled_layers_computes_the_same():
    torch.manual_seed(1)
    net = Net(prototxt.loads(MIXED, NetParameter), seed=2)
    compiled = compiler.compile(net)
    for height, width in [(20, 20), (90, 75), (33, 140)]:
        inputs = images(net, height, width, 2)
        assert differ(net, compiled, inputs, blobs_of(net)) < EXACT
        for blob in blobs_of(net):
            assert differ(net, compiled, inputs, [blob]) < EXACT, blob


AFTER_OTHERS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 64 dim: 22 dim: 22 } } }
layer { name: "soft" type: "Softmax" bottom: "data" top: "soft" }
layer { name: "halves" type: "Slice" bottom: "soft" top: "left" top: "right" }
layer { name: "conv1" type: "Convolution" bottom: "soft" top: "conv1"
  convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "conv2" type: "Convolution" bottom: "right" top: "conv2"
  convolution_param { num_output: 32 kernel_size: 7 weight_filler { type: "xavier" } } }
"""


def test_a_convolution_pads_the_top_of_an_uncompiled_layer():
    net = Net(prototxt.loads(AFTER_OTHERS, NetParameter), seed=2)
    compiled = compiler.compile(net)
    assert "Winograd F(4x4, 3x3)" in compiled.explain(22, 22, ["conv1"])
    assert "Winograd F(3x1, 7x7)" in compiled.explain(22, 22, ["conv2"])
    assert differ(net, compiled, {"data": torch.randn(2, 64, 22, 22)}, ["conv1", "conv2"]) < EXACT


OTHER_AXES = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 32 dim: 9 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "rows" type: "Convolution" bottom: "conv" top: "rows"
  convolution_param { axis: 2 num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "rows" top: "rows" }
layer { name: "deep" type: "Reshape" bottom: "conv" top: "deep"
  reshape_param { shape { dim: 1 dim: 4 dim: 8 dim: 7 dim: 7 } } }
layer { name: "size" type: "DummyData" top: "size" dummy_data_param { shape { dim: 1 dim: 1 dim: 5 dim: 4 dim: 3 } } }
layer { name: "crop" type: "Crop" bottom: "deep" bottom: "size" top: "crop" crop_param { axis: 2 offset: 1 } }
"""


def test_layers_along_other_axes_than_rows_and_columns_run_as_they_are():
    net = Net(prototxt.loads(OTHER_AXES, NetParameter), seed=2)
    compiled = compiler.compile(net)
    assert differ(net, compiled, {"data": torch.randn(1, 32, 9, 9)}, ["conv", "rows", "crop"]) < EXACT


IN_THE_PADDING = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { kernel_size: 2 } }
layer { name: "conv" type: "Convolution" bottom: "pool" top: "conv"
  convolution_param { num_output: 4 kernel_size: 1 pad: 8 bias_filler { type: "constant" value: 0.3 } } }
layer { name: "crop" type: "Crop" bottom: "conv" bottom: "pool" top: "crop" crop_param { axis: 2 offset: 16 } }
layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up" convolution_param { num_output: 3 group: 3
  kernel_size: 1 stride: 20 weight_filler { type: "constant" value: 1 } } }
layer { name: "gap" type: "Crop" bottom: "up" bottom: "pool" top: "gap" crop_param { axis: 2 offset: 23 } }
"""


@pytest.mark.parametrize("blob", ["crop", "gap"])
def test_a_crop_may_read_nothing_but_padding(blob):
    net = Net(prototxt.loads(IN_THE_PADDING, NetParameter), seed=2)
    assert differ(net, compiler.compile(net), {"data": torch.randn(1, 3, 9, 9)}, [blob]) < EXACT


def test_sizes_with_the_same_remainders_share_one_image_of_zeros():
    net = thin_nets.net("voc-fcn8s", divisor=16)
    compiled = compiler.compile(net)
    for height, width in [(160, 192), (192, 160), (224, 256)]:
        assert differ(net, compiled, images(net, height, width), ["score", "pool2", "conv3_1"]) < EXACT
    assert len(compiled._planner.zero_images) == 1
    assert all(cached.plan.zero_image_blobs for cached in compiled._plans.values())


def test_what_the_image_does_not_reach_is_not_computed():
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", divisor=16))
    rows = {line.split("  ")[0]: line for line in compiled.explain(256, 256, ["score"]).splitlines()}
    assert "131 x 131" in rows["pool1"]
    assert "24 x 24" in rows["conv5_1"], "what the image reaches; the other pixels are those of an image of zeros"
    assert "its borders from an image of zeros" in rows["pool3"]
    assert "Winograd F(4x4, 3x3) with ReLU" in rows["conv5_1"]
    assert "Winograd F(3x1, 7x7) with ReLU" in rows["fc6"]
    assert "two products of matrices" in rows["upscore8"]
    made, of = (int(text.replace(",", "")) for text in rows["total"].split()[1:])
    assert made < 0.6 * of


def test_blobs_that_are_not_requested_are_not_computed():
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", divisor=16))
    table = compiled.explain(64, 64, ["pool3"])
    assert "conv3_3" in table
    assert "conv4_1" not in table


def test_the_least_recently_used_plans_are_dropped():
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", divisor=64))
    for width in range(1, compiler._PLANS + 4):
        compiled(images(compiled.net, 1, width), ["pool1"])
    assert len(compiled._plans) == compiler._PLANS


def test_results_are_not_overwritten_by_the_next_call():
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", divisor=32))
    first = compiled(images(compiled.net, 40, 50, seed=1))["score"]
    kept = first.clone()
    compiled(images(compiled.net, 40, 50, seed=2))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("layer", ["conv2_1", "fc7", "score_fr"])  # by Winograd, as a matrix, by torch
@pytest.mark.parametrize("blob", [0, 1])
def test_an_in_place_change_of_the_weights_is_detected_at_the_next_call(monkeypatch, layer, blob):
    monkeypatch.setattr(convolution, "LARGE", 1 << 14)
    net = thin_nets.net("voc-fcn32s", divisor=32)
    inputs, compiled = images(net, 40, 50), compiler.compile(net)
    before = compiled(inputs)["score"]
    with torch.no_grad():
        net.params[layer][blob].add_(0.1)
    assert not torch.allclose(compiled(inputs)["score"], before)
    assert differ(net, compiled, inputs, ["score", "conv2_1"]) < EXACT


def test_a_change_is_detected_beside_parameters_that_were_made_in_inference_mode():
    with torch.inference_mode():
        net = thin_nets.net("voc-fcn32s", divisor=32)
    inputs, compiled = images(net, 40, 50), compiler.compile(net)
    compiled(inputs)
    net.layers["score_fr"].weight = torch.nn.Parameter(net.params["score_fr"][0] + 0.1)
    assert differ(net, compiled, inputs, ["score"]) < EXACT
    with torch.no_grad():
        net.params["score_fr"][0].add_(0.1)
    assert differ(net, compiled, inputs, ["score"]) < EXACT


def replace(net, other):
    net.layers["score_fr"].weight = other.layers["score_fr"].weight


@pytest.mark.parametrize(
    "change",
    [
        replace,
        lambda net, other: net.load_state_dict(other.state_dict(), assign=True),
        lambda net, other: net.share_with(other),
        lambda net, _: net.double(),
    ],
    ids=["attribute", "load_state_dict", "share_with", "double"],
)
def test_a_replaced_parameter_is_detected_at_the_next_call(change):
    net, other = (thin_nets.net("voc-fcn32s", divisor=32) for _ in range(2))
    with torch.no_grad():
        other.params["score_fr"][0].add_(0.1)
    inputs, compiled = images(net, 40, 50), compiler.compile(net)
    before = compiled(inputs)["score"]
    change(net, other)
    assert not torch.equal(compiled(inputs)["score"], before)
    assert differ(net, compiled, inputs, ["score"]) < EXACT


def test_large_tops_are_written_to_buffers_that_are_reused(monkeypatch):
    monkeypatch.setattr(convolution, "LARGE_TOP", 1)
    net = thin_nets.net("voc-fcn8s", divisor=8)
    compiled, inputs = compiler.compile(net), images(net, 40, 50)
    assert differ(net, compiled, inputs, ["score", "conv1_1"]) < EXACT
    steps = next(iter(compiled._plans.values())).plan.steps
    assert [step.kernel.needs_out for step in steps if step.ops[0].name == "conv1_1"] == [True]


def test_a_matrix_convolution_does_not_copy_the_weights(monkeypatch):
    monkeypatch.setattr(convolution, "LARGE", 1 << 14)
    net = thin_nets.net("voc-fcn32s", divisor=32)
    compiled = compiler.compile(net)
    lying = {
        op.name: op._direct.weight
        for op in compiled._ops
        if isinstance(op, ConvolutionOp) and isinstance(op._direct, kernels.MatrixConvolution)
    }
    assert set(lying) == {"fc6", "fc7"}
    for name, weight in lying.items():
        assert weight.data_ptr() == net.params[name][0].data_ptr()


def test_discard_keeps_large_weights_once_in_memory(monkeypatch):
    monkeypatch.setattr(convolution, "LARGE", 1 << 15)
    net, kept = (thin_nets.net("voc-fcn8s", divisor=8) for _ in range(2))
    compiled = compiler.compile(net, discard=True)
    inputs = images(net, 40, 50)
    assert differ(kept, compiled, inputs, ["score", "conv3_1"]) < EXACT
    freed = {name for name, p in net.named_parameters() if p.untyped_storage().nbytes() == 4}
    assert "conv5_1.weight" in freed
    assert "score_fr.weight" not in freed
    assert all(dict(net.named_parameters())[name].isnan().all() for name in freed), "NaN, not wrong"
    names = compiled.state_dict()
    assert list(names) == list(kept.state_dict())
    assert not any(tensor.isnan().any() for tensor in names.values()), "they distinguish one run from another"
    with torch.no_grad():
        net.params["score_fr"][0].zero_()
    with pytest.raises(NetError) as error:
        compiled(inputs)
    want = "the net was changed after compile() had freed its weights. Compile it again."
    assert str(error.value) == want


SHARED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 32 dim: 9 dim: 9 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { name: "w" }
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "b" type: "Deconvolution" bottom: "a" top: "b" param { name: "w" }
  convolution_param { num_output: 32 kernel_size: 3 bias_term: false weight_filler { type: "xavier" } } }
"""


RESHAPED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 32 dim: 9 dim: 9 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" param { name: "w" }
  convolution_param { num_output: 64 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" param { name: "w" share_mode: PERMISSIVE }
  convolution_param { num_output: 32 kernel_size: 3 bias_term: false weight_filler { type: "xavier" } } }
"""


@pytest.mark.parametrize("text", [SHARED, RESHAPED])
def test_weights_that_another_layer_reads_are_not_freed(monkeypatch, text):
    monkeypatch.setattr(convolution, "LARGE", 1)
    torch.manual_seed(1)
    net, kept = (Net(prototxt.loads(text, NetParameter), seed=2) for _ in range(2))
    kept.load_state_dict(net.state_dict())
    compiled = compiler.compile(net, discard=True)
    assert differ(kept, compiled, {"data": torch.randn(1, 32, 9, 9)}, ["a", "b"]) < EXACT


def test_double_precision_is_kept():
    net = thin_nets.net("voc-fcn8s", divisor=32).double()
    compiled = compiler.compile(net)
    inputs = images(net, 40, 50)
    assert compiled(inputs)["score"].dtype is torch.float64
    assert differ(net, compiled, inputs, ["score"]) < 1e-12


def test_errors_are_those_of_the_net():
    net = thin_nets.net("voc-fcn8s", divisor=32)
    compiled = compiler.compile(net)
    for wrong in (
        lambda run: run({}),
        lambda run: run({"data": torch.zeros(3, 8, 8)}),
        lambda run: run({"data": torch.zeros(1, 2, 8, 8)}),
        lambda run: run(images(net, 8, 8), ["scores"]),
    ):
        texts = []
        for run in (net, compiled):
            with pytest.raises(NetError) as error:
                wrong(run)
            texts.append(str(error.value))
        assert texts[0] == texts[1]
    assert differ(net, compiled, images(net, 8, 8), ["score"]) < EXACT


def test_a_net_in_training_and_an_unknown_precision_are_refused():
    net = thin_nets.net("voc-fcn8s", divisor=64)
    with pytest.raises(NetError) as error:
        compiler.compile(net, "float8")
    assert str(error.value) == "there is no such precision; got 'float8', want exact, winograd, tf32, bf16."
    with pytest.raises(NetError) as error:
        compiler.compile(Net(thin_nets.deploy("voc-fcn8s", 64), Phase.TRAIN))
    assert str(error.value) == "a net is compiled for inference; got phase TRAIN, want phase TEST."


@pytest.mark.parametrize(
    ("device", "bf16", "found"),
    [
        ("cpu", False, ["exact", "winograd", "winograd", "winograd"]),
        ("cpu", True, ["exact", "winograd", "winograd", "bf16"]),
        ("cuda", False, ["exact", "exact", "tf32", "bf16"]),
    ],
)
def test_a_device_without_a_precision_takes_the_next_more_exact_one(monkeypatch, device, bf16, found):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: bf16)
    assert [supported_precision(name, device) for name in PRECISIONS] == found


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "allowed"), [("exact", EXACT), ("winograd", 1e-4), ("bf16", 3e-2)])
def test_a_net_of_full_width_agrees(monkeypatch, precision, allowed):
    monkeypatch.setattr(precisions, "multiplies_bf16", lambda: True)
    net = thin_nets.net("voc-fcn8s", divisor=1)
    compiled = compiler.compile(net, precision)
    inputs = images(net, 64, 96)
    with torch.inference_mode():
        want = net(inputs, ["score"])["score"]
    got = compiled(inputs, ["score"])["score"]
    assert relative(got.numpy(), want.numpy()) < allowed
    if precision != "bf16":
        assert (got.argmax(1) == want.argmax(1)).float().mean() >= 0.9999

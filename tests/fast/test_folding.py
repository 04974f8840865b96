"""Layers folded into convolutions: each form against the net, also where a blob in between is requested."""

import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fast import compiler
from tests.helpers.parity import relative

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 dim: 9 dim: 9 } } }\n'
EXACT = 2e-5


def layer(name, kind, bottoms, top="", param=""):
    places = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {places} top: "{top or name}" {param} }}\n'


def conv(name, bottom="data", param="kernel_size: 3 pad: 1"):
    return layer(name, "Convolution", bottom, param=f"convolution_param {{ num_output: 8 {param} }}")


def build(text):
    net = Net(prototxt.loads(DATA + text, NetParameter), seed=1)
    torch.manual_seed(1)
    with torch.no_grad():
        for found in net.layers.values():
            for blob in found.blobs:
                blob.normal_(0, 0.3)
                if found.layer_param.type == "BatchNorm":
                    blob.abs_().add_(0.5)
    return net


def check(net, compiled, *requests):
    x = torch.randn(net.blob_shapes["data"])
    for names in requests or [None]:
        with torch.inference_mode():
            want = net({"data": x}, names)
        for _ in range(5):  # from the fourth call on, oneDNN computes the steps
            for name, found in compiled({"data": x}, names).items():
                assert relative(found.numpy(), want[name].detach().numpy()) < EXACT, name


def steps(compiled, names=None):
    """Return the description of each step of the plan, by the layer that it starts with."""
    rows = compiled.explain(9, 9, names).splitlines()[1:]
    return {row.split("  ")[0]: row for row in rows if not row.startswith("total") and "saved" not in row}


BATCH_NORM, SCALE = layer("bn", "BatchNorm", "c"), layer("sc", "Scale", "bn", param="scale_param { bias_term: true }")
CHAINS = {
    "relu": (conv("c") + layer("r", "ReLU", "c"), "c"),
    "batch norm": (conv("c", param="kernel_size: 1 bias_term: false") + BATCH_NORM + SCALE, "c"),
    "all": (conv("c") + BATCH_NORM + SCALE + layer("r", "ReLU", "sc"), "c"),
    "groups": (conv("c", param="kernel_size: 3 stride: 2 group: 2") + BATCH_NORM + SCALE, "c"),
    "bias": (conv("c") + layer("b", "Bias", "c"), "c"),
    "one number": (conv("c") + layer("s", "Scale", "c", param="scale_param { num_axes: 0 }"), "c"),
    "sum": (conv("a") + conv("c") + layer("s", "Eltwise", "c a") + layer("r", "ReLU", "s"), "a c"),
    "sum the other way": (conv("c") + conv("b") + layer("s", "Eltwise", "c b"), "b c"),
    "normalized sum": (
        conv("a") + conv("c") + BATCH_NORM + SCALE + layer("s", "Eltwise", "a sc") + layer("r", "ReLU", "s", "s"),
        "a c",
    ),
    "no convolution before": (
        layer("c", "TanH", "data") + BATCH_NORM + SCALE + layer("r", "ReLU", "sc", "sc") + conv("d", "sc"),
        "bn c d",
    ),
}


@pytest.mark.parametrize("how", ["oneDNN", "as torch does it"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_of_layers_is_one_step(monkeypatch, always_winograd, name, how):
    if how == "as torch does it":
        monkeypatch.setattr("reproduction.fast.convolution.is_available", lambda: False)
    text, starts = CHAINS[name]
    net = build(text)
    compiled = compiler.compile(net)
    found = steps(compiled)
    assert " ".join(sorted(found)) == starts
    assert how in found[starts.split()[-1]]
    # The complete chain, each blob by itself, all blobs at once, and the complete chain again.
    blobs = [blob for blob in net.blob_shapes if "_split" not in blob]
    check(net, compiled, None, *([blob] for blob in blobs), blobs, None)


APART = {
    "two readers": conv("c") + layer("r", "ReLU", "c") + layer("t", "TanH", "c"),
    "a sum with coefficients": conv("a")
    + conv("c")
    + layer("s", "Eltwise", "a c", param="eltwise_param { coeff: 1 coeff: -1 }"),
    "a product": conv("a") + conv("c") + layer("s", "Eltwise", "a c", param="eltwise_param { operation: PROD }"),
    "a sum with itself": conv("c") + layer("s", "Eltwise", "c c"),
    "statistics of the batch": conv("c")
    + layer("bn", "BatchNorm", "c", param="batch_norm_param { use_global_stats: false }"),
    "a slope": conv("c") + layer("r", "ReLU", "c", param="relu_param { negative_slope: 0.1 }"),
    "after a ReLU": conv("c") + layer("r", "ReLU", "c", "c") + layer("b", "Bias", "c"),
    "a factor for each pixel": conv("c") + layer("s", "Scale", "c", param="scale_param { num_axes: -1 }"),
}


@pytest.mark.parametrize("name", APART)
def test_a_layer_that_cannot_be_folded_is_a_step_of_its_own(name):
    net = build(APART[name])
    compiled = compiler.compile(net)
    last = list(net.layers)[-1]
    assert last in steps(compiled)
    check(net, compiled)


def test_folded_statistics_that_change_are_noticed():
    net = build(CHAINS["all"][0])
    compiled = compiler.compile(net)
    check(net, compiled)
    with torch.no_grad():
        net.params["bn"][1].mul_(3)
    check(net, compiled)

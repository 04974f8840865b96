"""Warnings for nets on which an in-place layer changes Caffe's results, by overwriting a blob that is still read."""

import warnings

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionWarning
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }\n'
CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 1 '
    'weight_filler { type: "gaussian" std: 1 } } }\n'
)


def layer(name, kind, bottom="c", top="c", rest=""):
    ends = "".join(f'bottom: "{b}" ' for b in bottom.split()) + "".join(f'top: "{t}" ' for t in top.split())
    return f'layer {{ name: "{name}" type: "{kind}" {ends}{rest} }}\n'


def loss(blob="c"):
    return layer("l", "Reduction", blob, "l", "loss_weight: 1 reduction_param { operation: SUMSQ }")


SCALE = layer("s", "Scale", rest="scale_param { bias_term: true }")
LEAKY = layer("r", "ReLU", rest="relu_param { negative_slope: 0.25 }")
FROZEN = CONV.replace("convolution_param", "param { lr_mult: 0 } param { lr_mult: 0 } convolution_param")


def built(*layers, head="", phase=Phase.TRAIN):
    """A net and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = Net(prototxt.loads(head + INPUT + "".join(layers), NetParameter), phase)
    assert all(issubclass(w.category, ReproductionWarning) for w in caught)
    return net, [str(w.message) for w in caught]


def test_a_warning_names_both_layers():
    _, (text,) = built(CONV, layer("a", "Sigmoid"), SCALE, loss())
    assert text == (
        "layer 'a' (Sigmoid), line 3: Caffe computes another gradient, since its backward reads the top after layer "
        "'s' (Scale), line 4, has overwritten it; here it reads the values of the forward pass. Give the top of 's' "
        "another name, and the numbers are the same in both."
    )


def test_a_layer_that_is_wrong_in_place_is_named():
    other = CONV.replace('"c"', '"d"').replace('"conv"', '"conv2"')
    _, (text,) = built(CONV, other, layer("e", "Eltwise", "c d"), loss())
    assert text == (
        "layer 'e' (Eltwise), line 4: in place, Caffe overwrites what it still has to read, and computes other values; "
        "here both are right. Give the top another name, and the numbers are the same in both."
    )
    _, (text,) = built(CONV, layer("m", "MVN"), loss())
    assert "computes another gradient" in text


def test_a_flatten_behind_a_reshape_is_named():
    reshape = layer("r", "Reshape", "c", "r", "reshape_param { shape { dim: 0 dim: -1 dim: 5 } }")
    _, (text,) = built(CONV, reshape, layer("f", "Flatten", "r", "f"), loss("f"))
    assert text == (
        "layer 'r' (Reshape), line 3: Caffe passes no gradient on, since layer 'f' (Flatten), line 4, replaces the "
        "memory of the gradient that top and bottom share; here the gradient passes. Replace both by one Reshape "
        "layer, and the numbers are the same in both."
    )


@pytest.mark.parametrize(
    "layers",
    [
        [layer("a", "ELU"), LEAKY],
        [layer("a", "TanH", "c", "n"), layer("s", "Scale", "n", "n"), loss("n")],
        [layer("a", "Softmax"), SCALE],
        [layer("a", "MVN", "c", "n"), layer("r", "ReLU", "n", "n"), loss("n")],
        [layer("a", "LRN", "c", "n"), layer("r", "ReLU", "n", "n"), loss("n")],
        [layer("a", "ReLU"), layer("b", "BatchNorm")],
        [layer("a", "ReLU"), layer("s", "Scale")],
        [layer("a", "Sigmoid"), layer("d", "Dropout")],
        [layer("a", "BNLL"), SCALE],
        [layer("a", "Clip", rest="clip_param { min: -1 max: 1 }"), SCALE],
        [layer("a", "Power", rest="power_param { scale: 2 }")],
        [layer("a", "Log", rest="log_param { shift: 9 }")],
        [layer("a", "PReLU", "c", "n"), layer("s", "Scale", "n", "n"), layer("q", "Sigmoid", "n", "n"),
         layer("z", "Bias", "n", "n"), loss("n")],
        # the memory of a Reshape's top is that of its bottom
        [layer("a", "Sigmoid", "c", "a"), layer("q", "Reshape", "a", "q", "reshape_param { shape { dim: 2 dim: -1 } }"),
         layer("s", "Scale", "q", "q"), loss("q")],
        # a convolution reads, for its weights, what another branch overwrites
        [layer("p", "Split", "c", "c1 c2"),
         layer("k", "InnerProduct", "c1", "k", "inner_product_param { num_output: 3 }"),
         layer("q", "Reshape", "c2", "q", "reshape_param { shape { dim: 2 dim: -1 } }"), layer("t", "TanH", "q", "q"),
         layer("m", "Reduction", "q", "m", "loss_weight: 1"), loss("k")],
    ],
    ids=lambda layers: layers[0].split('"')[3],
)  # fmt: skip
def test_these_are_warned_of(layers):
    _, texts = built(CONV, *layers, *([] if 'name: "l"' in layers[-1] else [loss()]))
    assert len(texts) == 1


@pytest.mark.parametrize(
    "layers",
    [
        [layer("a", "ReLU"), layer("d", "Dropout")],
        [layer("a", "ReLU"), LEAKY],
        [layer("a", "ReLU"), layer("b", "PReLU")],
        [layer("b", "BatchNorm"), SCALE, layer("a", "ReLU")],
        [SCALE, layer("a", "ReLU"), layer("d", "Dropout")],
        [layer("a", "Sigmoid"), LEAKY],
        [layer("a", "Softmax"), layer("r", "ReLU")],
        [layer("a", "Exp"), LEAKY],
        [layer("a", "Sigmoid"), layer("d", "Dropout", rest="dropout_param { dropout_ratio: 0 }")],
        [layer("a", "PReLU"), SCALE],
        [layer("a", "ELU"), layer("q", "Reshape", "c", "q", "reshape_param { shape { dim: 2 dim: -1 } }"), loss("q")],
        [layer("f", "Flatten", "c", "f"), loss("f")],
        [layer("a", "Sigmoid", "c", "n"), layer("s", "Scale", "n", "m"), loss("m")],
        [layer("e", "Eltwise", "c x", "n"), loss("n")],
    ],
    ids=lambda layers: "-".join(text.split('"')[3] for text in layers),
)
def test_these_are_not(layers):
    assert built(CONV, *layers, *([] if 'name: "l"' in layers[-1] else [loss()]))[1] == []


def test_without_a_gradient_only_wrong_values_are_warned_of():
    chain = (
        layer("a", "Sigmoid"),
        SCALE.replace("scale_param", "param { lr_mult: 0 } param { lr_mult: 0 } scale_param"),
    )
    assert built(FROZEN, *chain, loss())[1] == []
    assert built(CONV, *chain)[1] == []  # no loss
    assert len(built(FROZEN, *chain, loss(), head="force_backward: true ")[1]) == 1
    assert built(CONV, layer("m", "MVN"), phase=Phase.TEST)[1] == []
    assert len(built(CONV, layer("m", "LRN"), phase=Phase.TEST)[1]) == 1


def test_gradients_are_right_all_the_same():
    net, texts = built(CONV, layer("a", "TanH"), SCALE, loss())
    apart, none = built(CONV, layer("a", "TanH", "c", "d"), SCALE.replace('"c"', '"d"').replace('top: "d"', 'top: "e"'),
                        loss("e"))  # fmt: skip
    assert texts
    assert not none
    apart.load_state_dict(net.state_dict())
    x = np.random.RandomState(0).randn(2, 3, 4, 5).astype(np.float32)
    for one in (net, apart):
        one.loss(one({"x": x})).backward()
    for (name, p), q in zip(net.named_parameters(), apart.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name

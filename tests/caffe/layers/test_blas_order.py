"""Layers in the order of Caffe's BLAS equal Caffe's recorded results bit for bit."""

import re

import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.layers.base import Layer
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from tests.helpers import parity

IN_ORDER = {"Convolution", "Deconvolution", "InnerProduct", "LRN", "Split", "SoftmaxWithLoss"}
# Windows along other than two axes, the gradients of two bottoms added up, and LRN within a channel or over many.
TO_ROUNDING = {
    "conv_1d", "conv_3d", "conv_4d", "conv_no_spatial_axis", "conv_negative_axis", "conv_two_bottoms", "deconv_1d",
    "deconv_3d", "deconv_4d", "deconv_two_bottoms", "lrn_across_wide", "lrn_within", "lrn_within_ignores_k",
}  # fmt: skip
CASES = [
    case for case, text in parity.layer_cases().items() if re.search(r'\btype:\s*"(\w+)"', text).group(1) in IN_ORDER
]


@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_caffe_s_to_the_last_digit(monkeypatch, case):
    monkeypatch.setattr(Layer, "in_blas_order", True)
    errors = parity.layer_errors(case)
    exact = case not in TO_ROUNDING and blas.adds_in_order()
    assert max(errors.values()) <= (0 if exact else parity.LAYER_TOLERANCE), errors


@pytest.mark.parametrize("case", CASES)
def test_double_precision_is_served_as_without_the_order(monkeypatch, case):
    plain = parity.layer_errors(case, torch.float64)
    monkeypatch.setattr(Layer, "in_blas_order", True)
    assert parity.layer_errors(case, torch.float64) == plain


def test_a_split_adds_the_gradients_of_its_readers_up_in_their_order():
    text = 'layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" top: "c" top: "d" }'
    split = LAYERS["Split"](prototxt.loads(text, NetParameter).layer[0], [(1,)])
    split.in_blas_order = True
    x = torch.zeros(1, requires_grad=True)
    a, b, c, d = split(x)
    big = 2.0**24  # to which 1 can not be added
    (gradient,) = torch.autograd.grad(a + b + big * d, x)  # c has no reader
    assert float(gradient) == big + 2
    a, b, c, d = split(x)
    (gradient,) = torch.autograd.grad(big * a + b + c + d, x)
    assert float(gradient) == big


BEFORE_RELU = {
    "Scale": "scale_param { bias_term: true }",
    "Bias": "",
    "BatchNorm": "batch_norm_param { use_global_stats: true }",
    "LRN": "",
    "Power": "power_param { power: 2.5 shift: 9 }",
    "Softmax": "",
    "Convolution": "convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } }",
    "Deconvolution": "convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } }",
    "InnerProduct": "inner_product_param { num_output: 4 weight_filler { type: 'xavier' } }",
    "Pooling": "pooling_param { pool: AVE kernel_size: 2 }",
}


@pytest.mark.parametrize("kind", BEFORE_RELU)
def test_a_relu_may_follow_in_place(kind):
    text = (
        "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: [2, 4, 5, 6] } } }"
        "layer { name: 'first' type: 'Convolution' bottom: 'data' top: 'first'"
        " convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: 'xavier' } } }"
        f"layer {{ name: 'x' type: '{kind}' bottom: 'first' top: 'x' {BEFORE_RELU[kind]} }}"
        "layer { name: 'relu' type: 'ReLU' bottom: 'x' top: 'x' }"
    )
    net = Net(prototxt.loads(text, NetParameter), Phase.TEST, blas_order=True, seed=1)
    net({"data": torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(1))})["x"].sum().backward()
    assert net.params["first"][0].grad.isfinite().all()

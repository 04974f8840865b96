"""Each algorithm for convolution has the values and gradients of torch's convolution, to rounding."""

import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.geometry import Window
from reproduction.caffe.layers.quick.convolve import convolve

SHAPES = {
    "classifier": (2, 6, 9, 8, 40, Window(7), Window(7)),
    "pointwise": (1, 5, 4, 3, 30, Window(1), Window(1)),
    "picture": (2, 3, 12, 13, 8, Window(3, 1, 4), Window(3, 1, 4)),
    "strided": (1, 3, 12, 13, 50, Window(3, 2, 1), Window(2, 3, 0, 2)),
    "narrow": (1, 16, 20, 20, 16, Window(3, 1, 1), Window(3, 1, 1)),
    "wide": (1, 130, 13, 13, 131, Window(3, 1, 1), Window(3, 1, 1)),
}


def operands(case):
    images, channels, height, width, outputs, tall, wide = SHAPES[case]
    draw = torch.Generator().manual_seed(0)
    shapes = (images, channels, height, width), (outputs, channels, tall.kernel, wide.kernel), (outputs,)
    x, weight, bias = (torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return (x, weight, bias), (tall, wide)


def direct(x, weight, bias, windows):
    stride, pad, dilation = ([getattr(w, name) for w in windows] for name in ("stride", "pad", "dilation"))
    return F.conv2d(x, weight, bias, stride, pad, dilation)


@pytest.mark.parametrize("case", SHAPES)
def test_values_and_gradients_are_those_of_torch(case):
    leaves, windows = operands(case)
    x, weight, bias = leaves
    top, want = convolve(x, weight, bias, windows, 1), direct(x, weight, bias, windows)
    torch.testing.assert_close(top, want)
    slope = torch.randn(want.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for got, expected in zip(
        torch.autograd.grad(top, leaves, slope), torch.autograd.grad(want, leaves, slope), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("case", ["classifier", "pointwise", "picture"])
def test_products_have_second_derivatives(case):
    (x, weight, bias), windows = operands(case)

    def first(convolve):
        (slope,) = torch.autograd.grad(convolve(x, weight, bias).square().sum(), weight, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    torch.testing.assert_close(
        first(lambda x, weight, bias: convolve(x, weight, bias, windows, 1)),
        first(lambda x, weight, bias: direct(x, weight, bias, windows)),
    )


def test_a_product_without_a_bias():
    (x, weight, _), windows = operands("classifier")
    torch.testing.assert_close(convolve(x, weight, None, windows, 1), direct(x, weight, None, windows))


@pytest.mark.parametrize("case", SHAPES)
def test_the_next_layer_may_overwrite_the_top(case):
    leaves, windows = operands(case)
    x, weight, bias = leaves
    top = convolve(x, weight, bias, windows, 1)
    assert not top._is_view(), "autograd copies views before they are overwritten"
    F.relu(top, inplace=True).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)


def test_groups_are_torchs_own():
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 4, 5, 5, generator=draw), torch.randn(60, 2, 3, 3, generator=draw)
    window = Window(3)
    torch.testing.assert_close(convolve(x, weight, None, (window, window), 2), F.conv2d(x, weight, groups=2))

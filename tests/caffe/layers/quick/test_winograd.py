"""Winograd's convolution in training: values and gradients of torch, and only where gradients are wanted."""

import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.geometry import Window
from reproduction.caffe.layers.quick import winograd
from reproduction.caffe.layers.quick.convolve import convolve

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def arrays(shape, dtype=torch.float64, layout=torch.contiguous_format):
    images, channels, outputs, height, width = shape
    generator = torch.Generator().manual_seed(1)
    made = [
        torch.randn(shape, dtype=dtype, generator=generator)
        for shape in ((images, channels, height, width), (outputs, channels, 3, 3), (outputs,))
    ]
    made[0] = made[0].to(memory_format=layout)
    return [x.requires_grad_() for x in made]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("shape", "pads"),
    [
        ((1, 8, 12, 11, 14), (1, 1)),
        ((2, 8, 4, 9, 8), (0, 1)),
        ((1, 4, 4, 5, 30), (2, 0)),
        ((1, 4, 4, 3, 3), (0, 0)),
        ((1, 2, 3, 4, 5), (4, 3)),  # more padding than taps: the gradient of the bottom leaves rows out
        ((1, 3, 5, 100, 130), (1, 1)),  # several bands
    ],
)
def test_values_and_gradients_are_those_of_torch(shape, pads, layout):
    x, weight, bias = inputs = arrays(shape, layout=layout)
    top, want = winograd.convolve(x, weight, bias, pads), F.conv2d(x, weight, bias, 1, pads)
    assert top.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(want.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for found, expected in zip(
        (top, *torch.autograd.grad(top, inputs, gradient)),
        (want, *torch.autograd.grad(want, inputs, gradient)),
        strict=True,
    ):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * float(expected.detach().abs().max()))


def test_frozen_weights_and_the_image_get_no_gradient():
    x, weight, bias = arrays((1, 4, 4, 8, 8))
    top = winograd.convolve(x, weight.detach(), None, (1, 1))
    top.sum().backward()
    assert x.grad is not None
    winograd.convolve(x.detach(), weight, bias, (1, 1)).sum().backward()
    assert weight.grad is not None
    assert bias.grad.tolist() == [64.0] * 4


def test_the_gradient_can_be_differentiated():
    inputs = arrays((1, 1, 2, 2, 3))
    assert torch.autograd.gradgradcheck(lambda x, weight, bias: winograd.convolve(x, weight, bias, (1, 1)), inputs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_errors_in_single_precision_are_small(layout):
    x, weight, bias = inputs = arrays((1, 128, 128, 32, 32), torch.float32, layout)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    assert winograd.is_faster(x, weight)
    top = convolve(x, weight, bias, (Window(3, pad=1), Window(3, pad=1)), 1, learning=True)
    want = F.conv2d(exact[0], exact[1], exact[2], padding=1)
    gradient = torch.randn(want.shape, generator=torch.Generator().manual_seed(3))
    found = (top, *torch.autograd.grad(top, inputs, gradient))
    for one, other in zip(found, (want, *torch.autograd.grad(want, exact, gradient.double())), strict=True):
        assert float((one - other).detach().abs().max() / other.detach().abs().max()) < 1e-5


def test_it_is_used_only_where_asked_for_and_only_for_wide_convolutions_with_stride_1():
    x, weight, bias = (blob.detach() for blob in arrays((1, 128, 128, 32, 32), torch.float32))
    window = Window(3, pad=1)
    direct = F.conv2d(x, weight, bias, padding=1)
    assert torch.equal(convolve(x, weight, bias, (window, window), 1), direct)
    assert not torch.equal(convolve(x, weight, bias, (window, window), 1, learning=True), direct)
    for other in (Window(3, stride=2), Window(3, dilation=2)):
        want = F.conv2d(x, weight, bias, other.stride, 0, other.dilation)
        assert torch.equal(convolve(x, weight, bias, (other, other), 1, learning=True), want)
    assert not winograd.is_faster(x, weight[:64])
    assert not winograd.is_faster(x, weight[:, :64])
    assert not winograd.is_faster(x, weight[:, :, :1])
    assert not winograd.is_faster(x.half(), weight.half())
    assert not winograd.is_faster(x[:, :, :8, :8], weight)

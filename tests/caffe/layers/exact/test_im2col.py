"""Convolution and Deconvolution in the order of Caffe's BLAS: torch's values and gradients, to rounding."""

import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.geometry import Window
from reproduction.caffe.layers.exact import im2col

WINDOWS = [
    (Window(3, 1, 1), Window(3, 1, 1)),
    (Window(3, 2, 0, 2), Window(1, 3, 1)),
    (Window(5, 4, 2), Window(2, 1, 0)),
    (Window(1, 1, 0), Window(1, 1, 0)),
]


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


def assert_same(got, want, sources):
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    top = torch.randn_like(want)
    for mine, theirs in zip(
        torch.autograd.grad(got, sources, top), torch.autograd.grad(want, sources, top), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("values", [1, 1000, 1 << 23])  # so that there are many bands, several, one
@pytest.mark.parametrize("windows", WINDOWS)
def test_convolution_is_torch_s_to_rounding(monkeypatch, windows, values, group, bias):
    monkeypatch.setattr(im2col, "_VALUES", values)
    x, weight = randn(2, 4, 13, 17), randn(6, 4 // group, windows[0].kernel, windows[1].kernel)
    sources = [x, weight, *([randn(6)] if bias else [])]
    stride, pad, dilation = zip(*((w.stride, w.pad, w.dilation) for w in windows), strict=True)
    want = F.conv2d(x, weight, sources[2] if bias else None, stride, pad, dilation, group)
    assert_same(im2col.convolve(x, weight, sources[2] if bias else None, windows, group, {}), want, sources)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("values", [1, 1000, 1 << 23])
@pytest.mark.parametrize("windows", WINDOWS)
def test_deconvolution_is_torch_s_to_rounding(monkeypatch, windows, values, group, bias):
    monkeypatch.setattr(im2col, "_VALUES", values)
    x, weight = randn(2, 4, 5, 7), randn(4, 6 // group, windows[0].kernel, windows[1].kernel)
    sources = [x, weight, *([randn(6)] if bias else [])]
    stride, pad, dilation = zip(*((w.stride, w.pad, w.dilation) for w in windows), strict=True)
    want = F.conv_transpose2d(x, weight, sources[2] if bias else None, stride, pad, 0, group, dilation)
    got = im2col.convolve(x, weight, sources[2] if bias else None, windows, group, {}, want.shape[2:])
    assert_same(got, want, sources)


@pytest.mark.parametrize("source", [0, 1, 2])
def test_one_gradient_alone_can_be_asked_for(source):
    windows = (Window(3, 1, 1), Window(3, 1, 1))
    sources = [x.detach() for x in (randn(1, 2, 5, 5), randn(3, 2, 3, 3), randn(3))]
    sources[source].requires_grad_()
    x, weight, bias = sources
    top = im2col.convolve(x, weight, bias, windows, 1, {})
    want = F.conv2d(x, weight, bias, padding=1)
    assert_same(top, want, [sources[source]])

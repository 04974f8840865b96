"""Convolution in the order of Caffe's BLAS: the same numbers as torch's, to rounding, and gradients."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.geometry import Window
from reproduction.caffe.layers import blas


@pytest.mark.parametrize(
    ("depth", "sizes"),
    [
        (27, [27]),
        (320, [320]),
        (321, [160, 161]),
        (576, [288, 288]),
        (640, [320, 320]),
        (1152, [320, 320, 256, 256]),
        (4608, [320] * 13 + [224, 224]),
    ],
)
def test_a_sum_is_cut_as_openblas_cuts_it(depth, sizes):
    cuts = list(blas.blocks(depth))
    assert [cut.stop - cut.start for cut in cuts] == sizes
    assert cuts[-1].stop == depth


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    "windows",
    [(Window(3, 1, 1), Window(3, 1, 1)), (Window(3, 2, 0, 2), Window(1, 3, 1)), (Window(5, 4, 2), Window(2, 1, 0))],
)
def test_the_numbers_are_torch_s_to_rounding(monkeypatch, windows, group):
    monkeypatch.setattr(blas, "_COLUMNS", 2000)  # so that there are several bands
    x, bias = torch.randn(2, 4, 13, 17, requires_grad=True), torch.randn(6, requires_grad=True)
    weight = torch.randn(6, 4 // group, windows[0].kernel, windows[1].kernel, requires_grad=True)
    stride, pad, dilation = zip(*((w.stride, w.pad, w.dilation) for w in windows), strict=True)
    want = F.conv2d(x, weight, bias, stride, pad, dilation, group)
    got = blas.convolve(x, weight, bias, windows, group)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    top = torch.randn_like(want)
    for mine, theirs in zip(
        torch.autograd.grad(got, (x, weight, bias), top), torch.autograd.grad(want, (x, weight, bias), top), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_the_product_of_matrices_adds_block_by_block():
    rng = np.random.RandomState(3)
    a, b = rng.randn(5, 900).astype(np.float32), rng.randn(900, 7).astype(np.float32)
    np.testing.assert_allclose(blas.product(a, b), a @ b, rtol=1e-4, atol=1e-4)
    parts = [a[:, cut] @ b[cut] for cut in blas.blocks(900)]
    assert np.array_equal(blas.product(a, b), parts[0] + parts[1] + parts[2])

"""Winograd's convolutions, compared with torch's in double precision."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.layers.quick.winograd import WinogradMatrices
from reproduction.fast import winograd
from reproduction.fast.buffers import BufferPool
from reproduction.fast.winograd import WinogradConvolution
from tests.helpers.parity import relative

SINGLE = BufferPool(torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(("outputs", "taps"), [(4, 3), (4, 5), (2, 7), (3, 6), (3, 7), (1, 1)])
def test_the_winograd_matrices_compute_a_filter(outputs, taps):
    matrices = WinogradMatrices.compute(outputs, taps)
    rng = np.random.default_rng(0)
    data, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    want = [data[i : i + taps] @ kernel for i in range(outputs)]
    got = matrices.output @ ((matrices.kernel @ kernel) * (matrices.input @ data))
    np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize(("outputs", "taps"), [(3, 6), (2, 7)])
def test_the_winograd_matrices_for_large_kernels_are_exact_in_bfloat16(outputs, taps):
    matrices = WinogradMatrices.compute(outputs, taps)
    for matrix in (matrices.input, matrices.output):
        exact = torch.from_numpy(matrix)
        assert torch.equal(exact.bfloat16().double(), exact)


def convolve(weight, bias, x, outputs, *, relu, buffers=SINGLE):
    made = WinogradConvolution(weight, bias, outputs, relu=relu, dtype=buffers.dtype)
    taps = weight.shape[-1]
    high, wide = (size - taps + 1 for size in x.shape[2:])
    rows, columns = (-size % tile for size, tile in zip((high, wide), outputs, strict=True))
    padded = F.pad(x, (0, columns, 0, rows)).to(buffers.dtype)
    out = torch.full((len(x), high + 2, wide + 3, len(weight)), 7.0, dtype=buffers.dtype).permute(0, 3, 1, 2)
    made([padded.contiguous(memory_format=torch.channels_last)], out[:, :, 1:-1, 1:-2], buffers)
    border = out.clone()
    border[:, :, 1:-1, 1:-2] = 7
    assert (border == 7).all(), "wrote outside of its region"
    return out[:, :, 1:-1, 1:-2]


@pytest.mark.parametrize(("height", "width"), [(6, 6), (3, 9), (17, 22), (40, 13)])
@pytest.mark.parametrize(
    ("taps", "outputs", "allowed"),
    [(3, (4, 4), 2e-6), (5, (4, 4), 2e-5), (7, (2, 2), 2e-5), (6, (3, 1), 4e-6), (7, (3, 1), 8e-6)],
)
def test_winograd_convolves_images_of_any_size(height, width, taps, outputs, allowed):
    torch.manual_seed(taps)
    x = torch.randn(2, 48, height + taps - 1, width + taps - 1)
    weight, bias = torch.randn(80, 48, taps, taps) / taps, torch.randn(80)
    for relu in (False, True):
        want = F.conv2d(x.double(), weight.double(), bias.double())
        want = want.relu() if relu else want
        assert relative(convolve(weight, bias, x, outputs, relu=relu).numpy(), want.numpy()) < allowed


def test_many_output_channels_are_computed_in_slices(monkeypatch):
    monkeypatch.setattr(winograd, "_OUTPUTS", 32)
    x, weight, bias = torch.randn(1, 32, 12, 15), torch.randn(80, 32, 3, 3), torch.randn(80)
    want = F.conv2d(x.double(), weight.double(), bias.double()).relu()
    assert relative(convolve(weight, bias, x, (4, 4), relu=True).numpy(), want.numpy()) < 2e-6


def test_many_rows_of_tiles_are_computed_in_blocks_that_share_buffers():
    buffers = BufferPool(torch.float32, torch.device("cpu"))
    x, weight = torch.randn(1, 32, 402, 122), torch.randn(32, 32, 3, 3)
    got = convolve(weight, None, x, (4, 4), relu=False, buffers=buffers)
    assert relative(got.numpy(), F.conv2d(x.double(), weight.double()).numpy()) < 2e-6
    assert not buffers._in_use
    assert buffers.size < 6e6


@pytest.mark.parametrize(("taps", "outputs"), [(3, (4, 4)), (6, (3, 1)), (7, (2, 1))])
def test_winograd_in_bfloat16_is_exact_to_its_eight_bits(taps, outputs):
    buffers = BufferPool(torch.bfloat16, torch.device("cpu"))
    x, weight, bias = torch.randn(2, 64, 14, 17), torch.randn(48, 64, taps, taps), torch.randn(48)
    want = F.conv2d(x.double(), weight.double(), bias.double()).relu()
    got = convolve(weight, bias, x, outputs, relu=True, buffers=buffers)
    assert relative(got.float().numpy(), want.numpy()) < 3e-2

"""Winograd's convolutions, compared with torch's in double precision."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reproduction.fast import winograd
from reproduction.fast.memory import Memory
from reproduction.fast.winograd import Form, Winograd
from tests.helpers.parity import relative

SINGLE = Memory(torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(("outputs", "taps"), [(4, 3), (4, 5), (2, 7), (3, 6), (3, 7), (1, 1)])
def test_the_matrices_filter(outputs, taps):
    form = Form.of(outputs, taps)
    rng = np.random.default_rng(0)
    data, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    want = [data[i : i + taps] @ kernel for i in range(outputs)]
    np.testing.assert_allclose(form.output @ ((form.kernel @ kernel) * (form.input @ data)), want, atol=1e-12)


def test_bfloat16_loses_nothing_in_the_matrices_that_it_is_multiplied_with():
    form = Form.of(4, 3)
    for matrix in (form.input, form.output):
        exact = torch.from_numpy(matrix)
        assert torch.equal(exact.bfloat16().double(), exact)


def convolve(weight, bias, x, outputs, *, relu, memory=SINGLE):
    made = Winograd(weight, bias, outputs, relu=relu, dtype=memory.dtype)
    taps = weight.shape[-1]
    high, wide = (size - taps + 1 for size in x.shape[2:])
    rows, columns = made.slack(high, wide)
    slack = F.pad(x, (0, columns, 0, rows)).to(memory.dtype)
    room = torch.full((len(x), high + 2, wide + 3, len(weight)), 7.0, dtype=memory.dtype).permute(0, 3, 1, 2)
    made(slack.contiguous(memory_format=torch.channels_last), room[:, :, 1:-1, 1:-2], memory)
    border = room.clone()
    border[:, :, 1:-1, 1:-2] = 7
    assert (border == 7).all(), "wrote outside of its part"
    return room[:, :, 1:-1, 1:-2]


@pytest.mark.parametrize(("height", "width"), [(6, 6), (3, 9), (17, 22), (40, 13)])
@pytest.mark.parametrize(
    ("taps", "outputs", "allowed"),
    [(3, (4, 4), 2e-6), (5, (4, 4), 2e-5), (7, (2, 2), 2e-5), (6, (3, 1), 4e-6), (7, (3, 1), 8e-6)],
)
def test_any_size_is_convolved_to_rounding(height, width, taps, outputs, allowed):
    torch.manual_seed(taps)
    x = torch.randn(2, 48, height + taps - 1, width + taps - 1)
    weight, bias = torch.randn(80, 48, taps, taps) / taps, torch.randn(80)
    for relu in (False, True):
        want = F.conv2d(x.double(), weight.double(), bias.double())
        want = want.relu() if relu else want
        assert relative(convolve(weight, bias, x, outputs, relu=relu).numpy(), want.numpy()) < allowed


def test_many_outputs_are_made_some_at_a_time(monkeypatch):
    monkeypatch.setattr(winograd, "_OUTPUTS", 32)
    x, weight, bias = torch.randn(1, 32, 12, 15), torch.randn(80, 32, 3, 3), torch.randn(80)
    want = F.conv2d(x.double(), weight.double(), bias.double()).relu()
    assert relative(convolve(weight, bias, x, (4, 4), relu=True).numpy(), want.numpy()) < 2e-6


def test_many_rows_of_tiles_go_in_blocks_and_memory_is_given_back():
    memory = Memory(torch.float32, torch.device("cpu"))
    x, weight = torch.randn(1, 32, 202, 122), torch.randn(32, 32, 3, 3)
    got = convolve(weight, None, x, (4, 4), relu=False, memory=memory)
    assert relative(got.numpy(), F.conv2d(x.double(), weight.double()).numpy()) < 2e-6
    assert not memory._lent
    assert memory.held < 3e6


def test_bfloat16_is_as_good_as_its_eight_bits():
    memory = Memory(torch.bfloat16, torch.device("cpu"))
    x, weight = torch.randn(1, 64, 14, 14), torch.randn(64, 64, 3, 3)
    want = F.conv2d(x.double(), weight.double())
    assert relative(convolve(weight, None, x, (4, 4), relu=False, memory=memory).float().numpy(), want.numpy()) < 3e-2

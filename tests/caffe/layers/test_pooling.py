"""Pooling and SPP, compared with plain loops, also for ties and for windows past the border."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Phase
from tests.helpers.single_layer import gradient, single

LEAST = -np.float32(np.finfo(np.float32).max)


def slow_pool(x, method, kernel, stride, pad, floor):
    """Caffe's pooling of an (H, W) image, one pixel at a time: the values, the positions, and the gradient of ones."""
    sizes = []
    for n, k, s, p in zip(x.shape, kernel, stride, pad, strict=True):
        sizes.append((math.floor if floor else math.ceil)((n + 2 * p - k) / s) + 1)
    if any(pad):
        sizes = [c - ((c - 1) * s >= n + p) for c, n, s, p in zip(sizes, x.shape, stride, pad, strict=True)]
    values = np.full(sizes, LEAST if method == "MAX" else 0, np.float32)
    places = np.full(sizes, -1)
    diff = np.zeros(x.shape, np.float32)
    for i, j in np.ndindex(*sizes):
        starts = [c * s - p for c, s, p in zip((i, j), stride, pad, strict=True)]
        ends = [min(a + k, n + p) for a, k, n, p in zip(starts, kernel, x.shape, pad, strict=True)]
        area = (ends[0] - starts[0]) * (ends[1] - starts[1])
        rows, columns = (range(max(a, 0), min(e, n)) for a, e, n in zip(starts, ends, x.shape, strict=True))
        for r in rows:
            for c in columns:
                if method == "AVE":
                    values[i, j] += x[r, c]
                    diff[r, c] += np.float32(1) / area
                elif x[r, c] > values[i, j]:
                    values[i, j], places[i, j] = x[r, c], r * x.shape[1] + c
        if method == "AVE":
            values[i, j] = np.divide(values[i, j], np.float32(area)) if area else np.nan
        elif places[i, j] >= 0:
            diff.flat[places[i, j]] += 1
    return values, places, diff


pair = st.tuples(st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=pair,
    stride=pair,
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    floor=st.booleans(),
    method=st.sampled_from(["MAX", "AVE"]),
    seed=st.integers(0, 99),
)
def test_pooling_equals_plain_loops(size, kernel, stride, pad, floor, method, seed):
    assume(all(p < k for p, k in zip(pad, kernel, strict=True)))
    assume(all(n + 2 * p - k > (-1 if floor else -s) for n, k, s, p in zip(size, kernel, stride, pad, strict=True)))
    x = torch.from_numpy(np.random.RandomState(seed).randint(-2, 3, (1, 2, *size)).astype(np.float32))
    text = f"""type: "Pooling" top: "out0" {'top: "mask"' if method == "MAX" else ""} pooling_param {{ pool: {method}
        kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]}
        pad_w: {pad[1]} round_mode: {"FLOOR" if floor else "CEIL"} }}"""
    layer = single(text, tuple(x.shape))
    tops = layer(x)
    (diff,) = gradient(layer, x)
    assert layer.shapes([tuple(x.shape)]) == [tuple(top.shape) for top in tops]
    for channel in range(2):
        values, places, want = slow_pool(x[0, channel].numpy(), method, kernel, stride, pad, floor)
        np.testing.assert_allclose(tops[0][0, channel].numpy(), values, rtol=1e-6)
        np.testing.assert_allclose(diff[0, channel].numpy(), want, rtol=1e-6)
        if method == "MAX":
            np.testing.assert_array_equal(tops[1][0, channel].numpy(), places)


def test_an_empty_window_holds_the_least_number_at_no_place_and_passes_no_gradient():
    layer = single('type: "Pooling" top: "a" top: "mask" pooling_param { kernel_size: 1 stride: 2 }', (1, 2, 1, 4))
    x = torch.arange(8.0).reshape(1, 2, 1, 4)
    top, mask = layer(x)
    assert top[0, :, 0].tolist() == [[0, 2, float(LEAST)], [4, 6, float(LEAST)]]
    assert mask[0, :, 0].tolist() == [[0, 2, -1], [0, 2, -1]]
    (diff,) = gradient(layer, x)
    assert diff[0, :, 0].tolist() == [[1, 0, 1, 0], [1, 0, 1, 0]]


def test_the_first_of_equal_maxima_gets_the_gradient():
    (diff,) = gradient(
        single('type: "Pooling" pooling_param { kernel_size: 2 }', (1, 1, 2, 3)), torch.zeros(1, 1, 2, 3)
    )
    assert diff[0, 0].tolist() == [[1, 1, 0], [0, 0, 0]]


def test_global_pooling_follows_the_size_of_each_bottom():
    layer = single('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', (1, 2, 3, 4))
    x = torch.rand(2, 2, 5, 7)
    assert torch.allclose(layer(x)[0], x.mean((2, 3), keepdim=True))


def test_stochastic_pooling_averages_with_the_values_as_weights_in_testing():
    layer = single('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }', (1, 1, 3, 3))
    x = torch.tensor([[1.0, 2, 3], [1, 0, 1], [0, 0, 4]]).reshape(1, 1, 3, 3)
    assert layer(x)[0][0, 0].tolist() == [[6 / 4, 10 / 4], [0, 4]]


def test_stochastic_pooling_draws_elements_with_the_values_as_weights_in_training():
    layer = single(
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
        (500, 1, 2, 2),
        phase=Phase.TRAIN,
        seed=0,
    )
    x = torch.tensor([1.0, 0, 3, 6]).reshape(1, 1, 2, 2).expand(500, 1, 2, 2).contiguous().requires_grad_()
    top = layer(x)[0]
    counts = {value: int((top == value).sum()) for value in (0, 1, 3, 6)}
    assert counts[0] == 0
    assert abs(counts[1] - 50) < 30
    assert abs(counts[3] - 150) < 50
    assert abs(counts[6] - 300) < 50
    top.sum().backward()
    assert torch.equal((x.grad * x).sum((1, 2, 3)), top.detach().flatten())
    assert torch.equal(x.grad.sum((1, 2, 3)), torch.ones(500))


def test_stochastic_pooling_repeats_itself_from_the_same_seed():
    text = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }'
    x = torch.rand(2, 3, 8, 8)
    first, second = (single(text, tuple(x.shape), phase=Phase.TRAIN, seed=5)(x)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("height", "width", "levels"), [(5, 7, 2), (9, 13, 3), (16, 16, 4)])
def test_spp_lays_out_the_bins_of_each_level(height, width, levels):
    x = torch.rand(2, 3, height, width)
    layer = single(f'type: "SPP" spp_param {{ pyramid_height: {levels} }}', tuple(x.shape))
    (top,) = layer(x)
    assert layer.shapes([tuple(x.shape)]) == [tuple(top.shape)]
    assert torch.equal(top[:, :3], x.amax((2, 3)))
    upper = height // 2  # the padding takes the odd row from the first bin
    assert torch.equal(top[:, 3:15].reshape(2, 3, 2, 2)[:, :, 0].amax(2), x[:, :, :upper].amax((2, 3)))
    assert torch.equal(top[:, 3:15].reshape(2, 3, 2, 2)[:, :, 1].amax(2), x[:, :, upper:].amax((2, 3)))


@pytest.mark.parametrize(
    ("text", "shape", "error"),
    [
        ('type: "Pooling"', (1, 1, 4, 4), "the kernel size is missing; want kernel_size, or kernel_h and kernel_w."),
        (
            'type: "Pooling" pooling_param { kernel_size: 2 stride: 0 }',
            (1, 1, 4, 4),
            "kernel and stride must be positive; got kernel (2, 2), stride (0, 0).",
        ),
        (
            'type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }',
            (1, 1, 4, 4),
            "the padding must be smaller than the kernel; got pad (2, 2), kernel (2, 2).",
        ),
        (
            'type: "Pooling" pooling_param { kernel_size: 6 }',
            (1, 1, 4, 4),
            "the window is longer than the padded input; got 4 + 2 * 0 pixels, want 6.",
        ),
        (
            'type: "Pooling" pooling_param { kernel_size: 2 }',
            (4, 4),
            "the bottom must have 4 axes (N, C, H, W); got (4, 4).",
        ),
        (
            'type: "Pooling" top: "a" top: "b" pooling_param { pool: AVE kernel_size: 2 }',
            (1, 1, 4, 4),
            "only MAX pooling has a second top; got AVE.",
        ),
        (
            'type: "Pooling" top: "a" top: "b" top: "c" pooling_param { kernel_size: 2 }',
            (1, 1, 4, 4),
            "wrong number of tops; got 3, want 1 to 2.",
        ),
        (
            'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }',
            (1, 1, 4, 4),
            "STOCHASTIC pooling takes no padding; got (1, 1).",
        ),
        ('type: "SPP"', (1, 1, 4, 4), "pyramid_height must be positive; got 0."),
        (
            'type: "SPP" spp_param { pyramid_height: 2000000000 }',
            (1, 1, 4, 5),
            "the pyramid is too high for the bottom; got pyramid_height 2000000000 over 4 x 5 pixels, want at most 2.",
        ),
        ('type: "SPP" spp_param { pyramid_height: 1 }', (1, 1, 0, 5), "the bottom has no pixels; got (1, 1, 0, 5)."),
    ],
)
def test_what_caffe_refuses_is_an_error(text, shape, error):
    with pytest.raises(NetError) as caught:
        single(text, shape)
    assert str(caught.value) == error

"""Eltwise, compared with plain loops."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.single_layer import gradient, single

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def few_values(shape, seed):
    """Small integers as floats, so that many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@given(SHAPES, st.integers(2, 4), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_eltwise_max_gives_the_whole_gradient_to_caffes_winner(shape, count, seed):
    bottoms = [few_values(shape, seed + i) for i in range(count)]
    layer = single('type: "Eltwise" eltwise_param { operation: MAX }', *[shape] * count)
    winner = np.where(bottoms[0] > bottoms[1], 0, 1)
    best = np.maximum(bottoms[0], bottoms[1])
    for i in range(2, count):
        winner = np.where(bottoms[i] > best, i, winner)
        best = np.maximum(best, bottoms[i])
    leaves = [torch.tensor(bottom) for bottom in bottoms]
    assert np.array_equal(layer(*leaves)[0].numpy(), best)
    for i, diff in enumerate(gradient(layer, *leaves)):
        assert np.array_equal(diff.numpy(), winner == i)


def test_eltwise_sum_weighs_its_bottoms():
    layer = single('type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 coeff: 0 }', *[(2,)] * 3)
    a, b, c = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0]), torch.tensor([5.0, 5.0])
    assert layer(a, b, c)[0].tolist() == [-8, -16]
    assert [diff.tolist() for diff in gradient(layer, a, b, c)] == [[2, 2], [-1, -1], [0, 0]]


def test_eltwise_leaves_its_bottoms_as_they_are():
    for operation in ("SUM", "PROD", "MAX"):
        layer = single(f'type: "Eltwise" eltwise_param {{ operation: {operation} }}', (2,), (2,))
        a, b = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])
        layer(a, b)[0].add_(1)
        assert (a.tolist(), b.tolist()) == ([1, 2], [2, 1])

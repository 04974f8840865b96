"""Reduction, compared with NumPy."""

import numpy as np
import pytest
import torch

from tests.helpers.single_layer import gradient, single


def few_values(shape, seed):
    """Small integers as floats, so that many are equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("operation", "reduce"),
    [
        ("SUM", np.sum),
        ("ASUM", lambda x, axis: abs(x).sum(axis)),
        ("SUMSQ", lambda x, axis: (x * x).sum(axis)),
        ("MEAN", np.mean),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_reduction_reduces_all_axes_from_its_own_on(operation, reduce, axis):
    x = few_values((3, 2, 4), 1)
    layer = single(f'type: "Reduction" reduction_param {{ operation: {operation} axis: {axis} coeff: -2 }}', x.shape)
    want = -2 * reduce(x, axis=tuple(range(axis % 3, 3)))
    np.testing.assert_allclose(layer(torch.tensor(x))[0].numpy(), want, rtol=1e-6)


def test_reduction_of_absolute_values_has_no_gradient_at_zero():
    layer = single('type: "Reduction" reduction_param { operation: ASUM coeff: 3 }', (3,))
    (diff,) = gradient(layer, torch.tensor([-2.0, 0.0, 5.0]))
    assert diff.tolist() == [-3, 0, 3]

"""Permute: its order of axes, and what it refuses."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import gradient, single


@pytest.mark.parametrize(
    ("order", "axes", "want"),
    [
        ((0, 2, 3, 1), 4, (0, 2, 3, 1)),
        ((2,), 4, (2, 0, 1, 3)),
        ((1, 0), 2, (1, 0)),
        ((), 3, (0, 1, 2)),
        ((0,), 1, (0,)),
    ],
)
def test_axes_that_are_not_named_follow_in_their_old_order(order, axes, want):
    shape = (2, 3, 4, 5)[:axes]
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    layer = single(f'type: "Permute" permute_param {{ {" ".join(f"order: {i}" for i in order)} }}', tuple(x.shape))
    (top,) = layer(x)
    np.testing.assert_array_equal(top, x.numpy().transpose(want))
    assert layer.shapes([tuple(x.shape)]) == [tuple(top.shape)]
    assert layer.shares[0] == (want == tuple(range(axes)))
    (back,) = gradient(layer, x)
    assert back.shape == x.shape
    (exported,), _ = run_onnx(layer, [x])
    np.testing.assert_array_equal(exported, top)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permute_param { order: 4 }", "order names an axis that the bottom does not have; got [4], want 0 to 3."),
        ("permute_param { order: 1 order: 1 }", "order names an axis twice; got [1, 1]."),
        ('bottom: "x" top: "x"', "Permute layers cannot work in place; got top 'x' for both."),
    ],
)
def test_it_refuses_orders_that_are_none(text, problem):
    with pytest.raises(NetError) as error:
        single(f'type: "Permute" {text}', (1, 2, 3, 4))
    assert str(error.value).endswith(problem)


def test_the_number_of_axes_must_stay():
    layer = single('type: "Permute" permute_param { order: 1 }', (1, 2, 3, 4))
    with pytest.raises(NetError, match="the number of axes must not change"):
        layer.shapes([(1, 2, 3)])

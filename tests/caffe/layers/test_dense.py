"""InnerProduct and Embed, compared with plain loops."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.helpers.single_layer import single


def randomise(layer):
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("transpose", ["true", "false"])
def test_inner_product_flattens_from_its_axis_on(axis, transpose):
    shape = (3, 2, 4)
    layer = single(
        f'type: "InnerProduct" inner_product_param {{ num_output: 5 axis: {axis} transpose: {transpose} }}', shape
    )
    randomise(layer)
    weight, bias = (blob.detach().numpy() for blob in layer.blobs)
    inputs = int(np.prod(shape[axis % 3 :]))
    assert weight.shape == ((inputs, 5) if transpose == "true" else (5, inputs))
    x = torch.randn(shape)
    rows = x.numpy().reshape(-1, inputs)
    want = rows @ (weight if transpose == "true" else weight.T) + bias
    top = layer(x)[0]
    assert top.shape == (*shape[: axis % 3], 5)
    np.testing.assert_allclose(top.detach().numpy().reshape(-1, 5), want, rtol=1e-5, atol=1e-5)


def test_inner_product_keeps_its_number_of_inputs():
    layer = single('type: "InnerProduct" inner_product_param { num_output: 2 }', (1, 3, 4))
    assert layer.shapes([(7, 12, 1)]) == [(7, 2)]
    with pytest.raises(NetError) as error:
        layer.shapes([(1, 3, 5)])
    assert str(error.value) == (
        "the axes from 1 on must hold as many values as a row of the weights; got 15 in (1, 3, 5), want 12."
    )


def test_inner_product_fills_weight_and_bias():
    layer = single(
        """type: "InnerProduct" inner_product_param { num_output: 2 weight_filler { type: "constant" value: 3 }
        bias_filler { type: "constant" value: 4 } }""",
        (1, 1),
    )
    assert layer(torch.ones(1, 1))[0].tolist() == [[7, 7]]


def test_embed_looks_up_rows_and_adds_the_bias():
    layer = randomise(single('type: "Embed" embed_param { num_output: 3 input_dim: 4 }', (2, 2)))
    weight, bias = layer.blobs
    index = torch.tensor([[0.0, 3.0], [3.0, 1.0]])
    top = layer(index)[0]
    assert torch.equal(top, weight[index.long()] + bias)
    top.sum().backward()
    assert weight.grad[:, 0].tolist() == [1, 1, 0, 2]
    assert bias.grad.tolist() == [4, 4, 4]


def test_embed_refuses_an_index_beyond_its_rows():
    layer = single('type: "Embed" embed_param { num_output: 3 input_dim: 4 }', (3,))
    with pytest.raises(NetError, match=r"^label 4 is out of range; got 2 such of 3, want 0\.\.3\.$"):
        layer(torch.tensor([1.0, 4.0, 5.0]))

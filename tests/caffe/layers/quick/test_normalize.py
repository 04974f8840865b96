"""BatchNorm and Scale in one pass: values and gradients as those of both layers, and statistics without rounding."""

import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.quick import normalize
from reproduction.caffe.layers.quick.normalize import NormalizedBlob
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase

NET = """
    layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 5 dim: 4 }} }} }}
    layer {{ name: "n" type: "BatchNorm" bottom: "x" top: "n" batch_norm_param {{ eps: 0.1 {norm} }} }}
    layer {{ name: "s" type: "Scale" bottom: "n" top: "s"
             scale_param {{ {scale} filler {{ type: "gaussian" std: 1 }} }} }}
    {more}
    layer {{ name: "l" type: "Reduction" bottom: "s" top: "l" loss_weight: 1 reduction_param {{ operation: SUMSQ }} }}
"""
STORED = "use_global_stats: true"


def images(*shape, mean=0.0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=draw, dtype=torch.float64) + mean).to(dtype)


def build(norm="", scale="", more=""):
    net = Net(prototxt.loads(NET.format(norm=norm, scale=scale, more=more), NetParameter), Phase.TRAIN, seed=0)
    for blob, value in zip(net.params["n"], (images(3), images(3).square(), torch.tensor([2.0])), strict=True):
        blob.data.copy_(value)
    return net.double()


def run(net, blobs=("l",)):
    """The blobs of a net, the gradients of its input and of its parameters, and the statistics after the pass."""
    x = images(2, 3, 5, 4, mean=1.0).requires_grad_()
    tops = net({"x": x}, blobs=blobs)
    net.loss(tops).backward()
    return [*tops.values(), x.grad, *(p.grad for p in net.params["s"]), *net.params["n"]]


@pytest.mark.parametrize("norm", ["", STORED])
@pytest.mark.parametrize("scale", ["", "bias_term: true", "axis: 0 num_axes: 2", "axis: 1 num_axes: 2"])
def test_values_and_gradients_are_those_of_the_two_layers(norm, scale, monkeypatch):
    monkeypatch.setattr(normalize, "is_faster", lambda x: False)
    want = run(build(norm, scale))
    monkeypatch.undo()
    for got, expected in zip(run(build(norm, scale)), want, strict=True):
        torch.testing.assert_close(got, expected)


def test_both_layers_are_computed_at_once():
    """The top of BatchNorm is computed only for those that read it."""
    net, calls = build(), []
    net.layers["s"].register_forward_pre_hook(lambda layer, bottoms: calls.append(bottoms[0]))
    run(net)
    assert isinstance(calls[0], torch.Tensor)  # a hook is given values
    (blob,) = net.layers["n"].run(images(2, 3, 5, 4))
    assert isinstance(blob, NormalizedBlob)
    assert blob.shape == (2, 3, 5, 4)
    (top,) = build().layers["s"].run(blob)
    assert top.grad_fn.next_functions[1][0].variable.shape == (3,)  # the factor is an input of the same function


@pytest.mark.parametrize(
    "more",
    [
        'type: "Scale"',
        'type: "ReLU"',
        'type: "Pooling" pooling_param { kernel_size: 2 }',
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }',
    ],
)
def test_other_layers_may_read_the_normalized_values(more):
    want = run(build(), ["n", "l"])
    assert want[0].std().item() == pytest.approx(1, abs=0.1)
    normalized, _, other, *gradients = run(
        build(more=f'layer {{ name: "t" bottom: "n" top: "t" {more} }}'), ["n", "l", "t"]
    )
    for got, expected in zip([normalized, *gradients], [want[0], *want[2:]], strict=True):
        torch.testing.assert_close(got, expected)
    layer = build(more=f'layer {{ name: "t" bottom: "n" top: "t" {more} }}').layers["t"]
    torch.testing.assert_close(other, layer(normalized)[0])


def test_the_gradient_does_not_flow_into_a_detached_blob():
    x = images(2, 3, 5, 4).requires_grad_()
    blob = NormalizedBlob(x, images(3), images(3).square(), 0.1, of_batch=True)
    assert blob.expand().requires_grad
    assert not blob.detach().expand().requires_grad


@pytest.mark.parametrize("of_batch", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_second_derivatives(of_batch, layout):
    x = images(2, 3, 4, 2).contiguous(memory_format=layout)

    def scale(x, factor, bias):
        mean, variance = normalize.compute_statistics(x) if of_batch else (images(3), images(3).square())
        return NormalizedBlob(x, mean, variance, 0.1, of_batch).scale(factor, bias)

    leaves = [value.requires_grad_() for value in (x, images(3), images(3))]
    assert torch.autograd.gradcheck(scale, leaves)
    assert torch.autograd.gradgradcheck(scale, leaves)


@pytest.mark.parametrize("shape", [(1, 8, 200, 150), (2, 5, 1, 7), (3, 4, 6, 1), (2, 3, 1, 1), (6, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_statistics_are_those_of_double_precision(shape, layout):
    x = images(*shape, mean=20.0, dtype=torch.float32)
    x = x.contiguous(memory_format=layout) if len(shape) == 4 else x
    axes = [axis for axis in range(len(shape)) if axis != 1]
    variance, mean = torch.var_mean(x.double(), axes, correction=0)
    got = normalize.compute_statistics(x)
    torch.testing.assert_close(got[0].double(), mean, rtol=2e-7, atol=0)
    torch.testing.assert_close(got[1].double(), variance, rtol=1e-6, atol=1e-10)
    assert got[0].dtype == torch.float32


def test_other_precisions_are_computed_by_each_layer():
    assert not normalize.is_faster(torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16))
    assert not normalize.is_faster(torch.zeros(0, 2, 3, 3))
    assert normalize.is_faster(torch.zeros(1, 2))

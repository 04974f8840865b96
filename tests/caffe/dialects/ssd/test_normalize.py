"""Normalize: the norm of each pixel or instance, its scales and its gradients."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import single

PER_PIXEL = "across_spatial: false channel_shared: false scale_filler { type: 'constant' value: 20 }"


def build(fields, *shape):
    return single(f'name: "n" type: "Normalize" norm_param {{ {fields} }}', shape)


@pytest.mark.parametrize(
    ("fields", "axes", "inside", "outside"),
    [
        (PER_PIXEL, (1,), 1e-10, 0),
        ("across_spatial: false eps: 0.5", (1,), 0.5, 0),
        ("across_spatial: true eps: 0.5", (1, 2, 3), 0.5, 0),
        ("eps: 0.5 add_eps_before_sqrt: false", (1, 2, 3), 0, 0.5),
        # Only the norm of an instance can have eps outside of the root.
        ("across_spatial: false eps: 0.5 add_eps_before_sqrt: false", (1,), 0.5, 0),
    ],
)
def test_the_top_is_the_bottom_divided_by_its_norm(fields, axes, inside, outside):
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))
    layer = build(fields, *x.shape)
    y = x.double().numpy()
    norm = np.sqrt((y**2).sum(axes, keepdims=True) + inside) + outside
    scale = layer.blobs[0].detach().numpy()
    want = y / norm * (scale if scale.ndim == 0 else scale[:, None, None])
    (top,) = layer(x)
    np.testing.assert_allclose(top.detach(), want, rtol=2e-6)
    (exported,), _ = run_onnx(layer, [x])
    np.testing.assert_allclose(exported, want, rtol=2e-6)
    assert layer.compiled_form([tuple(x.shape)]) == (PointwiseForm() if axes == (1,) else None)


def test_the_blob_has_no_axes_if_channels_share_their_scale():
    assert build("", 2, 5, 3, 4).blobs[0].shape == ()
    assert build("channel_shared: false", 2, 5).blobs[0].shape == (5,)
    assert build("", 2, 5).blobs[0].item() == 1
    assert (build(PER_PIXEL, 2, 5, 3, 4).blobs[0] == 20).all()


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (2, 5, 3, 4)])
def test_it_takes_two_to_four_axes(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    (top,) = build("across_spatial: false", *shape)(x)
    torch.testing.assert_close(top, x / x.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(
    "fields", ["", "across_spatial: false", "across_spatial: false channel_shared: false eps: 0.3"]
)
def test_gradients_are_those_of_the_top_if_all_scales_are_equal(fields):
    layer = build(fields, 2, 4, 3, 2).double()
    layer.blobs[0].data.fill_(1.7)
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))

    def with_scale(scale):
        layer.blobs[0].data.copy_(scale)
        return layer(x)[0]

    (top,) = layer(x)
    weights = torch.randn(top.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (got,) = torch.autograd.grad((top * weights).sum(), layer.blobs[0])
    scale, step = layer.blobs[0].detach().clone(), 1e-6
    for index in np.ndindex(*scale.shape):
        moved = scale.clone()
        moved[index] += step
        with torch.no_grad():
            slope = ((with_scale(moved) - with_scale(scale)) * weights).sum() / step
        assert abs(slope - got[index]) < 1e-5


def test_with_different_scales_the_gradient_is_the_forks():
    layer = build("across_spatial: false channel_shared: false eps: 0", 1, 2, 1, 1)
    layer.blobs[0].data.copy_(torch.tensor([1.0, 3.0]))
    x = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1).requires_grad_()
    layer(x)[0].backward(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))
    # (g - x * (x . g) / n^2) / n, times the scale of each channel; the derivative has the scale within the product.
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([16 / 125, -12 / 125 * 3]))


def test_it_refuses_vectors_and_five_axes():
    for shape in [(3,), (1, 2, 3, 4, 5)]:
        with pytest.raises(NetError):
            build("", *shape)
    with pytest.raises(NetError, match="one scale for each channel"):
        build("channel_shared: false", 1, 4, 2, 2).shapes([(1, 5, 2, 2)])

"""Scale, Bias, BatchNorm and MVN: broadcasting, stored statistics, and gradients."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Phase
from tests.helpers.single_layer import gradient, single


def randomise(layer):
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


@pytest.mark.parametrize(
    ("fields", "learned", "broadcast"),
    [
        ("", (3,), (1, 3, 1, 1)),
        ("axis: 0", (2,), (2, 1, 1, 1)),
        ("axis: -2 num_axes: 2", (4, 5), (1, 1, 4, 5)),
        ("axis: 1 num_axes: -1", (3, 4, 5), (1, 3, 4, 5)),
        ("axis: 2 num_axes: 0", (), ()),
    ],
)
def test_scale_and_bias_span_num_axes_from_their_axis_on(fields, learned, broadcast):
    x = torch.randn(2, 3, 4, 5)
    scale = randomise(single(f'type: "Scale" scale_param {{ {fields} bias_term: true }}', x.shape))
    factor, shift = scale.blobs
    assert factor.shape == shift.shape == learned
    torch.testing.assert_close(scale(x)[0], x * factor.reshape(broadcast) + shift.reshape(broadcast))
    bias = randomise(single(f'type: "Bias" bias_param {{ {fields} }}', x.shape))
    assert bias.blobs[0].shape == learned
    torch.testing.assert_close(bias(x)[0], x + bias.blobs[0].reshape(broadcast))


def test_scale_begins_with_one_and_bias_with_zero():
    x = torch.randn(2, 3)
    assert torch.equal(single('type: "Scale" scale_param { bias_term: true }', (2, 3))(x)[0], x)
    assert torch.equal(single('type: "Bias"', (2, 3))(x)[0], x)
    layer = single(
        """type: "Scale" scale_param { filler { type: "constant" value: 2 } bias_term: true
        bias_filler { type: "constant" value: 3 } }""",
        (2, 3),
    )
    assert torch.equal(layer(x)[0], 2 * x + 3)


def test_a_second_bottom_takes_the_place_of_the_learned_factor():
    layer = single('type: "Scale" scale_param { axis: 0 bias_term: true }', (2, 3, 4), (2, 3))
    assert [tuple(blob.shape) for blob in layer.blobs] == [(2, 3)]
    x, factor = torch.randn(2, 3, 4), torch.randn(2, 3)
    torch.testing.assert_close(layer(x, factor)[0], x * factor[..., None])
    x_diff, factor_diff = gradient(layer, x, factor)
    torch.testing.assert_close(x_diff, factor[..., None].expand(2, 3, 4))
    torch.testing.assert_close(factor_diff, x.sum(2))
    shift = single('type: "Bias" bias_param { axis: -1 }', (2, 3), (3,))
    assert not shift.blobs
    assert shift(torch.zeros(2, 3), torch.arange(3.0))[0].tolist() == [[0, 1, 2]] * 2


def test_one_number_may_scale_everything():
    layer = single('type: "Scale" scale_param { axis: 3 }', (2, 3, 4, 5), ())
    assert torch.equal(layer(torch.ones(2, 3, 4, 5), torch.tensor(2.0))[0], torch.full((2, 3, 4, 5), 2.0))


# ---- BatchNorm


def test_batch_norm_in_testing_divides_its_sums_by_their_weight():
    layer = single('type: "BatchNorm" batch_norm_param { eps: 0.25 }', (2, 2, 3))
    for blob, value in zip(layer.blobs, ([2.0, 4.0], [4.0, 8.0], [2.0]), strict=True):
        blob.data.copy_(torch.tensor(value))
    x = torch.randn(2, 2, 3)
    want = (x - torch.tensor([[1.0], [2.0]])) / torch.tensor([[2.25], [4.25]]).sqrt()
    torch.testing.assert_close(layer(x)[0], want)
    (diff,) = gradient(layer, x)
    torch.testing.assert_close(diff, (1 / torch.tensor([[2.25], [4.25]]).sqrt()).expand(2, 2, 3))


def test_batch_norm_without_any_weight_takes_mean_and_variance_for_zero():
    layer = single('type: "BatchNorm" batch_norm_param { eps: 4 }', (1, 2))
    layer.blobs[0].data.fill_(7)
    assert layer(torch.tensor([[2.0, 4.0]]))[0].tolist() == [[1, 2]]


def test_batch_norm_in_training_remembers_fading_sums_of_means_and_unbiased_variances():
    layer = single('type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.5 }', (3, 2, 4), phase=Phase.TRAIN)
    sums: list[np.ndarray | float] = [np.zeros(2), np.zeros(2), 0.0]
    for seed in range(3):
        x = np.random.default_rng(seed).normal(seed, 1 + seed, (3, 2, 4)).astype(np.float32)
        (top,) = layer(torch.tensor(x))
        mean, variance = x.mean((0, 2)), x.var((0, 2))
        want = (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
        np.testing.assert_allclose(top.detach().numpy(), want, rtol=1e-4, atol=1e-5)
        sums = [0.5 * old + new for old, new in zip(sums, (mean, variance * 12 / 11, 1.0), strict=True)]
        for blob, value in zip(layer.blobs, sums, strict=True):
            np.testing.assert_allclose(blob.detach().numpy().squeeze(), value, rtol=1e-5)


def test_batch_norm_of_one_value_keeps_its_variance():
    layer = single('type: "BatchNorm"', (1, 2), phase=Phase.TRAIN)
    layer(torch.tensor([[3.0, 5.0]]))
    assert [blob.tolist() for blob in layer.blobs] == [[3, 5], [0, 0], [1]]


@pytest.mark.parametrize(("phase", "stored"), [(Phase.TRAIN, "true"), (Phase.TEST, "false")])
def test_use_global_stats_overrules_the_phase(phase, stored):
    layer = single(f'type: "BatchNorm" batch_norm_param {{ use_global_stats: {stored} }}', (2, 2), phase=phase)
    layer(torch.randn(2, 2))
    assert bool(layer.blobs[2].item()) == (stored == "false")


def test_batch_norm_follows_train_and_eval():
    layer = single('type: "BatchNorm"', (2, 2))
    layer.train()(torch.randn(2, 2))
    assert layer.blobs[2].item() == 1
    layer.eval()(torch.randn(2, 2))
    assert layer.blobs[2].item() == 1


def test_batch_norm_takes_its_statistics_from_the_solver():
    layer = single('type: "BatchNorm"', (2, 2), phase=Phase.TRAIN)
    assert [param.lr_mult for param in layer.layer_param.param] == [0, 0, 0]
    x = torch.randn(2, 2, requires_grad=True)
    layer(x)[0].square().sum().backward()
    assert all(blob.grad is None for blob in layer.blobs)
    kept = single('type: "BatchNorm" param { lr_mult: 0 decay_mult: 0 }', (2, 2))
    assert [param.has("decay_mult") for param in kept.layer_param.param] == [True, False, False]


# ---- MVN


@pytest.mark.parametrize(("across", "axes"), [("false", (2, 3)), ("true", (1, 2, 3))])
def test_mvn_adds_eps_to_the_deviation_not_to_the_variance(across, axes):
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 4, 5)).astype(np.float32)
    layer = single(f'type: "MVN" mvn_param {{ across_channels: {across} eps: 0.5 }}', x.shape)
    want = (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 0.5)
    np.testing.assert_allclose(layer(torch.tensor(x))[0].numpy(), want, rtol=1e-4, atol=1e-5)


def test_mvn_always_gives_four_axes():
    layer = single('type: "MVN" mvn_param { across_channels: true normalize_variance: false }', (2, 3))
    assert layer.shapes([(2, 3)]) == [(2, 3, 1, 1)]
    assert layer(torch.tensor([[1.0, 2.0, 6.0]]))[0].flatten().tolist() == [-2, -1, 3]


def test_mvn_has_caffes_gradient_which_takes_eps_for_a_part_of_the_variance():
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64)
    layer = single('type: "MVN" mvn_param { eps: 0.5 }', x.shape)
    leaf = x.clone().requires_grad_()
    weight = torch.randn_like(x)
    (layer(leaf)[0] * weight).sum().backward()
    deviation = x.std(correction=0) + 0.5
    y = (x - x.mean()) / deviation
    want = (weight - weight.mean() - y * (weight * y).mean()) / deviation
    torch.testing.assert_close(leaf.grad, want)


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ('type: "Scale" scale_param { bias_term: true }', Phase.TEST),
        ('type: "Scale" scale_param { axis: 1 num_axes: 2 }', Phase.TEST),
        ('type: "Bias" bias_param { axis: 0 num_axes: -1 }', Phase.TEST),
        ('type: "BatchNorm" batch_norm_param { eps: 0.1 }', Phase.TRAIN),
        ('type: "MVN" mvn_param { normalize_variance: false }', Phase.TEST),
        ('type: "MVN" mvn_param { across_channels: true }', Phase.TEST),
    ],
)
def test_gradients_are_the_derivatives(text, phase):
    layer = randomise(single(text, (3, 2, 2, 2), phase=phase)).double()
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    blobs = [] if "BatchNorm" in text else layer.blobs
    assert torch.autograd.gradcheck(lambda x, *_: layer(x)[0], (x, *blobs))


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "Scale" scale_param { axis: 1 num_axes: 2 }', [(1, 3)],
         "axis and num_axes reach outside the bottom; got axis 1, num_axes 2."),
        ('type: "Bias" bias_param { num_axes: -2 }', [(1, 3)],
         "axis and num_axes reach outside the bottom; got axis 1, num_axes -2."),
        ('type: "Scale"', [(2, 3), (2,)],
         "the factor or bias must fit the bottom from axis 1 on; got (2,), want as (2, 3)."),
        ('type: "Bias" bias_param { axis: 0 }', [(2, 3), (2, 3, 1)],
         "the factor or bias must fit the bottom from axis 0 on; got (2, 3, 1), want as (2, 3)."),
        ('type: "BatchNorm"', [(3,)], "the bottom must have a channel axis; got (3,), want (N, C, ...)."),
        ('type: "BatchNorm" param { lr_mult: 1 }', [(1, 3)],
         "batch statistics are not learned; got lr_mult [1.0], want 0. Remove the param blocks."),
        ('type: "MVN"', [(1, 2, 3, 4, 5)],
         "the blob must have num, channels, height and width only; got (1, 2, 3, 4, 5), want at most 4 axes."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error


def test_a_bottom_that_no_longer_fits_is_an_error():
    with pytest.raises(
        NetError, match=r"^the number of channels differs from the stored statistics; got \(1, 4\), want 3"
    ):
        single('type: "BatchNorm"', (1, 3)).shapes([(1, 4)])
    with pytest.raises(NetError, match=r"^the factor or bias must fit the bottom from axis 1 on; got \(3,\)"):
        single('type: "Scale"', (1, 3)).shapes([(1, 4)])

"""Elementwise layers, in cases that were not recorded from Caffe."""

import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers import LAYERS, UNSUPPORTED, neuron
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import Phase
from tests.helpers.single_layer import gradient, single

SMOOTH = [
    'type: "PReLU"',
    'type: "PReLU" prelu_param { channel_shared: true }',
    'type: "ELU" elu_param { alpha: 0.7 }',
    'type: "Sigmoid"',
    'type: "TanH"',
    'type: "BNLL"',
    'type: "Swish" swish_param { beta: 1.5 }',
    'type: "ReLU" relu_param { negative_slope: 0.3 }',
    'type: "Power" power_param { power: 2 scale: 0.3 shift: 4 }',
    'type: "Power" power_param { power: -1.5 scale: 0.3 shift: 4 }',
    'type: "Power" power_param { scale: 0.3 }',
    'type: "Exp" exp_param { base: 2 scale: 0.3 shift: 4 }',
    'type: "Log" log_param { base: 10 scale: 0.3 shift: 4 }',
    'type: "Clip" clip_param { min: -0.5 max: 0.7 }',
]


@pytest.mark.parametrize("text", SMOOTH)
def test_gradients_are_the_derivatives(text):
    layer = single(text, (2, 3, 2)).double()
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x)[0], (x, *layer.blobs))


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ('type: "ReLU"', torch.relu),
        ('type: "Sigmoid"', torch.sigmoid),
        ('type: "TanH"', torch.tanh),
        ('type: "ELU"', torch.nn.functional.elu),
        ('type: "BNLL"', torch.nn.functional.softplus),
        ('type: "Swish"', torch.nn.functional.silu),
        ('type: "AbsVal"', torch.abs),
        ('type: "Exp"', torch.exp),
        ('type: "Exp" exp_param { base: 2 scale: 3 shift: -1 }', lambda x: 2 ** (3 * x - 1)),
        ('type: "Log" log_param { shift: 9 }', lambda x: torch.log(x + 9)),
        ('type: "Power" power_param { power: 3 scale: 2 shift: -1 }', lambda x: (2 * x - 1) ** 3),
    ],
)
def test_layer_is_the_function_of_its_name(text, function):
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(single(text, (2, 3, 4, 5))(x)[0], function(x))


def test_elu_rounds_as_two_steps_do():
    x = torch.tensor([-1e-4])
    (y,) = single('type: "ELU"', (1,))(x)
    assert y != torch.expm1(x)
    assert y == x.double().exp().float() - 1


def test_the_slope_of_relu_at_zero_is_that_below():
    zero = torch.zeros(1)
    assert [*gradient(single('type: "ReLU"', (1,)), zero)] == [torch.zeros(1)]
    assert [*gradient(single('type: "ReLU" relu_param { negative_slope: 0.25 }', (1,)), zero)] == [torch.tensor([0.25])]


def test_relu_works_in_the_memory_of_its_bottom_where_the_net_allows_it():
    layer = single('type: "ReLU"', (2,))
    x = torch.tensor([-1.0, 1.0])
    assert layer(x)[0] is not x
    layer.inplace = True
    assert layer(x)[0] is x
    assert x.tolist() == [0, 1]


def test_prelu_starts_at_a_quarter_unless_a_filler_says_otherwise():
    assert single('type: "PReLU"', (1, 3)).blobs[0].tolist() == [0.25] * 3
    text = 'type: "PReLU" prelu_param { channel_shared: true filler { type: "constant" value: 2 } }'
    assert single(text, (1, 3)).blobs[0].item() == 2


@pytest.mark.parametrize("filler", ["uniform", "gaussian", "positive_unitball", "xavier", "msra"])
def test_any_filler_fills_the_one_slope_of_a_shared_prelu(filler):
    text = f'type: "PReLU" prelu_param {{ channel_shared: true filler {{ type: "{filler}" }} }}'
    assert single(text, (1, 3)).blobs[0].shape == ()


def test_clip_gives_min_where_the_ends_are_crossed():
    layer = single('type: "Clip" clip_param { min: 1 max: -1 }', (3,))
    assert layer(torch.tensor([-2.0, 0, 2]))[0].tolist() == [1, 1, 1]


def test_threshold_has_no_gradient():
    x = torch.tensor([0.5, 0.6], requires_grad=True)
    (y,) = single('type: "Threshold" threshold_param { threshold: 0.5 }', (2,))(x)
    assert y.tolist() == [0, 1]
    assert not y.requires_grad


@pytest.mark.parametrize("power", ["power: 0", "scale: 0 shift: 2 power: 3"])
def test_power_that_does_not_read_its_bottom_has_no_slope(power):
    layer = single(f'type: "Power" power_param {{ {power} }}', (2,))
    x = torch.tensor([torch.nan, 3])
    assert layer(x)[0].tolist() == [1, 1] if power == "power: 0" else [8, 8]
    assert next(gradient(layer, x)).tolist() == [0, 0]


# Dropout


def test_dropout_hands_its_bottom_on_in_testing():
    x = torch.rand(3, 4)
    assert single('type: "Dropout"', (3, 4))(x)[0] is x


def test_dropout_drops_elements_and_scales_the_others_in_training():
    layer = single('type: "Dropout" dropout_param { dropout_ratio: 0.2 }', (9,), phase=Phase.TRAIN, seed=1)
    x = torch.ones(100, 100, requires_grad=True)
    (y,) = layer(x)
    assert set(y.detach().unique().tolist()) == {0, 1.25}
    assert abs((y == 0).double().mean() - 0.2) < 0.02
    y.sum().backward()
    assert torch.equal(x.grad, y)


def test_dropout_repeats_itself_from_the_same_seed_and_draws_anew_each_time():
    x = torch.ones(1000)
    one, two = (single('type: "Dropout"', (1000,), phase=Phase.TRAIN, seed=3) for _ in range(2))
    first = one(x)[0]
    assert torch.equal(first, two(x)[0])
    assert not torch.equal(first, one(x)[0])


def test_dropout_with_ratio_zero_changes_nothing():
    x = torch.rand(50)
    layer = single('type: "Dropout" dropout_param { dropout_ratio: 0 }', (50,), phase=Phase.TRAIN)
    assert torch.equal(layer(x)[0], x)


def test_uniform_numbers_come_in_the_precision_that_is_asked():
    like = torch.empty(1000, dtype=torch.float64)
    drawn = neuron.uniform(like, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float64
    assert 0 <= drawn.min() < 0.01
    assert 0.99 < drawn.max() < 1


# What Caffe refuses


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "ReLU"', [(2,), (2,)], "wrong number of bottoms; got 2, want 1."),
        ('type: "ReLU" top: "a" top: "b"', [(2,)], "wrong number of tops; got 2, want 1."),
        ('type: "PReLU"', [(2,)], "the bottom must have at least 2 axes (N, C, ...); got (2,)."),
        ('type: "PReLU"', [(1, 1, 1, 1, 1)],
         "the blob must have num, channels, height and width only; got (1, 1, 1, 1, 1), want at most 4 axes."),
        ('type: "PReLU" prelu_param { filler { type: "constnat" } }', [(1, 2)],
         "unknown filler type 'constnat'. Did you mean 'constant'?"),
        ('type: "AbsVal" bottom: "a" top: "a"', [(2,)], "AbsVal layers cannot work in place; got top 'a' for both."),
        ('type: "Exp" exp_param { base: 0 }', [(2,)], "base must be positive and finite, or -1 for e; got 0.0."),
        ('type: "Exp" exp_param { base: inf }', [(2,)], "base must be positive and finite, or -1 for e; got inf."),
        ('type: "Exp" exp_param { base: nan }', [(2,)], "base must be positive and finite, or -1 for e; got nan."),
        ('type: "Log" log_param { base: -2 }', [(2,)], "base must be positive and finite, or -1 for e; got -2.0."),
        ('type: "Log" log_param { base: 1 }', [(2,)], "there is no logarithm to the base 1."),
        ('type: "Clip"', [(2,)], "clip_param.min is missing; want both min and max."),
        ('type: "Dropout" dropout_param { dropout_ratio: 1 }', [(2,)],
         "dropout_ratio must be at least 0 and below 1; got 1.0."),
        ('type: "Dropout" dropout_param { dropout_ratio: -0.5 }', [(2,)],
         "dropout_ratio must be at least 0 and below 1; got -0.5."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes)
    assert str(caught.value) == error


def test_later_channels_must_fit_the_slopes_of_prelu():
    with pytest.raises(NetError) as caught:
        single('type: "PReLU"', (1, 3)).shapes([(1, 4)])
    assert str(caught.value) == "the bottom's channels do not fit the slopes; got 4, want 3."


def test_the_choice_of_engine_is_no_error():
    single('type: "TanH" tanh_param { engine: CUDNN }', (2,))


# The table of types


def test_every_type_of_caffe_runs_or_is_known_not_to():
    types = """AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data
        Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss
        Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData MultinomialLogisticLoss
        PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss
        Silence Slice Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData"""
    of_caffe = {name for name, kind in LAYERS.items() if kind.dialect is None}
    assert of_caffe | UNSUPPORTED.keys() == set(types.split())
    assert not LAYERS.keys() & UNSUPPORTED.keys()


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(TypeError, match="two classes are named ReLU"):
        register(type("ReLU", (neuron.ELU,), {}))

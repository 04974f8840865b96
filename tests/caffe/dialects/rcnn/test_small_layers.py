"""Axpy, ShuffleChannel, depthwise convolutions, HardSwish, SeLU, Lstm, Transpose and Reverse."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Phase
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import gradient, single

FORMS: dict[str, list[tuple[int, ...]]] = {
    'type: "Axpy"': [(2, 6, 1, 1), (2, 6, 4, 5), (2, 6, 4, 5)],
    'type: "Axpy" name: "of rows"': [(2, 6), (2, 6, 4, 5), (2, 6, 4, 5)],
    'type: "Axpy" name: "of numbers"': [(2, 6), (2, 6), (2, 6)],
    'type: "ShuffleChannel" shuffle_channel_param { group: 3 }': [(2, 12, 4, 5)],
    'type: "DepthwiseConvolution" convolution_param { num_output: 8 group: 4 kernel_size: 3 stride: 2 pad: 1 }': [
        (2, 4, 9, 8)
    ],
    'type: "ConvolutionDepthwise" convolution_param { num_output: 8 group: 2 kernel_size: 3 dilation: 2 pad: 2 }': [
        (2, 4, 9, 8)
    ],
    'type: "HardSwish"': [(2, 3, 4, 5)],
    'type: "SeLU"': [(2, 3, 4, 5)],
    'type: "SeLU" selu_param { lambda: 2 alpha: 0.5 }': [(2, 3, 4, 5)],
    'type: "SeLu"': [(2, 3, 4, 5)],
    'type: "SeLuDropout" selu_dropout_param { dropout_ratio: 0.1 }': [(2, 3, 4, 5)],
    'type: "Transpose" transpose_param { dim: 2 dim: 0 dim: 1 }': [(2, 3, 4)],
    'type: "Reverse" reverse_param { axis: 2 }': [(2, 3, 4, 5)],
    'type: "Lstm" lstm_param { num_output: 3 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } }': [
        (5, 2, 4, 1)
    ],
}


@pytest.mark.parametrize("text", FORMS)
def test_onnx_runtime_computes_the_same(text):
    layer = single(text, *FORMS[text])
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    got, want = run_onnx(layer, [torch.randn(shape) * 3 for shape in FORMS[text]])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [text for text in FORMS if "Axpy" not in text])
def test_gradients_are_those_of_the_values(text):
    layer = single(text, *FORMS[text]).double()
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    bottoms = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in FORMS[text]]
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(lambda *x: layer(*x[: len(bottoms)])[0], (*bottoms, *layer.blobs), fast_mode=True)


OPENCV_HAS = ('type: "Convolution', 'type: "Shuffle', 'type: "HardSwish')


@pytest.mark.parametrize("text", [text for text in FORMS if text.startswith(OPENCV_HAS)])
def test_opencv_computes_the_same(text):
    from reproduction.caffe.formats import blobs, caffemodel
    from reproduction.caffe.schema import NetParameter

    (shape,) = FORMS[text]
    layer = single(text, shape)
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    dims = " ".join(f"dim: {size}" for size in shape)
    head = f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'
    body = f'layer {{ name: "peer" {text} bottom: "x" top: "y" }}'
    weights = NetParameter()
    arrays = [blobs.from_array(blob.detach().numpy()) for blob in layer.blobs]
    weights.layer.add(name="peer", type=layer.layer_param.type, blobs=arrays)
    peer = cv2.dnn.readNetFromCaffe(
        np.frombuffer((head + body).encode(), np.uint8), np.frombuffer(caffemodel.dumps(weights), np.uint8)
    )
    x = torch.randn(shape) * 3
    peer.setInput(x.numpy(), "x")
    np.testing.assert_allclose(layer(x)[0].detach(), peer.forward(), rtol=1e-4, atol=1e-5)


def test_axpy_adds_a_weighted_blob_and_has_three_gradients():
    a, x, y = torch.randn(2, 3, 1, 1), torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    layer = single('type: "Axpy"', a.shape, x.shape, y.shape)
    torch.testing.assert_close(layer(a, x, y)[0], a * x + y)
    to_a, to_x, to_y = gradient(layer, a, x, y)
    torch.testing.assert_close(to_a, x.sum((2, 3), keepdim=True))
    torch.testing.assert_close(to_x, a.expand(x.shape))
    assert (to_y == 1).all()


def test_convolution_depthwise_overrules_the_number_of_groups():
    layer = single('type: "ConvolutionDepthwise" convolution_param { num_output: 8 kernel_size: 3 }', (1, 4, 9, 8))
    assert layer.blobs[0].shape == (8, 1, 3, 3)
    with pytest.raises(NetError, match=r"^num_output must be a multiple of group; got 6, want a multiple of 4\.$"):
        single('type: "ConvolutionDepthwise" convolution_param { num_output: 6 kernel_size: 3 }', (1, 4, 9, 8))


@pytest.mark.parametrize("kind", ["SeLUDropout", "SeLuDropout"])
def test_the_dropout_for_selu_keeps_mean_and_variance(kind):
    layer = single(
        f'type: "{kind}" selu_dropout_param {{ dropout_ratio: 0.2 }}', (1000, 1000), phase=Phase.TRAIN, seed=5
    )
    x = torch.randn(1000, 1000, dtype=torch.float64).requires_grad_()
    (top,) = layer(x)
    assert abs(float(top.detach().mean())) < 0.01
    assert abs(float(top.detach().var()) - 1) < 0.01
    top.sum().backward()
    factor = (0.8 * (1 + 1.75809934**2 * 0.2)) ** -0.5
    assert x.grad.unique().tolist() == pytest.approx([0, factor])
    assert float((x.grad == 0).double().mean()) == pytest.approx(0.2, abs=0.01)
    with pytest.raises(NetError, match=r"^dropout_ratio must be at least 0 and below 1; got 1\.0\.$"):
        single(f'type: "{kind}" selu_dropout_param {{ dropout_ratio: 1 }}', (2, 3))


def test_convolution_depthwise_has_a_padding_of_each_side():
    sides = "pad_l: 1 pad_r: 2 pad_t: 0 pad_b: 3"
    text = f'type: "ConvolutionDepthwise" convolution_param {{ num_output: 4 kernel_size: 3 stride: 2 {sides} }}'
    layer = single(text, (1, 4, 9, 8))
    x, weight, bias = torch.randn(1, 4, 9, 8), *layer.blobs
    torch.nn.init.normal_(weight)
    want = F.conv2d(F.pad(x, (1, 2, 0, 3)), weight, bias, 2, groups=4)
    torch.testing.assert_close(layer(x)[0], want)
    assert layer.shapes([(1, 4, 9, 8)]) == [tuple(want.shape)]
    np.testing.assert_allclose(run_onnx(layer, [x])[0][0], want.detach(), rtol=1e-4, atol=1e-5)


def lstm(text, *shapes):
    fillers = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.5 }'
    return single(f'type: "Lstm" lstm_param {{ num_output: 3 {fillers} {text} }}', *shapes, seed=1).double()


def lstm_by_steps(layer, x, continues, state):
    """Return outputs and the last state, one step and one sequence after the other."""
    weight_x, weight_h, bias = (blob.detach() for blob in layer.blobs)
    hidden, cell = (list(each) for each in state)
    tops = []
    for t, values in enumerate(x.flatten(2)):
        for n, value in enumerate(values):
            gates = weight_x @ value + bias
            if continues[t][n]:
                gates = gates + weight_h @ hidden[n]
            i, f, o, g = gates.chunk(4)
            old = f.sigmoid() * cell[n] if continues[t][n] else 0
            cell[n] = old + i.sigmoid() * g.tanh()
            hidden[n] = o.sigmoid() * cell[n].tanh()
        tops.append(torch.stack(hidden))
    return torch.stack(tops), (hidden, cell)


def test_an_lstm_starts_from_zero_and_continues_where_the_second_bottom_says_so():
    zeros = [torch.zeros(3, dtype=torch.float64)] * 2
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    alone = lstm("", x.shape)
    want, _ = lstm_by_steps(alone, x, [[t > 0] * 2 for t in range(4)], (zeros, zeros))
    for _ in range(2):  # it keeps no state
        torch.testing.assert_close(alone(x)[0], want)

    marks = torch.tensor([0.0, 1, 0, 1, 1])
    layer = lstm("", x.shape, marks.shape)
    continues = [[bool(marks[t + n]) for n in range(2)] for t in range(4)]
    want, state = lstm_by_steps(layer, x, continues, (zeros, zeros))
    torch.testing.assert_close(layer(x, marks)[0], want)
    want, _ = lstm_by_steps(layer, x, [[True] * 2] * 4, state)
    torch.testing.assert_close(layer(x, torch.ones(5))[0], want)


def test_an_lstm_clips_the_gradients_of_the_inputs_of_its_gates():
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    plain, clipped, wide = (
        lstm("", x.shape),
        lstm("clipping_threshold: 0.01", x.shape),
        lstm("clipping_threshold: 100", x.shape),
    )
    free = next(gradient(plain, x))
    torch.testing.assert_close(next(gradient(wide, x)), free)
    bound = 0.01 * clipped.blobs[0].abs().sum(0)
    assert (next(gradient(clipped, x)).abs() <= bound + 1e-12).all()
    assert (free.abs() > bound).any()
    # The last step alone: the gradient of the gates, cut at the threshold, times the weights.
    one = x[:1]
    leaf = (plain.blobs[0] @ one[0, 0] + plain.blobs[2]).detach().requires_grad_()
    i, _, o, g = leaf.chunk(4)
    (o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()).sum().backward()
    want = leaf.grad.clamp(-0.01, 0.01) @ clipped.blobs[0].detach()
    torch.testing.assert_close(next(gradient(clipped, one))[0, 0], want)


def test_the_gradient_of_the_recurrent_weights_counts_sequences_that_start():
    x = torch.randn(2, 1, 5, dtype=torch.float64)
    layer = lstm("", x.shape, (2,))
    (top,) = layer(x, torch.zeros(2))
    top.sum().backward()
    inputs = torch.stack([layer.blobs[0] @ step[0] + layer.blobs[2] for step in x]).detach().requires_grad_()
    i, _, o, g = inputs.chunk(4, 1)
    (o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()).sum().backward()
    # Both steps start a sequence, and yet the second's gradient is multiplied by the first's output.
    torch.testing.assert_close(layer.blobs[1].grad, torch.outer(inputs.grad[1], top[0, 0].detach()))


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        ('"Axpy"', [(2, 3), (2, 4, 5, 5), (2, 4, 5, 5)],
         "there must be one factor for each image and channel; got (2, 3) for (2, 4, 5, 5), want (2, 4)."),
        ('"Axpy"', [(2, 4), (2, 4, 5, 5), (2, 4, 5, 6)],
         "bottom 2 differs in shape from bottom 1; got (2, 4, 5, 6), want (2, 4, 5, 5)."),
        ('"Transpose" transpose_param { dim: 0 dim: 2 }', [(2, 3, 4)],
         "dim must name each axis of the bottom once; got [0, 2], want 0 to 2."),
        ('"Transpose" bottom: "x" top: "x" transpose_param { dim: 0 dim: 1 }', [(2, 3)],
         "Transpose layers cannot work in place; got top 'x' for both."),
        ('"Reverse" reverse_param { axis: 3 }', [(2, 3, 4)], "there is no such axis; got 3, want 0 to 2."),
        ('"Reverse" reverse_param { axis: -1 }', [(2, 3, 4)], "there is no such axis; got -1, want 0 to 2."),
        ('"Lstm"', [(2, 3, 4)], "num_output must be positive; got 0."),
        ('"Lstm" lstm_param { num_output: 2 }', [(2, 3, 4), (3,)],
         "bottom 1 must say where sequences start; got (3,), want at least 4 numbers."),
    ],
)  # fmt: skip
def test_a_wrong_setting_or_shape_is_an_error(text, shapes, message):
    with pytest.raises(NetError) as error:
        single(f"type: {text}", *shapes).shapes(shapes)
    assert str(error.value) == message


def test_an_lstm_with_a_state_has_no_onnx_form():
    with pytest.raises(NetError, match="an Lstm layer with a second bottom, which keeps its state, cannot"):
        run_onnx(lstm("", (4, 2, 5), (5,)).float(), [torch.zeros(4, 2, 5), torch.zeros(5)])

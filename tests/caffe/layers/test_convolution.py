"""Convolution, Deconvolution and Im2col, in cases that were not recorded from Caffe, and what they refuse."""

import pytest
import torch
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from tests.helpers.single_layer import gradient, single


def randomise(layer):
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_torchs_convolution_and_the_general_one_agree(kind, axes, monkeypatch):
    from reproduction.caffe.layers import convolution

    text = f'type: "{kind}" convolution_param {{ num_output: 6 kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2 }}'
    layer = randomise(single(text, (2, 4, *[7] * axes))).double()
    x = torch.randn(2, 4, *[7] * axes, dtype=torch.float64)
    fast, fast_diff = layer(x)[0], [*gradient(layer, x)]
    monkeypatch.setattr(convolution, "_TORCH_AXES", ())
    torch.testing.assert_close(layer(x)[0], fast)
    torch.testing.assert_close([*gradient(layer, x)], fast_diff)


def test_im2col_times_the_weights_is_the_convolution():
    fields = "kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 0 pad_w: 1"
    x = torch.randn(2, 3, 8, 9)
    columns = single(f'type: "Im2col" convolution_param {{ {fields} }}', (2, 3, 8, 9))(x)[0]
    layer = randomise(single(f'type: "Convolution" convolution_param {{ num_output: 4 {fields} }}', (2, 3, 8, 9)))
    weight, bias = layer.blobs
    want = layer(x)[0]
    got = torch.einsum("ok,nkhw->nohw", weight.reshape(4, -1), columns) + bias.reshape(-1, 1, 1)
    torch.testing.assert_close(got, want)


def test_im2col_lays_taps_out_in_the_order_of_torchs_unfold():
    x = torch.randn(2, 3, 8, 9)
    layer = single('type: "Im2col" convolution_param { kernel_size: 3 pad: 1 stride: 2 }', (2, 3, 8, 9))
    assert torch.equal(layer(x)[0].flatten(2), F.unfold(x, 3, padding=1, stride=2))


def test_a_convolution_runs_any_size_and_batch_after_the_first():
    layer = single('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }', (1, 3, 5, 5))
    assert layer(torch.zeros(4, 3, 9, 7))[0].shape == (4, 2, 7, 5)


@pytest.mark.parametrize("text", ['type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 }',
                                  'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 3 }',
                                  'type: "Pooling" pooling_param { kernel_size: 2 }',
                                  'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 pad: 2 }'])  # fmt: skip
def test_a_relu_may_overwrite_a_free_top(text):
    layer, relu = randomise(single(text, (1, 2, 5, 5))), single('type: "ReLU"', (1, 2, 3, 3))
    assert layer.top_is_free
    found = []
    for inplace in (False, True):
        relu.inplace = inplace
        x = torch.randn(1, 2, 5, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
        (y,) = relu(*layer(x))
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, *layer.blobs))))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_fillers_fill_weight_and_bias():
    layer = single(
        """type: "Convolution" convolution_param { num_output: 2 kernel_size: 1
        weight_filler { type: "constant" value: 3 } bias_filler { type: "constant" value: 4 } }""",
        (1, 1, 1, 1),
    )
    assert layer(torch.ones(1, 1, 1, 1))[0].flatten().tolist() == [7, 7]


def test_a_layer_without_bias_has_one_blob():
    layer = single(
        'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 1 bias_term: false }', (1, 1, 1, 1)
    )
    assert [tuple(blob.shape) for blob in layer.blobs] == [(1, 2, 1, 1)]


@pytest.mark.parametrize(
    "text",
    [
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 2 }',
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 axis: 0 }',
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 2 }',
        'type: "Im2col" convolution_param { kernel_size: 2 pad: 1 stride: 2 dilation: 2 }',
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }',
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 2 }',
    ],
)
def test_gradients_are_the_derivatives(text):
    layer = randomise(single(text, (1, 4, 4, 3))).double()
    x = torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x)[0], (x, *layer.blobs))


CONV = 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 %s }'


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        (CONV % "", [], "wrong number of bottoms; got 0, want at least 1."),
        (CONV % "", [(1, 3, 5, 5)] * 2, "there must be as many tops as bottoms; got 1, want 2."),
        (CONV % "group: 2", [(1, 3, 5, 5)], "channels must be a multiple of group; got 3, want a multiple of 2."),
        (CONV % "group: 3", [(1, 3, 5, 5)], "num_output must be a multiple of group; got 4, want a multiple of 3."),
        (CONV % "group: 0", [(1, 3, 5, 5)], "group must be positive; got 0."),
        (CONV % "stride: 0", [(1, 3, 5, 5)], "stride must be positive; got [0, 0]."),
        (CONV % "axis: 4", [(1, 3, 5, 5)], "there is no such axis; got 4, want -4 to 3."),
        (CONV % "kernel_size: 1 kernel_size: 1", [(1, 3, 5, 5)],
         "kernel_size must be given once, or once for each spatial axis; got 3, want 1 or 2."),
        ('type: "Convolution" convolution_param { num_output: 4 kernel_size: 0 }', [(1, 3, 5, 5)],
         "kernel must be positive; got [0, 0]."),
        (CONV % 'weight_filler { type: "uniform" min: 2 }', [(1, 3, 5, 5)],
         "the uniform filler needs min <= max, both finite; got min 2.0, max 1.0."),
        (CONV % 'weight_filler { type: "uniform" max: inf }', [(1, 3, 5, 5)],
         "the uniform filler needs min <= max, both finite; got min 0.0, max inf."),
        (CONV % 'bias_filler { type: "gaussian" std: -1 }', [(1, 3, 5, 5)],
         "the gaussian filler needs a positive std; got -1.0."),
        ('type: "Convolution" convolution_param { num_output: 4000000000 kernel_size: 3 }',
         [(1, 1000, 5, 5)], "num_output is too large; got 4000000000, want at most 2147483647."),
        ('type: "Convolution" convolution_param { num_output: 2000000000 kernel_size: 10 pad: 50 }', [(1, 3, 5, 5)],
         "the weight has more values than Caffe supports; got (2000000000, 3, 10, 10), want at most 2147483647."),
        ('type: "Convolution" convolution_param { kernel_size: 3 }', [(1, 3, 5, 5)],
         "num_output must be positive; got 0."),
        (CONV % "" + " top: 'a' top: 'b'", [(1, 3, 5, 5), (1, 3, 5, 6)],
         "bottom 1 differs in shape from bottom 0; got (1, 3, 5, 6), want (1, 3, 5, 5)."),
        (CONV % "", [(1, 3, 2, 5)], "the kernel is longer than the padded input; got 2 + 2 * 0 pixels, want 3."),
        ('type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 1 pad: 2 }', [(1, 3, 4, 4)],
         "the padding removes the whole output; got length 0."),
        ('type: "Im2col" convolution_param { kernel_size: 1 axis: 3 }', [(1, 3, 4, 4)],
         "there is no spatial axis after the channels; got (1, 3, 4, 4)."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("first", "later", "error"),
    [
        ((1, 3, 5, 5), (1, 4, 5, 5), "the bottom's channels do not fit the weights; got 4, want 3."),
        ((1, 3, 5, 5), (3, 5, 5), "bottom 0 has a different number of axes; got (3, 5, 5), want 4 axes."),
    ],
)
def test_a_later_bottom_must_fit_the_weights(first, later, error):
    layer = single(CONV % "", first)
    with pytest.raises(NetError) as caught:
        layer(torch.zeros(later))
    assert str(caught.value) == error


@pytest.mark.parametrize("channels", [16, 160])
def test_a_depthwise_convolution_keeps_the_format_in_which_torch_is_fast(channels):
    text = f'type: "Convolution" convolution_param {{ num_output: {channels} group: {channels} kernel_size: 3 pad: 1 }}'
    layer = single(text, (1, channels, 9, 8))
    torch.nn.init.normal_(layer.blobs[0])
    x = torch.randn(1, channels, 9, 8)
    weight, bias = layer.blobs
    want = F.conv2d(x, weight, bias, padding=1, groups=channels)
    (top,) = layer(x.contiguous(memory_format=torch.channels_last))
    assert top.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(top, want)
    (top,) = layer(x)
    assert top.is_contiguous()
    torch.testing.assert_close(top, want, rtol=0, atol=0)

"""Layers of PSPNet, DeepLab, SegNet and ENet, where no recorded case covers them."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Message, Phase
from tests.helpers.single_layer import gradient, single

Message.import_late_fields()

INTERP = 'type: "Interp" interp_param { %s }'
PSP = 'type: "BN" bn_param { slope_filler { value: 1.5 } bias_filler { value: 0.25 } %s }'
SEG = 'type: "BN" bn_param { scale_filler { value: 1.5 } shift_filler { value: 0.25 } bn_mode: %s } %s'
UPSAMPLE = 'type: "Upsample" upsample_param { %s }'


def interpolate(x, size):
    """Bilinear interpolation with aligned corners in double precision, one axis at a time."""
    for axis, new in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0)
        low = np.minimum(np.floor(place + 1e-9).astype(int), old - 1)
        share = (place - low).reshape([-1 if k == axis else 1 for k in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, old - 1), axis) * share
    return x


@pytest.mark.parametrize(
    ("fields", "bottom", "size"),
    [
        ("zoom_factor: 3", (4, 5), (10, 13)),
        ("shrink_factor: 3", (9, 10), (3, 4)),
        ("shrink_factor: 3 zoom_factor: 2", (9, 10), (5, 7)),
        ("zoom_factor: 2 height: 50 width: 60", (4, 5), (7, 9)),
        ("shrink_factor: 2 height: 50 width: 60", (9, 9), (5, 5)),
        ("shrink_factor: 2 zoom_factor: 2 height: 6 width: 7", (9, 9), (6, 7)),
        ("full_zoom_factor: 2", (4, 5), (8, 10)),
        ("full_zoom_factor: 2 height: 6 width: 7", (4, 5), (6, 7)),
        ("full_zoom_factor: 2 zoom_factor: 3", (4, 5), (10, 13)),
        ("height: 1 width: 1", (4, 5), (1, 1)),
        ("height: 1 width: 5", (4, 5), (1, 5)),
        ("height: 7 width: 5", (7, 9), (7, 5)),
        ("height: 4 width: 4 pad_beg: -2 pad_end: -1", (7, 9), (4, 4)),
        ("height: 4 width: 6 pad_beg: -2 pad_end: -1", (7, 9), (4, 6)),
    ],
)
def test_the_size_of_interp_follows_from_the_fields_that_are_set(fields, bottom, size):
    x = torch.randn(2, 3, *bottom, generator=torch.Generator().manual_seed(0))
    layer = single(INTERP % fields, tuple(x.shape))
    assert layer.shapes([tuple(x.shape)]) == [(2, 3, *size)]
    (top,) = layer(x)
    kept = x.double().numpy()[:, :, 2:-1, 2:-1] if "pad_beg" in fields else x.double().numpy()
    np.testing.assert_allclose(top.numpy(), interpolate(kept, size), rtol=0, atol=2e-6)
    (found,) = gradient(layer, x)
    assert found.sum() == pytest.approx(2 * 3 * np.prod(size), rel=1e-5)
    if "pad_beg" in fields:
        assert not found[:, :, :2].any()
        assert not found[:, :, :, -1:].any()


def test_interp_of_equal_size_is_a_copy():
    x = torch.tensor([[[[1.0, float("inf")], [2.0, 3.0]]]])
    (top,) = single(INTERP % "zoom_factor: 1", (1, 1, 2, 2))(x)
    assert torch.equal(top, x)
    assert top.data_ptr() != x.data_ptr()


def test_a_zoom_has_a_coordinate_map_and_other_sizes_have_none():
    def found(fields):
        layer = single(INTERP % fields, (1, 1, 9, 9))
        return type(layer).coord_map(layer.layer_param)

    assert found("zoom_factor: 8").scale == (8, 8)
    assert found("zoom_factor: 8 pad_beg: -2").shift == (-16, -16)
    assert found("shrink_factor: 8 zoom_factor: 8") is None
    assert found("height: 3 width: 3") is None


def test_bn_of_pspnet_without_a_filler_has_a_slope_of_zero():
    layer = single('type: "BN" bn_param { frozen: true }', (2, 3, 4, 4))
    assert [blob.sum().item() for blob in layer.blobs] == [0, 0, 0, 3]


def test_bn_of_pspnet_learns_slope_and_bias_alone_and_nothing_if_it_is_frozen():
    rates = [spec.lr_mult for spec in single((PSP % "") + " param { lr_mult: 2 }", (2, 3, 4, 4)).param_specs]
    assert rates == [2, 1, 0, 0]
    frozen = single((PSP % "frozen: true") + " param { lr_mult: 2 decay_mult: 3 }", (2, 3, 4, 4))
    assert [(spec.lr_mult, spec.decay_mult) for spec in frozen.param_specs] == [(0, 0)] * 4


def test_bn_of_pspnet_normalizes_by_the_batch_in_training_and_keeps_running_statistics():
    x = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1)) * 2 + 3
    layer = single(PSP % "momentum: 0.8 eps: 0.01", tuple(x.shape), phase=Phase.TRAIN)
    (top,) = layer(x)
    mean, variance = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), correction=0)
    want = (x.double() - mean[:, None, None]) / (variance + 0.01).sqrt()[:, None, None] * 1.5 + 0.25
    torch.testing.assert_close(top.double(), want, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.blobs[2].flatten().double(), 0.2 * mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(layer.blobs[3].flatten().double(), 0.2 * variance, rtol=1e-5, atol=0)


def test_bn_of_pspnet_takes_bottoms_of_two_and_three_axes():
    for shape in [(4, 3), (4, 3, 5)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        (top,) = single(PSP % "", shape, phase=Phase.TRAIN)(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        torch.testing.assert_close(top.mean(axes), torch.full((3,), 0.25))


def test_bn_of_segnet_uses_the_statistics_of_the_batch_in_testing_too():
    x = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(1)) * 2 + 3
    layer = single(SEG % ("LEARN", 'top: "a" top: "b" top: "c"'), tuple(x.shape))
    top, mean, variance = layer(x)
    torch.testing.assert_close(mean, x.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(variance, x.var((0, 2, 3), correction=0, keepdim=True))
    torch.testing.assert_close(top, (x - mean) / (variance + 1e-9).sqrt() * 1.5 + 0.25)
    assert not mean.requires_grad


def test_bn_of_segnet_is_finite_for_a_channel_of_equal_values_and_follows_the_size():
    layer = single(SEG % ("LEARN", ""), (2, 3, 4, 4))
    (top,) = layer(torch.full((1, 3, 7, 9), 1234.567))
    assert top.shape == (1, 3, 7, 9)
    assert torch.isfinite(top).all()


def test_bn_of_segnet_in_inference_scales_and_shifts():
    layer = single(SEG % ("INFERENCE", 'top: "a" top: "b" top: "c"'), (1, 3, 2, 2))
    top, mean, variance = layer(torch.full((1, 3, 2, 2), 2.0))
    assert torch.equal(top, torch.full((1, 3, 2, 2), 3.25))
    assert not mean.any()
    assert not variance.any()
    assert layer.sets_gradient(0, [(1, 3, 2, 2)])


def test_the_gradient_of_both_is_the_derivative_where_the_statistics_are_those_of_the_batch():
    for text, phase in [(PSP % "eps: 0.1", Phase.TRAIN), (SEG % ("LEARN", ""), Phase.TEST)]:
        layer = single(text, (3, 2, 2, 3), phase=phase).double()
        x = torch.randn(3, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
        assert torch.autograd.gradcheck(lambda x, *_, layer=layer: layer(x)[0], (x, *layer.blobs[:2]))


def test_upsample_writes_values_to_the_places_of_the_mask():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    mask = torch.tensor([[[[0.0, 3.0], [13.0, 13.0]]]])  # two values have the same place
    layer = single(UPSAMPLE % "", (1, 1, 2, 2), (1, 1, 2, 2))
    (top,) = layer(x, mask)
    want = torch.zeros(16)
    want[[0, 3, 13]] = torch.tensor([1.0, 2.0, 4.0])
    assert torch.equal(top.flatten(), want)
    x.requires_grad_()
    layer(x, mask)[0].backward(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert x.grad.flatten().tolist() == [0, 3, 13, 13]


@pytest.mark.parametrize("place", [16, -1])
def test_a_place_outside_the_top_of_upsample_is_an_error(place):
    layer = single(UPSAMPLE % "", (1, 1, 2, 2), (1, 1, 2, 2))
    with pytest.raises(NetError, match=rf"^place {place} of the mask lies outside the top; want 0\.\.15\."):
        layer(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), float(place)))


def test_upsample_undoes_the_map_of_the_pooling_and_follows_the_size():
    layer = single(UPSAMPLE % "scale_h: 2 scale_w: 3 pad_out_h: true upsample_h: 9", (1, 1, 2, 2), (1, 1, 2, 2))
    assert layer.shapes([(1, 1, 2, 2)] * 2) == [(1, 1, 3, 6)]
    assert layer.shapes([(1, 1, 4, 5)] * 2) == [(1, 1, 7, 15)]
    found = type(layer).coord_map(layer.layer_param)
    assert (found.scale, [float(shift) for shift in found.shift]) == ((2, 3), [0.5, 1])
    fixed = single(UPSAMPLE % "upsample_h: 5 upsample_w: 6", (1, 1, 2, 2), (1, 1, 2, 2))
    assert fixed.shapes([(1, 1, 4, 5)] * 2) == [(1, 1, 5, 6)]
    assert type(fixed).coord_map(fixed.layer_param) is None


LOSS = 'type: "SoftmaxWithLoss" loss_param { weight_by_label_freqs: true %s }'


def test_the_weights_of_classes_multiply_loss_and_gradient():
    scores = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = torch.tensor([[[0, 1], [2, 255]], [[1, 1], [0, 2]]])
    weights = "class_weighting: 0.5 class_weighting: 2 class_weighting: 3"
    layer = single(LOSS % f"ignore_label: 255 {weights}", (2, 3, 2, 2), (2, 1, 2, 2)).double()
    scores.requires_grad_()
    (loss,) = layer(scores, labels[:, None].double())
    loss.backward()
    found = scores.grad.clone()
    scores.grad = None
    weighted = torch.nn.functional.cross_entropy(
        scores, labels, torch.tensor([0.5, 2, 3], dtype=torch.float64), ignore_index=255, reduction="sum"
    )
    (weighted / 7).backward()
    torch.testing.assert_close(loss, weighted / 7)
    torch.testing.assert_close(found, scores.grad)


def test_weights_of_classes_are_not_used_unless_it_is_asked_for():
    text = 'type: "SoftmaxWithLoss" loss_param { class_weighting: 9 class_weighting: 9 }'
    scores, labels = torch.randn(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)
    plain = single('type: "SoftmaxWithLoss"', (1, 2, 3, 3), (1, 1, 3, 3))
    assert torch.equal(single(text, (1, 2, 3, 3), (1, 1, 3, 3))(scores, labels)[0], plain(scores, labels)[0])


DROPOUT = 'type: "Dropout" dropout_param { dropout_ratio: 0.25 sample_weights_test: %s }'


def test_bayesian_segnet_drops_in_testing_too():
    layer = single(DROPOUT % "true", (1, 4, 50, 50), seed=0)
    assert type(layer).dialect is not None
    (top,) = layer(torch.ones(1, 4, 50, 50))
    assert top.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert (top == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert layer.compiled_form([(1, 4, 50, 50)]) is None
    plain = single(DROPOUT % "false", (1, 4, 50, 50))
    assert torch.equal(plain(torch.ones(1, 4, 50, 50))[0], torch.ones(1, 4, 50, 50))


SEG_ACCURACY = 'type: "SegAccuracy" seg_accuracy_param { %s }'


def test_seg_accuracy_adds_up_the_passes_without_reset():
    layer = single(SEG_ACCURACY % "reset: false ignore_label: 9 ignore_label: -1", (1, 2, 1, 2), (1, 1, 1, 2))
    scores = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # predicts 0 and 1
    assert layer(scores, torch.tensor([[[[0.0, 9.0]]]]))[0].flatten().tolist() == [1, 1, 1]
    (top,) = layer(scores, torch.tensor([[[[1.0, -1.0]]]]))  # one pixel right, one of class 1 taken for 0
    assert top.flatten().tolist() == [0.5, 0.5, 0.25]
    again = single(SEG_ACCURACY % "ignore_label: 9 ignore_label: -1", (1, 2, 1, 2), (1, 1, 1, 2))
    again(scores, torch.tensor([[[[0.0, 9.0]]]]))
    assert again(scores, torch.tensor([[[[1.0, -1.0]]]]))[0].flatten().tolist() == [0, 0, 0]


def test_seg_accuracy_predicts_the_last_of_equal_scores_and_counts_absent_classes_as_1():
    layer = single(SEG_ACCURACY % "", (1, 3, 1, 1), (1, 1, 1, 1))
    (top,) = layer(torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1, 1), 2.0))
    assert top.flatten().tolist() == [1, 1, 1]
    ignoring = single(SEG_ACCURACY % "ignore_label: 2", (1, 3, 1, 1), (1, 1, 1, 1))
    assert ignoring(torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1, 1), 2.0))[0].flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        (INTERP % "pad_beg: 1 zoom_factor: 2", [(1, 1, 3, 3)], "pad_beg can only crop; got 1, want at most 0."),
        (INTERP % "", [(1, 1, 3, 3)], "no size is given; want height and width, zoom_factor or shrink_factor."),
        (
            INTERP % "height: 3",
            [(1, 1, 3, 3)],
            "no size is given; want height and width, zoom_factor or shrink_factor.",
        ),
        (INTERP % "zoom_factor: 0", [(1, 1, 3, 3)], "zoom_factor must be positive; got 0."),
        (INTERP % "zoom_factor: 2 pad_end: -3", [(1, 1, 3, 3)], "nothing is left after cropping; got (1, 1, 3, 3)."),
        (INTERP % "height: 0 width: 3", [(1, 1, 3, 3)], "the size of the top must be positive; got 0 x 3."),
        (
            PSP % "",
            [(1, 2, 3, 3, 3)],
            ("the blob must have num, channels, height and width only; got (1, 2, 3, 3, 3), want at most 4 axes."),
        ),
        (
            UPSAMPLE % "scale: 2 scale_h: 2 scale_w: 2",
            [(1, 1, 2, 2)] * 2,
            (
                "scale is set twice, or for one axis only; "
                "want upsample_h and upsample_w, scale, or scale_h and scale_w."
            ),
        ),
        (
            UPSAMPLE % "scale_h: 2",
            [(1, 1, 2, 2)] * 2,
            (
                "scale is set twice, or for one axis only; want upsample_h and "
                "upsample_w, scale, or scale_h and scale_w."
            ),
        ),
        (UPSAMPLE % "scale: 1", [(1, 1, 2, 2)] * 2, "the factors must be greater than 1; got (1, 1)."),
        (
            UPSAMPLE % "scale: 3 pad_out_w: true",
            [(1, 1, 2, 2)] * 2,
            ("pad_out_h and pad_out_w are for a factor of 2; got 3."),
        ),
        (
            UPSAMPLE % "upsample_h: 1 upsample_w: 4",
            [(1, 1, 2, 2)] * 2,
            ("upsample_h and upsample_w must be greater than 1; got (1, 4)."),
        ),
        (
            UPSAMPLE % "",
            [(1, 1, 2, 2), (1, 1, 2, 3)],
            ("data and mask must have the same four axes (N, C, H, W); got (1, 1, 2, 2) and (1, 1, 2, 3)."),
        ),
        (
            LOSS % "class_weighting: 1",
            [(1, 2, 3, 3), (1, 1, 3, 3)],
            ("class_weighting must be given for each class; got 1, want 2."),
        ),
        (
            SEG_ACCURACY % "",
            [(1, 2, 3, 3), (1, 1, 3, 2)],
            ("there must be one label for each pixel; got (1, 1, 3, 2), want (1, 1, 3, 3)."),
        ),
    ],
)
def test_what_the_forks_refuse_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as raised:
        single(text, *shapes).shapes(list(shapes))
    assert str(raised.value) == error


def test_a_label_that_is_neither_a_class_nor_ignored_is_an_error():
    layer = single(SEG_ACCURACY % "ignore_label: 255", (1, 2, 1, 1), (1, 1, 1, 1))
    with pytest.raises(
        NetError, match=r"^label 7 is out of range; got 1 such, want 0\.\.1, or ignore_label \[255\]\.$"
    ):
        layer(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1, 1), 7.0))

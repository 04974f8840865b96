"""The losses of Fast R-CNN, R-FCN, Microsoft, Synopsys and NVIDIA Caffe equal their formulas in double precision."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.helpers.single_layer import gradient, single

SHAPE = (3, 4, 2, 5)


def draw(count, seed=0):
    rng = np.random.RandomState(seed)
    return [torch.from_numpy(rng.randn(*SHAPE)) for _ in range(count)]


def huber(difference, sigma):
    size = np.abs(difference)
    return np.where(size < 1 / sigma**2, 0.5 * sigma**2 * size**2, size - 0.5 / sigma**2)


def slope(difference, sigma):
    return np.where(np.abs(difference) < 1 / sigma**2, sigma**2 * difference, np.sign(difference))


def build(text, count, tops=1, dialect=""):
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return single(f"{text} {names}", *[SHAPE] * count, dialect=dialect).double()


@pytest.mark.parametrize(("count", "sigma"), [(2, 1), (2, 3), (4, 1), (4, 3)])
def test_fast_rcnns_smooth_l1_loss(count, sigma):
    text = f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}'
    layer = build(text, count, dialect="faster_rcnn")
    a, b, *weights = bottoms = draw(count)
    inside, outside = (x.numpy() for x in weights) if weights else (1, 1)
    difference = inside * (a - b).numpy()
    loss = (outside * huber(difference, sigma)).sum() / 3
    assert not layer.is_loss  # without loss_weight, its weight is 0
    np.testing.assert_allclose(layer(*bottoms)[0], loss, rtol=1e-12)
    found = list(gradient(layer, *bottoms))
    want = outside * inside * slope(difference, sigma) / 3
    np.testing.assert_allclose(found[0], want, rtol=1e-12)
    np.testing.assert_allclose(found[1], -want, rtol=1e-12)
    assert not any(each.any() for each in found[2:])


@pytest.mark.parametrize("abssum", ["true", "false"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_synopsys_smooth_l1_loss(count, abssum):
    layer = build(f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: 2 abssum: {abssum} }}', count)
    a, b, *weights = bottoms = draw(count)
    inside, outside = [x.numpy() for x in weights] + [1] * (2 - len(weights))
    difference = inside * (a - b).numpy()
    losses = outside * huber(difference, 2)
    assert layer.is_loss
    loss = (np.abs(losses) if abssum == "true" else losses).sum() / 3
    np.testing.assert_allclose(layer(*bottoms)[0], loss, rtol=1e-12)
    want = outside * (1 if abssum == "true" else inside) * slope(difference, 2) / 3
    np.testing.assert_allclose(next(gradient(layer, *bottoms)), want, rtol=1e-12)


@pytest.mark.parametrize(
    ("normalization", "divisor"),
    [
        ("", 30),
        ("loss_param { normalization: FULL }", 30),
        ("loss_param { normalization: BATCH_SIZE }", 3),
        ("loss_param { normalize: false }", 3),
        ("loss_param { normalize: true }", 30),
        ("loss_param { normalization: NONE }", 1),
        ("loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 128 }", 128),
        ("loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 0.25 }", 1),
        ("loss_param { normalization: PRE_FIXED }", 1),
    ],
)
@pytest.mark.parametrize(("kind", "dialect"), [("SmoothL1LossOHEM", "microsoft"), ("SmoothL1Loss", "rfcn")])
def test_rfcns_smooth_l1_loss_gives_the_loss_of_each_instance(kind, dialect, normalization, divisor):
    layer = build(f'type: "{kind}" {normalization}', 3, tops=2, dialect=dialect)
    bottoms = draw(3)
    difference = ((bottoms[0] - bottoms[1]) * bottoms[2]).numpy()
    loss, each = layer(*bottoms)
    np.testing.assert_allclose(loss, huber(difference, 1).sum() / divisor, rtol=1e-12)
    np.testing.assert_allclose(each, huber(difference, 1).sum(1, keepdims=True), rtol=1e-12)
    # The gradient is not multiplied by the weights.
    np.testing.assert_allclose(next(gradient(layer, *bottoms)), slope(difference, 1) / divisor, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        ('"SmoothL1Loss"', [SHAPE] * 3,
         "there must be both inside and outside weights, or none; got 3 bottoms, want 2 or 4."),
        ('"SmoothL1LossOHEM"', [SHAPE, (3, 4, 2, 4)],
         "bottom 1 differs in shape from bottom 0; got (3, 4, 2, 4), want (3, 4, 2, 5)."),
        ('"SoftmaxWithLossOHEM" loss_param { normalization: PRE_FIXED }', [(3, 4), (3,)],
         "this layer cannot be normalized by PRE_FIXED. Use VALID, FULL or BATCH_SIZE."),
        ('"L1Loss"', [(3, 4), (3, 5)], "both bottoms must have as many values; got (3, 5), want as many as in (3, 4)."),
        ('"BoxAnnotatorOHEM" top: "a" top: "b"', [(3, 5, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (3, 8, 1, 1)],
         "roi_per_img must be set and positive; got 0."),
        ('"BoxAnnotatorOHEM" top: "a" top: "b" box_annotator_ohem_param { roi_per_img: 1 }',
         [(3, 5, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (2, 8, 1, 1)],
         "bottom 3 does not fit the RoIs; got (2, 8, 1, 1), want (R, ...), R = 3."),
        ('"BoxAnnotatorOHEM" top: "a" top: "b" box_annotator_ohem_param { roi_per_img: 1 }',
         [(3, 4, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (2, 8, 1, 1)],
         "there must be five values for each RoI; got (3, 4, 1, 1), want (R, 5, 1, 1)."),
    ],
)  # fmt: skip
def test_a_wrong_setting_or_shape_is_an_error(text, shapes, message):
    with pytest.raises(NetError) as error:
        single(f"type: {text}", *shapes, dialect="faster_rcnn").shapes(shapes)
    assert str(error.value) == message


def test_softmax_loss_gives_the_loss_of_each_instance():
    scores, labels = torch.randn(4, 3, 2, 2), torch.randint(0, 3, (4, 1, 2, 2)).float()
    labels[0, 0, 0, 0] = -1
    text = 'type: "SoftmaxWithLossOHEM" top: "a" top: "b" top: "c" loss_param { ignore_label: -1 }'
    layer = single(text, scores.shape, labels.shape)
    loss, probabilities, each = layer(scores, labels)
    index = labels.long().clamp(min=0)
    want = -scores.double().log_softmax(1).gather(1, index)
    want[labels < 0] = 0
    torch.testing.assert_close(each.double(), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.double(), want.sum() / 15)
    torch.testing.assert_close(probabilities, scores.softmax(1))
    assert layer.shapes([scores.shape, labels.shape]) == [(), scores.shape, labels.shape]
    plain = single('type: "SoftmaxWithLoss" loss_param { ignore_label: -1 }', scores.shape, labels.shape)
    torch.testing.assert_close(next(gradient(layer, scores, labels)), next(gradient(plain, scores, labels)))


def test_the_losses_of_hard_examples_decide_which_are_learned():
    losses = torch.tensor([5.0, 1, 7, 3, 7, 2, 9, 0])
    images = torch.tensor([0.0, 0, 1, 0, 1, 1, 2, 0])
    rois = torch.zeros(8, 5)
    rois[:, 0] = images
    labels, weights = torch.arange(8) + 20.0, torch.rand(8, 4) + 1
    text = 'type: "BoxAnnotatorOHEM" top: "a" top: "b" box_annotator_ohem_param { roi_per_img: 2 ignore_label: 255 }'
    layer = single(text, (8, 5), (8, 1, 1, 1), (8,), (8, 4))
    learned, weighted = layer(rois, losses.reshape(8, 1, 1, 1), labels, weights)
    # The best two of each image, and of equal losses the first.
    assert learned.flatten().tolist() == [20, 255, 22, 23, 24, 255, 26, 255]
    assert (weighted.flatten(1) == weights * (learned.flatten() != 255)[:, None]).all()
    assert learned.shape == (8, 1, 1, 1)
    assert weighted.shape == (8, 4, 1, 1)


def test_l1_loss_has_no_gradient_where_the_bottoms_are_equal():
    a, b = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[1.0, 4, 0], [4, 5, 7]])
    layer = single('type: "L1Loss"', (2, 3), (2, 3))
    assert layer(a, b)[0] == 3
    mine, theirs = gradient(layer, a, b)
    assert mine.tolist() == [[0, -0.5, 0.5], [0, 0, -0.5]]
    assert theirs.tolist() == [[0, 0.5, -0.5], [0, 0, 0.5]]

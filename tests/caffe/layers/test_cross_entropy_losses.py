"""Classification losses, compared with sums over single elements."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import blobs, caffemodel
from tests.helpers.single_layer import single

FLT_MIN = 2.0**-126
SHAPES = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)
MODES = st.sampled_from([None, "FULL", "VALID", "BATCH_SIZE", "NONE"])


def rows_of(scores, labels, axis):
    """The scores and the label of each place, one at a time."""
    rows = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
    return zip(rows, labels.reshape(-1).astype(int), strict=True)


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def divisor(mode, places, valid, batch):
    return max(1, {"FULL": places, "VALID": valid, "BATCH_SIZE": batch, "NONE": 1}[mode])


def make_labels(rng, shape, axis, ignore):
    labels = rng.integers(0, shape[axis], (*shape[:axis], 1, *shape[axis + 1 :])).astype(np.float64)
    if ignore is not None:
        labels[rng.random(labels.shape) < 0.4] = ignore
    return labels


def rule(ignore, mode, normalize=None):
    fields = [f"ignore_label: {ignore}"] * (ignore is not None)
    fields += [f"normalization: {mode}"] * (mode is not None)
    fields += [f"normalize: {str(normalize).lower()}"] * (normalize is not None)
    return f"loss_param {{ {' '.join(fields)} }}"


def run(layer, scores, *others, weight=1.0):
    """The top and the scores' gradient, in double precision, for a gradient ``weight`` of the loss."""
    leaf = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    top = layer.double()(leaf, *(torch.tensor(other) for other in others))[0]
    top.backward(torch.tensor(weight, dtype=torch.float64))
    return top.item(), leaf.grad.numpy()


# ---- SoftmaxWithLoss


@given(SHAPES, MODES, st.sampled_from([None, True, False]), st.sampled_from([None, 0, 255, -1]), st.data())
@settings(max_examples=80, deadline=None)
def test_softmax_loss_is_caffes_for_every_rule(shape, mode, normalize, ignore, data):
    axis = data.draw(st.integers(1, len(shape) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    scores, labels = rng.normal(0, 3, shape), make_labels(rng, shape, axis, ignore)
    kept = [(softmax(row), label) for row, label in rows_of(scores, labels, axis) if label != ignore]
    default = {None: "VALID", True: "VALID", False: "BATCH_SIZE"}[normalize]
    by = divisor(mode or default, labels.size, len(kept), math.prod(shape[:axis]))
    layer = single(
        f'type: "SoftmaxWithLoss" softmax_param {{ axis: {axis} }} {rule(ignore, mode, normalize)}', shape, labels.shape
    )
    loss, diff = run(layer, scores, labels, weight=0.7)
    assert loss == pytest.approx(sum(-math.log(prob[label]) for prob, label in kept) / by)
    want = np.zeros_like(np.moveaxis(scores, axis, -1).reshape(-1, shape[axis]))
    for i, (row, label) in enumerate(rows_of(scores, labels, axis)):
        if label != ignore:
            want[i] = (softmax(row) - np.eye(shape[axis])[label]) * 0.7 / by
    np.testing.assert_allclose(np.moveaxis(diff, axis, -1).reshape(want.shape), want, atol=1e-12)


def test_a_probability_that_underflows_costs_the_log_of_flt_min_and_keeps_its_gradient():
    layer = single('type: "SoftmaxWithLoss"', (1, 3), (1,))
    scores = torch.tensor([[0.0, 200.0, -1000.0]], requires_grad=True)
    (loss,) = layer(scores, torch.tensor([2.0]))
    assert loss.item() == pytest.approx(-math.log(FLT_MIN))
    loss.backward()
    assert scores.grad.tolist() == [[0, 1, -1]]


def test_where_every_label_is_ignored_the_loss_and_its_gradient_are_zero():
    layer = single('type: "SoftmaxWithLoss" loss_param { ignore_label: 255 }', (1, 3, 2), (1, 2))
    scores = torch.tensor([[[0.0, torch.inf]] * 3], requires_grad=True)
    (loss,) = layer(scores, torch.full((1, 2), 255.0))
    loss.backward()
    assert loss.item() == 0
    assert not scores.grad.any()


def test_the_second_top_is_the_probability_and_has_no_gradient():
    layer = single('type: "SoftmaxWithLoss" top: "loss" top: "prob" loss_weight: 1 loss_weight: 0', (2, 3, 2), (2, 2))
    assert layer.shapes([(2, 3, 2), (2, 2)]) == [(), (2, 3, 2)]
    scores = torch.randn(2, 3, 2, requires_grad=True)
    loss, prob = layer(scores, torch.zeros(2, 2))
    torch.testing.assert_close(prob, scores.softmax(1))
    assert loss.requires_grad
    assert not prob.requires_grad


def test_a_gradient_near_a_sure_prediction_keeps_its_digits():
    layer = single('type: "SoftmaxWithLoss"', (1, 2), (1,))
    scores = torch.tensor([[12.0, 0.0]], requires_grad=True)
    layer(scores, torch.tensor([0.0]))[0].backward()
    prob = scores.detach().softmax(1)
    assert scores.grad.tolist() == [[float(prob[0, 0] - 1), float(prob[0, 1])]]


@pytest.mark.parametrize(("text", "want"), [("", "0..2"), ("loss_param { ignore_label: 255 }", "0..2 or 255")])
def test_labels_out_of_range_are_named(text, want):
    layer = single(f'type: "SoftmaxWithLoss" {text}', (1, 3, 4), (1, 4))
    with pytest.raises(NetError) as error:
        layer(torch.zeros(1, 3, 4), torch.tensor([[0.0, 40.0, 2.0, 41.0]]))
    assert str(error.value) == f"label 40 is out of range; got 2 such of 4, want {want}."


# ---- InfogainLoss


@given(SHAPES, MODES, st.sampled_from([None, 0, 255]), st.data())
@settings(max_examples=50, deadline=None)
def test_infogain_loss_is_caffes_for_every_rule(shape, mode, ignore, data):
    axis = data.draw(st.integers(1, len(shape) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    scores, labels = rng.normal(0, 3, shape), make_labels(rng, shape, axis, ignore)
    matrix = rng.normal(size=(shape[axis],) * 2)
    kept = [(softmax(row), label) for row, label in rows_of(scores, labels, axis) if label != ignore]
    by = divisor(mode or "VALID", labels.size, len(kept), math.prod(shape[:axis]))
    text = f'type: "InfogainLoss" infogain_loss_param {{ axis: {axis} }} {rule(ignore, mode)}'
    layer = single(text, shape, labels.shape, matrix.shape)
    loss, diff = run(layer, scores, labels, matrix, weight=0.7)
    assert loss == pytest.approx(sum(-(matrix[label] * np.log(prob)).sum() for prob, label in kept) / by)
    want = np.zeros_like(np.moveaxis(scores, axis, -1).reshape(-1, shape[axis]))
    for i, (row, label) in enumerate(rows_of(scores, labels, axis)):
        if label != ignore:
            want[i] = (softmax(row) * matrix[label].sum() - matrix[label]) * 0.7 / by
    np.testing.assert_allclose(np.moveaxis(diff, axis, -1).reshape(want.shape), want, atol=1e-12)


def test_infogain_loss_with_the_identity_from_a_file_is_the_softmax_loss(tmp_path):
    path = tmp_path / "identity.binaryproto"
    caffemodel.dump(blobs.from_array(np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)), path)
    layer = single(f'type: "InfogainLoss" infogain_loss_param {{ source: "{path}" }}', (2, 3, 4), (2, 4))
    other = single('type: "SoftmaxWithLoss"', (2, 3, 4), (2, 4))
    scores, labels = np.random.default_rng(0).normal(size=(2, 3, 4)), np.arange(8.0).reshape(2, 4) % 3
    (loss, diff), (want_loss, want_diff) = run(layer, scores, labels), run(other, scores, labels)
    assert loss == pytest.approx(want_loss)
    np.testing.assert_allclose(diff, want_diff, atol=1e-12)
    assert not layer.state_dict()


# ---- MultinomialLogisticLoss, SigmoidCrossEntropyLoss


def test_multinomial_logistic_loss_keeps_its_gradient_below_the_threshold():
    layer = single('type: "MultinomialLogisticLoss"', (3, 2), (3, 1))
    prob = np.array([[0.25, 0.75], [0.0, 1.0], [1e-30, -1.0]])
    loss, diff = run(layer, prob, np.array([[0.0], [0.0], [1.0]]), weight=3.0)
    assert loss == pytest.approx((-math.log(0.25) - 2 * math.log(1e-20)) / 3)
    np.testing.assert_allclose(diff, [[-4, 0], [-1e20, 0], [0, -1e20]])


@given(SHAPES, MODES, st.sampled_from([None, True, False]), st.sampled_from([None, 0, 255]), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_sigmoid_cross_entropy_is_caffes_for_every_rule(shape, mode, normalize, ignore, seed):
    rng = np.random.default_rng(seed)
    scores, targets = rng.normal(0, 5, shape), rng.random(shape)
    if ignore == 255:
        targets[rng.random(shape) < 0.4] = 255
    counts = np.ones(shape, bool) if ignore is None else targets.astype(int) != ignore
    default = {None: "BATCH_SIZE", True: "VALID", False: "BATCH_SIZE"}[normalize]
    by = divisor(mode or default, scores.size, int(counts.sum()), shape[0])
    layer = single(f'type: "SigmoidCrossEntropyLoss" {rule(ignore, mode, normalize)}', shape, shape)
    loss, diff = run(layer, scores, targets.reshape(shape[0], -1), weight=0.7)
    sigmoid = 1 / (1 + np.exp(-scores))
    want = -(targets * np.log(sigmoid) + (1 - targets) * np.log(1 - sigmoid))
    assert loss == pytest.approx(want[counts].sum() / by, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(diff, (sigmoid - targets) * counts * 0.7 / by, atol=1e-12)


def test_sigmoid_cross_entropy_of_great_scores_does_not_overflow():
    layer = single('type: "SigmoidCrossEntropyLoss"', (1, 3), (1, 3))
    loss, diff = run(layer, np.array([[1000.0, -1000.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]))
    assert loss == pytest.approx(2000 + math.log(2))
    assert diff.tolist() == [[1, -1, 0.5]]


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "SoftmaxWithLoss"', [(2, 3), (3, 1)],
         "predictions and labels must have the same first dimension; got (2, 3) and (3, 1)."),
        ('type: "SoftmaxWithLoss"', [(2, 3, 4), (2, 3)],
         ("the number of labels must match the number of predictions; got labels (2, 3) for predictions (2, 3, 4), "
          "want 8 labels, one for each position outside axis 1.")),
        ('type: "SoftmaxWithLoss" softmax_param { axis: 2 }', [(2, 3), (2,)],
         "there is no such axis; got 2, want -2 to 1."),
        ('type: "SoftmaxWithLoss" top: "a" top: "b" top: "c"', [(2, 3), (2,)],
         "wrong number of tops; got 3, want 1 to 2."),
        ('type: "InfogainLoss"', [(2, 3), (2,)],
         "the infogain matrix is missing; want infogain_loss_param.source or a third bottom."),
        ('type: "InfogainLoss"', [(2, 3), (2,), (3, 2)],
         "the infogain matrix must be classes by classes; got (3, 2), want (3, 3)."),
        ('type: "InfogainLoss" loss_param { normalize: true }', [(2, 3), (2,), (3, 3)],
         "InfogainLoss layers take no 'loss_param.normalize'. Remove it, as in Caffe."),
        ('type: "MultinomialLogisticLoss"', [(2, 3), (2, 3)],
         "there must be one label for each instance; got (2, 3), want (2,)."),
        ('type: "SigmoidCrossEntropyLoss"', [(2, 3), (2, 4)],
         "there must be one target for each score; got (2, 4), want as many as in (2, 3)."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error

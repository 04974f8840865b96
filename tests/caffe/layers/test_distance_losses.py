"""EuclideanLoss, HingeLoss and ContrastiveLoss."""

import math

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.helpers.single_layer import single


def test_euclidean_loss_halves_the_mean_square_and_teaches_both_bottoms():
    layer = single('type: "EuclideanLoss"', (2, 2, 1), (2, 2))
    a, b = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), torch.tensor([[0.0, 2.0], [5.0, 4.0]])
    a.requires_grad_(), b.requires_grad_()
    (loss,) = layer(a, b)
    assert loss.item() == (1 + 4) / 2 / 2
    loss.backward(torch.tensor(4.0))
    assert a.grad.tolist() == [[[2], [0]], [[-4], [0]]]
    assert b.grad.tolist() == [[-2, 0], [4, 0]]


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_loss_counts_margins_of_one_class_against_all(norm):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 1, (5, 4)).astype(np.float32), rng.integers(0, 4, 5)
    scores[0, 1] = -1  # on the margin
    sign = np.where(np.arange(4) == labels[:, None], 1, -1)
    margin = np.maximum(0, 1 - sign * scores)
    layer = single(f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}', (5, 4, 1), (5, 1))
    leaf = torch.tensor(scores[..., None], requires_grad=True)
    (loss,) = layer(leaf, torch.tensor(labels[:, None]))
    loss.backward(torch.tensor(2.0))
    power = 1 if norm == "L1" else 2
    assert loss.item() == pytest.approx((margin**power).sum() / 5)
    slope = np.sign(margin) if power == 1 else 2 * margin
    np.testing.assert_allclose(leaf.grad.numpy()[..., 0], -sign * slope * 2 / 5, rtol=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
def test_contrastive_loss_pulls_and_pushes_as_caffe_does(legacy):
    margin, weight = 2.0, 3.0
    a = np.array([[1.0, 1.0], [1.0, 1.0], [0.5, 0.0], [0.0, 0.0], [9.0, 0.0]])
    b = np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 0.0], [0.0, 1.5], [0.0, 0.0]])
    similar = np.array([1.0, 0.0, 0.0, 2.0, 0.0])
    text = f"contrastive_loss_param {{ margin: {margin} legacy_version: {str(legacy).lower()} }}"
    layer = single(f'type: "ContrastiveLoss" {text}', (5, 2), (5, 2), (5, 1)).double()
    leaves = [torch.tensor(x, requires_grad=True) for x in (a, b)]
    (loss,) = layer(*leaves, torch.tensor(similar[:, None]))
    loss.backward(torch.tensor(weight, dtype=torch.float64))
    total, diffs = 0.0, np.zeros_like(a)
    for n, pair in enumerate(a - b):
        square = float(pair @ pair)
        short = margin - (square if legacy else math.sqrt(square))
        if int(similar[n]):
            total += square
            diffs[n] = pair
        else:
            total += max(short, 0) if legacy else max(short, 0) ** 2
            if short > 0:
                diffs[n] = -pair * (1 if legacy else short / (math.sqrt(square) + 1e-4))
    assert loss.item() == pytest.approx(total / 5 / 2)
    np.testing.assert_allclose(leaves[0].grad.numpy(), diffs * weight / 5, atol=1e-12)
    np.testing.assert_allclose(leaves[1].grad.numpy(), -diffs * weight / 5, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "EuclideanLoss"', [(2, 3), (3, 2)],
         "predictions and labels must have the same first dimension; got (2, 3) and (3, 2)."),
        ('type: "EuclideanLoss"', [(2, 3), (2, 4)],
         "both bottoms must have as many values; got (2, 4), want as many as in (2, 3)."),
        ('type: "HingeLoss"', [(2, 3), (2, 3)], "there must be one label for each instance; got (2, 3), want (2,)."),
        ('type: "ContrastiveLoss"', [(2, 3), (2, 4), (2,)],
         "the pairs must be vectors of one length; got (2, 3) and (2, 4), want (N, C)."),
        ('type: "ContrastiveLoss"', [(2, 3, 1, 2), (2, 3, 1, 2), (2,)],
         "the pairs must be vectors of one length; got (2, 3, 1, 2) and (2, 3, 1, 2), want (N, C)."),
        ('type: "ContrastiveLoss"', [(2, 3), (2, 3), (2, 3)],
         "there must be one label for each pair; got (2, 3), want (2,)."),
        ('type: "ContrastiveLoss"', [(2, 3), (2, 3)], "wrong number of bottoms; got 2, want 3."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error


def test_a_label_beyond_the_scores_is_an_error():
    with pytest.raises(NetError, match=r"^label 3 is out of range; got 1 such of 2, want 0\.\.2\.$"):
        single('type: "HingeLoss"', (2, 3), (2,))(torch.zeros(2, 3), torch.tensor([3.0, 0.0]))

"""MarginInnerProduct multiplies the angle to the true class, with the fork's gradient."""

import math

import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.schema import Phase
from tests.helpers.single_layer import single

TYPES = ["SINGLE", "DOUBLE", "TRIPLE", "QUADRUPLE"]


def build(text):
    text = f'num_output: 4 weight_filler {{ type: "gaussian" }} {text}'
    shapes = (9, 3, 1, 1), (9,)
    text = f'type: "MarginInnerProduct" top: "a" top: "b" margin_inner_product_param {{ {text} }}'
    return single(text, *shapes, phase=Phase.TRAIN, seed=0).double()


def psi(angle, times):
    """Return cos(m t), continued so that it falls: (-1)^k cos(m t) - 2 k for t from k pi / m to (k + 1) pi / m."""
    k = math.floor(angle * times / math.pi)
    return (-1) ** k * math.cos(times * angle) - 2 * k


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_the_angle_to_the_true_class_is_multiplied(times):
    layer = build(f"type: {TYPES[times - 1]} base: 3 gamma: 0.5 power: 2 lambda_min: 0.4 iteration: 1")
    x, labels = torch.randn(9, 3, 1, 1, dtype=torch.float64), torch.arange(9) % 4
    for passes in (2, 3, 4):
        scores, share = layer(x, labels.double())
        assert float(share) == pytest.approx(max(3 * (1 + 0.5 * passes) ** -2, 0.4))
    weight = layer.blobs[0].detach()
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(4, dtype=torch.float64))
    for row, label, score in zip(x.flatten(1), labels, scores, strict=True):
        want = weight @ row
        length = float(row.norm())
        angle = math.acos(float(want[label]) / length)
        if times > 1:
            want[label] = (length * psi(angle, times) + float(share) * want[label]) / (1 + float(share))
        torch.testing.assert_close(score.detach(), want)


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_the_gradient_of_the_true_class_has_the_direction_of_the_derivative_without_lambda(times):
    layer = build(f"type: {TYPES[times - 1]} base: 0")
    x, labels = torch.randn(9, 3, 1, 1, dtype=torch.float64).requires_grad_(), torch.arange(9) % 4
    (scores, _) = layer(x, labels.double())
    scores.gather(1, labels[:, None]).sum().backward()
    weight = layer.blobs[0].detach()[labels]
    for row, true, found in zip(x.detach().flatten(1), weight, x.grad.flatten(1), strict=True):
        leaf = row.clone().requires_grad_()
        length = leaf.norm()
        angle = torch.acos(leaf @ true / length)
        k = math.floor(float(angle.detach()) * times / math.pi)
        (length * ((-1) ** k * torch.cos(times * angle) - 2 * k)).backward()
        torch.testing.assert_close(found / found.norm(), leaf.grad / leaf.grad.norm())
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    torch.testing.assert_close(layer.blobs[0].grad, one_hot.T @ x.detach().flatten(1))


def test_a_wrong_setting_is_an_error():
    with pytest.raises(NetError, match=r"^num_output must be positive; got 0\.$"):
        single('type: "MarginInnerProduct"', (2, 3), (2,))
    with pytest.raises(NetError, match=r"^there must be one label for each instance; got \(3,\), want \(2,\)\.$"):
        single('type: "MarginInnerProduct" margin_inner_product_param { num_output: 2 }', (2, 3), (3,)).shapes(
            [(2, 3), (3,)]
        )

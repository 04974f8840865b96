"""Caffe's update rules and learning rates, against their formulas in double precision."""

import math

import pytest

from reproduction.caffe import rules
from reproduction.caffe.schema import SolverParameter


def rate(policy: str, iteration: int, step: int = 0, **fields) -> float:
    return rules.learning_rate(SolverParameter(lr_policy=policy, base_lr=0.1, **fields), iteration, step)[0]


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (rate("fixed", 7), 0.1),
        (rate("step", 7, gamma=0.5, stepsize=3), 0.1 * 0.5**2),
        (rate("exp", 7, gamma=0.9), 0.1 * 0.9**7),
        (rate("inv", 7, gamma=0.01, power=0.75), 0.1 * 1.07**-0.75),
        (rate("poly", 7, max_iter=20, power=2), 0.1 * (1 - 7 / 20) ** 2),
        (rate("sigmoid", 7, gamma=0.5, stepsize=5), 0.1 / (1 + math.exp(-0.5 * 2))),
    ],
)
def test_rates_follow_their_policies(got, want):
    assert got == pytest.approx(want, rel=1e-6)

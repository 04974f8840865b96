"""Caffe's update rules and learning rates, compared with their formulas in double precision."""

import math

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.schema import SolverParameter
from reproduction.caffe.training import update_rules


def rate(policy: str, iteration: int, step: int = 0, **fields) -> float:
    return update_rules.learning_rate(SolverParameter(lr_policy=policy, base_lr=0.1, **fields), iteration, step)[0]


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (rate("fixed", 7), 0.1),
        (rate("step", 7, gamma=0.5, stepsize=3), 0.1 * 0.5**2),
        (rate("exp", 7, gamma=0.9), 0.1 * 0.9**7),
        (rate("inv", 7, gamma=0.01, power=0.75), 0.1 * 1.07**-0.75),
        (rate("multistep", 7, 2, gamma=0.5, stepvalue=[3, 6, 9]), 0.1 * 0.5**2),
        (rate("poly", 7, max_iter=20, power=2), 0.1 * (1 - 7 / 20) ** 2),
        (rate("poly", 20, max_iter=20, power=2), 0),
        (rate("sigmoid", 7, gamma=0.5, stepsize=5), 0.1 / (1 + math.exp(-0.5 * 2))),
        (rate("sigmoid", 7, gamma=1000, stepsize=100), 0),
        (rate("exp", 100000, gamma=0.9), 0),
    ],
)
def test_rates_follow_their_policies(got, want):
    assert got == pytest.approx(want, rel=1e-6)
    assert got == np.float32(got)


def test_a_multistep_schedule_makes_one_step_a_call():
    param = SolverParameter(lr_policy="multistep", base_lr=1.0, gamma=0.5, stepvalue=[2, 3, 3])
    step, seen = 0, []
    for iteration in range(7):
        found, step = update_rules.learning_rate(param, iteration, step)
        seen.append(found)
    assert seen == [1, 1, 0.5, 0.25, 0.125, 0.125, 0.125]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"lr_policy": "stp"},
            (
                "solver: unknown lr_policy 'stp'; want fixed, step, exp, inv, multistep, poly, sigmoid."
                " Did you mean 'step'?"
            ),
        ),
        ({}, "solver: lr_policy is not set; want fixed, step, exp, inv, multistep, poly, sigmoid."),
        ({"lr_policy": "step"}, "solver: lr_policy 'step' needs stepsize; got 0, want >= 1."),
        ({"lr_policy": "exp", "gamma": -1.0}, "solver: lr_policy 'exp' needs gamma; got -1, want >= 0."),
        ({"lr_policy": "poly"}, "solver: lr_policy 'poly' needs max_iter; got 0, want >= 1."),
        (
            {"lr_policy": "poly", "max_iter": 5, "power": 0.5},
            "solver: the learning rate is nan at iteration 9. Mend base_lr, or what lr_policy 'poly' makes of it.",
        ),
        (
            {"lr_policy": "exp", "gamma": 1e30},
            "solver: the learning rate is inf at iteration 9. Mend base_lr, or what lr_policy 'exp' makes of it.",
        ),
        (
            {"lr_policy": "fixed", "base_lr": math.nan},
            "solver: the learning rate is nan at iteration 9. Mend base_lr, or what lr_policy 'fixed' makes of it.",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(fields, text):
    with pytest.raises(ReproductionError) as caught:
        update_rules.learning_rate(SolverParameter(**{"base_lr": 0.1, **fields}), 9, 0)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"type": "Adma"},
            (
                "solver: unknown solver type 'Adma'; want SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam."
                " Did you mean 'Adam'?"
            ),
        ),
        ({"type": "AdaGrad", "momentum": 0.9}, "solver: AdaGrad takes no momentum; got momentum 0.9, want 0."),
        ({"type": "RMSProp", "momentum": 0.5}, "solver: RMSProp takes no momentum; got momentum 0.5, want 0."),
        ({"type": "RMSProp", "rms_decay": 1.0}, "solver: rms_decay is out of range; got 1, want [0, 1)."),
    ],
)
def test_a_rule_that_cannot_be_is_one_line(fields, text):
    with pytest.raises(ReproductionError) as caught:
        update_rules.find_rule(SolverParameter(**fields))
    assert str(caught.value) == text


def sgd(g, h, rate, t, m, m2, delta, decay):
    h[0] = m * h[0] + rate * g
    return h[0]


def nesterov(g, h, rate, t, m, m2, delta, decay):
    before, h[0] = h[0], m * h[0] + rate * g
    return (1 + m) * h[0] - m * before


def adagrad(g, h, rate, t, m, m2, delta, decay):
    h[0] = h[0] + g * g
    return rate * g / (np.sqrt(h[0]) + delta)


def rmsprop(g, h, rate, t, m, m2, delta, decay):
    h[0] = decay * h[0] + (1 - decay) * g * g
    return rate * g / (np.sqrt(h[0]) + delta)


def adadelta(g, h, rate, t, m, m2, delta, decay):
    h[0] = m * h[0] + (1 - m) * g * g
    update = g * np.sqrt((h[1] + delta) / (h[0] + delta))
    h[1] = m * h[1] + (1 - m) * update * update
    return rate * update


def adam(g, h, rate, t, m, m2, delta, decay):
    h[0] = m * h[0] + (1 - m) * g
    h[1] = m2 * h[1] + (1 - m2) * g * g
    return rate * math.sqrt(1 - m2 ** (t + 1)) / (1 - m ** (t + 1)) * h[0] / (np.sqrt(h[1]) + delta)


FORMULAS = {
    "SGD": sgd,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSProp": rmsprop,
    "AdaDelta": adadelta,
    "Adam": adam,
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_rules_follow_their_formulas(kind):
    momentum = 0.0 if kind in {"AdaGrad", "RMSProp"} else 0.9
    param = SolverParameter(type=kind, momentum=momentum, momentum2=0.99, delta=1e-4, rms_decay=0.9)
    rule = update_rules.find_rule(param)
    history = [torch.zeros(50) for _ in range(rule.histories)]
    exact = [np.zeros(50) for _ in history]
    random = np.random.RandomState(0)
    for t in range(8):
        gradient = random.randn(50).astype(np.float32)
        speed = float(np.float32(0.1 / (t + 1)))
        want = FORMULAS[kind](gradient.astype(float), exact, speed, t, momentum, 0.99, 1e-4, 0.9)
        got = rule.update(torch.from_numpy(gradient), history, speed, t, param).numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-7)
        for mine, theirs in zip(history, exact, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-4, atol=1e-7)
    assert set(FORMULAS) == set(update_rules.RULES)


def test_what_no_policy_and_no_rule_reads_is_named():
    param = SolverParameter(lr_policy="fixed", gamma=0.1, stepsize=5, momentum=0.9, rms_decay=0.5, max_iter=5)
    assert update_rules.find_unread_fields(param) == ["gamma", "stepsize", "rms_decay"]
    param = SolverParameter(lr_policy="multistep", gamma=0.1, stepvalue=[5], type="RMSProp", rms_decay=0.5)
    assert update_rules.find_unread_fields(param) == []


@pytest.mark.parametrize("momentum", [1, -1, 2, 3e38])
@pytest.mark.parametrize("momentum2", [0.5, 1, -1, 2, 3e38])
@pytest.mark.parametrize("iteration", [1, 5000])
def test_adam_with_momenta_that_make_no_sense_gives_numbers(momentum, momentum2, iteration):
    param = SolverParameter(type="Adam", momentum=momentum, momentum2=momentum2)
    history = [torch.zeros(2), torch.zeros(2)]
    update = update_rules.find_rule(param).update(torch.ones(2), history, 0.1, iteration, param)
    assert update.shape == (2,)

"""Caffe's update rules and learning-rate policies.

Each rule computes, in Caffe's order of operations, the update to subtract from a parameter. It modifies the history
in place.

Source: BVLC/caffe@9b89154 src/caffe/solvers/*.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.caffe.schema import SolverParameter

History = Sequence[Tensor]
Update = Callable[[Tensor, History, float, int, SolverParameter], Tensor]


@dataclass(frozen=True)
class Rule:
    """The update rule of one solver type, e.g. SGD.

    Attributes:
        update: Function from gradient, history, learning rate, iteration and solver settings to the update, which is
            subtracted from the parameter; it may overwrite the gradient.
        histories: The number of history blobs per parameter, e.g. 1 for SGD with momentum.
        reads: The solver's fields that this rule reads, besides those that every rule reads.
        keeps_zero: Whether a history of zeros stays zero at learning rate 0, for any gradient. It then needs no memory.
    """

    update: Update
    histories: int
    reads: frozenset[str]
    keeps_zero: bool = False


@dataclass(frozen=True)
class Policy:
    """A learning-rate policy, e.g. step.

    Attributes:
        factor: Function from solver settings, iteration and step of the schedule to what ``base_lr`` is multiplied by.
        reads: The solver's fields that this policy reads.
    """

    factor: Callable[[SolverParameter, int, int], float]
    reads: frozenset[str]


def learning_rate(param: SolverParameter, iteration: int, step: int) -> tuple[float, int]:
    """Return the learning rate of an iteration, rounded to single precision, and the new step of the schedule.

    Args:
        param: The solver's settings; ``lr_policy`` is fixed, step, exp, inv, multistep, poly or sigmoid.
        iteration: The number of updates made before.
        step: How many times a multistep schedule has multiplied the rate by ``gamma``; other policies ignore it.

    Raises:
        ReproductionError: If the policy is unknown, if a setting that it needs is missing or out of range, or if the
            learning rate is not finite.

    Source: BVLC/caffe@9b89154 src/caffe/solvers/sgd_solver.cpp L10-L79.
    """
    check_policy(param)
    if param.lr_policy == "step":
        step = iteration // param.stepsize
    elif param.lr_policy == "multistep" and step < len(param.stepvalue) and iteration >= param.stepvalue[step]:
        step += 1  # Caffe: At most one step per call, even if several values were passed (sgd_solver.cpp L46)
    with np.errstate(all="ignore"):
        rate = float(np.float32(param.base_lr * POLICIES[param.lr_policy].factor(param, iteration, step)))
    if not math.isfinite(rate):
        raise ReproductionError(
            f"the learning rate is {rate} at iteration {iteration}",
            place="solver",
            remedy=f"Mend base_lr, or what lr_policy {param.lr_policy!r} makes of it.",
        )
    return rate, step


def check_policy(param: SolverParameter) -> None:
    """Check the settings of the learning-rate policy.

    Raises:
        ReproductionError: If the policy is unknown, or if a setting that it needs is missing or out of range.
    """
    policy = param.lr_policy
    if policy not in POLICIES:
        problem = f"unknown lr_policy {policy!r}" if policy else "lr_policy is not set"
        raise ReproductionError(
            problem, place="solver", want=", ".join(POLICIES), remedy=did_you_mean(policy, POLICIES)
        )
    for name, least in (("gamma", 0), ("stepsize", 1), ("max_iter", 1)):
        if name in POLICIES[policy].reads and getattr(param, name) < least:
            raise ReproductionError(
                f"lr_policy {policy!r} needs {name}",
                place="solver",
                got=f"{getattr(param, name):g}",
                want=f">= {least}",
            )


# C++ computes the following three policies in single precision, like their arguments, and the others in double.
# numpy's power of two scalars calls the C library's powf; its functions of arrays differ in the last digit.
def _inv(param: SolverParameter, iteration: int, step: int) -> float:
    base = np.float32(1) + np.float32(param.gamma) * np.float32(iteration)
    return float(base ** np.float32(-param.power))


def _poly(param: SolverParameter, iteration: int, step: int) -> float:
    base = np.float32(1) - np.float32(iteration) / np.float32(param.max_iter)
    return float(base ** np.float32(param.power))


def _sigmoid(param: SolverParameter, iteration: int, step: int) -> float:
    over = np.float32(-param.gamma) * (np.float32(iteration) - np.float32(param.stepsize))
    return float(np.float32(1) / (np.float32(1) + np.float32(np.exp(float(over)))))


def _power(param: SolverParameter, iteration: int, step: int) -> float:
    return float(np.power(float(param.gamma), step))


POLICIES: dict[str, Policy] = {
    "fixed": Policy(lambda param, iteration, step: 1.0, frozenset()),
    "step": Policy(_power, frozenset({"gamma", "stepsize"})),
    "exp": Policy(lambda param, iteration, step: _power(param, iteration, iteration), frozenset({"gamma"})),
    "inv": Policy(_inv, frozenset({"gamma", "power"})),
    "multistep": Policy(_power, frozenset({"gamma", "stepvalue"})),
    "poly": Policy(_poly, frozenset({"power", "max_iter"})),
    "sigmoid": Policy(_sigmoid, frozenset({"gamma", "stepsize"})),
}


def find_unread_fields(param: SolverParameter) -> list[str]:
    """Return the solver's fields that are set but that only another ``lr_policy`` or solver ``type`` reads."""
    reads = POLICIES[param.lr_policy].reads | RULES[param.type].reads | {"max_iter"}
    entries: list[Policy | Rule] = [*POLICIES.values(), *RULES.values()]
    known = frozenset().union(*(each.reads for each in entries))
    return [field.name for field, _ in param.set_fields() if field.name in known - reads]


def _root(x: Tensor) -> Tensor:
    # torch's square root on the CPU is an approximation whose last digit is wrong for one number in six.
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def _sgd(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    # Caffe: The momentum history contains gradients already multiplied by the learning rate, so that a new rate affects
    # new gradients only (sgd_solver.cpp L229). torch multiplies the history by the current rate.
    return history[0].mul_(param.momentum).add_(gradient, alpha=rate)


def _nesterov(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    before = history[0] * -param.momentum
    history[0].mul_(param.momentum).add_(gradient, alpha=rate)
    return before.add_(history[0], alpha=1 + param.momentum)


def _adagrad(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    history[0].add_(gradient.square())
    return gradient.div_(_root(history[0]).add_(param.delta)).mul_(rate)


def _rmsprop(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    history[0].mul_(param.rms_decay).add_(gradient.square(), alpha=1 - param.rms_decay)
    return gradient.div_(_root(history[0]).add_(param.delta)).mul_(rate)


def _adadelta(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    squares, updates = history
    squares.mul_(param.momentum).add_(gradient.square(), alpha=1 - param.momentum)
    gradient.mul_(_root(updates.add(param.delta).div_(squares.add(param.delta))))
    updates.mul_(param.momentum).add_(gradient.square(), alpha=1 - param.momentum)
    return gradient.mul_(rate)


@np.errstate(all="ignore")  # momenta outside of [0, 1] produce infinities and NaN without an error, as in C++
def _adam(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    first, second = history
    first.mul_(param.momentum).add_(gradient, alpha=1 - param.momentum)
    second.mul_(param.momentum2).add_(gradient.square(), alpha=1 - param.momentum2)
    t = iteration + 1
    correction = (1 - np.float64(param.momentum2) ** t) ** 0.5 / (1 - np.float64(param.momentum) ** t)
    return first.div(_root(second).add_(param.delta)).mul_(float(np.float32(rate) * np.float32(correction)))


RULES: dict[str, Rule] = {
    "SGD": Rule(_sgd, 1, frozenset({"momentum"}), keeps_zero=True),
    "Nesterov": Rule(_nesterov, 1, frozenset({"momentum"}), keeps_zero=True),
    "AdaGrad": Rule(_adagrad, 1, frozenset({"delta"})),
    "RMSProp": Rule(_rmsprop, 1, frozenset({"rms_decay", "delta"})),
    "AdaDelta": Rule(_adadelta, 2, frozenset({"momentum", "delta"})),
    "Adam": Rule(_adam, 2, frozenset({"momentum", "momentum2", "delta"})),
}


def find_rule(param: SolverParameter) -> Rule:
    """Return the update rule of a solver.

    Raises:
        ReproductionError: If the solver type is unknown, if AdaGrad or RMSProp has a momentum, which Caffe rejects, or
            if RMSProp has an ``rms_decay`` outside of [0, 1).

    Source: BVLC/caffe@9b89154 include/caffe/sgd_solvers.hpp.
    """
    found = RULES.get(param.type)
    if found is None:
        raise ReproductionError(
            f"unknown solver type {param.type!r}",
            place="solver",
            want=", ".join(RULES),
            remedy=did_you_mean(param.type, RULES),
        )
    if param.momentum and param.type in {"AdaGrad", "RMSProp"}:
        raise ReproductionError(
            f"{param.type} takes no momentum", place="solver", got=f"momentum {param.momentum:g}", want=0
        )
    if param.type == "RMSProp" and not 0 <= param.rms_decay < 1:
        raise ReproductionError("rms_decay is out of range", place="solver", got=f"{param.rms_decay:g}", want="[0, 1)")
    return found

"""Caffe's update rules and learning-rate policies: from a gradient to the amount that a parameter is lowered by.

Each rule works in place on the gradient's history, in Caffe's order of operations, and returns the update.

Source: BVLC/caffe@9b89154 src/caffe/solvers/*.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from reproduction.caffe.errors import ReproductionError, did_you_mean
from reproduction.caffe.schema import SolverParameter

History = Sequence[Tensor]
Update = Callable[[Tensor, History, float, int, SolverParameter], Tensor]


@dataclass(frozen=True)
class Rule:
    """One solver type.

    Attributes:
        update: gradient, history, rate, iteration and solver to the update; may use the gradient's memory.
        histories: how many history blobs each parameter has.
    """

    update: Update
    histories: int


def learning_rate(param: SolverParameter, iteration: int, step: int) -> tuple[float, int]:
    """Give the learning rate of an iteration, in single precision, and the step that it belongs to.

    Args:
        param: the solver; its ``lr_policy`` is one of fixed, step, exp, inv, multistep, poly, sigmoid.
        iteration: the number of updates so far.
        step: the step that a multistep schedule had reached; others ignore it.

    Raises:
        ReproductionError: an unknown policy, or a setting that it needs is missing or negative.

    Source: BVLC/caffe@9b89154 src/caffe/solvers/sgd_solver.cpp L10-L79.
    """
    policy = POLICIES.get(param.lr_policy)
    if policy is None:
        raise ReproductionError(
            f"unknown lr_policy {param.lr_policy!r}",
            place="solver",
            want=", ".join(POLICIES),
            remedy=did_you_mean(param.lr_policy, POLICIES),
        )
    if param.gamma < 0 or (param.lr_policy in {"step", "sigmoid"} and param.stepsize < 1):
        raise ReproductionError(
            f"lr_policy {param.lr_policy!r} needs gamma >= 0 and, for step and sigmoid, stepsize > 0",
            place="solver",
            got=f"gamma {param.gamma:g}, stepsize {param.stepsize}",
        )
    if param.lr_policy == "step":
        step = iteration // param.stepsize
    elif param.lr_policy == "multistep" and step < len(param.stepvalue) and iteration >= param.stepvalue[step]:
        step += 1  # Caffe: one step a call, even if several values were passed (sgd_solver.cpp L46)
    return float(np.float32(param.base_lr) * np.float32(policy(param, iteration, step))), step


def _inv(param: SolverParameter, iteration: int, step: int) -> float:
    return float((1 + param.gamma * iteration) ** -param.power)


def _poly(param: SolverParameter, iteration: int, step: int) -> float:
    return float((1 - iteration / param.max_iter) ** param.power)


def _sigmoid(param: SolverParameter, iteration: int, step: int) -> float:
    return float(1 / (1 + np.exp(-param.gamma * (iteration - param.stepsize))))


POLICIES: dict[str, Callable[[SolverParameter, int, int], float]] = {
    "fixed": lambda param, iteration, step: 1.0,
    "step": lambda param, iteration, step: param.gamma**step,
    "exp": lambda param, iteration, step: param.gamma**iteration,
    "inv": _inv,
    "multistep": lambda param, iteration, step: param.gamma**step,
    "poly": _poly,
    "sigmoid": _sigmoid,
}


def _sgd(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    # Caffe: the rate is inside the history, so a change of it acts on new gradients only (sgd_solver.cpp L229).
    return history[0].mul_(param.momentum).add_(gradient, alpha=rate)


def _nesterov(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    before = history[0] * -param.momentum
    history[0].mul_(param.momentum).add_(gradient, alpha=rate)
    return before.add_(history[0], alpha=1 + param.momentum)


def _adagrad(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    history[0].add_(gradient.square())
    return gradient.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


def _rmsprop(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    history[0].mul_(param.rms_decay).add_(gradient.square(), alpha=1 - param.rms_decay)
    return gradient.div_(history[0].sqrt().add_(param.delta)).mul_(rate)


def _adadelta(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    squares, updates = history
    squares.mul_(param.momentum).add_(gradient.square(), alpha=1 - param.momentum)
    gradient.mul_(updates.add(param.delta).div_(squares.add(param.delta)).sqrt_())
    updates.mul_(param.momentum).add_(gradient.square(), alpha=1 - param.momentum)
    return gradient.mul_(rate)


def _adam(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    first, second = history
    first.mul_(param.momentum).add_(gradient, alpha=1 - param.momentum)
    second.mul_(param.momentum2).add_(gradient.square(), alpha=1 - param.momentum2)
    t = iteration + 1
    correction = (1 - param.momentum2**t) ** 0.5 / (1 - param.momentum**t)
    return first.div(second.sqrt().add_(param.delta)).mul_(rate * correction)


RULES: dict[str, Rule] = {
    "SGD": Rule(_sgd, 1),
    "Nesterov": Rule(_nesterov, 1),
    "AdaGrad": Rule(_adagrad, 1),
    "RMSProp": Rule(_rmsprop, 1),
    "AdaDelta": Rule(_adadelta, 2),
    "Adam": Rule(_adam, 2),
}


def rule(param: SolverParameter) -> Rule:
    """Look up a solver's rule.

    Raises:
        ReproductionError: an unknown type, or momentum where Caffe refuses it.

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
    return found

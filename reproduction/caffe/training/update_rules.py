"""Caffe's update rules and learning-rate policies: from a gradient to the amount that a parameter is lowered by.

Each rule works in place on the gradient's history, in Caffe's order of operations, and returns the update.

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
    """One solver type.

    Attributes:
        update: gradient, history, rate, iteration and solver to the update; may use the gradient's memory.
        histories: how many history blobs each parameter has.
        reads: the solver's fields that it reads, besides those that every rule does.
        keeps_zero: whether the history of a parameter with rate 0 stays zero, whatever the gradient.
    """

    update: Update
    histories: int
    reads: frozenset[str]
    keeps_zero: bool = False


def learning_rate(param: SolverParameter, iteration: int, step: int) -> tuple[float, int]:
    """Give the learning rate of an iteration, in single precision, and the step that it belongs to.

    Args:
        param: the solver; its ``lr_policy`` is one of fixed, step, exp, inv, multistep, poly, sigmoid.
        iteration: the number of updates so far.
        step: the step that a multistep schedule had reached; others ignore it.

    Raises:
        ReproductionError: as ``check_policy``.

    Source: BVLC/caffe@9b89154 src/caffe/solvers/sgd_solver.cpp L10-L79.
    """
    check_policy(param)
    if param.lr_policy == "step":
        step = iteration // param.stepsize
    elif param.lr_policy == "multistep" and step < len(param.stepvalue) and iteration >= param.stepvalue[step]:
        step += 1  # Caffe: one step a call, even if several values were passed (sgd_solver.cpp L46)
    with np.errstate(all="ignore"):
        rate = float(np.float32(param.base_lr * POLICIES[param.lr_policy](param, iteration, step)))
    if not math.isfinite(rate):
        raise ReproductionError(
            f"the learning rate is {rate} at iteration {iteration}",
            place="solver",
            remedy=f"Mend base_lr, or what lr_policy {param.lr_policy!r} makes of it.",
        )
    return rate, step


def check_policy(param: SolverParameter) -> None:
    """Refuse a schedule that cannot be.

    Raises:
        ReproductionError: an unknown policy, or a setting that it needs is missing or negative.
    """
    policy = param.lr_policy
    if policy not in POLICIES:
        problem = f"unknown lr_policy {policy!r}" if policy else "lr_policy is not set"
        raise ReproductionError(
            problem, place="solver", want=", ".join(POLICIES), remedy=did_you_mean(policy, POLICIES)
        )
    for name, least in (("gamma", 0), ("stepsize", 1), ("max_iter", 1)):
        if name in POLICY_READS[policy] and getattr(param, name) < least:
            raise ReproductionError(
                f"lr_policy {policy!r} needs {name}",
                place="solver",
                got=f"{getattr(param, name):g}",
                want=f">= {least}",
            )


# C++ works these three out in single precision, as their arguments are; the others in double. numpy's power of two
# numbers, and only that, is the C library's powf; its functions of arrays have other last digits.
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


POLICIES: dict[str, Callable[[SolverParameter, int, int], float]] = {
    "fixed": lambda param, iteration, step: 1.0,
    "step": _power,
    "exp": lambda param, iteration, step: _power(param, iteration, iteration),
    "inv": _inv,
    "multistep": _power,
    "poly": _poly,
    "sigmoid": _sigmoid,
}

POLICY_READS: dict[str, frozenset[str]] = {
    "fixed": frozenset(),
    "step": frozenset({"gamma", "stepsize"}),
    "exp": frozenset({"gamma"}),
    "inv": frozenset({"gamma", "power"}),
    "multistep": frozenset({"gamma", "stepvalue"}),
    "poly": frozenset({"power", "max_iter"}),
    "sigmoid": frozenset({"gamma", "stepsize"}),
}


def unread(param: SolverParameter) -> list[str]:
    """List the fields that are set, but belong to another ``lr_policy`` or ``type``."""
    reads = POLICY_READS[param.lr_policy] | RULES[param.type].reads | {"max_iter"}
    known = frozenset().union(*POLICY_READS.values(), *(rule.reads for rule in RULES.values()))
    return [field.name for field, _ in param.set_fields() if field.name in known - reads]


def _root(x: Tensor) -> Tensor:
    # torch's square root on the CPU is an approximation, whose last digit is wrong for one number in six.
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def _sgd(gradient: Tensor, history: History, rate: float, iteration: int, param: SolverParameter) -> Tensor:
    # Caffe: the momentum history contains gradients already multiplied by the learning rate, so that a new rate affects
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


@np.errstate(all="ignore")  # momenta outside of 0 to 1 make infinities and NaN, as in C++
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
    if param.type == "RMSProp" and not 0 <= param.rms_decay < 1:
        raise ReproductionError("rms_decay is out of range", place="solver", got=f"{param.rms_decay:g}", want="[0, 1)")
    return found

"""Caffe's solver: forward, backward, normalise, regularise, update, in Caffe's order.

``Solver`` steps one net; where samples come from is the caller's: a function from the number of a draw to the net's
inputs. Everything random is a function of the seed and the number of the iteration, so that a run that is resumed
from a snapshot goes on as if it had never stopped.

Source: BVLC/caffe@9b89154 src/caffe/solver.cpp, src/caffe/solvers/sgd_solver.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reproduction.caffe import rules, snapshot
from reproduction.caffe.errors import ReproductionError, StrPath
from reproduction.caffe.net import Net
from reproduction.caffe.schema import ParamSpec, SolverParameter

Inputs = Mapping[str, Tensor | np.ndarray[Any, Any]]
Feed = Callable[[int], Inputs]


class LossError(ReproductionError):
    """The loss is no number any more; the weights are those before the iteration."""


class Solver:
    """A net and what learns it.

    Args:
        param: the solver, upgraded.
        net: the net to train, built for TRAIN.
        feed: from the number of a draw (iteration times ``iter_size``, plus its place in the batch) to the inputs;
            None for nets whose own layers bring the data.

    Attributes:
        iter: how many updates were made.
        current_step: how many steps of a multistep schedule were made.
        loss: of the last iteration, the mean over ``iter_size``.
        sample_losses: of the last iteration, one for each forward.
        smoothed_loss: the mean over the last ``average_loss`` iterations.
        history: the rule's blobs, in Caffe's order: all first ones, then all second ones.

    Raises:
        ReproductionError: a setting that Caffe would refuse.
    """

    def __init__(self, param: SolverParameter, net: Net, feed: Feed | None = None):
        for name, least in (("iter_size", 1), ("average_loss", 1)):
            if getattr(param, name) < least:
                raise ReproductionError(f"{name} is too small", place="solver", got=getattr(param, name), want=least)
        if param.regularization_type not in {"L1", "L2"}:
            raise ReproductionError(
                "unknown regularization_type", place="solver", got=param.regularization_type, want="L1 or L2"
            )
        self.param = param
        self.net = net
        self.feed = feed or (lambda draw: {})
        self.rule = rules.rule(param)
        self.iter = 0
        self.current_step = 0
        self.loss = math.nan
        self.sample_losses: list[float] = []
        self.smoothed_loss = 0.0
        self._losses: list[float] = []
        self._start = 0
        self.learned: list[tuple[nn.Parameter, ParamSpec]] = net.learnable
        self.history = [torch.zeros_like(p) for _ in range(self.rule.histories) for p, _ in self.learned]
        rules.learning_rate(param, 0, 0)  # refuses a schedule that cannot be, before anything is computed

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return rules.learning_rate(self.param, self.iter, self.current_step)[0]

    def step(self, iterations: int = 1) -> float:
        """Make some updates and return the last loss.

        Raises:
            LossError: a loss that is not finite; the weights stay as they were before that iteration.
        """
        self._start, self._losses, self.smoothed_loss = self.iter, [], 0.0
        for _ in range(iterations):
            self.accumulate()
            self.apply_update()
        return self.loss

    def accumulate(self) -> None:
        """Run ``iter_size`` samples forward and backward, adding their gradients up."""
        for p, _ in self.learned:
            p.grad = None
        self.sample_losses = []
        size = self.param.iter_size
        for draw in range(self.iter * size, (self.iter + 1) * size):
            self.net.reseed(draw)
            blobs = self.net(self.feed(draw))
            loss = self.net.loss(blobs)
            self.sample_losses.append(float(loss.detach()))
            if not math.isfinite(self.sample_losses[-1]):
                raise LossError(
                    f"the loss is {self.sample_losses[-1]} at iteration {self.iter}",
                    place=f"draw {draw}",
                    remedy="The learning rate is too high for this loss, or the weights or the sample are broken.",
                )
            loss.backward()  # type: ignore[no-untyped-call]
        self.loss = sum(self.sample_losses) / size
        self._smooth()

    def apply_update(self) -> None:
        """Turn the accumulated gradients into an update of the weights."""
        rate, self.current_step = rules.learning_rate(self.param, self.iter, self.current_step)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p, _ in self.learned]
        self._clip(gradients)
        count = len(self.learned)
        with torch.no_grad():
            for i, ((p, spec), gradient) in enumerate(zip(self.learned, gradients, strict=True)):
                p.grad = self.rule.update(
                    self._regularized(p, spec, gradient),
                    self.history[i::count],
                    float(np.float32(rate) * np.float32(spec.lr_mult)),
                    self.iter,
                    self.param,
                )
                p.sub_(p.grad)
        self.iter += 1

    def _regularized(self, p: Tensor, spec: ParamSpec, gradient: Tensor) -> Tensor:
        if self.param.iter_size > 1:
            gradient.mul_(1 / self.param.iter_size)
        decay = float(np.float32(self.param.weight_decay) * np.float32(spec.decay_mult))
        if decay:
            gradient.add_(p if self.param.regularization_type == "L2" else p.sign(), alpha=decay)
        return gradient

    def _clip(self, gradients: list[Tensor]) -> None:
        limit = self.param.clip_gradients
        if limit < 0:
            return
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        if norm > limit:
            for gradient in gradients:
                gradient.mul_(limit / norm)

    def _smooth(self) -> None:
        window = self.param.average_loss
        if len(self._losses) < window:
            self._losses.append(self.loss)
            self.smoothed_loss += (self.loss - self.smoothed_loss) / len(self._losses)
        else:
            place = (self.iter - self._start) % window
            self.smoothed_loss += (self.loss - self._losses[place]) / window
            self._losses[place] = self.loss

    def snapshot(self) -> tuple[str, str]:
        """Write the weights and the state to ``snapshot_prefix``; return the two paths.

        Raises:
            ReproductionError: no prefix.
            OSError: the files cannot be written; earlier snapshots are as they were.
        """
        return snapshot.save(self.param, self.net, self.iter, self.current_step, self.history)

    def restore(self, path: StrPath) -> None:
        """Go on from a state that this or Caffe wrote; nothing changes when it does not fit.

        Raises:
            ReproductionError: a file that cannot be read, or the state of another net or solver type.
        """
        state = snapshot.load(path, self.history)
        if state.model is not None:
            self.net.copy_from(state.model, state.model_path)
        for mine, saved in zip(self.history, state.history, strict=True):
            mine.copy_(saved)
        self.iter, self.current_step = state.iter, state.current_step

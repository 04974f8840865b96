"""Update weights from gradients: clip, normalize, regularize and update, in Caffe's order, one parameter at a time.

A parameter with ``lr_mult: 0`` has no cost: its gradient is not computed, and where its history stays zero, the
history uses no memory.

Source: BVLC/caffe@9b89154 src/caffe/solvers/sgd_solver.cpp L82-L253.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.layers.convolution import Convolution
from reproduction.caffe.schema import ParamSpec, SolverParameter
from reproduction.caffe.training import update_rules

_CACHED_VALUES = 1 << 18  # of a parameter, updated at a time


@dataclass(frozen=True)
class Norms:
    """Norms of weights and gradients before an update, for ``debug_info``; each is a pair (weights, gradients).

    Attributes:
        blobs: Mean absolute values of each parameter and its gradient, by layer and index, e.g. ``conv1/0``.
        l1: Sums of absolute values over all parameters.
        l2: Euclidean norms over all parameters.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L565-L579, L602-L639.
    """

    blobs: dict[str, tuple[float, float]]
    l1: tuple[float, float]
    l2: tuple[float, float]


class Updates:
    """An optimizer that applies Caffe's update rule to the parameters of a net.

    Args:
        param: The solver's settings.
        learned: The parameters in Caffe's order, on their device, each with its ``param`` message.
        keep: Whether to store the update in ``grad`` afterwards, as Caffe's diff does; otherwise ``grad`` is set to
            None.
        sole_users: The convolutions that can hand over the gradient of their weight in parts, by the id of the weight.

    Attributes:
        history: The history blobs of the update rule, e.g. momentum, in Caffe's order: the first blob of every
            parameter, then the second blobs. To replace them, call ``take_history``.

    Raises:
        ReproductionError: If the solver type or ``regularization_type`` is unknown.
    """

    def __init__(
        self,
        param: SolverParameter,
        learned: Sequence[tuple[nn.Parameter, ParamSpec]],
        *,
        keep: bool,
        sole_users: Mapping[int, Convolution] | None = None,
    ):
        if param.regularization_type not in {"L1", "L2"}:
            raise ReproductionError(
                "unknown regularization_type", place="solver", got=param.regularization_type, want="L1 or L2"
            )
        self.param = param
        self.learned = list(learned)
        self.keep, self.sole_users = keep, sole_users or {}
        self.rule = update_rules.find_rule(param)
        self.history: list[Tensor] = []
        self._still: set[int] = set()
        self.take_history([_zeros(p) for _ in range(self.rule.histories) for p, _ in self.learned])

    def take_history(self, history: Sequence[Tensor]) -> None:
        """Replace ``history``; blobs with the parameters' device and dtype are used without a copy."""
        count = len(self.learned)
        self._still = {
            i
            for i, (_, spec) in enumerate(self.learned)
            if self.rule.keeps_zero and spec.lr_mult == 0 and not any(bool(blob.any()) for blob in history[i::count])
        }
        self.history = []
        for i, blob in enumerate(history):
            p = self.learned[i % count][0]
            still = i % count in self._still
            self.history.append(_zeros(p) if still else blob.to(p.device, p.dtype).contiguous())

    @torch.no_grad()
    def clip(self) -> None:
        """Scale all gradients down if their joint Euclidean norm exceeds ``clip_gradients``.

        Source: BVLC/caffe@9b89154 src/caffe/solvers/sgd_solver.cpp L101-L121.
        """
        limit = self.param.clip_gradients
        gradients = [p.grad for p, _ in self.learned if p.grad is not None]
        if limit < 0 or not gradients:
            return
        norm = math.sqrt(sum(torch.stack([gradient.square().sum() for gradient in gradients]).tolist()))
        if norm > limit:
            for gradient in gradients:
                gradient.mul_(limit / norm)

    @torch.no_grad()
    def apply(self, index: int, rate: float, iteration: int) -> None:
        """Update one parameter from its ``grad``, which holds the sum of the gradients of ``iter_size`` samples.

        Args:
            index: Index of the parameter in ``learned``.
            rate: The learning rate of the iteration, before ``lr_mult``.
            iteration: The number of updates made before.
        """
        p, _ = self.learned[index]
        gradient = p.grad
        if index in self._still:
            p.grad = None
            return
        if gradient is None:
            gradient = torch.zeros_like(p)
        self._apply_rows(index, 0, gradient, rate, iteration)
        p.grad = gradient if self.keep else None

    def _apply_rows(self, index: int, first: int, gradient: Tensor, rate: float, iteration: int) -> None:
        """Update the rows from ``first`` on by their gradient; with ``keep``, replace it by the update."""
        p, spec = self.learned[index]
        decay = float(np.float32(self.param.weight_decay) * np.float32(spec.decay_mult))
        local_rate = float(np.float32(rate) * np.float32(spec.lr_mult))
        blobs = [p, *self.history[index :: len(self.learned)]]
        steps: Iterable[Sequence[Tensor]] = [(gradient, *blobs)]
        if p.numel() > _CACHED_VALUES:
            # A few rows at a time, so that they stay in the CPU's caches from one operation to the next.
            rows = max(1, _CACHED_VALUES * len(gradient) // gradient.numel())
            taken = [gradient, *(x[first : first + len(gradient)] for x in blobs)]
            steps = zip(*(torch.split(x, rows) for x in taken), strict=True)
        for part, weight, *history in steps:
            if self.param.iter_size > 1:
                part.mul_(1 / self.param.iter_size)
            if decay:
                part.add_(weight if self.param.regularization_type == "L2" else weight.sign(), alpha=decay)
            update = self.rule.update(part, history, local_rate, iteration, self.param)
            weight.sub_(update)
            if self.keep:
                part.copy_(update)

    def apply_all(self, rate: float, iteration: int) -> None:
        """Clip the gradients and update every parameter.

        Args:
            rate: The learning rate of the iteration, before ``lr_mult``.
            iteration: The number of updates made before.
        """
        self.clip()
        for index in range(len(self.learned)):
            self.apply(index, rate, iteration)

    @contextlib.contextmanager
    def in_backward(self, rate: float, iteration: int) -> Iterator[None]:
        """A context manager that updates each parameter as soon as the backward pass has computed its gradient.

        This saves memory, as the gradient is freed at once; if its layer can compute it in parts, there is only one of
        them at a time. The weights are bit-identical to those of ``apply_all``, but for the rounding of such parts.
        The block must contain exactly one backward pass. Gradients are not clipped, since clipping needs all of them at
        once.

        Args:
            rate: The learning rate of the iteration, before ``lr_mult``.
            iteration: The number of updates made before.
        """
        waiting = set(range(len(self.learned)))

        def update(index: int, p: Tensor) -> None:
            if index in waiting:  # otherwise it was updated in parts
                waiting.remove(index)
                self.apply(index, rate, iteration)

        @torch.no_grad()
        def update_rows(index: int, first: int, gradient: Tensor) -> None:
            waiting.discard(index)
            if index not in self._still:
                self._apply_rows(index, first, gradient, rate, iteration)

        hooks = [
            p.register_post_accumulate_grad_hook(partial(update, i))  # type: ignore[no-untyped-call]
            for i, (p, _) in enumerate(self.learned)
            if p.requires_grad
        ]
        for i, (p, _) in enumerate(self.learned):
            if id(p) in self.sole_users:
                self.sole_users[id(p)].take_gradient = partial(update_rows, i)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layer in self.sole_users.values():
                layer.take_gradient = None
        for index in sorted(waiting):
            self.apply(index, rate, iteration)

    @torch.no_grad()
    def norms(self, params: Mapping[str, Sequence[Tensor]]) -> Norms:
        """Return the norms of weights and gradients, for ``debug_info``.

        Args:
            params: The net's parameters by layer name.
        """
        names = {id(blob): f"{layer}/{i}" for layer, blobs in params.items() for i, blob in enumerate(blobs)}
        found = {}
        sums = torch.zeros(4, dtype=torch.float64)
        for p, _ in self.learned:
            pair = (p, torch.zeros_like(p) if p.grad is None else p.grad)
            parts = torch.stack([*(x.abs().sum() for x in pair), *(x.square().sum() for x in pair)]).double().cpu()
            found[names[id(p)]] = (float(parts[0]) / p.numel(), float(parts[1]) / p.numel())
            sums += parts
        l1, l2 = sums[:2].tolist(), sums[2:].sqrt().tolist()
        return Norms(found, (l1[0], l1[1]), (l2[0], l2[1]))


def _zeros(p: Tensor) -> Tensor:
    """Return one zero expanded to the shape of a parameter; it takes no memory until ``contiguous`` copies it."""
    return torch.zeros((), dtype=p.dtype, device=p.device).expand(p.shape)

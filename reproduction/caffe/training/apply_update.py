"""From gradients to weights: clip, normalise, regularise, update, in Caffe's order, a parameter at a time.

A parameter that does not learn (``lr_mult: 0``) costs nothing: no gradient is computed for it, and its history, which
stays zero, takes no memory.

Source: BVLC/caffe@9b89154 src/caffe/solvers/sgd_solver.cpp L82-L253.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.schema import ParamSpec, SolverParameter
from reproduction.caffe.training import update_rules


@dataclass(frozen=True)
class Norms:
    """How large weights and gradients are before an update, as ``debug_info`` asks.

    Attributes:
        blobs: mean absolute value of a parameter and of its gradient, by ``LAYER/NUMBER``.
        l1: sums of absolute values over all parameters, of weights and gradients.
        l2: Euclidean norms over all parameters, of weights and gradients.

    Source: BVLC/caffe@9b89154 src/caffe/net.cpp L565-L579, L602-L639.
    """

    blobs: dict[str, tuple[float, float]]
    l1: tuple[float, float]
    l2: tuple[float, float]


class Updates:
    """The updates of a net's parameters.

    Args:
        param: the solver.
        learned: the parameters in Caffe's order, on their device, each with how it learns.
        keep: whether a parameter's ``grad`` holds its last update afterwards, as Caffe's diff does, rather than
            nothing.

    Attributes:
        history: the rule's blobs, in Caffe's order: all first ones, then all second ones. Replace them with
            ``take_history``.

    Raises:
        ReproductionError: a rule or a regularisation that there is not.
    """

    def __init__(self, param: SolverParameter, learned: Sequence[tuple[nn.Parameter, ParamSpec]], *, keep: bool):
        if param.regularization_type not in {"L1", "L2"}:
            raise ReproductionError(
                "unknown regularization_type", place="solver", got=param.regularization_type, want="L1 or L2"
            )
        self.param = param
        self.learned = list(learned)
        self.keep = keep
        self.rule = update_rules.rule(param)
        self.history: list[Tensor] = []
        self._still: set[int] = set()
        self.take_history([_zeros(p) for _ in range(self.rule.histories) for p, _ in self.learned])

    def take_history(self, history: Sequence[Tensor]) -> None:
        """Go on from these blobs, which are used as they are where they are on the parameters' device."""
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
        """Scale all gradients down where their norm together exceeds ``clip_gradients``.

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
        """Update one parameter from its ``grad``, the sum over ``iter_size``.

        Args:
            index: the number of the parameter.
            rate: the learning rate of the iteration.
            iteration: the number of updates before.
        """
        p, spec = self.learned[index]
        gradient = p.grad
        if index in self._still:
            p.grad = None
            return
        if gradient is None:
            gradient = torch.zeros_like(p)
        if self.param.iter_size > 1:
            gradient.mul_(1 / self.param.iter_size)
        decay = float(np.float32(self.param.weight_decay) * np.float32(spec.decay_mult))
        if decay:
            gradient.add_(p if self.param.regularization_type == "L2" else p.sign(), alpha=decay)
        history = self.history[index :: len(self.learned)]
        local_rate = float(np.float32(rate) * np.float32(spec.lr_mult))
        update = self.rule.update(gradient, history, local_rate, iteration, self.param)
        p.sub_(update)
        p.grad = gradient.copy_(update) if self.keep else None

    def apply_all(self, rate: float, iteration: int) -> None:
        """Clip and update every parameter."""
        self.clip()
        for index in range(len(self.learned)):
            self.apply(index, rate, iteration)

    @contextlib.contextmanager
    def in_backward(self, rate: float, iteration: int) -> Iterator[None]:
        """Update every parameter as soon as a backward has its gradient, which is then freed.

        The weights are the same to the bit. It is for one backward an iteration, without clipping, which needs all
        gradients at once.
        """
        waiting = set(range(len(self.learned)))

        def update(index: int, p: Tensor) -> None:
            waiting.remove(index)
            self.apply(index, rate, iteration)

        hooks = [
            p.register_post_accumulate_grad_hook(partial(update, i))  # type: ignore[no-untyped-call]
            for i, (p, _) in enumerate(self.learned)
            if p.requires_grad
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        for index in sorted(waiting):
            self.apply(index, rate, iteration)

    @torch.no_grad()
    def norms(self, params: Mapping[str, Sequence[Tensor]]) -> Norms:
        """Measure weights and gradients; ``params`` are the net's by layer, for their names."""
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
    """Zeros in the shape of a parameter; they take memory when they are first written to ``contiguous``."""
    return torch.zeros((), dtype=p.dtype, device=p.device).expand(p.shape)

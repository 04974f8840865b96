"""Functions of one tensor whose gradient in Caffe is not the one that autograd computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Value = Callable[[Tensor], Tensor]
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]


def with_gradient(x: Tensor, value: Value, gradient: Gradient, *, overwritten: bool = False) -> Tensor:
    """Compute a function of a tensor, with a given gradient.

    Args:
        x: The argument.
        value: The function.
        gradient: A function of the gradient of the result, ``x`` and the result, which returns the gradient of ``x``.
        overwritten: Whether ``gradient`` gets the result in place of ``x``, which is then not kept in memory.
    """
    return _WithGradient.apply(x, value, gradient, overwritten)  # type: ignore[no-any-return, no-untyped-call]


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Value, gradient: Gradient, overwritten: bool) -> Tensor:
        y = value(x)
        ctx.save_for_backward(y if overwritten else x, y)
        ctx.gradient = gradient
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.gradient(grads[0], *ctx.saved_tensors), None, None, None

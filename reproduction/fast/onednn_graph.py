"""Run functions of tensors by oneDNN Graph, which torch contains for x86 CPUs.

torch's operators look up oneDNN's primitive for each call, which takes longer than a small convolution. oneDNN Graph
prepares the primitives of a whole function once, with weights in the order in memory that they need, and computes sums
and ReLUs in the same pass as the convolution before.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = tuple[Tensor, ...]

_PREPARING_CALLS = 2  # torch records the shapes of all values at the first call, and prepares them at the second

_flag = threading.Lock()


class OneDnnFunction:
    """A function that oneDNN Graph computes; called like the function.

    Args:
        function: Maps tensors to tensors by torch's operators, whose other arguments depend on nothing but the shapes
            of the inputs. Tensors that it reads besides are constants. All calls have inputs of the same shapes and
            strides.
        after: The number of calls that torch's operators compute before oneDNN Graph does. Preparing may take as long
            as ten calls, which does not pay off for inputs of a shape that comes once or twice.

    Source: torch 2.11 to 2.13, ``torch.jit.enable_onednn_fusion``.
    """

    def __init__(self, function: Callable[..., Tensors], *, after: int = 3):
        self._function, self._calls_left = function, after
        self._recorded: Any = None

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Compute the function."""
        if self._recorded is None:
            supported = all(x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) for x in inputs)
            if self._calls_left or not supported or not is_available():
                self._calls_left = max(0, self._calls_left - 1)
                return self._function(*inputs)
            self._recorded = _record(self._function, inputs)
        result = self._recorded(*inputs)
        return (result,) if isinstance(result, Tensor) else result  # a tuple of one is returned as its tensor


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Return whether this build of torch has oneDNN Graph, tried with a small convolution."""
    weight, x = torch.ones(2, 2, 1, 1), torch.ones(1, 2, 3, 3)
    try:
        return bool((_record(lambda x: (F.conv2d(x, weight), x), (x,))(x)[0] == 2).all())
    except (AttributeError, RuntimeError, TypeError):  # a later torch may no longer have it
        return False


def _record(function: Callable[..., Tensors], inputs: Tensors) -> Any:
    """Return the function as a graph of operators that is prepared for inputs like these.

    ``torch.jit.trace`` does the same, but keeps the constants in memory until the process ends.

    Raises:
        RuntimeError: If this build of torch has no oneDNN Graph.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, and torch.jit is no longer developed
        graph, _ = torch.jit._get_trace_graph(function, inputs)  # type: ignore[attr-defined,no-untyped-call]
    recorded = torch._C.CompilationUnit().create_function("function", graph, True)
    with _flag:
        before = torch.jit.onednn_fusion_enabled()  # type: ignore[no-untyped-call]
        torch.jit.enable_onednn_fusion(True)
        try:
            if not torch.jit.onednn_fusion_enabled():  # type: ignore[no-untyped-call]
                raise RuntimeError("this build of torch has no oneDNN Graph")
            for _ in range(_PREPARING_CALLS):
                recorded(*inputs)
        finally:
            torch.jit.enable_onednn_fusion(before)
    return recorded

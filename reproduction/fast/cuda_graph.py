"""Record a function on a GPU as a CUDA graph, since launching a small kernel often takes longer than running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Blobs = Mapping[str, Tensor]


class RecordedFunction:
    """A function recorded as a CUDA graph for inputs of fixed shapes; called like the function.

    Args:
        function: Maps inputs to outputs, by name. It must run entirely on the GPU and must not synchronize with it.
        inputs: Example inputs, of the shapes to record.
        pool: Memory pool that several recordings share, from ``torch.cuda.graph_pool_handle``; recordings that share a
            pool must not run at the same time.

    Raises:
        RuntimeError: If the function performs an operation that cannot be recorded.

    Source: torch's notes on CUDA semantics, "CUDA Graphs": inputs and outputs keep their addresses, the warm-up before
    a recording runs on a side stream, and recordings may share a pool if they do not run at the same time.
    """

    def __init__(self, function: Callable[[Blobs], Blobs], inputs: Blobs, pool: Any):
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # warm-up: cuDNN benchmarks its algorithms here, not during the capture
            function(self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = dict(function(self._inputs))

    def __call__(self, inputs: Blobs) -> dict[str, Tensor]:
        """Run the function on inputs of the recorded shapes, and return copies of its outputs by name."""
        for name, value in self._inputs.items():
            value.copy_(inputs[name])
        self._graph.replay()
        return {name: value.clone() for name, value in self._outputs.items()}

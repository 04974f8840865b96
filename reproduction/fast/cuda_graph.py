"""Steps on a GPU, recorded once and played for each image: launching a kernel costs more than running many of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Blobs = Mapping[str, Tensor]


class Recording:
    """What a function does to inputs of one size, as a CUDA graph; called like the function, with inputs of that size.

    Args:
        function: from inputs to outputs; all that it does is done on the GPU, and it waits for nothing.
        inputs: of the size that is recorded.
        pool: memory that recordings share, from ``torch.cuda.graph_pool_handle``; they are not played at one time.

    Raises:
        RuntimeError: the function does what cannot be recorded.

    Source: torch's notes on CUDA semantics, "CUDA Graphs": inputs and outputs keep their places in memory, what goes
    before a recording runs on a stream of its own, and recordings may share a pool if they take turns.
    """

    def __init__(self, function: Callable[[Blobs], Blobs], inputs: Blobs, pool: Any):
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # cuDNN tries its ways here
            function(self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = dict(function(self._inputs))

    def __call__(self, inputs: Blobs) -> dict[str, Tensor]:
        """Play it; gives the outputs in memory of their own."""
        for name, value in self._inputs.items():
            value.copy_(inputs[name])
        self._graph.replay()
        return {name: value.clone() for name, value in self._outputs.items()}

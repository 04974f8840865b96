"""Run the graph of a plan in other inference runtimes, and choose the fastest for each size of the inputs.

``torch``, which is this project's kernels, and each runtime of ``RUNTIMES`` is an engine.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError, missing_package
from reproduction.caffe.layers.onnx_graph import OnnxGraph
from reproduction.fast.precisions import ENGINES

# To prepare a runtime takes as long as about ten calls, and its graph has a copy of the weights.
CALLS, SIZES = 10, 4
_GAIN = 0.95  # its time must be at most this fraction of that of torch, whose graph needs no second copy of the weights
# In each turn, an engine is measured for a tenth of a second, and at least once; two seconds are enough for a choice.
# A median of fewer than three turns does not leave out one in which another program ran.
_TURNS, _LEAST_TURNS, _SECONDS, _MOST_SECONDS = 5, 3, 0.1, 2.0


class RuntimeGraph(ABC):
    """A graph that a runtime has prepared for the CPU, with torch's number of threads; it is called like a net.

    Args:
        graph: The graph, with inputs and outputs of float32 and of known shapes.
        outputs: Names under which its outputs are returned, in order.
        precision: One of ``PRECISIONS``; single precision is used for all but those of ``precisions``.

    Attributes:
        name: The name of the runtime, which is that of its package.
        precisions: The reduced precisions that it computes in.

    Raises:
        NetError: If the runtime cannot compute the graph.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ()

    def __init__(self, graph: OnnxGraph, outputs: Sequence[str], precision: str):
        self._inputs = [value.name for value in graph.inputs]
        self._outputs = dict(zip(outputs, ([int(x) for x in value.shape] for value in graph.outputs), strict=True))
        try:
            self._prepare(graph, precision)
        except Exception as error:  # each runtime has its own classes of errors
            raise NetError(f"{self.name} cannot compute this net: {next(iter(f'{error}'.splitlines()), '')}") from None

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the runtime is installed, and onnx, whose format it reads."""
        return all(importlib.util.find_spec(name) is not None for name in (cls.name, "onnx"))

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs, by name, for inputs of the shapes that the graph declares.

        The runtime reads the memory of the inputs and writes to that of the outputs, without copies.
        """
        results = {name: torch.empty(shape) for name, shape in self._outputs.items()}
        given = [inputs[name].contiguous() for name in self._inputs]
        self._compute(given, list(results.values()))
        return results

    @abstractmethod
    def _prepare(self, graph: OnnxGraph, precision: str) -> None:
        """Prepare a graph."""

    @abstractmethod
    def _compute(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Compute the outputs into the given tensors."""


class OnnxRuntimeGraph(RuntimeGraph):
    """A graph in ONNX Runtime, which computes in single precision.

    Source: ONNX Runtime's documentation, "Thread management" and "I/O Binding".
    """

    name = "onnxruntime"

    def _prepare(self, graph: OnnxGraph, precision: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        self._constants = graph.large_constants  # the session reads their memory
        shared = [onnxruntime.OrtValue.ortvalue_from_numpy(values) for values in self._constants.values()]
        options.add_external_initializers([*self._constants], shared)
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin after a run took a fifth of the time of work that torch does next, such as resizing scores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(graph.serialize(), options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._names = [value.name for value in self._session.get_outputs()]

    def _compute(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for name, value in zip(self._inputs, inputs, strict=True):
            self._binding.bind_input(name, "cpu", 0, np.float32, value.shape, value.data_ptr())
        for name, value in zip(self._names, outputs, strict=True):
            self._binding.bind_output(name, "cpu", 0, np.float32, value.shape, value.data_ptr())
        self._session.run_with_iobinding(self._binding)


class OpenVinoGraph(RuntimeGraph):
    """A graph in OpenVINO, which computes in single precision or in bfloat16.

    Source: OpenVINO's documentation, "Performance Hints and Thread Scheduling" and "Precision Control".
    """

    name = "openvino"
    precisions = ("bf16",)

    def _prepare(self, graph: OnnxGraph, precision: str) -> None:
        import openvino

        self._share = partial(openvino.Tensor, shared_memory=True)
        core = openvino.Core()
        model = core.read_model(graph.serialize(as_inputs=True))
        for parameter in model.get_parameters()[len(self._inputs) :]:
            values = graph.large_constants[parameter.friendly_name]
            parameter.output(0).replace(openvino.op.Constant(values, shared_memory=True).output(0))
            model.remove_parameter(parameter)
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        self._request: Any = core.compile_model(model, "CPU", config).create_infer_request()

    def _compute(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        for index, value in enumerate(inputs):
            self._request.set_input_tensor(index, self._share(value.numpy()))
        for index, value in enumerate(outputs):
            self._request.set_output_tensor(index, self._share(value.numpy()))
        self._request.infer(share_outputs=True)


#: The runtimes, by name.
RUNTIMES: dict[str, type[RuntimeGraph]] = {"onnxruntime": OnnxRuntimeGraph, "openvino": OpenVinoGraph}


def check_engine(engine: str) -> None:
    """Check that an engine exists and is installed.

    Raises:
        NetError: If there is no such engine.
        ReproductionError: If it is not installed.
    """
    if engine not in ENGINES:
        raise NetError("there is no such engine", got=repr(engine), want=", ".join(ENGINES))
    if engine in RUNTIMES and not RUNTIMES[engine].is_installed():
        raise missing_package(engine, "fast", ", or choose the engine torch")


class EngineChoice:
    """Chooses the engine of a net for each size of its inputs.

    Args:
        engine: One of ``ENGINES``: a runtime computes all sizes; ``auto`` measures.
        precision: One of ``PRECISIONS``; ``auto`` measures only runtimes that compute in it.

    Attributes:
        runtimes: The runtimes that may compute further sizes; none after torch was the fastest for a size, or after one
            failed.
    """

    def __init__(self, engine: str, precision: str):
        self._is_fixed, self._sizes = engine in RUNTIMES, 0
        measured = [each for each in RUNTIMES.values() if precision != "bf16" or precision in each.precisions]
        found = [RUNTIMES[engine]] if self._is_fixed else measured if engine == "auto" else []
        self.runtimes = [each for each in found if each.is_installed()]

    def is_due(self, calls: int) -> bool:
        """Return whether to choose for a size that has no graph, now that it comes for the ``calls``-th time."""
        return bool(self.runtimes) and (self._is_fixed or (calls == CALLS + 1 and self._sizes < SIZES))

    def describe(self) -> str:
        """Return in words which engine computes a size for which none was chosen yet."""
        if not self.is_due(CALLS + 1):
            return "torch"
        names = [runtime.name for runtime in self.runtimes]
        return names[0] if self._is_fixed else f"torch, after {CALLS} calls the fastest of torch, {', '.join(names)}"

    def choose(
        self,
        prepare: Callable[[type[RuntimeGraph]], RuntimeGraph],
        inputs: Mapping[str, Tensor],
        run_torch: Callable[[], object],
    ) -> RuntimeGraph | None:
        """Return the graph of the fastest runtime for a size, or None if torch computes it.

        Only that runtime is measured for further sizes, since preparing takes long; none if torch is the fastest.

        Args:
            prepare: Returns the graph in a runtime; raises NetError if that is not possible.
            inputs: Inputs of the size by name.
            run_torch: Computes the same by torch.
        """
        fastest: RuntimeGraph | None = None
        for runtime in self.runtimes:
            with suppress(NetError):  # a graph that is not the fastest is freed here, before the next one is prepared
                fastest = self._find_faster(prepare(runtime), fastest, inputs, run_torch)
        self.runtimes = [type(fastest)] if fastest else []
        self._sizes += 1
        return fastest

    def _find_faster(
        self,
        graph: RuntimeGraph,
        fastest: RuntimeGraph | None,
        inputs: Mapping[str, Tensor],
        run_torch: Callable[[], object],
    ) -> RuntimeGraph | None:
        if self._is_fixed:
            return graph
        graph(inputs)  # the first run allocates memory
        time, least = measure([partial(graph, inputs), partial(fastest, inputs) if fastest else run_torch])
        return graph if time < (1 if fastest else _GAIN) * least else fastest


def measure(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median time of each run in seconds, measured in turns, so that other programs affect all alike.

    The first run of a turn, which finds other values in the caches, counts only if it takes all the time of the turn.
    """
    times: list[list[float]] = [[] for _ in runs]
    latest = time.perf_counter() + _MOST_SECONDS
    while len(times[-1]) < _TURNS and (len(times[-1]) < _LEAST_TURNS or time.perf_counter() < latest):
        for run, medians in zip(runs, times, strict=True):
            found, end = list[float](), time.perf_counter() + _SECONDS
            while (start := time.perf_counter()) < end:
                run()
                found.append(time.perf_counter() - start)
            medians.append(statistics.median(found[1:] or found))
    return [statistics.median(medians) for medians in times]

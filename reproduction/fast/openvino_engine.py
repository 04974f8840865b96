"""Run the graph of a plan in OpenVINO, which computes many convolutions faster than torch's CPU build."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.layers.onnx_graph import OnnxGraph


def is_installed() -> bool:
    """Return whether the packages of the extra ``fast`` are installed: OpenVINO, and onnx, whose format it reads."""
    return all(importlib.util.find_spec(name) is not None for name in ("openvino", "onnx"))


class OpenVinoGraph:
    """A graph that was compiled by OpenVINO for the CPU, with torch's number of threads; called like a net.

    Args:
        graph: The graph, with inputs and outputs of float32 and of known shapes.
        outputs: Names under which its outputs are returned, in order.
        precision: ``bf16`` to compute in bfloat16; otherwise in single precision.

    Source: OpenVINO's documentation, "Performance Hints and Thread Scheduling" and "Precision Control".
    """

    def __init__(self, graph: OnnxGraph, outputs: Sequence[str], precision: str):
        import openvino

        core = openvino.Core()
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        model = core.read_model(graph.model("net", {}).SerializeToString())
        self._inputs = [value.name for value in graph.inputs]
        self._outputs = list(outputs)
        self._request = core.compile_model(model, "CPU", config).create_infer_request()

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs, by name, for inputs of the shapes that the graph declares."""
        self._request.infer([np.ascontiguousarray(inputs[name].numpy()) for name in self._inputs])
        found = (self._request.get_output_tensor(index).data.copy() for index in range(len(self._outputs)))
        return dict(zip(self._outputs, map(torch.from_numpy, found), strict=True))

"""A short form in which to write many ONNX operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from reproduction.caffe.layers.onnx_graph import OnnxLayer

FLOAT, INT64, DOUBLE = 1, 7, 11  # types in onnx.TensorProto, for the operator Cast


class Operators:
    """Adds the operators of a layer to an ONNX graph, each by the method of its name: ``ops.Add(x, np.float32(1))``.

    Such a method takes names of values, numbers and arrays, which become constants, and attributes by name. It returns
    the name of the output.

    Args:
        onnx: Adds operators and constants to the graph.
    """

    def __init__(self, onnx: OnnxLayer):
        self._onnx = onnx

    def __getattr__(self, operator: str) -> Any:
        if not operator[0].isupper():
            raise AttributeError(f"ONNX has no operator {operator!r}")

        def add(*inputs: Any, **attributes: Any) -> str:
            return self._onnx.node(operator, *map(self.name, inputs), step=operator.lower(), **attributes)

        return add

    def name(self, value: Any) -> str:
        """Return the name of a value: itself if it is one, otherwise that of a new constant."""
        return value if isinstance(value, str) else self._onnx.constant(value, "constant")

    def top(self, values: str, count: str, axis: int) -> list[str]:
        """Return the ``count`` greatest values along an axis, in descending order, and their indices."""
        return self._onnx.node_with_outputs("TopK", values, count, steps=("best", "index"), axis=axis)

    def size(self, value: str, axis: int) -> str:
        """Return the size of an axis, as a vector of one number."""
        return self._onnx.node("Shape", value, step="size", start=axis, end=axis + 1)

    def vector(self, *parts: str | int) -> str:
        """Return a vector of integers; parts that are names are vectors of one number, such as those of ``size``."""
        return self._onnx.node("Concat", *(self.name(_as_vector(part)) for part in parts), step="vector", axis=0)

    def rows_without_detections(self, images: str, count: str) -> str:
        """Return a row (i, -1, -1, -1, -1, -1, -1) for each image i if ``count`` is 0, otherwise no rows.

        Args:
            images: The number of images, a vector of one number.
            count: The number of detections, a vector of one number.
        """
        number = self.Range(np.array(0), self.Squeeze(images), np.array(1))
        first = np.eye(1, 7, dtype=np.float32)
        rows = self.Mul(self.Unsqueeze(self.Cast(number, to=FLOAT), np.array([1])), first)
        end = self.Mul(images, self.Cast(self.Equal(count, np.array([0])), to=INT64))
        return str(self.Slice(self.Sub(rows, 1 - first), np.array([0]), end, np.array([0])))


def _as_vector(part: str | int) -> Any:
    return part if isinstance(part, str) else np.array([part])

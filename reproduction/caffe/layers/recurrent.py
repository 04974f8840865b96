"""The recurrent layers LSTMUnit, LSTM and RNN.

Caffe unrolls LSTM and RNN into a net with several layers for each time step. Here, the steps are a loop; the parameters
and their order are the same.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive
from reproduction.caffe.layers.onnx_graph import OnnxLayer


@register
class LSTMUnit(Layer):
    """One step of an LSTM: the new cell state and output from the old cell state and the inputs of the gates.

    x consists of the inputs of the gates i, f, o (sigmoid) and g (tanh). The tops are
    ``c = cont * f * c_prev + i * g`` and ``h = o * tanh(c)``.

    Shapes:
        c_prev  (1, N, D)
        x       (1, N, 4 D)   D values each for i, f, o, g
        cont    (1, N)        0 where a sequence starts, else 1
        c       (1, N, D)
        h       (1, N, D)

    Source: BVLC/caffe@9b89154 src/caffe/layers/lstm_unit_layer.cpp L10-L125.
    """

    bottoms = (3, 3)
    tops = (2, 2)
    differentiable = (0, 1)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops: that of the cell state, twice."""
        cell, gates, cont = bottoms
        streams, units = (cell[1], cell[2]) if len(cell) == 3 else (0, 0)
        if (cell[:1], gates, cont) != ((1,), (1, streams, 4 * units), (1, streams)):
            raise NetError(
                "the bottoms must be cell, gates and cont of one step",
                got=f"{cell}, {gates}, {cont}",
                want="(1, N, D), (1, N, 4 D), (1, N)",
            )
        return [cell, cell]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        cell, gates, cont = bottoms
        return _LSTMStep.apply(cell, gates, cont.detach())  # type: ignore[no-any-return, no-untyped-call]

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators of the step."""
        cell, gates, cont = bottoms
        keep = onnx.node("Unsqueeze", cont, onnx.constant([-1], "last_axis"), step="cont")
        return [onnx.node("Identity", each, top=i) for i, each in enumerate(_add_lstm_step(onnx, cell, gates, keep))]


def _add_lstm_step(onnx: OnnxLayer, cell: str, gates: str, keep: str, step: str = "") -> tuple[str, str]:
    """Add the operators of one step of an LSTM and return the names of the new cell state and output.

    Args:
        onnx: Adds operators to the graph.
        cell: The name of the cell state, (1, N, D).
        gates: The name of the inputs of the gates i, f, o, g, (1, N, 4 D).
        keep: The name of cont, (1, N, 1).
        step: The beginning of the names of intermediate results.
    """
    parts = onnx.node_with_outputs("Split", gates, steps=[f"{step}{name}_in" for name in "ifog"], axis=2)
    i, f, o = (onnx.node("Sigmoid", part, step=f"{step}{name}") for part, name in zip(parts, "ifo", strict=False))
    g = onnx.node("Tanh", parts[3], step=f"{step}g")
    kept = onnx.node("Mul", onnx.node("Mul", f, keep, step=f"{step}forget"), cell, step=f"{step}kept")
    new = onnx.node("Add", kept, onnx.node("Mul", i, g, step=f"{step}added"), step=f"{step}c")
    return new, onnx.node("Mul", o, onnx.node("Tanh", new, step=f"{step}bent"), step=f"{step}h")


class _LSTMStep(Function):
    @staticmethod
    def forward(ctx: Any, cell: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        # Caffe: LSTM computes sigmoid and tanh in double precision and rounds the results (lstm_unit_layer.cpp
        # L10-L18). torch computes them in the dtype of the input.
        i, f, o = (part.double().sigmoid().to(gates) for part in gates.chunk(4, -1)[:3])
        g = gates.chunk(4, -1)[3].double().tanh().to(gates)
        f = cont.unsqueeze(-1) * f
        new = f * cell + i * g
        bent = new.double().tanh().to(gates)
        ctx.save_for_backward(cell, i, f, o, g, bent)
        return new, o * bent

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cell_diff: Tensor, output_diff: Tensor) -> tuple[Tensor, Tensor, None]:
        cell, i, f, o, g, bent = ctx.saved_tensors
        inner = cell_diff + output_diff * o * (1 - bent * bent)
        # Caffe: the derivative of the forget gate of an LSTM is computed as f (1 - f) with f already multiplied by
        # cont, which is correct only if cont is 0 or 1 (lstm_unit_layer.cpp L105).
        gates = torch.cat(
            [
                inner * g * i * (1 - i),
                inner * cell * f * (1 - f),
                output_diff * bent * o * (1 - o),
                inner * i * (1 - g * g),
            ],
            -1,
        )
        return inner * f, gates, None


class Recurrent(Layer):
    """The base class of RNN and LSTM.

    Without ``expose_hidden``, the layer stores its final state, which is the initial state of the next forward pass. It
    is zero at first and after ``reset``. With ``expose_hidden``, the initial states are bottoms and the final states
    are tops. No gradient passes through initial or final states.

    Attributes:
        states: The number of blobs of the state.
        gates: The number of gates; a linear layer maps each step's input to ``gates * num_output`` values.

    Source: BVLC/caffe@9b89154 src/caffe/layers/recurrent_layer.cpp L13-L285.
    """

    reads = frozenset(
        f"recurrent_param.{name}" for name in ("num_output", "weight_filler", "bias_filler", "expose_hidden")
    )
    bottoms = (2, 5)
    tops = (1, 3)
    differentiable = (0, 2)
    states: ClassVar[int]
    gates: ClassVar[int]

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the parameters; the stored state is zero."""
        param = self.layer_param.recurrent_param
        check_positive(param, "num_output")
        exposed = self.states if param.expose_hidden else 0
        if not 0 <= len(bottoms) - 2 - exposed <= 1 or len(self.layer_param.top) != 1 + exposed:
            raise NetError(
                "wrong number of bottoms or tops",
                got=f"{len(bottoms)} and {len(self.layer_param.top)}",
                want=f"{2 + exposed} (with a static input, {3 + exposed}) and {1 + exposed}",
            )
        self._is_static = len(bottoms) == 3 + exposed
        self._check_sequence(bottoms)
        self._steps = bottoms[0][0]
        if self._steps < 1:
            raise NetError("there must be a time step", got=bottoms[0])
        wide = param.num_output * self.gates
        self.add_blob((wide, math.prod(bottoms[0][2:])), param.weight_filler)
        self.add_blob((wide,), param.bias_filler)
        if self._is_static:
            self.add_blob((wide, math.prod(bottoms[2][1:])), param.weight_filler)
        self.add_blob((wide, param.num_output), param.weight_filler)
        self._state: tuple[Tensor, ...] = ()

    def products(self, bottoms: list[Shape]) -> int:
        """Return the number of multiplications in all time steps; the static input is multiplied only once."""
        steps, streams = bottoms[0][:2]
        matrices = [blob.numel() for blob in self.blobs if blob.dim() == 2]
        return streams * (steps * sum(matrices) - (steps - 1) * (matrices[1] if self._is_static else 0))

    def reset(self) -> None:
        """Set the stored state to zeros, as before the first forward pass."""
        self._state = ()

    def _check_sequence(self, bottoms: list[Shape]) -> None:
        x, cont = bottoms[:2]
        if len(x) < 3 or cont != x[:2]:
            raise NetError(
                "the bottoms must be a sequence and its cont",
                got=f"{x} and {cont}",
                want="(T, N, ...) and (T, N)",
            )
        if self._is_static and (len(bottoms[2]) < 2 or bottoms[2][0] != x[1]):
            raise NetError("the static input must have a vector for each stream", got=bottoms[2], want=f"({x[1]}, ...)")

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return (T, N, num_output) and, with ``expose_hidden``, (1, N, num_output) for each blob of the state."""
        self._check_sequence(bottoms)
        steps, streams, *rest = bottoms[0]
        if steps != self._steps:
            raise NetError("the number of time steps changed", got=steps, want=self._steps)
        static = [math.prod(bottoms[2][1:])] if self._is_static else []
        sizes = [math.prod(rest), *static]
        wanted = [blob.shape[1] for blob in (self.blobs[0], *self.blobs[2 : 2 + len(static)])]
        if sizes != wanted:
            raise NetError("the inputs do not fit the weights", got=sizes, want=wanted)
        hidden = (1, streams, self.layer_param.recurrent_param.num_output)
        for exposed in bottoms[2 + self._is_static :]:
            if exposed != hidden:
                raise NetError("an exposed state has the wrong shape", got=exposed, want=hidden)
        states = [hidden] * self.states if self.layer_param.recurrent_param.expose_hidden else []
        return [(steps, streams, hidden[2]), *states]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute all time steps from the initial state, and store the final state unless it is a top."""
        x, cont = bottoms[0], bottoms[1].detach()
        weight, bias = self.blobs[:2]
        # Only the hidden state ties the steps together, so the inputs of all of them are multiplied at once.
        inputs = F.linear(x.flatten(2), weight, bias)
        if self._is_static:
            inputs = inputs + F.linear(bottoms[2].flatten(1), self.blobs[2])
        # Caffe: in RNN and LSTM, no gradient passes through the initial and final states (recurrent_layer.cpp
        # L200-L214). In torch, it does unless they are detached.
        state = tuple(bottom.detach() for bottom in bottoms[2 + self._is_static :]) or self._initial_state(inputs)
        outputs = []
        for t in range(x.shape[0]):
            output, state = self.step(inputs[t : t + 1], cont[t : t + 1], state)
            outputs.append(output)
        last = tuple(blob.detach() for blob in state)
        if self.layer_param.recurrent_param.expose_hidden:
            return torch.cat(outputs), *last
        if not torch.compiler.is_exporting():  # an exported program has no state
            self._state = last
        return (torch.cat(outputs),)

    def step(self, inputs: Tensor, cont: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute one time step.

        Args:
            inputs: The inputs of the gates without the part that comes from ``state``, (1, N, gates * D).
            cont: 0 where a sequence starts, else 1; (1, N).
            state: The blobs of the state before the step, (1, N, D) each.

        Returns:
            The output, (1, N, D), and the blobs of the state after the step.
        """
        raise NotImplementedError(type(self).__name__)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators of all time steps; without ``expose_hidden``, the initial state is zero at every run."""
        weights = [onnx.constant(blob.T, name) for name, blob in onnx.arrays().items()]
        x, cont, *states = bottoms
        flat = onnx.node("Reshape", x, onnx.constant([0, 0, -1], "flat_shape"), step="flat")
        products = onnx.node("MatMul", flat, weights[0], step="products")
        inputs = onnx.node("Add", products, weights[1], step="inputs")
        if self._is_static:
            static = onnx.node("Flatten", states.pop(0), step="static", axis=1)
            product = onnx.node("MatMul", static, weights[2], step="static_products")
            inputs = onnx.node("Add", inputs, product, step="all_inputs")
        keep = onnx.node("Unsqueeze", cont, onnx.constant([-1], "last_axis"), step="cont")
        hidden = np.zeros((1, 1, self.layer_param.recurrent_param.num_output), np.float32)
        state = states or [onnx.constant(hidden, "state")] * self.states
        axis, outputs = onnx.constant([0], "axis"), []
        for t in range(self._steps):
            bounds = onnx.constant([t], f"t{t}.begin"), onnx.constant([t + 1], f"t{t}.end"), axis
            now = onnx.node("Slice", inputs, *bounds, step=f"t{t}.inputs")
            kept = onnx.node("Slice", keep, *bounds, step=f"t{t}.cont")
            output, state = self.add_step(onnx, now, kept, state, weights, f"t{t}.")
            outputs.append(output)
        top = onnx.node("Concat", *outputs, axis=0)
        return [top, *state] if self.layer_param.recurrent_param.expose_hidden else [top]

    def add_step(
        self, onnx: OnnxLayer, inputs: str, keep: str, state: list[str], weights: list[str], step: str
    ) -> tuple[str, list[str]]:
        """Add the operators of one time step to an ONNX graph; the counterpart of ``step``.

        Args:
            onnx: Adds operators to the graph.
            inputs: The name of the inputs of the gates without the part that comes from ``state``, (1, N, gates * D).
            keep: The name of cont, (1, N, 1).
            state: The names of the blobs of the state before the step.
            weights: The names of the layer's blobs, transposed.
            step: The beginning of the names of intermediate results.

        Returns:
            The name of the output, and those of the blobs of the state after the step.
        """
        raise NotImplementedError(type(self).__name__)

    def _initial_state(self, inputs: Tensor) -> tuple[Tensor, ...]:
        shape = (1, inputs.shape[1], self.layer_param.recurrent_param.num_output)
        if not self._state or self._state[0].shape != shape:
            return (inputs.new_zeros(shape),) * self.states
        return tuple(blob.to(inputs) for blob in self._state)


@register
class RNN(Recurrent):
    """``h_t = tanh(W_hh (cont_t h_(t-1)) + W_xh x_t + b_h)``, ``o_t = tanh(W_ho h_t + b_o)``.

    Shapes:
        x       (T, N, ...)   T steps of N streams
        cont    (T, N)        0 where a sequence starts, else 1
        static  (N, ...)      optional: a further input of every step
        h_0     (1, N, D)     with ``expose_hidden``
        o       (T, N, D)     D = num_output
        h_T     (1, N, D)     with ``expose_hidden``

    Blobs:
        weight  (D, values of x)   W_xh
        bias    (D,)               b_h
        next    (D, values of static)   with a static input
        next    (D, D)             W_hh
        next    (D, D)             W_ho
        next    (D,)               b_o

    Source: BVLC/caffe@9b89154 src/caffe/layers/rnn_layer.cpp L13-L230.
    """

    states = 1
    gates = 1

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the parameters, including those that compute the output from the hidden state."""
        super().setup(bottoms)
        param = self.layer_param.recurrent_param
        self.add_blob((param.num_output, param.num_output), param.weight_filler)
        self.add_blob((param.num_output,), param.bias_filler)

    def step(self, inputs: Tensor, cont: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden_weight, output_weight, output_bias = self.blobs[-3:]
        hidden = (F.linear(state[0] * cont.unsqueeze(-1), hidden_weight) + inputs).tanh()
        return F.linear(hidden, output_weight, output_bias).tanh(), (hidden,)

    def add_step(
        self, onnx: OnnxLayer, inputs: str, keep: str, state: list[str], weights: list[str], step: str
    ) -> tuple[str, list[str]]:
        """Add the operators of one time step: two MatMul with Add and Tanh each."""
        hidden_weight, output_weight, output_bias = weights[-3:]
        before = onnx.node("Mul", state[0], keep, step=f"{step}before")
        product = onnx.node("MatMul", before, hidden_weight, step=f"{step}product")
        hidden = onnx.node("Tanh", onnx.node("Add", product, inputs, step=f"{step}sum"), step=f"{step}hidden")
        product = onnx.node("MatMul", hidden, output_weight, step=f"{step}output_product")
        total = onnx.node("Add", product, output_bias, step=f"{step}output_sum")
        return onnx.node("Tanh", total, step=f"{step}output"), [hidden]


@register
class LSTM(Recurrent):
    """Long short-term memory: LSTMUnit on ``W_hc (cont_t h_(t-1)) + W_xc x_t + b_c``; the output is h.

    Shapes:
        x         (T, N, ...)   T steps of N streams
        cont      (T, N)        0 where a sequence starts, else 1
        static    (N, ...)      optional: a further input of every step
        h_0, c_0  (1, N, D)     with ``expose_hidden``
        h         (T, N, D)     D = num_output
        h_T, c_T  (1, N, D)     with ``expose_hidden``

    Blobs:
        weight  (4 D, values of x)   W_xc; rows for the gates i, f, o, g
        bias    (4 D,)               b_c
        next    (4 D, values of static)   with a static input
        next    (4 D, D)             W_hc

    Source: BVLC/caffe@9b89154 src/caffe/layers/lstm_layer.cpp L13-L239.
    """

    states = 2
    gates = 4

    def step(self, inputs: Tensor, cont: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        output, cell = state
        gates = F.linear(output * cont.unsqueeze(-1), self.blobs[-1]) + inputs
        cell, output = _LSTMStep.apply(cell, gates, cont)  # type: ignore[no-untyped-call]
        return output, (output, cell)

    def add_step(
        self, onnx: OnnxLayer, inputs: str, keep: str, state: list[str], weights: list[str], step: str
    ) -> tuple[str, list[str]]:
        """Add the operators of one time step: MatMul and Add for the gates, and those of LSTMUnit."""
        before = onnx.node("Mul", state[0], keep, step=f"{step}before")
        product = onnx.node("MatMul", before, weights[-1], step=f"{step}product")
        gates = onnx.node("Add", product, inputs, step=f"{step}gates")
        cell, output = _add_lstm_step(onnx, state[1], gates, keep, step)
        return output, [output, cell]

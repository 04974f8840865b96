"""The layers Lstm, Transpose and Reverse of CTPN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional as F

from reproduction.caffe.dialects.ctpn import CTPN
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import check_positive, refuse_in_place
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import FillerParameter, LayerParameter
from reproduction.caffe.schema.field import int32, integers, nested, single, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32


class LSTMParameter(Message):
    """The fields of Lstm layers. ``batch_size`` is not read."""

    num_output = uint32(1)
    clipping_threshold = single(2)
    weight_filler = nested(3, FillerParameter)
    bias_filler = nested(4, FillerParameter)
    batch_size = uint32(5, 1)


class TransposeParameter(Message):
    """The field of Transpose layers: for each axis of the top, which axis of the bottom it is."""

    dim = integers(1, INT32)


class ReverseParameter(Message):
    """The field of Reverse layers: the axis."""

    axis = int32(1)


LSTM = LayerParameter.add_field("lstm_param", nested(140, LSTMParameter), CTPN)
TRANSPOSE = LayerParameter.add_field("transpose_param", nested(142, TransposeParameter), CTPN)
REVERSE = LayerParameter.add_field("reverse_param", nested(143, ReverseParameter), CTPN)


@register
class Transpose(Layer):
    """Permute the axes of a blob as ``numpy.transpose`` does: axis i of the top is axis ``dim[i]`` of the bottom.

    Raises:
        NetError: If ``dim`` does not name each axis of the bottom once, or the layer works in place.

    Source: tianzhi0549/CTPN@f77ec9e caffe/src/caffe/layers/transpose_layer.cpp L5-L106.
    """

    dialect = CTPN
    reads = frozenset({"transpose_param.dim"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place."""
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top: the bottom's sizes in the order of ``dim``."""
        dim, bottom = TRANSPOSE.get(self.layer_param).dim, bottoms[0]
        if not bottom or sorted(dim) != list(range(len(bottom))):
            raise NetError("dim must name each axis of the bottom once", got=list(dim), want=f"0 to {len(bottom) - 1}")
        return [tuple(bottom[axis] for axis in dim)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return a copy of the bottom with its axes permuted."""
        return (bottoms[0].permute(*TRANSPOSE.get(self.layer_param).dim).contiguous(),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Transpose."""
        return [onnx.node("Transpose", *bottoms, perm=list(TRANSPOSE.get(self.layer_param).dim))]


@register
class Reverse(Layer):
    """Reverse the order of the values along ``axis``, which counts from 0.

    Raises:
        NetError: If there is no such axis, or the layer works in place.

    Source: tianzhi0549/CTPN@f77ec9e caffe/src/caffe/layers/reverse_layer.cpp L5-L58.
    """

    dialect = CTPN
    reads = frozenset({"reverse_param.axis"})

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place."""
        refuse_in_place(self.layer_param)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        axis = REVERSE.get(self.layer_param).axis
        if not 0 <= axis < len(bottoms[0]):
            raise NetError("there is no such axis", got=axis, want=f"0 to {len(bottoms[0]) - 1}")
        return list(bottoms)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Return the bottom in reverse order along ``axis``."""
        return (bottoms[0].flip(REVERSE.get(self.layer_param).axis),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Slice with a step of -1."""
        numbers = {"start": -1, "end": np.iinfo(np.int64).min, "axis": REVERSE.get(self.layer_param).axis, "step": -1}
        return [
            onnx.node("Slice", *bottoms, *(onnx.constant(np.array([value]), name) for name, value in numbers.items()))
        ]


@register
class Lstm(Layer):
    """Long short-term memory of CTPN, whose blobs and order of gates differ from those of LSTM.

    ``c = f c + i g`` and ``h = o tanh(c)``, where the gates i, f, o (sigmoid) and g (tanh) are computed from
    ``W_x x + b + W_h h``. Each sequence starts with h and c of 0. With a second bottom, it starts where that is 0, and
    continues with the state of the pass before if its first value is not. Gradients of the inputs of the gates are
    clipped to ``clipping_threshold`` if that is above 0.

    Shapes:
        x     (T, N, ...)   T steps of N sequences
        cont  (T + N - 1,)  optional: 0 where a sequence starts; sequence n reads it from index n on
        top   (T, N, H)     H = num_output

    Blobs:
        weight  (4 H, values of x)   W_x; rows for the gates i, f, o, g
        bias    (4 H, H)             W_h
        2       (4 H,)               b

    Raises:
        NetError: If ``num_output`` is 0, or the bottoms do not fit.

    Source: tianzhi0549/CTPN@f77ec9e caffe/src/caffe/layers/lstm_layer.cpp L17-L307, lstm_layer.cu.
    """

    dialect = CTPN
    reads = frozenset(f"lstm_param.{name}" for name in LSTMParameter.fields)
    bottoms = (1, 2)
    differentiable = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the parameters."""
        param = LSTM.get(self.layer_param)
        check_positive(param, "num_output")
        if len(bottoms[0]) < 2:
            raise NetError("the bottom must have steps and sequences as its first axes", got=bottoms[0])
        self._inputs, units = math.prod(bottoms[0][2:]), param.num_output
        self.add_blob((4 * units, self._inputs), param.weight_filler)
        self.add_blob((4 * units, units), param.weight_filler)
        self.add_blob((4 * units,), param.bias_filler)
        self._state: tuple[Tensor, Tensor] | None = None

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the top, (T, N, H)."""
        steps, streams, *rest = bottoms[0]
        if math.prod(rest) != self._inputs:
            raise NetError("the inputs of a step do not fit the weights", got=bottoms[0], want=f"{self._inputs} values")
        if len(bottoms) == 2:
            count, *ones = bottoms[1] or (0,)
            if math.prod(ones) != 1 or count < steps + streams - 1:
                want = f"at least {steps + streams - 1} numbers"
                raise NetError("bottom 1 must say where sequences start", got=bottoms[1], want=want)
        return [(steps, streams, LSTM.get(self.layer_param).num_output)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute all steps; with a second bottom, store the state after the last one."""
        (steps, streams), units = bottoms[0].shape[:2], LSTM.get(self.layer_param).num_output
        shape = (streams, units)
        state = self._state if len(bottoms) == 2 and self._state and self._state[0].shape == shape else None
        start = [x.to(bottoms[0]) for x in state] if state else [bottoms[0].new_zeros(shape)] * 2
        continues = torch.ones(steps, streams, dtype=torch.bool, device=bottoms[0].device)
        continues[0] = False
        if len(bottoms) == 2:
            # Upstream bug, kept: step t of sequence n reads value t + n instead of t N + n (lstm_layer.cpp L157), which
            # is the same for one sequence.
            continues = bottoms[1].detach().flatten().unfold(0, streams, 1)[:steps] != 0
        inputs = F.linear(bottoms[0].flatten(2), self.blobs[0], self.blobs[2])
        threshold = LSTM.get(self.layer_param).clipping_threshold
        top, cells = _Steps.apply(inputs, self.blobs[1], continues, *start, threshold)  # type: ignore[no-untyped-call]
        if len(bottoms) == 2:
            self._state = cells[-1].detach(), top[-1].detach()
        return (top,)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator LSTM, for a layer without the second bottom."""
        if len(bottoms) == 2:
            raise NetError("an Lstm layer with a second bottom, which keeps its state, cannot be written as ONNX")
        units = LSTM.get(self.layer_param).num_output
        # The gates of ONNX are in the order i, o, f, c.
        order = np.arange(4 * units).reshape(4, units)[[0, 2, 1, 3]].ravel()
        x_weight, h_weight, bias = (blob[order][None] for blob in onnx.arrays().values())
        biases = np.concatenate([bias, np.zeros_like(bias)], 1)
        x = onnx.node("Reshape", *bottoms, onnx.constant(np.array([0, 0, -1]), "shape"), step="x")
        weights = [onnx.constant(each, name) for each, name in zip((x_weight, h_weight, biases), "WRB", strict=True)]
        outputs = onnx.node("LSTM", x, *weights, step="steps", hidden_size=units)
        return [onnx.node("Squeeze", outputs, onnx.constant(np.array([1]), "direction"))]


class _Steps(Function):
    """The steps of Lstm: the outputs and the cell states, (T, N, H) each, from the inputs of the gates, (T, N, 4 H).

    The gradient follows the fork's code.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, continues: Tensor, cell: Tensor, hidden: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:
        gates, cells, tops = [], [cell], [hidden]
        for values, keep in zip(inputs, continues[..., None].to(inputs.dtype), strict=True):
            i, f, o, g = (values + keep * F.linear(tops[-1], weight)).chunk(4, -1)
            i, f, o, g = i.sigmoid(), keep * f.sigmoid(), o.sigmoid(), g.tanh()
            gates.append(torch.cat([i, f, o, g], -1))
            cells.append(f * cells[-1] + i * g)
            tops.append(o * cells[-1].tanh())
        top, states = torch.stack(tops[1:]), torch.stack(cells[1:])
        ctx.save_for_backward(weight, continues, torch.stack(gates), torch.stack(cells), hidden, top)
        ctx.threshold = threshold
        ctx.mark_non_differentiable(states)
        return top, states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        weight, continues, gates, cells, start, top = ctx.saved_tensors
        found = torch.empty_like(gates)
        d_hidden, d_cell = torch.zeros_like(start), torch.zeros_like(start)
        for t in reversed(range(len(gates))):
            keep = continues[t, :, None].to(gates.dtype)
            i, f, o, g = gates[t].chunk(4, -1)
            squashed = cells[t + 1].tanh()
            d_top = gradient[t] + d_hidden
            d_cell = d_cell + d_top * o * (1 - squashed * squashed)
            slopes = i * (1 - i), f * (1 - f), o * (1 - o), 1 - g * g
            gains = d_cell * g, keep * d_cell * cells[t], d_top * squashed, d_cell * i
            values = torch.cat([gain * slope for gain, slope in zip(gains, slopes, strict=True)], -1)
            if ctx.threshold > 0:
                values = values.clamp(-ctx.threshold, ctx.threshold)
            found[t] = values
            d_hidden, d_cell = keep * (values @ weight), keep * d_cell * f
        # Upstream bug, kept: the gradient of W_h counts the step before also where a sequence starts, and the state of
        # the pass before of the first sequence only (lstm_layer.cpp L285-L294).
        d_weight = found[1:].flatten(0, 1).mT @ top[:-1].flatten(0, 1) + found[0, :1].mT @ start[:1]
        return found, d_weight, None, None, None, None

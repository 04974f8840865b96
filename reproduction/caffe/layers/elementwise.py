"""Elementwise arithmetic: the layers Eltwise, AbsVal, Clip, Threshold, Power, Exp and Log."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, register
from reproduction.caffe.layers.bottom_checks import refuse_in_place
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.neuron import Neuron, Pointwise
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import EltwiseOp


@register
class Eltwise(Layer):
    """The elementwise product, weighted sum or maximum of the bottoms.

    Shapes:
        bottoms  (...), two or more of the same shape
        top      (...)

    Source: BVLC/caffe@9b89154 src/caffe/layers/eltwise_layer.cpp L10-L160.
    """

    reads = frozenset({"eltwise_param.operation", "eltwise_param.coeff"})
    bottoms = (2, None)
    top_is_free = True
    in_place_values = False
    keeps_coordinates = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.layer_param.eltwise_param
        if param.coeff and param.operation is not EltwiseOp.SUM:
            raise NetError("coeff is for operation SUM", got=param.operation.name)
        if param.coeff and len(param.coeff) != len(bottoms):
            raise NetError("coeff must be given once for each bottom", got=len(param.coeff), want=len(bottoms))
        if param.operation is EltwiseOp.PROD:
            self.rereads = Rereads.BOTTOM | Rereads.TOP

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        for i, bottom in enumerate(bottoms):
            if bottom != bottoms[0]:
                raise NetError(f"bottom {i} differs in shape from bottom 0", got=bottom, want=bottoms[0])
        return bottoms[:1]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        operation = self.layer_param.eltwise_param.operation
        if operation is EltwiseOp.SUM:
            return (self._sum(bottoms),)
        top, *rest = bottoms
        if operation is EltwiseOp.PROD:
            for bottom in rest:
                top = top * bottom
            return (top,)
        # Caffe: among equal values in an Eltwise maximum, the second bottom takes precedence over the first, and these
        # two over the others. The whole gradient goes to one bottom (eltwise_layer.cpp L75-L94); torch.maximum halves
        # it.
        top = torch.where(top > rest[0], top, rest[0])
        for bottom in rest[1:]:
            top = torch.where(bottom > top, bottom, top)
        return (top,)

    def _sum(self, bottoms: tuple[Tensor, ...]) -> Tensor:
        coeff = self.layer_param.eltwise_param.coeff or [1.0] * len(bottoms)
        top = bottoms[0] * coeff[0] if coeff[0] != 1 else bottoms[0]
        for bottom, factor in zip(bottoms[1:], coeff[1:], strict=True):
            top = torch.add(top, bottom, alpha=factor)
        return top

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm:
        """Return a ``PointwiseForm``; ``is_sum`` is True for a sum whose coefficients are 1."""
        param = self.layer_param.eltwise_param
        return PointwiseForm(is_sum=param.operation is EltwiseOp.SUM and all(coeff == 1 for coeff in param.coeff))

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Max, or operators Mul for the coefficients and a chain of Mul or Add."""
        param = self.layer_param.eltwise_param
        if param.operation is EltwiseOp.MAX:
            return [onnx.node("Max", *bottoms)]
        terms = list(bottoms)
        for i, coeff in enumerate(param.coeff):
            if coeff != 1:
                terms[i] = onnx.node("Mul", terms[i], onnx.constant(np.float32(coeff), f"coeff{i}"), step=f"term{i}")
        operator = "Mul" if param.operation is EltwiseOp.PROD else "Add"
        total = terms[0]
        for i, term in enumerate(terms[1:], 2):
            total = onnx.node(operator, total, term, step="" if i == len(terms) else f"partial{i}")
        return [total]


@register
class AbsVal(Pointwise):
    """The absolute value; the derivative at 0 is 0.

    Shapes:
        bottom and top: any, but not the same blob.

    Raises:
        NetError: If the layer works in place.

    Source: BVLC/caffe@9b89154 src/caffe/layers/absval_layer.cpp L9-L35.
    """

    positive = True
    rereads = Rereads.BOTTOM  # the derivative is the sign of each value, 0 at 0

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the layer does not work in place.

        Raises:
            NetError: If a top has the name of the bottom.
        """
        refuse_in_place(self.layer_param)

    def value(self, x: Tensor) -> Tensor:
        return x.abs()

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sign()

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        return [onnx.node("Abs", *bottoms)]


@register
class Clip(Pointwise):
    """Each value clamped to [min, max]; the derivative is 1 inside the interval and at both ends, else 0.

    Raises:
        NetError: If ``min`` or ``max`` is missing.

    Source: BVLC/caffe@9b89154 src/caffe/layers/clip_layer.cpp L8-L41.
    """

    reads = frozenset({"clip_param.min", "clip_param.max"})
    reads_bottom = True
    rereads = Rereads.BOTTOM

    def setup(self, bottoms: list[Shape]) -> None:
        for name in ("min", "max"):
            if not self.layer_param.clip_param.has(name):
                raise NetError(f"clip_param.{name} is missing", want="both min and max")

    def value(self, x: Tensor) -> Tensor:
        # Caffe: if min is greater than max, Clip returns min (clip_layer.cpp L19). torch.clamp returns max.
        return x.clamp(max=self.layer_param.clip_param.max).clamp(min=self.layer_param.clip_param.min)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return ((x >= self.layer_param.clip_param.min) & (x <= self.layer_param.clip_param.max)).to(x.dtype)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Clip; if ``min`` is greater than ``max``, the result is ``min`` as in Caffe."""
        low, high = self.layer_param.clip_param.min, self.layer_param.clip_param.max
        return [onnx.node("Clip", *bottoms, onnx.number(low, "min"), onnx.number(max(low, high), "max"))]


@register
class Threshold(Neuron):
    """For each value 1 if ``x > threshold``, else 0. It has no gradient.

    Source: BVLC/caffe@9b89154 src/caffe/layers/threshold_layer.cpp L8-L23.
    """

    reads = frozenset({"threshold_param.threshold"})
    differentiable: ClassVar[tuple[int, ...] | None] = ()

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ((bottoms[0] > self.layer_param.threshold_param.threshold).to(bottoms[0].dtype),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Greater and Cast."""
        threshold = onnx.number(self.layer_param.threshold_param.threshold, "threshold")
        return [onnx.cast(onnx.node("Greater", *bottoms, threshold, step="above"), np.float32)]


def _affine(x: Tensor, scale: float, shift: float) -> Tensor:
    x = x * scale
    return x + shift if shift else x  # adding 0 would turn -0 into 0


def _add_affine(onnx: OnnxLayer, bottom: str, scale: float, shift: float, step: str = "") -> str:
    """Add the operators Mul and Add as far as they change the value, and return its name.

    The result has the name of the layer's top, or of the step; it is the bottom itself if nothing changes.
    """
    if scale != 1:
        bottom = onnx.node("Mul", bottom, onnx.number(scale, "scale"), step=f"{step}scaled" if shift else step)
    return onnx.node("Add", bottom, onnx.number(shift, "shift"), step=step) if shift else bottom


# In place, the gradient of Caffe's Power and Log is the square of their slope; see net.overwriting.


def _constant(value: float, like: Tensor) -> Tensor:
    """Return a scalar tensor of the dtype of ``like``, since Caffe computes constants in its Dtype."""
    return torch.tensor(value, dtype=like.dtype)


@register
class Power(Pointwise):
    """A power of each value, ``(shift + scale * x) ** power``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/power_layer.cpp L9-L93.
    """

    reads = frozenset({"power_param.power", "power_param.scale", "power_param.shift"})
    in_place_gradient = False

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``rereads``: the derivative is computed from bottom and top, unless ``power`` is 1."""
        self.rereads = Rereads.NOTHING if self.layer_param.power_param.power == 1 else Rereads.BOTTOM | Rereads.TOP

    def value(self, x: Tensor) -> Tensor:
        """Return the top for the bottom ``x``; the top is constant if ``power`` or ``scale`` is 0."""
        param = self.layer_param.power_param
        if self._factor(x) == 0:
            return torch.ones_like(x) if param.power == 0 else torch.full_like(x, param.shift).pow(param.power)
        return _affine(x, param.scale, param.shift).pow(param.power)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        param = self.layer_param.power_param
        factor = self._factor(x)
        if factor == 0 or param.power == 1:
            return torch.full_like(x, factor)
        if param.power == 2:
            return _affine(x, float(_constant(factor, x) * param.scale), float(_constant(factor, x) * param.shift))
        # Upstream bug, kept: the gradient of Power is computed by a division by the base, so that it is NaN where the
        # base is 0 (power_layer.cpp L72, L83). Autograd returns 0 there if `power` is above 1.
        if param.shift == 0:
            return y / x * param.power
        return y / _affine(x, param.scale, param.shift) * factor

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Mul, Add and Pow as far as they change the value; Expand if the top is constant."""
        param = self.layer_param.power_param
        if param.power * param.scale == 0:
            value = onnx.number(1 if param.power == 0 else param.shift**param.power, "value")
            return [onnx.node("Expand", value, onnx.node("Shape", *bottoms, step="shape"))]
        if param.power == 1:
            return [_add_affine(onnx, bottoms[0], param.scale, param.shift)]
        base = _add_affine(onnx, bottoms[0], param.scale, param.shift, "base")
        return [onnx.node("Pow", base, onnx.number(param.power, "power"))]

    def _factor(self, x: Tensor) -> float:
        return float(_constant(self.layer_param.power_param.power, x) * self.layer_param.power_param.scale)


def _log_base(base: float, like: Tensor) -> Tensor:
    """Return the natural logarithm of a base, where -1 stands for e."""
    return _constant(1.0, like) if base == -1 else _constant(base, like).log()


def _check_base(base: float) -> None:
    if base != -1 and not 0 < base < float("inf"):
        raise NetError("base must be positive and finite, or -1 for e", got=base)


@register
class Exp(Pointwise):
    """An exponential of each value, ``base ** (shift + scale * x)``; the default base is e.

    Raises:
        NetError: If ``base`` is neither positive and finite nor -1 (for e).

    Source: BVLC/caffe@9b89154 src/caffe/layers/exp_layer.cpp L9-L59.
    """

    reads = frozenset({"exp_param.base", "exp_param.scale", "exp_param.shift"})
    positive = True

    def setup(self, bottoms: list[Shape]) -> None:
        _check_base(self.layer_param.exp_param.base)

    def _scaled_log_base(self, x: Tensor) -> float:
        return float(_log_base(self.layer_param.exp_param.base, x) * self.layer_param.exp_param.scale)

    def value(self, x: Tensor) -> Tensor:
        base, shift = self.layer_param.exp_param.base, _constant(self.layer_param.exp_param.shift, x)
        outer = shift.exp() if base == -1 else _constant(base, x).pow(shift)
        return (x * self._scaled_log_base(x)).exp() * float(outer)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return y * self._scaled_log_base(x)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Mul and Exp, and Mul if there is a shift."""
        param = self.layer_param.exp_param
        outer = math.exp(param.shift) if param.base == -1 else param.base**param.shift
        scale = self._scaled_log_base(torch.empty(0))
        power = onnx.node(
            "Exp", _add_affine(onnx, bottoms[0], scale, 0.0, "exponent"), step="" if outer == 1 else "power"
        )
        return [power if outer == 1 else onnx.node("Mul", power, onnx.number(outer, "outer"))]


@register
class Log(Pointwise):
    """The logarithm of ``shift + scale * x``; the default base is e.

    Raises:
        NetError: If ``base`` is 1, or is neither positive and finite nor -1 (for e).

    Source: BVLC/caffe@9b89154 src/caffe/layers/log_layer.cpp L9-L76.
    """

    reads = frozenset({"log_param.base", "log_param.scale", "log_param.shift"})
    reads_bottom = True
    in_place_gradient = False
    rereads = Rereads.BOTTOM

    def setup(self, bottoms: list[Shape]) -> None:
        _check_base(self.layer_param.log_param.base)
        if self.layer_param.log_param.base == 1:
            raise NetError("there is no logarithm to the base 1")

    def value(self, x: Tensor) -> Tensor:
        return self._scaled_log_base(x).log() * float(1 / _log_base(self.layer_param.log_param.base, x))

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        return self._scaled_log_base(x).reciprocal() * float(
            self.layer_param.log_param.scale / _log_base(self.layer_param.log_param.base, x)
        )

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operators Mul, Add, Log and Mul as far as they change the value."""
        param = self.layer_param.log_param
        inner = _add_affine(onnx, bottoms[0], param.scale, param.shift, "inner")
        if param.base == -1:
            return [onnx.node("Log", inner)]
        return [onnx.node("Mul", onnx.node("Log", inner, step="log"), onnx.number(1 / math.log(param.base), "factor"))]

    def _scaled_log_base(self, x: Tensor) -> Tensor:
        return _affine(x, self.layer_param.log_param.scale, self.layer_param.log_param.shift)

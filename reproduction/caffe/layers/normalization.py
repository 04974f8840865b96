"""The layers Scale, Bias, BatchNorm and MVN."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, canonical_axis, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.custom_gradient import with_gradient
from reproduction.caffe.layers.exact import blas, normalization
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.layers.quick import normalize
from reproduction.caffe.layers.quick.borders import AnyBlob, expand
from reproduction.caffe.layers.quick.normalize import NormalizedBlob
from reproduction.caffe.schema import BiasParameter, FillerParameter, ScaleParameter


def _learned_shape(bottom: Shape, param: ScaleParameter | BiasParameter) -> Shape:
    """Return the shape of a learned factor or bias: ``num_axes`` axes from ``axis`` on, or all of them for -1."""
    axis = canonical_axis(param.axis, len(bottom))
    end = len(bottom) if param.num_axes == -1 else axis + param.num_axes
    if param.num_axes < -1 or end > len(bottom):
        raise NetError("axis and num_axes reach outside the bottom", got=f"axis {axis}, num_axes {param.num_axes}")
    return bottom[axis:end]


def _broadcast(factor: Tensor, axes: int, axis: int) -> Tensor:
    """Reshape ``factor`` so that it broadcasts against a blob with ``axes`` axes, from ``axis`` on."""
    if factor.dim() == 0:
        return factor
    before = canonical_axis(axis, axes)
    return factor.reshape((1,) * before + tuple(factor.shape) + (1,) * (axes - before - factor.dim()))


class _Broadcast(Layer):
    """The base class of Scale and Bias: they combine the bottom with learned blobs or the second bottom, broadcast."""

    bottoms = (1, 2)
    top_is_free = True
    keeps_coordinates = True
    located_bottoms = 1

    def settings(self) -> ScaleParameter | BiasParameter:
        """Return the message that has the fields ``axis``, ``num_axes`` and ``filler``."""
        raise NotImplementedError(type(self).__name__)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom, after a check that the second bottom and the blobs fit it."""
        bottom = bottoms[0]
        for factor in (*bottoms[1:], *(tuple(blob.shape) for blob in self.blobs)):
            start = canonical_axis(self.settings().axis, len(bottom)) if factor else 0
            if bottom[start : start + len(factor)] != factor:
                problem = f"the factor or bias must fit the bottom from axis {start} on"
                raise NetError(problem, got=factor, want=f"as {bottom}")
        return bottoms[:1]

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return an affine ``PointwiseForm`` for a learned blob with one value in all or for each channel, or None."""
        per_channel = len(bottoms) == 1 and self.settings().axis == 1 and self.blobs[0].dim() < 2
        return PointwiseForm(is_affine=True) if per_channel else None

    def add_factors(self, onnx: OnnxLayer, bottoms: tuple[str, ...]) -> list[str]:
        """Return the names of the second bottom and of the blobs, which broadcast against the first bottom."""
        found, axis = [], self.settings().axis
        if len(bottoms) > 1:
            before, own = canonical_axis(axis, onnx.axes), len(onnx.shapes[1])
            after = range(own, onnx.axes - before) if own else ()
            axes = onnx.constant(np.array(after, np.int64), "new_axes") if after else ""
            found.append(onnx.node("Unsqueeze", bottoms[1], axes, step="factor") if axes else bottoms[1])
        for name, blob in zip(self.blob_names, self.blobs, strict=True):
            found.append(onnx.constant(_broadcast(blob.detach().cpu(), onnx.axes, axis).numpy(), name))
        return found


@register
class Scale(_Broadcast):
    """Multiply by a learned factor or by the second bottom, and add a learned bias if ``bias_term`` is set.

    The factor has the sizes of the bottom from ``axis`` on and is broadcast over the other axes.

    Shapes:
        bottom 0  (A..., B..., C...)
        bottom 1  (B...), optional; () for a single number
        top       (A..., B..., C...)

    Blobs:
        weight    (B...), ``num_axes`` axes; 1 by default. Only without a second bottom.
        bias      (B...), with ``bias_term``. With a second bottom it is the first blob and named ``weight``.

    Source: BVLC/caffe@9b89154 src/caffe/layers/scale_layer.cpp L11-L221.
    """

    reads = frozenset(f"scale_param.{name}" for name in ("axis", "num_axes", "filler", "bias_term", "bias_filler"))

    def settings(self) -> ScaleParameter:
        return self.layer_param.scale_param

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.layer_param.scale_param
        if len(bottoms) == 1:
            shape = _learned_shape(bottoms[0], param)
            self.add_blob(shape, param.filler if param.has("filler") else FillerParameter(value=1.0))
        else:
            shape = bottoms[1]
        if param.bias_term:
            self.add_blob(shape, param.bias_filler)
        if (
            self.layer_param.top[:1] != self.layer_param.bottom[:1]
        ):  # in place, Caffe's layer makes a copy of the bottom
            self.rereads = Rereads.TO_LEARN

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return whether Caffe overwrites the gradient of the factor, instead of adding to it.

        It does so if the gradient is not a sum over the axes before ``axis``, e.g. at batch size 1.
        """
        if index or len(bottoms) > 1:
            return False
        # Upstream bug, kept: at batch size 1, or with a factor for each value, the backward pass of Scale overwrites
        # the gradient of the factor instead of adding to it, so that with iter_size only the last batch counts
        # (scale_layer.cpp L159-L183). Autograd accumulates gradients.
        factor = tuple(self.blobs[0].shape)
        before = (
            math.prod(bottoms[0][: canonical_axis(self.layer_param.scale_param.axis, len(bottoms[0]))]) if factor else 1
        )
        return math.prod(factor) == math.prod(bottoms[0]) or (before == 1 and math.prod(factor) > 1)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        axis = self.layer_param.scale_param.axis
        if blas.applies_to(self.in_blas_order, bottoms[0]):
            first, *second = *bottoms[1:], *self.blobs
            number = len(self.blobs) - 1 if self.layer_param.scale_param.bias_term else len(self.blobs)
            return (normalization.scale(bottoms[0], first, second[0] if second else None, axis, (self.totals, number)),)
        factor, *bias = (_broadcast(blob, bottoms[0].dim(), axis) for blob in (*bottoms[1:], *self.blobs))
        return (torch.addcmul(bias[0], bottoms[0], factor) if bias else bottoms[0] * factor,)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...] | None:
        """Compute the top of this layer and of BatchNorm before it (``NormalizedBlob``) in one pass.

        Return None for other bottoms, or if there is not one factor for each channel.
        """
        param, x = self.layer_param.scale_param, bottoms[0]
        if len(bottoms) > 1 or not isinstance(x, NormalizedBlob) or canonical_axis(param.axis, len(x.shape)) != 1:
            return None
        factor, *bias = self.blobs
        return (x.scale(factor, bias[0] if bias else None),) if factor.dim() == 1 else None

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Mul for the factor and, if there is a bias, Add."""
        factor, *bias = self.add_factors(onnx, bottoms)
        scaled = onnx.node("Mul", bottoms[0], factor, step="scaled" if bias else "")
        return [onnx.node("Add", scaled, *bias) if bias else scaled]


@register
class Bias(_Broadcast):
    """Add a learned bias or the second bottom.

    Shapes:
        bottom 0  (A..., B..., C...)
        bottom 1  (B...), optional; () for a single number
        top       (A..., B..., C...)

    Blobs:
        weight    (B...), ``num_axes`` axes. Only without a second bottom.

    Source: BVLC/caffe@9b89154 src/caffe/layers/bias_layer.cpp L10-L114.
    """

    reads = frozenset({"bias_param.axis", "bias_param.num_axes", "bias_param.filler"})

    def settings(self) -> BiasParameter:
        return self.layer_param.bias_param

    def setup(self, bottoms: list[Shape]) -> None:
        if len(bottoms) == 1:
            self.add_blob(_learned_shape(bottoms[0], self.settings()), self.settings().filler)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        bias = bottoms[1] if len(bottoms) > 1 else self.blobs[0]
        if blas.applies_to(self.in_blas_order, bottoms[0]):
            totals = {} if len(bottoms) > 1 else self.totals
            return (normalization.scale(bottoms[0], None, bias, self.layer_param.bias_param.axis, (totals, 0)),)
        return (bottoms[0] + _broadcast(bias, bottoms[0].dim(), self.layer_param.bias_param.axis),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator Add."""
        return [onnx.node("Add", bottoms[0], *self.add_factors(onnx, bottoms))]


@register
class BatchNorm(Layer):
    """Batch normalization of each channel: ``(x - mean) / sqrt(variance + eps)``.

    With ``use_global_stats`` (by default in phase TEST), mean and variance are the stored ones. Otherwise they are
    those of the batch, and the stored ones are updated. Scale and shift are not part of this layer; nets use a Scale
    layer after it.

    Shapes:
        bottom  (N, C, ...)
        top     (N, C, ...)

    Blobs (not learned; their ``lr_mult`` is set to 0):
        weight  (C,)  decaying sum of the means
        bias    (C,)  decaying sum of the unbiased variances
        2       (1,)  decaying sum of ones, by which the other sums are divided to give mean and variance

    Source: BVLC/caffe@9b89154 src/caffe/layers/batch_norm_layer.cpp L10-L236.
    """

    reads = frozenset(f"batch_norm_param.{name}" for name in ("use_global_stats", "moving_average_fraction", "eps"))
    changes_blobs = True
    keeps_coordinates = True
    top_is_free = True

    @property
    def eps_inside(self) -> bool:
        """Whether ``eps`` is added to the variance; otherwise to its root."""
        return True

    @property
    def _uses_stored(self) -> bool:
        param = self.layer_param.batch_norm_param
        return param.use_global_stats if param.has("use_global_stats") else not self.training

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the three blobs of statistics and set their ``lr_mult`` to 0.

        Raises:
            NetError: If the bottom has no channel axis, or a ``param`` block has an ``lr_mult`` other than 0.
        """
        if len(bottoms[0]) < 2:
            raise NetError("the bottom must have a channel axis", got=bottoms[0], want="(N, C, ...)")
        self._channels = bottoms[0][1]
        for shape in ((self._channels,), (self._channels,), (1,)):
            self.add_blob(shape)
        if any(param.lr_mult != 0 for param in self.layer_param.param):
            raise NetError(
                "batch statistics are not learned",
                got=f"lr_mult {[param.lr_mult for param in self.layer_param.param]}",
                want="0",
                remedy="Remove the param blocks.",
            )
        while len(self.layer_param.param) < 3:
            self.layer_param.param.add(lr_mult=0.0)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        if bottoms[0][1:2] != (self._channels,):
            raise NetError(
                "the number of channels differs from the stored statistics", got=bottoms[0], want=self._channels
            )
        return bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; if it is normalized by the statistics of the batch, update the stored statistics."""
        return (expand(self._normalize(bottoms[0])),)

    def repeat(self, *bottoms: AnyBlob) -> tuple[AnyBlob, ...]:
        """Compute the top as ``forward`` does, or only what a Scale layer needs to compute it (``NormalizedBlob``)."""
        return (self._normalize(expand(bottoms[0])),)

    def _normalize(self, bottom: Tensor) -> AnyBlob:
        param = self.layer_param.batch_norm_param
        later = self.eps_inside and normalize.is_faster(bottom)
        if self._uses_stored:
            mean_sum, variance_sum, weight = (blob.detach() for blob in self.blobs)
            share = torch.where(weight == 0, 0.0, 1 / weight)
            mean, variance = mean_sum * share, variance_sum * share
            if later and self.training and torch.is_grad_enabled():
                return NormalizedBlob(bottom, mean, variance, param.eps, of_batch=False)
        elif blas.applies_to(self.in_blas_order, bottom):
            rows = bottom.reshape(bottom.shape[0], self._channels, -1)
            top, mean, variance = normalization.normalize(rows, param.eps, inside=self.eps_inside)
            self._update_statistics(mean, variance, bottom.numel() // self._channels)
            return top.reshape(bottom.shape)
        elif later:
            mean, variance = normalize.compute_statistics(bottom)
            self._update_statistics(mean, variance, bottom.numel() // self._channels)
            return NormalizedBlob(bottom, mean, variance, param.eps, of_batch=True)
        else:
            axes = [axis for axis in range(bottom.dim()) if axis != 1]
            variance, mean = torch.var_mean(bottom, axes, correction=0)
            self._update_statistics(mean.detach(), variance.detach(), bottom.numel() // self._channels)
        deviation = (variance + param.eps).sqrt() if self.eps_inside else variance.sqrt() + param.eps
        mean, deviation = (_broadcast(s, bottom.dim(), 1) for s in (mean, deviation))
        return (bottom - mean).div_(deviation)

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return an affine ``PointwiseForm`` if the statistics are the stored ones; otherwise None."""
        return PointwiseForm(is_affine=True) if self._uses_stored else None

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: int) -> None:
        # Caffe: BatchNorm stores sums, which are multiplied by moving_average_fraction at each step and divided by
        # their total weight when used; the unbiased variance of the batch is added (batch_norm_layer.cpp L135-L144).
        # torch stores a weighted mean of the old and the new value.
        unbiased = torch.tensor(count / max(count - 1, 1), dtype=variance.dtype).double()
        news = (mean, variance.double() * unbiased, torch.ones_like(self.blobs[2]))
        for blob, new in zip(self.blobs, news, strict=True):
            old = blob * self.layer_param.batch_norm_param.moving_average_fraction
            blob.copy_(old + new.double())  # a single rounding, as in Caffe's BLAS

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add BatchNormalization with the stored statistics, or the operators for those of the batch."""
        param = self.layer_param.batch_norm_param
        if param.has("use_global_stats") and not param.use_global_stats:
            axes = [axis for axis in range(onnx.axes) if axis != 1]
            centred, spread = _add_variance(onnx, bottoms[0], axes)
            if not self.eps_inside:
                raise NetError("statistics of the batch with eps outside of the root cannot be written as ONNX")
            shifted = onnx.node("Add", spread, onnx.number(param.eps, "eps"), step="shifted")
            return [onnx.node("Div", centred, onnx.node("Sqrt", shifted, step="deviation"))]
        mean, variance, weight = onnx.arrays().values()
        share = 0 if weight[0] == 0 else 1 / weight[0]
        ones = onnx.constant(np.ones_like(mean), "ones"), onnx.constant(np.zeros_like(mean), "zeros")
        mean, variance, eps = mean * share, variance * share, param.eps
        if not self.eps_inside:
            variance, eps = (np.sqrt(variance) + eps) ** 2, 0.0
        stored = onnx.constant(mean, "mean"), onnx.constant(variance, "variance")
        return [onnx.node("BatchNormalization", *bottoms, *ones, *stored, epsilon=eps)]


@register
class MVN(Layer):
    """Mean-variance normalization of each instance: ``(x - mean) / (sqrt(variance) + eps)``.

    Mean and variance are those of each channel or, with ``across_channels``, of all channels. With
    ``normalize_variance: false``, the layer only subtracts the mean.

    Shapes:
        bottom  (N, C, H, W), or fewer axes
        top     (N, C, H, W), always four axes as in Caffe

    Source: BVLC/caffe@9b89154 src/caffe/layers/mvn_layer.cpp L8-L140.
    """

    reads = frozenset(f"mvn_param.{name}" for name in ("normalize_variance", "across_channels", "eps"))
    in_place_gradient = False
    keeps_coordinates = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``rereads``: the gradient is computed from the top, unless the layer only subtracts the mean."""
        self.rereads = Rereads.TOP if self.layer_param.mvn_param.normalize_variance else Rereads.NOTHING

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return [legacy_shape(bottoms[0])]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        param = self.layer_param.mvn_param
        bottom = bottoms[0].reshape(legacy_shape(tuple(bottoms[0].shape)))
        if param.normalize_variance and blas.applies_to(self.in_blas_order, bottom):
            rows = bottom.flatten(1 if param.across_channels else 2).flatten(0, -2)[None]
            return (normalization.normalize(rows, param.eps, inside=False)[0].reshape(bottom.shape),)
        axes = (1, 2, 3) if param.across_channels else (2, 3)
        centred = bottom - bottom.mean(axes, keepdim=True)
        if not param.normalize_variance:
            return (centred,)
        deviation = centred.detach().square().mean(axes, keepdim=True).sqrt() + param.eps

        # Caffe: MVN adds eps to the standard deviation, but its gradient is that of eps added to the variance
        # (mvn_layer.cpp L82-L120). Autograd would return the gradient of the formula.
        def gradient(diff: Tensor, _: Tensor, top: Tensor) -> Tensor:
            return (diff - top * (diff * top).mean(axes, keepdim=True)) / deviation

        return (with_gradient(centred, lambda x: x / deviation, gradient, overwritten=True),)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add ReduceMean and Sub and, if the variance is normalized, the operators that divide by the deviation."""
        param, (bottom,) = self.layer_param.mvn_param, bottoms
        if onnx.axes < 4:
            shape = [*[0] * onnx.axes, *[1] * (4 - onnx.axes)]
            bottom = onnx.node("Reshape", bottom, onnx.constant(shape, "four_axes"), step="bottom")
        axes = [1, 2, 3] if param.across_channels else [2, 3]
        centred, variance = _add_variance(onnx, bottom, axes, "centred" if param.normalize_variance else "")
        if not variance:
            return [centred]
        root = onnx.node("Sqrt", variance, step="root")
        return [onnx.node("Div", centred, onnx.node("Add", root, onnx.number(param.eps, "eps"), step="deviation"))]


def _add_variance(onnx: OnnxLayer, value: str, axes: list[int], step: str = "centred") -> tuple[str, str]:
    """Add operators and return the names of a value minus its mean over ``axes``, and of its variance.

    The first result is called ``LAYER.step``, or has the name of the layer's top if ``step`` is empty.
    """
    centred = onnx.node("Sub", value, onnx.node("ReduceMean", value, step="mean", axes=axes), step=step)
    if not step:
        return centred, ""
    squares = onnx.node("Mul", centred, centred, step="squares")
    return centred, onnx.node("ReduceMean", squares, step="variance", axes=axes)

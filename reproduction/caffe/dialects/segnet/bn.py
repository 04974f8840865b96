"""The layer BN of SegNet and ENet: scale and shift, and normalization by the statistics of the batch."""

from __future__ import annotations

import enum

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.batch_statistics import channel_axes, normalize, per_channel
from reproduction.caffe.dialects.segnet import SEGNET
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, Rereads, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import FillerParameter, LayerParameter
from reproduction.caffe.schema.field import choice, nested
from reproduction.caffe.schema.message import Message

_EPS = 1e-9


class BNMode(enum.IntEnum):
    """Whether a BN layer normalizes by the statistics of the batch (LEARN), or only scales and shifts (INFERENCE)."""

    LEARN = 0
    INFERENCE = 1


class BNParameter(Message):
    """Parameters of BN layers: the mode, and the fillers of scale and shift."""

    scale_filler = nested(1, FillerParameter)
    shift_filler = nested(2, FillerParameter)
    bn_mode = choice(3, BNMode, BNMode.LEARN)


BN_PARAM = LayerParameter.add_field("bn_param", nested(45, BNParameter), SEGNET)


@register
class BN(Layer):
    """Scale and shift of each channel, after normalization by the statistics of the batch in mode LEARN.

    LEARN: ``scale * (x - mean) / sqrt(variance + 1e-9) + shift``, with mean and biased variance of the batch, in phase
    TEST as in TRAIN. There are no running statistics: SegNet's script computes them after the training, and folds them
    into scale and shift.

    INFERENCE: ``scale * x + shift``.

    Shapes:
        bottom  (N, C, H, W); fewer axes count as axes of size 1 at the end
        top 0   (N, C, H, W)
        top 1   (1, C, 1, 1)  optional: the mean in mode LEARN, 0 in INFERENCE; it has no gradient
        top 2   (1, C, 1, 1)  optional: the biased variance in mode LEARN, 0 in INFERENCE; it has no gradient

    Blobs:
        weight  (1, C, 1, 1)  scale; without a filler, 0 at first
        bias    (1, C, 1, 1)  shift

    Raises:
        NetError: If there are more than four axes, or the number of channels changes.

    Source: alexgkendall/caffe-segnet@344c113 src/caffe/layers/bn_layer.cpp L11-L402.
    """

    dialect = SEGNET
    reads = frozenset(f"bn_param.{name}" for name in BNParameter.fields)
    blob_counts = (2,)
    tops = (1, 3)
    keeps_coordinates = True
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the two blobs."""
        param = BN_PARAM.get(self.layer_param)
        self._channels = legacy_shape(bottoms[0])[1]
        self._learns = param.bn_mode is BNMode.LEARN
        self.rereads = Rereads.NOTHING if self._learns else Rereads.TO_LEARN  # for the gradient of the scale
        for filler in (param.scale_filler, param.shift_filler):
            self.add_blob((1, self._channels, 1, 1), filler)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shapes of the tops."""
        # Upstream bug, fixed: the fork allocates its buffers for the size of the first batch and image, and writes
        # past their end if a later one is larger (bn_layer.cpp L23-L52). Here the size may change.
        shape = legacy_shape(bottoms[0])
        if shape[1] != self._channels:
            raise NetError("the number of channels has changed", got=bottoms[0], want=self._channels)
        statistics: Shape = (1, self._channels, 1, 1)
        return [shape, statistics, statistics][: len(self.layer_param.top)]

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return True: the fork overwrites the gradients of scale and shift instead of adding to them."""
        # Upstream bug, kept: the backward pass of BN overwrites the gradients of its blobs, so that with iter_size
        # only the last batch counts (bn_layer.cpp L248-L270).
        return True

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        x = bottoms[0].reshape(legacy_shape(tuple(bottoms[0].shape)))
        scale, shift = (per_channel(blob, x.dim()) for blob in self.blobs)
        if not self._learns:
            statistics = x.new_zeros(1, self._channels, 1, 1)
            return (torch.addcmul(shift, x, scale), statistics, statistics.clone())[: len(self.layer_param.top)]
        # Caffe: the fork computes the variance as E[x^2] - E[x]^2, which rounding can make negative for a channel of
        # nearly equal values (bn_layer.cpp L94-L125); its top is then NaN. Here it is the mean squared distance.
        variance, mean = torch.var_mean(x.detach(), channel_axes(x), correction=0, keepdim=True)
        top = normalize(x, scale, shift, mean, (variance + _EPS).rsqrt())
        return (top, mean, variance)[: len(self.layer_param.top)]

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return an affine ``PointwiseForm`` in mode INFERENCE with one top, for a bottom of four axes."""
        pointwise = not self._learns and len(self.layer_param.top) == 1 and len(bottoms[0]) == 4
        return PointwiseForm(is_affine=True) if pointwise else None

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add Mul and Add for scale and shift and, in mode LEARN, operators for the statistics of the batch."""
        if len(self.layer_param.top) > 1:
            raise NetError("the statistics of the batch cannot be written as ONNX", remedy="Remove tops 1 and 2.")
        if onnx.axes != 4:
            raise NetError("a bottom without four axes cannot be written as ONNX", got=onnx.shapes[0])
        (x,), (scale, shift) = bottoms, onnx.blobs()
        if self._learns:
            mean = onnx.node("ReduceMean", x, axes=[0, 2, 3], step="mean")
            x = onnx.node("Sub", x, mean, step="centered")
            variance = onnx.node("ReduceMean", onnx.node("Mul", x, x, step="squares"), axes=[0, 2, 3], step="variance")
            shifted = onnx.node("Add", variance, onnx.constant(np.float32(_EPS), "eps"), step="shifted")
            x = onnx.node("Div", x, onnx.node("Sqrt", shifted, step="deviation"), step="normalized")
        return [onnx.node("Add", onnx.node("Mul", x, scale, step="scaled"), shift)]

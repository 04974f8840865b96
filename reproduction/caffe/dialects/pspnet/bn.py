"""The layer BN of PSPNet and ICNet: batch normalization, scale and shift, with running statistics."""

from __future__ import annotations

import enum

import torch
from torch import Tensor

from reproduction.caffe.dialects.batch_statistics import channel_axes, normalize, per_channel, update_statistics
from reproduction.caffe.dialects.pspnet import PSPNET
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import FillerParameter, LayerParameter, Phase
from reproduction.caffe.schema.field import boolean, choice, nested, single
from reproduction.caffe.schema.message import Message


class BNEngine(enum.IntEnum):
    """The implementation; it does not change the result."""

    DEFAULT = 0
    CAFFE = 1
    CUDNN = 2


class BNParameter(Message):
    """Parameters of BN layers: the fillers of slope and bias, and how the running statistics are used."""

    slope_filler = nested(1, FillerParameter)
    bias_filler = nested(2, FillerParameter)
    momentum = single(3, 0.9)
    eps = single(4, 1e-5)
    frozen = boolean(5, False)
    engine = choice(6, BNEngine)


BN_PARAM = LayerParameter.add_field("bn_param", nested(152, BNParameter), PSPNET)


@register
class BN(Layer):
    """Batch normalization with scale and shift: ``slope * (x - mean) / sqrt(variance + eps) + bias`` for each channel.

    In phase TEST, and with ``frozen``, mean and variance are the stored ones. In phase TRAIN they are those of the
    batch, and the stored ones become ``momentum * stored + (1 - momentum) * batch``. The variance is the biased one in
    both. Without ``slope_filler``, the slope is 0, Caffe's default of a filler.

    Shapes:
        bottom  (N, C, H, W), or fewer axes
        top     the same

    Blobs:
        weight  (1, C, 1, 1)  slope; not learned if ``frozen``
        bias    (1, C, 1, 1)  not learned if ``frozen``
        2       (1, C, 1, 1)  running mean; ``lr_mult`` is set to 0
        3       (1, C, 1, 1)  running variance, 0 at first, or 1 if ``frozen``; ``lr_mult`` is set to 0

    Raises:
        NetError: If there are more than four axes, or the number of channels changes.

    Source: hszhao/PSPNet@798bdc9 src/caffe/layers/bn_layer.cpp L11-L338.
    """

    dialect = PSPNET
    reads = frozenset(f"bn_param.{name}" for name in BNParameter.fields) | {"bn_param.icnet"}
    blob_counts = (4,)
    changes_blobs = True
    keeps_coordinates = True
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the four blobs, and set the ``lr_mult`` of those that are not learned to 0."""
        param = BN_PARAM.get(self.layer_param)
        self._channels = legacy_shape(bottoms[0])[1]
        shape = (1, self._channels, 1, 1)
        for filler in (param.slope_filler, param.bias_filler, None, FillerParameter(value=float(param.frozen))):
            self.add_blob(shape, filler)
        while len(self.layer_param.param) < 4:
            self.layer_param.param.add()
        for spec in self.layer_param.param[0 if param.frozen else 2 : 4]:
            spec.lr_mult = spec.decay_mult = 0.0

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        if legacy_shape(bottoms[0])[1] != self._channels:
            raise NetError("the number of channels has changed", got=bottoms[0], want=self._channels)
        return bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; in phase TRAIN, update the running statistics."""
        param, x = BN_PARAM.get(self.layer_param), bottoms[0]
        slope, bias, mean, variance = (per_channel(blob, x.dim()) for blob in self.blobs)
        mean, variance = mean.detach(), variance.detach()
        if param.frozen:
            factor = slope.detach() / (variance + param.eps).sqrt()
            return (torch.addcmul(bias.detach(), x - mean, factor),)
        if self.training:
            variance, mean = torch.var_mean(x.detach(), channel_axes(x), correction=0, keepdim=True)
            update_statistics(self.blobs[2:], (mean, variance), param.momentum)
        # Upstream bug, kept: in phase TEST, BN passes back the gradient for statistics of the batch, although it
        # normalizes by the stored ones, unless it is frozen (bn_layer.cpp L212-L338).
        return (normalize(x, slope, bias, mean, (variance + param.eps).rsqrt()),)

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return an affine ``PointwiseForm`` if the statistics are the stored ones."""
        learns = self.layer_param.phase is Phase.TRAIN and not BN_PARAM.get(self.layer_param).frozen
        return None if learns else PointwiseForm(is_affine=True)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator BatchNormalization with the stored statistics."""
        blobs = [onnx.constant(values.reshape(-1), name) for name, values in onnx.arrays().items()]
        return [onnx.node("BatchNormalization", *bottoms, *blobs, epsilon=BN_PARAM.get(self.layer_param).eps)]

"""The layer BatchNorm of NVIDIA Caffe, which also scales and shifts if ``scale_bias`` or a filler is set."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduction.caffe.dialects.batch_statistics import channel_axes, normalize, per_channel, update_statistics
from reproduction.caffe.dialects.nvidia import NVIDIA
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.compiled_forms import PointwiseForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import BatchNormParameter, Engine, FillerParameter, Phase
from reproduction.caffe.schema.field import boolean, choice, nested

SCALE_FILLER = BatchNormParameter.add_field("scale_filler", nested(5, FillerParameter), NVIDIA)
BIAS_FILLER = BatchNormParameter.add_field("bias_filler", nested(6, FillerParameter), NVIDIA)
SCALE_BIAS = BatchNormParameter.add_field("scale_bias", boolean(7), NVIDIA)
ENGINE = BatchNormParameter.add_field("engine", choice(15, Engine, Engine.DEFAULT), NVIDIA)  # without effect here
_READS = ("use_global_stats", "moving_average_fraction", "eps", "scale_filler", "bias_filler", "scale_bias", "engine")

_LEAST_EPS = 1e-5
_COPIED = 2  # passes in phase TRAIN whose statistics replace the stored ones


@register
class BatchNorm(Layer):
    """Normalize each channel, and scale and shift it: ``scale * (x - mean) / sqrt(variance + eps) + bias``.

    In phase TEST, mean and variance are the stored ones. In phase TRAIN they are those of the batch. The first two
    batches replace the stored ones; after that, they become ``f * stored + (1 - f) * batch`` with the
    ``moving_average_fraction`` f. The stored variance of a batch includes ``eps``, which is at least 1e-5. Scale and
    bias are there if ``scale_bias`` or one of their fillers is set.

    Shapes:
        bottom  (N, C, ...)
        top     the same

    Blobs:
        weight  (C,)  running mean; not learned
        bias    (C,)  running variance; not learned
        2       (1,)  1, by which BVLC's layer divides; this one does not read it
        3       (C,)  scale, 1 at first
        4       (C,)  bias, 0 at first

    Raises:
        NetError: If there are fewer than two axes, or the number of channels changes.

    Source: NVIDIA/caffe@87a25543 src/caffe/layers/batch_norm_layer.cpp L9-L262.
    """

    dialect = NVIDIA
    reads = frozenset(f"batch_norm_param.{name}" for name in _READS)
    blob_counts = (3, 5)
    changes_blobs = True
    keeps_coordinates = True
    top_is_free = True

    def setup(self, bottoms: list[Shape]) -> None:
        """Create the blobs, and set ``lr_mult`` and ``decay_mult`` to 0 for the statistics and to 1 for the others."""
        param = self.layer_param.batch_norm_param
        if len(bottoms[0]) < 2:
            raise NetError("there must be an axis of channels", got=bottoms[0])
        self._channels = bottoms[0][1]
        self._batches = 0
        one, fillers = FillerParameter(value=1.0), (SCALE_FILLER.get(param), BIAS_FILLER.get(param))
        self._scales = SCALE_BIAS.get(param) or param.has("scale_filler") or param.has("bias_filler")
        for shape, filler in (((self._channels,), None), ((self._channels,), None), ((1,), one)):
            self.add_blob(shape, filler)
        if self._scales:
            self.add_blob((self._channels,), fillers[0] if param.has("scale_filler") else one)
            self.add_blob((self._channels,), fillers[1])
        while len(self.layer_param.param) < len(self.blobs):
            self.layer_param.param.add()
        for index, spec in enumerate(self.layer_param.param):
            spec.lr_mult = spec.decay_mult = float(index > 2)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Return the shape of the bottom."""
        if bottoms[0][1:2] != (self._channels,):
            raise NetError("the number of channels has changed", got=bottoms[0], want=self._channels)
        return bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the top; in phase TRAIN, update the running statistics."""
        x, eps = bottoms[0], max(self.layer_param.batch_norm_param.eps, _LEAST_EPS)
        mean, variance = (per_channel(blob.detach(), x.dim()) for blob in self.blobs[:2])
        learned = self.blobs[3:] if self._scales else [x.new_ones(self._channels), x.new_zeros(self._channels)]
        scale, shift = (per_channel(blob, x.dim()) for blob in learned)
        if not self.training:
            # Upstream bug, fixed: in phase TEST, the backward pass of the fork reads the normalized values of an
            # earlier pass in phase TRAIN. This is the gradient of what was computed.
            return (torch.addcmul(shift, (x - mean) * (variance + eps).rsqrt(), scale),)
        variance, mean = torch.var_mean(x.detach(), channel_axes(x), correction=0, keepdim=True)
        kept = self.layer_param.batch_norm_param.moving_average_fraction if self._batches >= _COPIED else 0.0
        self._batches += 1
        update_statistics(self.blobs[:2], (mean, variance + eps), kept)
        return (normalize(x, scale, shift, mean, (variance + eps).rsqrt()),)

    def sets_gradient(self, index: int, bottoms: list[Shape]) -> bool:
        """Return True: the fork overwrites the gradients of scale and bias."""
        return True

    def compiled_form(self, bottoms: list[Shape]) -> PointwiseForm | None:
        """Return an affine ``PointwiseForm`` in phase TEST."""
        return None if self.layer_param.phase is Phase.TRAIN else PointwiseForm(is_affine=True)

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add the operator BatchNormalization with the stored statistics."""
        mean, variance, _, *learned = (blob.detach().cpu() for blob in self.blobs)
        scale, shift = learned or (torch.ones_like(mean), torch.zeros_like(mean))
        named = {"scale": scale, "shift": shift, "mean": mean, "variance": variance}
        inputs = [onnx.constant(values.numpy(), name) for name, values in named.items()]
        eps = max(self.layer_param.batch_norm_param.eps, _LEAST_EPS)
        return [onnx.node("BatchNormalization", *bottoms, *inputs, epsilon=eps)]

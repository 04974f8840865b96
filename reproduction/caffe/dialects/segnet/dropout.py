"""The layer Dropout of SegNet, which Bayesian SegNet uses in testing as well."""

from __future__ import annotations

from reproduction.caffe.dialects.segnet import SEGNET
from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import neuron
from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.compiled_forms import IdentityForm
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import DropoutParameter
from reproduction.caffe.schema.field import boolean

SAMPLES = DropoutParameter.add_field("sample_weights_test", boolean(2, False), SEGNET)
DropoutParameter.add_field("sample_weights_test", boolean(2, False), SYNOPSYS)


@register
class Dropout(neuron.Dropout):
    """Dropout as in BVLC's layer of this name; with ``sample_weights_test``, in testing too.

    Bayesian SegNet computes an image several times and takes the mean of the probabilities.

    Raises:
        NetError: If ``dropout_ratio`` is not in [0, 1).

    Source: alexgkendall/caffe-segnet@344c113 src/caffe/layers/dropout_layer.cpp L13-L70.
    """

    dialect = SEGNET
    reads = neuron.Dropout.reads | {"dropout_param.sample_weights_test"}

    @property
    def samples(self) -> bool:
        """Whether elements are set to 0: in training, and with ``sample_weights_test``."""
        return self.training or SAMPLES.get(self.layer_param.dropout_param)

    def compiled_form(self, bottoms: list[Shape]) -> IdentityForm | None:
        """Return an ``IdentityForm``, or None with ``sample_weights_test``."""
        return None if SAMPLES.get(self.layer_param.dropout_param) else IdentityForm()

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add nothing and return the bottom, without ``sample_weights_test``."""
        if SAMPLES.get(self.layer_param.dropout_param):
            raise NetError(
                "dropout in testing cannot be written as ONNX", remedy="Remove sample_weights_test from the layer."
            )
        return list(bottoms)

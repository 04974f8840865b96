"""The nets of soeaver/caffe-model, whose Caffe is not published: other names for layers of Synopsys Caffe.

The nets set only fields that Synopsys Caffe has, too; what their layers compute is assumed to be the same.
"""

from __future__ import annotations

from reproduction.caffe.dialects.synopsys import activations
from reproduction.caffe.layers.base import register
from reproduction.caffe.schema import add_dialect

SOEAVER = add_dialect("soeaver", "the Caffe of soeaver/caffe-model", "soeaver/caffe-model@49dc8e0", 2017)


@register
class SeLu(activations.SeLU):
    """The SeLU of Synopsys Caffe, under another name.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/selu_layer.cpp L8-L41.
    """

    dialect = SOEAVER


@register
class SeLuDropout(activations.SeLUDropout):
    """The SeLUDropout of Synopsys Caffe, under another name.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/selu_dropout_layer.cpp L10-L69.
    """

    dialect = SOEAVER

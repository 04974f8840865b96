"""The layer ConvolutionDepthwise of Synopsys Caffe."""

from __future__ import annotations

from reproduction.caffe.dialects.synopsys import SYNOPSYS
from reproduction.caffe.dialects.synopsys.padding import Convolution
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import canonical_axis, register


@register
class ConvolutionDepthwise(Convolution):
    """A Convolution with as many groups as channels, whatever ``group`` is; ``num_output`` is a multiple of them.

    Shapes:
        bottoms: (N, C, H, W), all of the same shape.
        tops: (N, num_output, h, w), with h and w as in the fork's Convolution, padding of each side included.
        weight: (num_output, 1, kernel_h, kernel_w).
        bias: (num_output,), unless ``bias_term: false``.

    Raises:
        NetError: If ``num_output`` is not a multiple of the number of channels.

    Source: foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36 src/caffe/layers/base_conv_layer.cpp L201-L206,
    conv_depthwise_layer.cpp L7-L102.
    """

    dialect = SYNOPSYS

    def setup(self, bottoms: list[Shape]) -> None:
        """Set ``group`` to the number of channels, and create the weights."""
        param = self.layer_param.convolution_param
        param.group = bottoms[0][canonical_axis(param.axis, len(bottoms[0]))]
        super().setup(bottoms)

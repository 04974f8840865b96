"""DepthwiseConvolution: convolutions of each channel by itself, as in MobileNet, with a fast kernel for GPUs."""

from __future__ import annotations

from reproduction.caffe.layers.base import register
from reproduction.caffe.layers.convolution import Convolution
from reproduction.caffe.schema import add_dialect

DEPTHWISE_CONVOLUTION = add_dialect(
    "depthwise_convolution", "DepthwiseConvolution", "yonghenglh6/DepthwiseConvolution@2b9cf52", 2017
)


@register
class DepthwiseConvolution(Convolution):
    """A Convolution with as many groups as channels, for which the fork has a fast kernel on GPUs.

    ``group`` has to be set to the number of channels. Shapes, blobs and gradients are those of Convolution.

    Source: yonghenglh6/DepthwiseConvolution@2b9cf52 caffe/src/caffe/layers/depthwise_conv_layer.cpp L6-L72.
    """

    dialect = DEPTHWISE_CONVOLUTION

"""Parameters of the layers with sliding windows, and of Crop."""

import enum

from reproduction.caffe.schema.blobs import FillerParameter
from reproduction.caffe.schema.message import Message, boolean, choice, int32, integers, nested, single, uint32
from reproduction.caffe.schema.scalar_types import UINT32


class Engine(enum.IntEnum):
    """The implementation that Caffe would use; it has no effect here."""

    DEFAULT = 0
    CAFFE = 1
    CUDNN = 2


class ConvolutionParameter(Message):
    """Parameters of Convolution, Deconvolution and Im2col layers."""

    num_output = uint32(1)
    bias_term = boolean(2, True)
    pad = integers(3, UINT32)
    kernel_size = integers(4, UINT32)
    group = uint32(5, 1)
    stride = integers(6, UINT32)
    weight_filler = nested(7, FillerParameter)
    bias_filler = nested(8, FillerParameter)
    pad_h = uint32(9)
    pad_w = uint32(10)
    kernel_h = uint32(11)
    kernel_w = uint32(12)
    stride_h = uint32(13)
    stride_w = uint32(14)
    engine = choice(15, Engine, Engine.DEFAULT)
    axis = int32(16, 1)
    force_nd_im2col = boolean(17)
    dilation = integers(18, UINT32)


class CropParameter(Message):
    """Parameters of Crop layers."""

    axis = int32(1, 2)
    offset = integers(2, UINT32)


class NormRegion(enum.IntEnum):
    """The region over which LRN sums squares."""

    ACROSS_CHANNELS = 0
    WITHIN_CHANNEL = 1


class LRNParameter(Message):
    """Parameters of LRN layers."""

    local_size = uint32(1, 5)
    alpha = single(2, 1.0)
    beta = single(3, 0.75)
    norm_region = choice(4, NormRegion, NormRegion.ACROSS_CHANNELS)
    k = single(5, 1.0)
    engine = choice(6, Engine, Engine.DEFAULT)


class PoolMethod(enum.IntEnum):
    """The reduction of a pooling window: maximum, average or stochastic."""

    MAX = 0
    AVE = 1
    STOCHASTIC = 2


class RoundMode(enum.IntEnum):
    """The rounding of a pooling layer's output size."""

    CEIL = 0
    FLOOR = 1


class PoolingParameter(Message):
    """Parameters of Pooling layers."""

    pool = choice(1, PoolMethod, PoolMethod.MAX)
    kernel_size = uint32(2)
    stride = uint32(3, 1)
    pad = uint32(4)
    kernel_h = uint32(5)
    kernel_w = uint32(6)
    stride_h = uint32(7)
    stride_w = uint32(8)
    pad_h = uint32(9)
    pad_w = uint32(10)
    engine = choice(11, Engine, Engine.DEFAULT)
    global_pooling = boolean(12)
    round_mode = choice(13, RoundMode, RoundMode.CEIL)


class SPPParameter(Message):
    """Parameters of SPP (spatial pyramid pooling) layers."""

    pyramid_height = uint32(1)
    pool = choice(2, PoolMethod, PoolMethod.MAX)
    engine = choice(6, Engine, Engine.DEFAULT)

"""Parameters of the layers that compute; those of data layers are in ``data``."""

import enum

from reproduction.caffe.schema.blobs import BlobShape, FillerParameter
from reproduction.caffe.schema.message import (
    Message,
    boolean,
    choice,
    int32,
    integers,
    nested,
    single,
    singles,
    string,
    uint32,
)
from reproduction.caffe.schema.scalar_types import UINT32

# Layers with sliding windows, and Crop.


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


# Layers that combine, reshape, reduce or scale blobs.


class ArgMaxParameter(Message):
    """Parameters of ArgMax layers."""

    out_max_val = boolean(1)
    top_k = uint32(2, 1)
    axis = int32(3)


class BatchNormParameter(Message):
    """Parameters of BatchNorm layers."""

    use_global_stats = boolean(1)
    moving_average_fraction = single(2, 0.999)
    eps = single(3, 1e-05)


class BiasParameter(Message):
    """Parameters of Bias layers."""

    axis = int32(1, 1)
    num_axes = int32(2, 1)
    filler = nested(3, FillerParameter)


class ConcatParameter(Message):
    """Parameters of Concat layers."""

    concat_dim = uint32(1, 1)
    axis = int32(2, 1)


class EltwiseOp(enum.IntEnum):
    """The operation by which Eltwise combines its bottoms."""

    PROD = 0
    SUM = 1
    MAX = 2


class EltwiseParameter(Message):
    """Parameters of Eltwise layers."""

    operation = choice(1, EltwiseOp, EltwiseOp.SUM)
    coeff = singles(2)
    stable_prod_grad = boolean(3, True)


class EmbedParameter(Message):
    """Parameters of Embed layers."""

    num_output = uint32(1)
    input_dim = uint32(2)
    bias_term = boolean(3, True)
    weight_filler = nested(4, FillerParameter)
    bias_filler = nested(5, FillerParameter)


class FlattenParameter(Message):
    """Parameters of Flatten layers."""

    axis = int32(1, 1)
    end_axis = int32(2, -1)


class InnerProductParameter(Message):
    """Parameters of InnerProduct layers."""

    num_output = uint32(1)
    bias_term = boolean(2, True)
    weight_filler = nested(3, FillerParameter)
    bias_filler = nested(4, FillerParameter)
    axis = int32(5, 1)
    transpose = boolean(6)


class MVNParameter(Message):
    """Parameters of MVN layers."""

    normalize_variance = boolean(1, True)
    across_channels = boolean(2)
    eps = single(3, 1e-09)


class RecurrentParameter(Message):
    """Parameters of RNN and LSTM layers."""

    num_output = uint32(1)
    weight_filler = nested(2, FillerParameter)
    bias_filler = nested(3, FillerParameter)
    debug_info = boolean(4)
    expose_hidden = boolean(5)


class ReductionOp(enum.IntEnum):
    """The operation by which Reduction combines values."""

    SUM = 1
    ASUM = 2
    SUMSQ = 3
    MEAN = 4


class ReductionParameter(Message):
    """Parameters of Reduction layers."""

    operation = choice(1, ReductionOp, ReductionOp.SUM)
    axis = int32(2)
    coeff = single(3, 1.0)


class ReshapeParameter(Message):
    """Parameters of Reshape layers."""

    shape = nested(1, BlobShape)
    axis = int32(2)
    num_axes = int32(3, -1)


class ScaleParameter(Message):
    """Parameters of Scale layers."""

    axis = int32(1, 1)
    num_axes = int32(2, 1)
    filler = nested(3, FillerParameter)
    bias_term = boolean(4)
    bias_filler = nested(5, FillerParameter)


class SliceParameter(Message):
    """Parameters of Slice layers."""

    slice_dim = uint32(1, 1)
    slice_point = integers(2, UINT32)
    axis = int32(3, 1)


class TileParameter(Message):
    """Parameters of Tile layers."""

    axis = int32(1, 1)
    tiles = int32(2)


# Element-wise layers.


class ClipParameter(Message):
    """Parameters of Clip layers."""

    min = single(1, required=True)
    max = single(2, required=True)


class DropoutParameter(Message):
    """Parameters of Dropout layers."""

    dropout_ratio = single(1, 0.5)


class ELUParameter(Message):
    """Parameters of ELU layers."""

    alpha = single(1, 1.0)


class ExpParameter(Message):
    """Parameters of Exp layers."""

    base = single(1, -1.0)
    scale = single(2, 1.0)
    shift = single(3)


class LogParameter(Message):
    """Parameters of Log layers."""

    base = single(1, -1.0)
    scale = single(2, 1.0)
    shift = single(3)


class PowerParameter(Message):
    """Parameters of Power layers."""

    power = single(1, 1.0)
    scale = single(2, 1.0)
    shift = single(3)


class PReLUParameter(Message):
    """Parameters of PReLU layers."""

    filler = nested(1, FillerParameter)
    channel_shared = boolean(2)


class ReLUParameter(Message):
    """Parameters of ReLU layers."""

    negative_slope = single(1)
    engine = choice(2, Engine, Engine.DEFAULT)


class SigmoidParameter(Message):
    """Parameters of Sigmoid layers."""

    engine = choice(1, Engine, Engine.DEFAULT)


class SwishParameter(Message):
    """Parameters of Swish layers."""

    beta = single(1, 1.0)


class TanHParameter(Message):
    """Parameters of TanH layers."""

    engine = choice(1, Engine, Engine.DEFAULT)


class ThresholdParameter(Message):
    """Parameters of Threshold layers."""

    threshold = single(1)


# Losses and Accuracy.


class NormalizationMode(enum.IntEnum):
    """The number by which a loss is divided."""

    FULL = 0
    VALID = 1
    BATCH_SIZE = 2
    NONE = 3


class LossParameter(Message):
    """The label that a loss ignores, and its normalization."""

    ignore_label = int32(1)
    normalize = boolean(2)
    normalization = choice(3, NormalizationMode, NormalizationMode.VALID)


class AccuracyParameter(Message):
    """Parameters of Accuracy layers."""

    top_k = uint32(1, 1)
    axis = int32(2, 1)
    ignore_label = int32(3)


class ContrastiveLossParameter(Message):
    """Parameters of ContrastiveLoss layers."""

    margin = single(1, 1.0)
    legacy_version = boolean(2)


class HingeNorm(enum.IntEnum):
    """The norm of a hinge loss."""

    L1 = 1
    L2 = 2


class HingeLossParameter(Message):
    """Parameters of HingeLoss layers."""

    norm = choice(1, HingeNorm, HingeNorm.L1)


class InfogainLossParameter(Message):
    """Parameters of InfogainLoss layers."""

    source = string(1)
    axis = int32(2, 1)


class SoftmaxParameter(Message):
    """Parameters of Softmax and SoftmaxWithLoss layers."""

    engine = choice(1, Engine, Engine.DEFAULT)
    axis = int32(2, 1)

"""Parameters of the layers that compute; those of data layers are in ``data``."""

import enum

from reproduction.caffe.schema.blobs import BlobShape, FillerParameter
from reproduction.caffe.schema.field import boolean, choice, int32, integers, nested, single, singles, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32

# Layers with sliding windows, and Crop.


class Engine(enum.IntEnum):
    """The implementation that Caffe would use for a layer: its code or cuDNN's. This package ignores it."""

    DEFAULT = 0
    CAFFE = 1
    CUDNN = 2


class ConvolutionParameter(Message):
    """Parameters of Convolution, Deconvolution and Im2col layers: the output channels, the windows and the fillers."""

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
    """Parameters of Crop layers: the first axis that is cropped, and the offset along each axis from it on."""

    axis = int32(1, 2)
    offset = integers(2, UINT32)


class NormRegion(enum.IntEnum):
    """The region over which LRN sums squares: neighbouring channels, or neighbouring pixels of one channel."""

    ACROSS_CHANNELS = 0
    WITHIN_CHANNEL = 1


class LRNParameter(Message):
    """Parameters of LRN (local response normalization) layers: the size of the region, alpha, beta and k."""

    local_size = uint32(1, 5)
    alpha = single(2, 1.0)
    beta = single(3, 0.75)
    norm_region = choice(4, NormRegion, NormRegion.ACROSS_CHANNELS)
    k = single(5, 1.0)
    engine = choice(6, Engine, Engine.DEFAULT)


class PoolMethod(enum.IntEnum):
    """The value that pooling takes from a window: its maximum, its average, or one that is drawn at random."""

    MAX = 0
    AVE = 1
    STOCHASTIC = 2


class RoundMode(enum.IntEnum):
    """How the output size of a Pooling layer is rounded."""

    CEIL = 0
    FLOOR = 1


class PoolingParameter(Message):
    """Parameters of Pooling layers: the method and the window."""

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
    """Parameters of SPP (spatial pyramid pooling) layers: the levels of the pyramid and the pooling method."""

    pyramid_height = uint32(1)
    pool = choice(2, PoolMethod, PoolMethod.MAX)
    engine = choice(6, Engine, Engine.DEFAULT)


# Layers that combine, reshape, reduce or scale blobs.


class ArgMaxParameter(Message):
    """Parameters of ArgMax layers: the axis, how many of the largest values, and whether to return the values too."""

    out_max_val = boolean(1)
    top_k = uint32(2, 1)
    axis = int32(3)


class BatchNormParameter(Message):
    """Parameters of BatchNorm layers: whether stored statistics are used, how fast they are updated, and epsilon."""

    use_global_stats = boolean(1)
    moving_average_fraction = single(2, 0.999)
    eps = single(3, 1e-05)


class BiasParameter(Message):
    """Parameters of Bias layers: the axes that the bias covers, and its filler."""

    axis = int32(1, 1)
    num_axes = int32(2, 1)
    filler = nested(3, FillerParameter)


class ConcatParameter(Message):
    """Parameters of Concat layers: the axis along which the bottoms are joined; ``concat_dim`` is its old name."""

    concat_dim = uint32(1, 1)
    axis = int32(2, 1)


class EltwiseOp(enum.IntEnum):
    """The operation by which Eltwise combines the elements of its bottoms."""

    PROD = 0
    SUM = 1
    MAX = 2


class EltwiseParameter(Message):
    """Parameters of Eltwise layers: the operation, and for sums a coefficient for each bottom."""

    operation = choice(1, EltwiseOp, EltwiseOp.SUM)
    coeff = singles(2)
    stable_prod_grad = boolean(3, True)


class EmbedParameter(Message):
    """Parameters of Embed layers: the number of indices, the length of the vector of each, and the fillers."""

    num_output = uint32(1)
    input_dim = uint32(2)
    bias_term = boolean(3, True)
    weight_filler = nested(4, FillerParameter)
    bias_filler = nested(5, FillerParameter)


class FlattenParameter(Message):
    """Parameters of Flatten layers: the first and the last axis of those that become one."""

    axis = int32(1, 1)
    end_axis = int32(2, -1)


class InnerProductParameter(Message):
    """Parameters of InnerProduct layers: the number of outputs, the first axis of the inputs, and the fillers."""

    num_output = uint32(1)
    bias_term = boolean(2, True)
    weight_filler = nested(3, FillerParameter)
    bias_filler = nested(4, FillerParameter)
    axis = int32(5, 1)
    transpose = boolean(6)


class MVNParameter(Message):
    """Parameters of MVN (mean-variance normalization) layers."""

    normalize_variance = boolean(1, True)
    across_channels = boolean(2)
    eps = single(3, 1e-09)


class RecurrentParameter(Message):
    """Parameters of RNN and LSTM layers: the number of outputs, the fillers, and whether hidden states are blobs."""

    num_output = uint32(1)
    weight_filler = nested(2, FillerParameter)
    bias_filler = nested(3, FillerParameter)
    debug_info = boolean(4)
    expose_hidden = boolean(5)


class ReductionOp(enum.IntEnum):
    """The operation by which Reduction combines values: sum, sum of magnitudes, sum of squares, or mean."""

    SUM = 1
    ASUM = 2
    SUMSQ = 3
    MEAN = 4


class ReductionParameter(Message):
    """Parameters of Reduction layers: the operation, the first axis that is reduced, and a factor."""

    operation = choice(1, ReductionOp, ReductionOp.SUM)
    axis = int32(2)
    coeff = single(3, 1.0)


class ReshapeParameter(Message):
    """Parameters of Reshape layers: the new sizes (0 copies a size, -1 is inferred), and the axes that they replace."""

    shape = nested(1, BlobShape)
    axis = int32(2)
    num_axes = int32(3, -1)


class ScaleParameter(Message):
    """Parameters of Scale layers: the axes that the factors cover, the fillers, and whether to add a bias."""

    axis = int32(1, 1)
    num_axes = int32(2, 1)
    filler = nested(3, FillerParameter)
    bias_term = boolean(4)
    bias_filler = nested(5, FillerParameter)


class SliceParameter(Message):
    """Parameters of Slice layers: the axis and the points at which it is cut; ``slice_dim`` is the axis's old name."""

    slice_dim = uint32(1, 1)
    slice_point = integers(2, UINT32)
    axis = int32(3, 1)


class TileParameter(Message):
    """Parameters of Tile layers: the axis, and how often the bottom is repeated along it."""

    axis = int32(1, 1)
    tiles = int32(2)


# Element-wise layers.


class ClipParameter(Message):
    """Parameters of Clip layers: the lowest and the highest value."""

    min = single(1, required=True)
    max = single(2, required=True)


class DropoutParameter(Message):
    """Parameters of Dropout layers: the probability that a value is dropped."""

    dropout_ratio = single(1, 0.5)


class ELUParameter(Message):
    """Parameters of ELU layers: ``alpha * (exp(x) - 1)`` for negative x."""

    alpha = single(1, 1.0)


class ExpParameter(Message):
    """Parameters of Exp layers: ``base ** (shift + scale * x)``; the base -1 stands for e."""

    base = single(1, -1.0)
    scale = single(2, 1.0)
    shift = single(3)


class LogParameter(Message):
    """Parameters of Log layers: the logarithm of ``shift + scale * x`` to ``base``; the base -1 stands for e."""

    base = single(1, -1.0)
    scale = single(2, 1.0)
    shift = single(3)


class PowerParameter(Message):
    """Parameters of Power layers: ``(shift + scale * x) ** power``."""

    power = single(1, 1.0)
    scale = single(2, 1.0)
    shift = single(3)


class PReLUParameter(Message):
    """Parameters of PReLU layers: the filler of the slopes, and whether all channels share one slope."""

    filler = nested(1, FillerParameter)
    channel_shared = boolean(2)


class ReLUParameter(Message):
    """Parameters of ReLU layers: the slope for negative values."""

    negative_slope = single(1)
    engine = choice(2, Engine, Engine.DEFAULT)


class SigmoidParameter(Message):
    """Parameters of Sigmoid layers: only the engine, which is ignored."""

    engine = choice(1, Engine, Engine.DEFAULT)


class SwishParameter(Message):
    """Parameters of Swish layers: ``x * sigmoid(beta * x)``."""

    beta = single(1, 1.0)


class TanHParameter(Message):
    """Parameters of TanH layers: only the engine, which is ignored."""

    engine = choice(1, Engine, Engine.DEFAULT)


class ThresholdParameter(Message):
    """Parameters of Threshold layers: the top is 1 where the bottom exceeds the threshold, else 0."""

    threshold = single(1)


# Losses and Accuracy.


class NormalizationMode(enum.IntEnum):
    """The number by which a loss is divided: all labels, those that are not ignored, the batch size, or 1."""

    FULL = 0
    VALID = 1
    BATCH_SIZE = 2
    NONE = 3


class LossParameter(Message):
    """The ``loss_param`` of loss layers: the label that is ignored, and how the loss is normalized."""

    ignore_label = int32(1)
    normalize = boolean(2)
    normalization = choice(3, NormalizationMode, NormalizationMode.VALID)


class AccuracyParameter(Message):
    """Parameters of Accuracy layers: how many top scores count as correct, the class axis, and the ignored label."""

    top_k = uint32(1, 1)
    axis = int32(2, 1)
    ignore_label = int32(3)


class ContrastiveLossParameter(Message):
    """Parameters of ContrastiveLoss layers: the margin, and whether to use Caffe's first, different formula."""

    margin = single(1, 1.0)
    legacy_version = boolean(2)


class HingeNorm(enum.IntEnum):
    """How a hinge loss adds up the violations of its margin: L1 as they are, L2 squared."""

    L1 = 1
    L2 = 2


class HingeLossParameter(Message):
    """Parameters of HingeLoss layers: the norm."""

    norm = choice(1, HingeNorm, HingeNorm.L1)


class InfogainLossParameter(Message):
    """Parameters of InfogainLoss layers: the file of the matrix that weighs pairs of classes, and the class axis."""

    source = string(1)
    axis = int32(2, 1)


class SoftmaxParameter(Message):
    """Parameters of Softmax and SoftmaxWithLoss layers: the class axis. The engine is ignored."""

    engine = choice(1, Engine, Engine.DEFAULT)
    axis = int32(2, 1)

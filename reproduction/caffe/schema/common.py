"""Parameters of layers that combine, reshape, reduce or scale blobs."""

import enum

from reproduction.caffe.schema.blobs import BlobShape, FillerParameter
from reproduction.caffe.schema.message import Message, boolean, choice, int32, integers, nested, single, singles, uint32
from reproduction.caffe.schema.scalar_types import UINT32


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

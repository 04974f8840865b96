"""A layer, and the rules that include it in a net or exclude it."""

import enum

from reproduction.caffe.schema.blobs import BlobProto
from reproduction.caffe.schema.common import (
    ArgMaxParameter,
    BatchNormParameter,
    BiasParameter,
    ConcatParameter,
    EltwiseParameter,
    EmbedParameter,
    FlattenParameter,
    InnerProductParameter,
    MVNParameter,
    RecurrentParameter,
    ReductionParameter,
    ReshapeParameter,
    ScaleParameter,
    SliceParameter,
    TileParameter,
)
from reproduction.caffe.schema.data import (
    DataParameter,
    DummyDataParameter,
    HDF5DataParameter,
    HDF5OutputParameter,
    ImageDataParameter,
    InputParameter,
    MemoryDataParameter,
    ParameterParameter,
    PythonParameter,
    TransformationParameter,
    WindowDataParameter,
)
from reproduction.caffe.schema.loss import (
    AccuracyParameter,
    ContrastiveLossParameter,
    HingeLossParameter,
    InfogainLossParameter,
    LossParameter,
    SoftmaxParameter,
)
from reproduction.caffe.schema.message import (
    Message,
    booleans,
    choice,
    int32,
    messages,
    nested,
    single,
    singles,
    string,
    strings,
)
from reproduction.caffe.schema.neuron import (
    ClipParameter,
    DropoutParameter,
    ELUParameter,
    ExpParameter,
    LogParameter,
    PowerParameter,
    PReLUParameter,
    ReLUParameter,
    SigmoidParameter,
    SwishParameter,
    TanHParameter,
    ThresholdParameter,
)
from reproduction.caffe.schema.vision import (
    ConvolutionParameter,
    CropParameter,
    LRNParameter,
    PoolingParameter,
    SPPParameter,
)


class Phase(enum.IntEnum):
    """The phase of a net: training or testing."""

    TRAIN = 0
    TEST = 1


class NetState(Message):
    """The state that a net is built for: phase, level and stages."""

    phase = choice(1, Phase, Phase.TEST)
    level = int32(2)
    stage = strings(3)


class NetStateRule(Message):
    """An ``include`` or ``exclude`` rule, which is compared with a NetState."""

    phase = choice(1, Phase)
    min_level = int32(2)
    max_level = int32(3)
    stage = strings(4)
    not_stage = strings(5)


class DimCheckMode(enum.IntEnum):
    """The check of a shared parameter: the same shape, or only the same number of values."""

    STRICT = 0
    PERMISSIVE = 1


class ParamSpec(Message):
    """The name by which one parameter blob is shared, and its learning rate and decay multipliers."""

    name = string(1)
    share_mode = choice(2, DimCheckMode)
    lr_mult = single(3, 1.0)
    decay_mult = single(4, 1.0)


class LayerParameter(Message):
    """A layer: its name, type, bottoms, tops and weights, and the parameters of its type."""

    name = string(1)
    type = string(2)
    bottom = strings(3)
    top = strings(4)
    loss_weight = singles(5)
    param = messages(6, ParamSpec)
    blobs = messages(7, BlobProto)
    include = messages(8, NetStateRule)
    exclude = messages(9, NetStateRule)
    phase = choice(10, Phase)
    propagate_down = booleans(11)
    transform_param = nested(100, TransformationParameter)
    loss_param = nested(101, LossParameter)
    accuracy_param = nested(102, AccuracyParameter)
    argmax_param = nested(103, ArgMaxParameter)
    concat_param = nested(104, ConcatParameter)
    contrastive_loss_param = nested(105, ContrastiveLossParameter)
    convolution_param = nested(106, ConvolutionParameter)
    data_param = nested(107, DataParameter)
    dropout_param = nested(108, DropoutParameter)
    dummy_data_param = nested(109, DummyDataParameter)
    eltwise_param = nested(110, EltwiseParameter)
    exp_param = nested(111, ExpParameter)
    hdf5_data_param = nested(112, HDF5DataParameter)
    hdf5_output_param = nested(113, HDF5OutputParameter)
    hinge_loss_param = nested(114, HingeLossParameter)
    image_data_param = nested(115, ImageDataParameter)
    infogain_loss_param = nested(116, InfogainLossParameter)
    inner_product_param = nested(117, InnerProductParameter)
    lrn_param = nested(118, LRNParameter)
    memory_data_param = nested(119, MemoryDataParameter)
    mvn_param = nested(120, MVNParameter)
    pooling_param = nested(121, PoolingParameter)
    power_param = nested(122, PowerParameter)
    relu_param = nested(123, ReLUParameter)
    sigmoid_param = nested(124, SigmoidParameter)
    softmax_param = nested(125, SoftmaxParameter)
    slice_param = nested(126, SliceParameter)
    tanh_param = nested(127, TanHParameter)
    threshold_param = nested(128, ThresholdParameter)
    window_data_param = nested(129, WindowDataParameter)
    python_param = nested(130, PythonParameter)
    prelu_param = nested(131, PReLUParameter)
    spp_param = nested(132, SPPParameter)
    reshape_param = nested(133, ReshapeParameter)
    log_param = nested(134, LogParameter)
    flatten_param = nested(135, FlattenParameter)
    reduction_param = nested(136, ReductionParameter)
    embed_param = nested(137, EmbedParameter)
    tile_param = nested(138, TileParameter)
    batch_norm_param = nested(139, BatchNormParameter)
    elu_param = nested(140, ELUParameter)
    bias_param = nested(141, BiasParameter)
    scale_param = nested(142, ScaleParameter)
    input_param = nested(143, InputParameter)
    crop_param = nested(144, CropParameter)
    parameter_param = nested(145, ParameterParameter)
    recurrent_param = nested(146, RecurrentParameter)
    swish_param = nested(147, SwishParameter)
    clip_param = nested(148, ClipParameter)

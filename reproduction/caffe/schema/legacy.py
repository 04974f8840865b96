"""The two older forms of a layer, V0 and V1; ``upgrade`` converts them to LayerParameter."""

import enum

from reproduction.caffe.schema import data
from reproduction.caffe.schema import layer_params as params
from reproduction.caffe.schema.blobs import BlobProto, FillerParameter
from reproduction.caffe.schema.field import (
    boolean,
    choice,
    choices,
    int32,
    messages,
    nested,
    single,
    singles,
    string,
    strings,
    uint32,
)
from reproduction.caffe.schema.layer import DimCheckMode, LayerParameter, NetStateRule
from reproduction.caffe.schema.message import Message


class V0LayerParameter(Message):
    """A layer in the V0 form, the form before 2014: one message with the settings of all layer types."""

    name = string(1)
    type = string(2)
    num_output = uint32(3)
    biasterm = boolean(4, True)
    weight_filler = nested(5, FillerParameter)
    bias_filler = nested(6, FillerParameter)
    pad = uint32(7)
    kernelsize = uint32(8)
    group = uint32(9, 1)
    stride = uint32(10, 1)
    pool = choice(11, params.PoolMethod, params.PoolMethod.MAX)
    dropout_ratio = single(12, 0.5)
    local_size = uint32(13, 5)
    alpha = single(14, 1.0)
    beta = single(15, 0.75)
    source = string(16)
    scale = single(17, 1.0)
    meanfile = string(18)
    batchsize = uint32(19)
    cropsize = uint32(20)
    mirror = boolean(21)
    k = single(22, 1.0)
    blobs = messages(50, BlobProto)
    blobs_lr = singles(51)
    weight_decay = singles(52)
    rand_skip = uint32(53)
    det_fg_threshold = single(54, 0.5)
    det_bg_threshold = single(55, 0.5)
    det_fg_fraction = single(56, 0.25)
    det_context_pad = uint32(58)
    det_crop_mode = string(59, "warp")
    new_num = int32(60)
    new_channels = int32(61)
    new_height = int32(62)
    new_width = int32(63)
    shuffle_images = boolean(64)
    concat_dim = uint32(65, 1)
    hdf5_output_param = nested(1001, data.HDF5OutputParameter)


class V1LayerType(enum.IntEnum):
    """The layer types of the V1 form of 2014. In the current form, a type is a string."""

    NONE = 0
    ABSVAL = 35
    ACCURACY = 1
    ARGMAX = 30
    BNLL = 2
    CONCAT = 3
    CONTRASTIVE_LOSS = 37
    CONVOLUTION = 4
    DATA = 5
    DECONVOLUTION = 39
    DROPOUT = 6
    DUMMY_DATA = 32
    EUCLIDEAN_LOSS = 7
    ELTWISE = 25
    EXP = 38
    FLATTEN = 8
    HDF5_DATA = 9
    HDF5_OUTPUT = 10
    HINGE_LOSS = 28
    IM2COL = 11
    IMAGE_DATA = 12
    INFOGAIN_LOSS = 13
    INNER_PRODUCT = 14
    LRN = 15
    MEMORY_DATA = 29
    MULTINOMIAL_LOGISTIC_LOSS = 16
    MVN = 34
    POOLING = 17
    POWER = 26
    RELU = 18
    SIGMOID = 19
    SIGMOID_CROSS_ENTROPY_LOSS = 27
    SILENCE = 36
    SOFTMAX = 20
    SOFTMAX_LOSS = 21
    SPLIT = 22
    SLICE = 33
    TANH = 23
    WINDOW_DATA = 24
    THRESHOLD = 31


class V1LayerParameter(Message):
    """A layer in the V1 form of 2014, whose type is an enum. A V0 layer is in the field ``layer`` of a V1 layer."""

    layer = nested(1, V0LayerParameter)
    bottom = strings(2)
    top = strings(3)
    name = string(4)
    type = choice(5, V1LayerType)
    blobs = messages(6, BlobProto)
    blobs_lr = singles(7)
    weight_decay = singles(8)
    concat_param = nested(9, params.ConcatParameter)
    convolution_param = nested(10, params.ConvolutionParameter)
    data_param = nested(11, data.DataParameter)
    dropout_param = nested(12, params.DropoutParameter)
    hdf5_data_param = nested(13, data.HDF5DataParameter)
    hdf5_output_param = nested(14, data.HDF5OutputParameter)
    image_data_param = nested(15, data.ImageDataParameter)
    infogain_loss_param = nested(16, params.InfogainLossParameter)
    inner_product_param = nested(17, params.InnerProductParameter)
    lrn_param = nested(18, params.LRNParameter)
    pooling_param = nested(19, params.PoolingParameter)
    window_data_param = nested(20, data.WindowDataParameter)
    power_param = nested(21, params.PowerParameter)
    memory_data_param = nested(22, data.MemoryDataParameter)
    argmax_param = nested(23, params.ArgMaxParameter)
    eltwise_param = nested(24, params.EltwiseParameter)
    threshold_param = nested(25, params.ThresholdParameter)
    dummy_data_param = nested(26, data.DummyDataParameter)
    accuracy_param = nested(27, params.AccuracyParameter)
    hinge_loss_param = nested(29, params.HingeLossParameter)
    relu_param = nested(30, params.ReLUParameter)
    slice_param = nested(31, params.SliceParameter)
    include = messages(32, NetStateRule)
    exclude = messages(33, NetStateRule)
    mvn_param = nested(34, params.MVNParameter)
    loss_weight = singles(35)
    transform_param = nested(36, data.TransformationParameter)
    tanh_param = nested(37, params.TanHParameter)
    sigmoid_param = nested(38, params.SigmoidParameter)
    softmax_param = nested(39, params.SoftmaxParameter)
    contrastive_loss_param = nested(40, params.ContrastiveLossParameter)
    exp_param = nested(41, params.ExpParameter)
    loss_param = nested(42, params.LossParameter)
    param = strings(1001)
    blob_share_mode = choices(1002, DimCheckMode)


LayerParameter.older_forms = (V1LayerParameter,)
V1LayerParameter.shared_numbers = LayerParameter.shared_numbers

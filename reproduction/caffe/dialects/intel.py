"""Intel Caffe: fields of its training on many machines, of its fused layers and of its integers of 8 bits.

Layers are not fused here, and everything is computed in single precision, so that most of these fields have no effect.
"""

from __future__ import annotations

import enum

from reproduction.caffe.schema import (
    BatchNormParameter,
    ConcatParameter,
    ConvolutionParameter,
    DataParameter,
    EltwiseParameter,
    Engine,
    FillerParameter,
    InnerProductParameter,
    LayerParameter,
    NetParameter,
    ReLUParameter,
    SolverParameter,
    TransformationParameter,
    add_dialect,
)
from reproduction.caffe.schema.field import (
    boolean,
    choice,
    int32,
    integers,
    messages,
    nested,
    single,
    singles,
    string,
    uint32,
)
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import INT32, UINT32

INTEL = add_dialect("intel", "Intel Caffe", "BVLC/caffe@3f494b4", 2016)


class Precision(enum.IntEnum):
    """The numbers of a quantized layer."""

    DYNAMIC_FIXED_POINT = 0


class QuantizationParameter(Message):
    """Parameters of the integers with which a layer computes."""

    precision = choice(1, Precision)
    bw_layer_in = uint32(3, 32)
    bw_layer_out = uint32(4, 32)
    bw_params = uint32(5, 32)
    fl_layer_in = integers(6, INT32)
    fl_layer_out = integers(7, INT32)
    fl_params = integers(8, INT32)
    scale_in = singles(20)
    scale_out = singles(21)
    scale_params = singles(22)
    is_negative_input = boolean(23)
    force_u8_input = boolean(24)


class MultinodeLayerParameter(Message):
    """Among how many machines a layer is divided."""

    num_nodes = uint32(1)
    model_parts = uint32(2, 1)


class ModelParallelParameter(Message):
    """Layers that are divided among machines."""

    layer_from = string(1)
    layer_to = string(2)
    num_nodes = uint32(3)
    model_parts = uint32(4)


class MultinodeParameter(Message):
    """How a net is divided among machines."""

    model_parallel = messages(1, ModelParallelParameter)


class RandomResizeParameter(Message):
    """Sizes from which that of an image is drawn."""

    min_size = uint32(1)
    max_size = uint32(2)


class RandomAspectRatioParameter(Message):
    """How a part of an image is drawn in training."""

    min_area_ratio = single(1, 0.5)
    max_area_ratio = single(2, 1.0)
    aspect_ratio_change = single(3, 1.0)
    max_attempt = uint32(4, 10)


NetParameter.add_field("engine", string(9), INTEL, effect=False)
NetParameter.add_field("bn_stats_batch_size", uint32(11), INTEL)
NetParameter.add_field("multinode", nested(101, MultinodeParameter), INTEL, effect=False)
LayerParameter.add_field("engine", string(149), INTEL, effect=False)
LayerParameter.add_field("multinode", nested(150, MultinodeLayerParameter), INTEL, effect=False)
LayerParameter.add_field("quantization_param", nested(158, QuantizationParameter), INTEL, effect=False)

BatchNormParameter.add_field("stats_batch_size", uint32(9), INTEL)
BatchNormParameter.add_field("use_weight_bias", boolean(5, True), INTEL)
BatchNormParameter.add_field("bias_term", boolean(6, True), INTEL)
BatchNormParameter.add_field("filler", nested(7, FillerParameter), INTEL)
ConvolutionParameter.add_field("conv_algorithm", string(21, "direct"), INTEL, effect=False)
EltwiseParameter.add_field("engine", choice(4, Engine), INTEL, effect=False)
InnerProductParameter.add_field("engine", choice(7, Engine), INTEL, effect=False)
ConcatParameter.add_field("engine", choice(3, Engine), INTEL, effect=False)
ConcatParameter.add_field("per_fla_fuse", boolean(4), INTEL, effect=False)
ReLUParameter.add_field("fuse", boolean(3), INTEL, effect=False)

DataParameter.add_field("shuffle", boolean(11), INTEL)
DataParameter.add_field("side", integers(12, UINT32), INTEL)
TransformationParameter.add_field("random_resize_param", nested(15, RandomResizeParameter), INTEL)
TransformationParameter.add_field("random_aspect_ratio_param", nested(16, RandomAspectRatioParameter), INTEL)
TransformationParameter.add_field("bgr2rgb", boolean(18), INTEL)
TransformationParameter.add_field("pad", uint32(19), INTEL)

SolverParameter.add_field("warmup_iter", int32(48), INTEL)
SolverParameter.add_field("warmup_start_lr", single(49), INTEL)
SolverParameter.add_field("local_lr_auto", boolean(50), INTEL)
SolverParameter.add_field("local_gw_ratio", single(51, 0.001), INTEL)
SolverParameter.add_field("test_offset", int32(52), INTEL, effect=False)

"""Fields of NVIDIA Caffe: the types in which layers compute, the speed of data layers, and the settings of its solver.

Everything is computed in single precision here, so that the fields of types have no effect.
"""

from __future__ import annotations

import enum

from reproduction.caffe.dialects.nvidia import NVIDIA
from reproduction.caffe.dialects.nvidia.weights import RawType
from reproduction.caffe.schema import (
    ConvolutionParameter,
    DataParameter,
    ImageDataParameter,
    LayerParameter,
    NetParameter,
    SolverParameter,
    TransformationParameter,
)
from reproduction.caffe.schema.field import boolean, choice, int32, int64, single, string, uint32


class Interpolation(enum.IntEnum):
    """How images are resized, as by OpenCV."""

    INTER_NEAREST = 0
    INTER_LINEAR = 1
    INTER_CUBIC = 2
    INTER_AREA = 3


class AlgorithmSeeker(enum.IntEnum):
    """How cuDNN looks for the fastest algorithm."""

    GET = 0
    FINDEX = 1


for _number, _name in enumerate(("forward_type", "backward_type", "forward_math", "backward_math")):
    NetParameter.add_field(f"default_{_name}", choice(11 + _number, RawType, RawType.FLOAT), NVIDIA, effect=False)
    LayerParameter.add_field(_name, choice(145 + _number, RawType, RawType.FLOAT), NVIDIA, effect=False)
NetParameter.add_field("global_grad_scale", single(15, 1.0), NVIDIA, effect=False)
NetParameter.add_field("global_grad_scale_adaptive", boolean(16), NVIDIA, effect=False)
NetParameter.add_field("default_conv_algos_override", string(17), NVIDIA, effect=False)
NetParameter.add_field("reduce_buckets", int32(18, 6), NVIDIA, effect=False)
NetParameter.add_field("default_cudnn_math_override", int32(19, -1), NVIDIA, effect=False)
NetParameter.add_field("eltwise_mem_sharing", boolean(20, True), NVIDIA, effect=False)
LayerParameter.add_field("debug", boolean(149), NVIDIA, effect=False)
LayerParameter.add_field("cudnn_math_override", int32(150, -1), NVIDIA, effect=False)

ConvolutionParameter.add_field("conv_algos_override", string(20), NVIDIA, effect=False)
ConvolutionParameter.add_field("cudnn_convolution_algo_seeker", choice(19, AlgorithmSeeker), NVIDIA, effect=False)

for _number, _name in ((11, "threads"), (12, "parser_threads")):
    DataParameter.add_field(_name, uint32(_number), NVIDIA, effect=False)
ImageDataParameter.add_field("threads", uint32(14, 4), NVIDIA, effect=False)
DataParameter.add_field("cache", boolean(13), NVIDIA, effect=False)
DataParameter.add_field("precache", boolean(16), NVIDIA, effect=False)
ImageDataParameter.add_field("cache", boolean(15), NVIDIA, effect=False)
ImageDataParameter.add_field("precache", boolean(16), NVIDIA, effect=False)
DataParameter.add_field("shuffle", boolean(14), NVIDIA)
ImageDataParameter.add_field("short_side", uint32(13), NVIDIA)
ImageDataParameter.add_field("dataset_share_per_node", single(17, 1.0), NVIDIA)

TransformationParameter.add_field("img_rand_resize_lower", uint32(10), NVIDIA)
TransformationParameter.add_field("img_rand_resize_upper", uint32(11), NVIDIA)
TransformationParameter.add_field("rand_resize_ratio_lower", single(12), NVIDIA)
TransformationParameter.add_field("rand_resize_ratio_upper", single(13), NVIDIA)
TransformationParameter.add_field("vertical_stretch_lower", single(14, 1.0), NVIDIA)
TransformationParameter.add_field("vertical_stretch_upper", single(15, 1.0), NVIDIA)
TransformationParameter.add_field("horizontal_stretch_lower", single(16, 1.0), NVIDIA)
TransformationParameter.add_field("horizontal_stretch_upper", single(17, 1.0), NVIDIA)
TransformationParameter.add_field("interpolation_algo_down", choice(18, Interpolation), NVIDIA)
TransformationParameter.add_field("interpolation_algo_up", choice(19, Interpolation, Interpolation.INTER_CUBIC), NVIDIA)
TransformationParameter.add_field("allow_upscale", boolean(20), NVIDIA)
TransformationParameter.add_field("use_gpu_transform", boolean(8), NVIDIA, effect=False)
TransformationParameter.add_field("random_seed", int64(9, -1), NVIDIA, effect=False)

SolverParameter.add_field("rampup_interval", int32(41), NVIDIA)
SolverParameter.add_field("rampup_lr", single(42), NVIDIA)
SolverParameter.add_field("min_lr", single(43), NVIDIA)
SolverParameter.add_field("momentum_policy", string(46, "fixed"), NVIDIA)
SolverParameter.add_field("max_momentum", single(47, 0.99), NVIDIA)
SolverParameter.add_field("momentum_power", single(48, 1.0), NVIDIA)
SolverParameter.add_field("larc", boolean(49), NVIDIA)
SolverParameter.add_field("larc_policy", string(50, "scale"), NVIDIA)
SolverParameter.add_field("larc_eta", single(51, 0.001), NVIDIA)
SolverParameter.add_field("larc_turbo", boolean(55), NVIDIA)
SolverParameter.add_field("solver_data_type", choice(44, RawType, RawType.FLOAT), NVIDIA, effect=False)
SolverParameter.add_field("store_blobs_in_old_format", boolean(45), NVIDIA, effect=False)
SolverParameter.add_field("test_and_snapshot_last_epochs", int32(54), NVIDIA)

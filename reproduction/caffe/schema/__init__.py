"""The messages of BVLC Caffe's schema, ``caffe.proto``.

The readers and writers of the text format and of the wire format, and the upgrades, all use these declarations.

Source: BVLC/caffe@9b89154 src/caffe/proto/caffe.proto (63 messages, 423 fields).
"""

from reproduction.caffe.schema.blobs import BlobProto, BlobProtoVector, BlobShape, Datum, FillerParameter, VarianceNorm
from reproduction.caffe.schema.data import (
    DatabaseBackend,
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
from reproduction.caffe.schema.dialect import DIALECTS, Dialect, add_dialect, find_dialect
from reproduction.caffe.schema.field import Field, MessageList
from reproduction.caffe.schema.layer import DimCheckMode, LayerParameter, NetState, NetStateRule, ParamSpec, Phase
from reproduction.caffe.schema.layer_params import (
    AccuracyParameter,
    ArgMaxParameter,
    BatchNormParameter,
    BiasParameter,
    ClipParameter,
    ConcatParameter,
    ContrastiveLossParameter,
    ConvolutionParameter,
    CropParameter,
    DropoutParameter,
    EltwiseOp,
    EltwiseParameter,
    ELUParameter,
    EmbedParameter,
    Engine,
    ExpParameter,
    FlattenParameter,
    HingeLossParameter,
    HingeNorm,
    InfogainLossParameter,
    InnerProductParameter,
    LogParameter,
    LossParameter,
    LRNParameter,
    MVNParameter,
    NormalizationMode,
    NormRegion,
    PoolingParameter,
    PoolMethod,
    PowerParameter,
    PReLUParameter,
    RecurrentParameter,
    ReductionOp,
    ReductionParameter,
    ReLUParameter,
    ReshapeParameter,
    RoundMode,
    ScaleParameter,
    SigmoidParameter,
    SliceParameter,
    SoftmaxParameter,
    SPPParameter,
    SwishParameter,
    TanHParameter,
    ThresholdParameter,
    TileParameter,
)
from reproduction.caffe.schema.legacy import V0LayerParameter, V1LayerParameter, V1LayerType
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.net import NetParameter
from reproduction.caffe.schema.scalar_types import ScalarType
from reproduction.caffe.schema.solver import SnapshotFormat, SolverMode, SolverParameter, SolverState, SolverType

__all__ = [
    "AccuracyParameter", "ArgMaxParameter", "BatchNormParameter", "BiasParameter", "BlobProto", "BlobProtoVector",
    "BlobShape", "ClipParameter", "ConcatParameter", "ContrastiveLossParameter", "ConvolutionParameter",
    "CropParameter", "DIALECTS", "DataParameter", "DatabaseBackend", "Datum", "Dialect", "DimCheckMode",
    "DropoutParameter", "DummyDataParameter", "ELUParameter", "EltwiseOp", "EltwiseParameter", "EmbedParameter",
    "Engine", "ExpParameter", "Field", "FillerParameter", "FlattenParameter", "HDF5DataParameter",
    "HDF5OutputParameter", "HingeLossParameter", "HingeNorm", "ImageDataParameter", "InfogainLossParameter",
    "InnerProductParameter", "InputParameter", "LRNParameter", "LayerParameter", "LogParameter", "LossParameter",
    "MVNParameter", "MemoryDataParameter", "Message", "MessageList", "NetParameter", "NetState", "NetStateRule",
    "NormRegion", "NormalizationMode", "PReLUParameter", "ParamSpec", "ParameterParameter", "Phase", "PoolMethod",
    "PoolingParameter", "PowerParameter", "PythonParameter", "ReLUParameter", "RecurrentParameter", "ReductionOp",
    "ReductionParameter", "ReshapeParameter", "RoundMode", "SPPParameter", "ScalarType", "ScaleParameter",
    "SigmoidParameter", "SliceParameter", "SnapshotFormat", "SoftmaxParameter", "SolverMode", "SolverParameter",
    "SolverState", "SolverType", "SwishParameter", "TanHParameter", "ThresholdParameter", "TileParameter",
    "TransformationParameter", "V0LayerParameter", "V1LayerParameter", "V1LayerType", "VarianceNorm",
    "WindowDataParameter", "add_dialect", "find_dialect",
]  # fmt: skip

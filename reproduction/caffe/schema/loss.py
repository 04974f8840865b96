"""Parameters of the loss layers and of Accuracy."""

import enum

from reproduction.caffe.schema.message import Message, boolean, choice, int32, single, string, uint32
from reproduction.caffe.schema.vision import Engine


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

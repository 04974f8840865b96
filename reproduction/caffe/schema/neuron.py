"""Parameters of the element-wise layers."""

from reproduction.caffe.schema.blobs import FillerParameter
from reproduction.caffe.schema.message import Message, boolean, choice, nested, single
from reproduction.caffe.schema.vision import Engine


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

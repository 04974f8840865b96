"""Arrays with shapes, and the fillers that initialise them."""

import enum

from reproduction.caffe.schema.field import (
    array,
    boolean,
    choice,
    int32,
    integers,
    messages,
    nested,
    octets,
    single,
    string,
)
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import DOUBLE, FLOAT, INT64


class BlobShape(Message):
    """The sizes of a blob along its axes, outermost first."""

    dim = integers(1, INT64, packed=True)


class BlobProto(Message):
    """An array in a file, with its shape: weights, a mean image, a solver's history.

    Its values are ``data``, or ``double_data`` in double precision. Its shape is ``shape``, or the four older fields
    ``num``, ``channels``, ``height`` and ``width``.
    """

    num = int32(1)
    channels = int32(2)
    height = int32(3)
    width = int32(4)
    data = array(5, FLOAT)
    diff = array(6, FLOAT)
    shape = nested(7, BlobShape)
    double_data = array(8, DOUBLE)
    double_diff = array(9, DOUBLE)


class BlobProtoVector(Message):
    """A list of BlobProto messages."""

    blobs = messages(1, BlobProto)


class Datum(Message):
    """One sample of a Data layer's database: an image, encoded (such as JPEG) or raw, and its label."""

    channels = int32(1)
    height = int32(2)
    width = int32(3)
    data = octets(4)
    label = int32(5)
    float_data = array(6, FLOAT, packed=False)
    encoded = boolean(7)


class VarianceNorm(enum.IntEnum):
    """The number n of values by which Xavier and MSRA fillers set their scale: the larger n, the smaller the weights.

    ``FAN_IN`` is the number of inputs of an output, ``FAN_OUT`` the number of outputs of an input, ``AVERAGE`` their
    mean.
    """

    FAN_IN = 0
    FAN_OUT = 1
    AVERAGE = 2


class FillerParameter(Message):
    """The settings of a filler, which initialises a parameter blob: its type, and the parameters of this type."""

    type = string(1, "constant")
    value = single(2)
    min = single(3)
    max = single(4, 1.0)
    mean = single(5)
    std = single(6, 1.0)
    sparse = int32(7, -1)
    variance_norm = choice(8, VarianceNorm, VarianceNorm.FAN_IN)

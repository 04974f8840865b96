"""Arrays with shapes, and the fillers that initialise them."""

import enum

from reproduction.caffe.schema.message import (
    Message,
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
from reproduction.caffe.schema.scalar_types import DOUBLE, FLOAT, INT64


class BlobShape(Message):
    """The dimensions of a blob, outermost first."""

    dim = integers(1, INT64, packed=True)


class BlobProto(Message):
    """An array with its shape: weights, a mean image, a solver history."""

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
    """A list of blobs."""

    blobs = messages(1, BlobProto)


class Datum(Message):
    """One sample of a database: an image, encoded or raw, and its label."""

    channels = int32(1)
    height = int32(2)
    width = int32(3)
    data = octets(4)
    label = int32(5)
    float_data = array(6, FLOAT, packed=False)
    encoded = boolean(7)


class VarianceNorm(enum.IntEnum):
    """The fan by which a Xavier or MSRA filler divides."""

    FAN_IN = 0
    FAN_OUT = 1
    AVERAGE = 2


class FillerParameter(Message):
    """The filler of a parameter blob: its type and parameters."""

    type = string(1, "constant")
    value = single(2)
    min = single(3)
    max = single(4, 1.0)
    mean = single(5)
    std = single(6, 1.0)
    sparse = int32(7, -1)
    variance_norm = choice(8, VarianceNorm, VarianceNorm.FAN_IN)

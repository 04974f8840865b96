"""Parameters of the layers that read or write data."""

import enum

from reproduction.caffe.schema.blobs import BlobShape, FillerParameter
from reproduction.caffe.schema.field import boolean, choice, integers, messages, nested, single, singles, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32


class TransformationParameter(Message):
    """The preprocessing of images in data layers: subtract a mean, scale, crop, and mirror at random."""

    scale = single(1, 1.0)
    mirror = boolean(2)
    crop_size = uint32(3)
    mean_file = string(4)
    mean_value = singles(5)
    force_color = boolean(6)
    force_gray = boolean(7)


class DatabaseBackend(enum.IntEnum):
    """The kind of database that a Data layer reads."""

    LEVELDB = 0
    LMDB = 1


class DataParameter(Message):
    """Parameters of Data layers: a database (LMDB or LevelDB) of Datum messages, and the batch size."""

    source = string(1)
    scale = single(2, 1.0)
    mean_file = string(3)
    batch_size = uint32(4)
    crop_size = uint32(5)
    mirror = boolean(6)
    rand_skip = uint32(7)
    backend = choice(8, DatabaseBackend, DatabaseBackend.LEVELDB)
    force_encoded_color = boolean(9)
    prefetch = uint32(10, 4)


class DummyDataParameter(Message):
    """Parameters of DummyData layers: the shapes of the tops, and their fillers."""

    data_filler = messages(1, FillerParameter)
    num = integers(2, UINT32)
    channels = integers(3, UINT32)
    height = integers(4, UINT32)
    width = integers(5, UINT32)
    shape = messages(6, BlobShape)


class HDF5DataParameter(Message):
    """Parameters of HDF5Data layers: a text file that lists HDF5 files, the batch size, and whether to shuffle."""

    source = string(1)
    batch_size = uint32(2)
    shuffle = boolean(3)


class HDF5OutputParameter(Message):
    """Parameters of HDF5Output layers: the HDF5 file to which the bottoms are written."""

    file_name = string(1)


class ImageDataParameter(Message):
    """Parameters of ImageData layers: a text file that lists images with labels, and how these are read."""

    source = string(1)
    scale = single(2, 1.0)
    mean_file = string(3)
    batch_size = uint32(4, 1)
    crop_size = uint32(5)
    mirror = boolean(6)
    rand_skip = uint32(7)
    shuffle = boolean(8)
    new_height = uint32(9)
    new_width = uint32(10)
    is_color = boolean(11, True)
    root_folder = string(12)


class InputParameter(Message):
    """Parameters of Input layers: one shape for all tops, or one shape for each top."""

    shape = messages(1, BlobShape)


class MemoryDataParameter(Message):
    """Parameters of MemoryData layers: the shape of a batch, whose values the program sets."""

    batch_size = uint32(1)
    channels = uint32(2)
    height = uint32(3)
    width = uint32(4)


class ParameterParameter(Message):
    """Parameters of Parameter layers, whose top is a learned blob."""

    shape = nested(1, BlobShape)


class PythonParameter(Message):
    """Parameters of Python layers: the module, its class that is the layer, and a string that this class interprets."""

    module = string(1)
    layer = string(2)
    param_str = string(3)
    share_in_parallel = boolean(4)


class WindowDataParameter(Message):
    """Parameters of WindowData layers: a text file of windows in images, and how these are sampled and cropped."""

    source = string(1)
    scale = single(2, 1.0)
    mean_file = string(3)
    batch_size = uint32(4)
    crop_size = uint32(5)
    mirror = boolean(6)
    fg_threshold = single(7, 0.5)
    bg_threshold = single(8, 0.5)
    fg_fraction = single(9, 0.25)
    context_pad = uint32(10)
    crop_mode = string(11, "warp")
    cache_images = boolean(12)
    root_folder = string(13)

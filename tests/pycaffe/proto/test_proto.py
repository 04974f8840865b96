"""caffe_pb2 and text_format: protobuf's interface on our messages, compared with Google's package."""

import copy
import io
import pickle

import numpy as np
import pytest

from reproduction.caffe import schema
from reproduction.caffe.errors import CaffemodelError, PrototxtError, ReproductionError
from reproduction.pycaffe.proto import caffe_pb2, text_format
from reproduction.pycaffe.proto.message import unwrap
from tests.helpers import protobuf_judge


def pooling():
    net = caffe_pb2.NetParameter(name="n")
    layer = net.layer.add(name="pool", type="Pooling")
    layer.bottom.append("data")
    layer.top.extend(["pool"])
    layer.pooling_param.pool = caffe_pb2.PoolingParameter.AVE
    layer.pooling_param.kernel_size = np.int64(3)
    layer.include.add().phase = caffe_pb2.TRAIN
    return net


TEXT = """name: "n"
layer {
  name: "pool"
  type: "Pooling"
  bottom: "data"
  top: "pool"
  include {
    phase: TRAIN
  }
  pooling_param {
    pool: AVE
    kernel_size: 3
  }
}
"""


def test_a_message_is_built_field_by_field_and_printed():
    assert str(pooling()) == TEXT
    assert text_format.MessageToString(pooling()) == TEXT
    out = io.StringIO()
    text_format.PrintMessage(pooling(), out)
    assert out.getvalue() == TEXT
    one_line = text_format.MessageToString(pooling().layer[0].pooling_param, as_one_line=True)
    assert one_line == "pool: AVE kernel_size: 3"


def test_text_and_bytes_are_read_back():
    net = pooling()
    read = caffe_pb2.NetParameter()
    assert text_format.Merge(TEXT, read) is read
    assert read == net
    assert caffe_pb2.NetParameter.FromString(net.SerializeToString()) == net
    assert read.ParseFromString(net.SerializeToString()) == net.ByteSize()
    assert read == net
    assert text_format.MergeLines(iter(TEXT.splitlines()), caffe_pb2.NetParameter()) == net


def test_merging_appends_and_copying_replaces():
    net, twin = pooling(), caffe_pb2.NetParameter()
    twin.MergeFrom(net)
    twin.MergeFrom(net)
    assert len(twin.layer) == 2
    twin.CopyFrom(net)
    assert twin == net
    twin.layer[0].name = "other"
    assert net.layer[0].name == "pool"
    twin.Clear()
    assert twin == caffe_pb2.NetParameter()


def test_copies_share_nothing_that_can_be_written():
    blob = caffe_pb2.BlobProto()
    blob.data.extend([1, 2, 3])
    vector = caffe_pb2.BlobProtoVector()
    vector.blobs.extend([blob])
    vector.blobs[0].data[1] = 9
    assert list(blob.data) == [1, 2, 3]
    assert list(vector.blobs[0].data) == [1, 9, 3]
    for twin in (copy.deepcopy(blob), copy.copy(blob), pickle.loads(pickle.dumps(blob))):
        twin.data.append(4)
        assert len(blob.data) == 3


def test_presence_and_defaults_are_those_of_proto2():
    layer = caffe_pb2.LayerParameter()
    assert layer.pooling_param.stride == 1
    assert not layer.HasField("pooling_param")
    layer.pooling_param.stride = 1
    assert layer.HasField("pooling_param")
    assert layer.pooling_param.HasField("stride")
    layer.pooling_param.ClearField("stride")
    assert layer.HasField("pooling_param")
    assert not layer.pooling_param.HasField("stride")
    del layer.pooling_param
    layer.crop_param.SetInParent()
    assert [field.name for field, _ in layer.ListFields()] == ["crop_param"]


def test_values_are_taken_as_freely_as_by_protobuf():
    layer = caffe_pb2.LayerParameter()
    layer.convolution_param.bias_term = 0
    layer.convolution_param.kernel_size.extend((3, np.uint8(5)))
    layer.name = b"conv"
    layer.loss_weight.append(True)
    layer.phase = caffe_pb2.Phase.Value("TEST")
    assert layer.convolution_param.bias_term is False
    assert layer.convolution_param.kernel_size == [3, 5]
    assert (layer.name, layer.loss_weight[0], layer.phase) == ("conv", 1.0, caffe_pb2.TEST)
    layer = caffe_pb2.LayerParameter(pooling_param={"kernel_size": 3}, crop_param=caffe_pb2.CropParameter(axis=1))
    assert (layer.pooling_param.kernel_size, layer.crop_param.axis) == (3, 1)
    layer.param.add().lr_mult = np.array(0.5)
    assert layer.param[0].lr_mult == 0.5
    old = caffe_pb2.V1LayerParameter()
    old.blob_share_mode.extend([1, "STRICT"])
    assert (old.blob_share_mode[0], old.blob_share_mode[:]) == (1, [1, 0])
    assert {"pooling_param", "CopyFrom"} <= {*dir(layer)}


def test_repeated_fields_are_live_lists():
    net = pooling()
    bottoms = net.layer[0].bottom
    bottoms.insert(0, "first")
    bottoms[1:] = ["second", "third"]
    assert net.layer[0].bottom == ["first", "second", "third"]
    bottoms.sort(reverse=True)
    del bottoms[0]
    assert net.layer[0].bottom.pop() == "first"
    assert repr(bottoms) == "['second']"
    net.layer.extend([net.layer[0]])
    net.layer[1].name = "again"
    assert [layer.name for layer in net.layer] == ["pool", "again"]
    net.layer.remove(net.layer[0])
    assert [layer.name for layer in net.layer] == ["again"]


def test_many_numbers_are_one_array():
    blob = caffe_pb2.BlobProto()
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    blob.data.extend(values.flat)
    blob.data.append(7)
    assert np.array(blob.data).dtype == np.float64
    assert blob.data[1:3] == [1.0, 2.0]
    blob.data[:2] = [8, 9]
    blob.data[2:4] = [5]
    del blob.data[0]
    assert list(blob.data) == [9, 5, 4, 5, 7]
    behind = unwrap(blob)
    assert isinstance(behind, schema.BlobProto)
    assert behind.data.dtype == np.float32


def test_enums_are_known_by_name_and_number_and_nested_as_in_caffe_proto():
    assert caffe_pb2.PoolingParameter.PoolMethod.Name(1) == "AVE"
    assert caffe_pb2.Phase.items() == copy.deepcopy(caffe_pb2.Phase).items() == [("TRAIN", 0), ("TEST", 1)]
    assert caffe_pb2.SolverParameter.SolverMode.GPU == caffe_pb2.SolverParameter.GPU == 1
    assert caffe_pb2.DataParameter.DB.Value("LMDB") == caffe_pb2.DataParameter.LMDB
    assert caffe_pb2.V1LayerParameter.LayerType.Name(4) == "CONVOLUTION"
    assert caffe_pb2.HingeLossParameter.Norm.keys() == ["L1", "L2"]
    described = caffe_pb2.PoolingParameter.PoolMethod.DESCRIPTOR
    assert {name: value.number for name, value in described.values_by_name.items()} == {
        "MAX": 0,
        "AVE": 1,
        "STOCHASTIC": 2,
    }
    norm = caffe_pb2.HingeLossParameter.Norm.DESCRIPTOR
    assert [(value.name, value.index, value.number) for value in norm.values] == [("L1", 0, 1), ("L2", 1, 2)]


def test_descriptors_tell_every_field():
    described = caffe_pb2.LayerParameter.DESCRIPTOR
    assert described.full_name == "caffe.LayerParameter"
    assert [field.name for field in described.fields] == list(schema.LayerParameter.fields)
    bottom, phase = described.fields_by_name["bottom"], described.fields_by_name["phase"]
    assert (bottom.label, bottom.type) == (bottom.LABEL_REPEATED, bottom.TYPE_STRING)
    assert phase.enum_type.full_name == "caffe.Phase"
    assert described.fields_by_number[100 + 6].message_type is caffe_pb2.ConvolutionParameter.DESCRIPTOR
    assert caffe_pb2.LayerParameter.NAME_FIELD_NUMBER == 1


def test_required_fields_are_missed():
    layer = caffe_pb2.LayerParameter()
    layer.clip_param.min = 1
    assert layer.FindInitializationErrors() == ["clip_param.max"]
    assert not layer.IsInitialized()
    with pytest.raises(ReproductionError, match="lacks its required field 'max'"):
        layer.SerializeToString()


@pytest.mark.parametrize("name", ["NetParameter", "SolverParameter", "Datum", "BlobProto", "V1LayerParameter"])
def test_descriptors_agree_with_googles(name):
    theirs = protobuf_judge.judge(getattr(schema, name)).DESCRIPTOR
    ours = getattr(caffe_pb2, name).DESCRIPTOR
    of_caffe = {field.name for field in getattr(schema, name).fields.values() if field.dialect is None}
    assert [(f.name, f.number, f.type, f.cpp_type) for f in ours.fields if f.name in of_caffe] == [
        (f.name, f.number, f.type, f.cpp_type) for f in theirs.fields
    ]


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        (lambda m: m.foo, AttributeError, "LayerParameter has no field 'foo'."),
        (lambda m: setattr(m, "nam", 1), AttributeError, "LayerParameter has no field 'nam'. Did you mean 'name'?"),
        (
            lambda m: m.SerialiseToString(),
            AttributeError,
            "LayerParameter has no field 'SerialiseToString'. Did you mean 'SerializeToString'?",
        ),
        (lambda m: setattr(m, "name", 3), TypeError, "wrong value for LayerParameter.name; got 3, want a string."),
        (
            lambda m: setattr(m.pooling_param, "stride", 1.5),
            TypeError,
            "wrong value for PoolingParameter.stride; got 1.5, want a uint32.",
        ),
        (
            lambda m: setattr(m.pooling_param, "pool", 9),
            TypeError,
            "wrong value for PoolingParameter.pool; got 9, want a value of PoolMethod.",
        ),
        (
            lambda m: setattr(m, "pooling_param", 3),
            AttributeError,
            "LayerParameter.pooling_param is a sub-message, which cannot be assigned. Use CopyFrom().",
        ),
        (
            lambda m: setattr(m, "bottom", ["a"]),
            AttributeError,
            "LayerParameter.bottom is a repeated field, which cannot be assigned. Use extend().",
        ),
        (lambda m: m.bottom.append(3), TypeError, "wrong value for LayerParameter.bottom; got 3, want a string."),
        (lambda m: m.param.extend([3]), TypeError, "wrong value for LayerParameter.param; got 3, want a ParamSpec."),
        (lambda m: m.HasField("bottom"), ValueError, "LayerParameter.bottom is repeated. Use len()."),
        (lambda m: m.HasField("x"), ValueError, "unknown field 'x' in LayerParameter."),
        (
            lambda m: m.CopyFrom(caffe_pb2.NetParameter()),
            TypeError,
            "the messages have different types; got NetParameter, want LayerParameter.",
        ),
        (lambda m: m.WhichOneof("x"), ValueError, "LayerParameter has no oneof 'x'."),
        (
            lambda m: caffe_pb2.NetParam,
            AttributeError,
            "caffe_pb2 has no message or enum 'NetParam'. Did you mean 'NetParameter'?",
        ),
        (lambda m: caffe_pb2.Phase.Value("TRIAN"), ValueError, "Phase has no value 'TRIAN'. Did you mean 'TRAIN'?"),
        (lambda m: caffe_pb2.Phase.TRIAN, AttributeError, "Phase has no value 'TRIAN'. Did you mean 'TRAIN'?"),
        (lambda m: caffe_pb2.Phase.Name(7), ValueError, "Phase has no value 7; want one of [0, 1]."),
        (
            lambda m: text_format.Merge("nam: 1", m),
            PrototxtError,
            "<prototxt>:1:1: unknown field 'nam' in LayerParameter. Did you mean 'name'?",
        ),
        (
            lambda m: m.ParseFromString(b"\x0a\xff"),
            CaffemodelError,
            (
                "<bytes>, byte 1: a number runs past the end of the file; got 1 bytes, want 2 (1 are missing). "
                "The file was cut off or is damaged: download or copy it again."
            ),
        ),
    ],
)
def test_wrong_use_raises_one_line_that_is_caught_as_protobufs(wrong, kind, text):
    with pytest.raises(kind) as error:
        wrong(caffe_pb2.LayerParameter())
    assert str(error.value) == text


def test_messages_of_google_go_to_googles_text_format():
    from google.protobuf import struct_pb2

    value = text_format.Merge('string_value: "x"', struct_pb2.Value())
    assert text_format.MessageToString(value) == 'string_value: "x"\n'
    assert text_format.MessageToBytes(value) == b'string_value: "x"\n'
    assert not hasattr(text_format, "__all__"), "a star import takes the names that are here"
    assert text_format.ParseError is PrototxtError
    assert text_format.MessageToBytes(value) == b'string_value: "x"\n'  # of Google's module, where it has the name
    with pytest.raises(AttributeError):
        text_format.__all__  # noqa: B018 - its names would be Google's

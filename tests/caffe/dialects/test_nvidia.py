"""Weights and BatchNorm layers of NVIDIA Caffe are converted to those of BVLC Caffe."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import CaffemodelError, ReproductionError, WeightsError
from reproduction.caffe.formats import blobs, caffemodel, prototxt, upgrade, weights
from reproduction.caffe.formats.wire_reader import varint
from reproduction.caffe.net import net
from reproduction.caffe.schema import BlobProto, LayerParameter, NetParameter
from reproduction.pycaffe.extras import io
from reproduction.pycaffe.proto import caffe_pb2

CONV = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 5 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3 } }
"""
BN = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" batch_norm_param { %s } %s }
"""
TYPES = {"<f8": 0, "<f4": 1, "<f2": 2}


def octets(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def raw(values, dtype: str = "<f4", shape=None, kind: int = 0) -> bytes:
    """A blob as the fork writes it; ``kind`` is 1 for the gradient."""
    array = np.asarray(values, dtype)
    dims = b"".join(map(varint, array.shape if shape is None else shape))
    return octets(7, octets(1, dims)) + number(10 + kind, TYPES[dtype]) + octets(12 + kind, array.tobytes())


def model(name: str, kind: str, *stored: bytes, more: bytes = b"") -> bytes:
    """A net of one layer; the fields 145 to 148 are the fork's."""
    own = b"".join(number(field, 2) for field in range(145, 149))
    body = octets(1, name.encode()) + octets(2, kind.encode()) + more + b"".join(octets(7, blob) for blob in stored)
    return octets(1, b"net") + octets(100, body + own)


@pytest.mark.parametrize("dtype", TYPES)
def test_weights_of_every_type_are_read(tmp_path, dtype):
    values = np.arange(54).reshape(2, 3, 3, 3) / 4 - 3
    (tmp_path / "n.prototxt").write_text(CONV)
    (tmp_path / "w.caffemodel").write_bytes(model("conv", "Convolution", raw(values, dtype), raw([0.5, -0.5], dtype)))
    loaded = net.load(tmp_path / "n.prototxt", tmp_path / "w.caffemodel").layers["conv"]
    np.testing.assert_array_equal(loaded.weight.detach(), values.astype(np.float32))
    np.testing.assert_array_equal(loaded.bias.detach(), [0.5, -0.5])
    found = weights.read(tmp_path / "w.caffemodel")
    assert found.notes == ["2 blobs were stored in the way of NVIDIA Caffe."]
    assert found.arrays()["conv.weight"].dtype == (np.float64 if dtype == "<f8" else np.float32)


@pytest.mark.parametrize("ending", [".caffemodel", ".caffemodel.h5", ".safetensors", ".npz"])
def test_they_are_written_in_the_forms_of_bvlc(tmp_path, ending):
    values = np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3)
    (tmp_path / "w.caffemodel").write_bytes(model("conv", "Convolution", raw(values), raw([1, 2])))
    weights.write(weights.read(tmp_path / "w.caffemodel"), tmp_path / f"out{ending}")
    found = weights.read(tmp_path / f"out{ending}")
    assert found.notes == []
    np.testing.assert_array_equal(found.arrays()["conv.weight"], values)
    if ending == ".caffemodel":
        blob = caffemodel.load(tmp_path / f"out{ending}").layer[0].blobs[0]
        np.testing.assert_array_equal(blob.data, values.reshape(-1))
        assert blob.unknown == b""


def test_a_blob_anywhere_else_is_read_too(tmp_path):
    (tmp_path / "mean.binaryproto").write_bytes(raw([[[1, 2]], [[3, 4]]], "<f2"))
    np.testing.assert_array_equal(blobs.load_mean(tmp_path / "mean.binaryproto"), [[[1, 2]], [[3, 4]]])


def test_a_program_for_pycaffe_reads_such_a_mean():
    blob = caffe_pb2.BlobProto.FromString(raw([[[1, 2]], [[3, 4]]]))
    np.testing.assert_array_equal(io.blobproto_to_array(blob), [[[1, 2]], [[3, 4]]])


def test_gradients_are_read():
    found = caffemodel.loads(model("conv", "Convolution", raw([1, 2]) + raw([3, 4], kind=1)), NetParameter)
    upgrade.upgrade_net(found)
    np.testing.assert_array_equal(found.layer[0].blobs[0].diff, [3, 4])


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (octets(12, bytes(8)), "raw_data has a type other than a float; got none, want DOUBLE, FLOAT or FLOAT16."),
        (number(10, 3) + octets(12, bytes(8)), "raw_data has a type other than a float; got INT, want DOUBLE,"),
        (number(10, 1) + octets(12, bytes(7)), "raw_data is cut off; got 7 bytes, want a multiple of 4."),
        (octets(7, octets(1, b"\3")) + number(10, 1) + octets(12, bytes(8)), "the shape (3,) and the data disagree;"),
    ],
)  # fmt: skip
def test_damaged_raw_data_are_one_line(tmp_path, stored, said):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(model("conv", "Convolution", stored))
    with pytest.raises(CaffemodelError) as error:
        weights.read(path).arrays()
    assert str(error.value).startswith(f"{path}: layer 'conv' blob 0: {said}")
    with pytest.raises(CaffemodelError, match=r"^place: "):
        blobs.to_array(caffemodel.loads(stored, BlobProto), "place")


# ---- BatchNorm

MEAN, VARIANCE, SCALE, BIAS = np.array([[1, 2, 3], [4, 5, 6], [2, 3, -1], [0.5, 0, 7]], np.float32)
ONE = np.ones(1, np.float32)
NEWER = [MEAN, VARIANCE, ONE, SCALE, BIAS]
OLDER = [SCALE, BIAS, MEAN, VARIANCE, ONE * 0]


def expected(x: torch.Tensor, scaled: bool) -> torch.Tensor:
    mean, variance, scale, bias = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (MEAN, VARIANCE, SCALE, BIAS))
    normal = (x - mean) / (variance + 1e-5).sqrt()
    return normal * scale + bias if scaled else normal


@pytest.mark.parametrize("axes", [1, 4])
@pytest.mark.parametrize("order", [NEWER, OLDER, NEWER[:3]], ids=["newer", "older", "three"])
def test_batch_norm_computes_what_the_fork_computes(tmp_path, order, axes):
    scaled = len(order) == 5
    stored = [raw(each, shape=each.shape if axes == 1 else (1, len(each), 1, 1)) for each in order]
    (tmp_path / "w.caffemodel").write_bytes(model("bn", "BatchNorm", *stored))
    (tmp_path / "n.prototxt").write_text(BN % ("scale_bias: true eps: 1e-9" if scaled else "", ""))
    loaded = net.load(tmp_path / "n.prototxt", tmp_path / "w.caffemodel")
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(loaded({"data": x})["bn"], expected(x, scaled))
    weights.write(weights.read(tmp_path / "w.caffemodel"), tmp_path / "bvlc.caffemodel")
    written = caffemodel.load(tmp_path / "bvlc.caffemodel")
    assert [(layer.name, layer.type, [blobs.shape(b) for b in layer.blobs]) for layer in written.layer] == [
        ("bn", "BatchNorm", [(3,), (3,), (1,)]),
        *([("bn/scale_bias", "Scale", [(3,), (3,)])] if scaled else []),
    ]


def test_weights_with_a_scale_do_not_go_into_a_net_without_one(tmp_path):
    (tmp_path / "w.caffemodel").write_bytes(model("bn", "BatchNorm", *map(raw, NEWER)))
    (tmp_path / "n.prototxt").write_text(BN % ("", ""))
    with pytest.raises(WeightsError) as error:
        net.load(tmp_path / "n.prototxt", tmp_path / "w.caffemodel")
    assert str(error.value) == (
        f"{tmp_path}/w.caffemodel: layer 'bn' has a scale and a bias in these weights, and none in the net. "
        "Write scale_bias: true into its batch_norm_param, in place of a Scale layer after it."
    )


def upgraded(text: str) -> NetParameter:
    found = prototxt.loads(text, NetParameter)
    upgrade.upgrade_net(found)
    return found


def test_a_stored_layer_keeps_its_rules_and_has_the_rates_of_the_fork():
    rules = 'include { phase: TRAIN } param { name: "m" } param { } param { lr_mult: 3 } param { name: "s" lr_mult: 0 }'
    found = prototxt.loads(BN % ("engine: CUDNN, eps: 1e-9 use_global_stats: true", rules), NetParameter)
    found.layer[1].blobs.extend(blobs.from_array(values) for values in NEWER)
    assert upgrade.upgrade_net(found) == ["The scale and bias of 'bn' became Scale layers.", *found.layer[3:]]
    batch_norm, scale = found.layer[1:]
    for layer in (batch_norm, scale):
        layer.clear("blobs")
    assert prototxt.dumps(batch_norm) == prototxt.dumps(
        prototxt.loads(
            'name: "bn" type: "BatchNorm" bottom: "data" top: "bn" include { phase: TRAIN } '
            'param { name: "m" lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 } '
            "param { lr_mult: 0 decay_mult: 0 } batch_norm_param { moving_average_fraction: 0.999 eps: 1e-5 }",
            LayerParameter,
        )
    )
    assert prototxt.dumps(scale) == prototxt.dumps(
        prototxt.loads(
            'name: "bn/scale_bias" type: "Scale" bottom: "bn" top: "bn" include { phase: TRAIN } '
            'param { name: "s" lr_mult: 1 decay_mult: 1 } scale_param { bias_term: true }',
            LayerParameter,
        )
    )


def test_a_net_with_scale_and_bias_is_saved_and_loaded(tmp_path):
    (tmp_path / "n.prototxt").write_text(BN % ("scale_bias: true", ""))
    first = net.load(tmp_path / "n.prototxt")
    with torch.no_grad():
        for blob, values in zip(first.params["bn"], NEWER, strict=True):
            blob.copy_(torch.from_numpy(values))
    caffemodel.dump(first.to_proto(), tmp_path / "w.caffemodel")
    second = net.load(tmp_path / "n.prototxt", tmp_path / "w.caffemodel")
    for got, want in zip(second.params["bn"], first.params["bn"], strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert [spec.lr_mult for spec in second.param_specs["bn"]] == [0, 0, 0, 1, 1]


def test_batch_norm_of_bvlc_stays_as_it_is():
    text = BN % ("use_global_stats: false eps: 1e-9", "param { lr_mult: 0 }")
    assert prototxt.dumps(upgraded(text)) == prototxt.dumps(prototxt.loads(text, NetParameter))
    assert upgraded(BN % ("scale_bias: false", "")).layer[1].type == "BatchNorm"
    assert len(upgraded(BN % ("scale_bias: false", "")).layer) == 2


def test_a_wrong_value_is_an_error():
    with pytest.raises(ReproductionError, match=r"BatchNormParameter\.scale_bias; got 'maybe'"):
        prototxt.loads(BN % ("scale_bias: maybe", ""), NetParameter)

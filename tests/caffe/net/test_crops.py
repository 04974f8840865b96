"""Crop layers without an offset: the offset of the Caffe of 2015, and when it differs from 0."""

import warnings

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionWarning
from reproduction.caffe.formats import caffemodel, prototxt, weights
from reproduction.caffe.formats.wire_reader import varint
from reproduction.caffe.net import crops, net, netspec
from reproduction.caffe.net.net import Net
from reproduction.caffe.net.netspec import layer
from reproduction.caffe.schema import NetParameter
from tests.helpers.paths import ROOT

# Keras' FCN-8 crops at the far edge, which does not align the maps; that is kept as in its text.
DEPLOYED = [path for path in sorted((ROOT / "prototxt").glob("*/deploy.prototxt")) if path.parent.name != "keras-fcn8"]
DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 32 dim: 32 } } }\n'
CONV = 'layer { name: "%s" type: "%s" bottom: "%s" top: "%s" convolution_param { num_output: 1 %s } }\n'
POOL = 'layer { name: "%s" type: "Pooling" bottom: "%s" top: "%s" pooling_param { kernel_size: 2 stride: 2 } }\n'


def conv(name, bottom, fields, kind="Convolution"):
    return CONV % (name, kind, bottom, name, fields)


def up(name, bottom, fields="kernel_size: 4 stride: 2"):
    return conv(name, bottom, fields, "Deconvolution")


def crop(name, bottom, size, fields=""):
    return f'layer {{ name: "{name}" type: "Crop" bottom: "{bottom}" bottom: "{size}" top: "{name}" {fields} }}\n'


FCN = DATA + conv("conv", "data", "pad: 100 kernel_size: 3") + POOL % ("pool", "conv", "pool")
FCN += conv("fc6", "pool", "kernel_size: 7") + up("up", "fc6")


def offsets(text: str, **kwargs) -> list[list[int]]:
    return [list(spec.crop_param.offset) for spec in load_text(text, **kwargs).layer if spec.type == "Crop"]


def load_text(text, *, legacy_crop=True, path=None):
    message = prototxt.loads(text, NetParameter)
    if legacy_crop:
        crops.set_offsets(message.layer)
    return message


def test_the_offset_is_that_of_the_coordinate_map():
    data = layer("Input")
    fc6 = layer("Convolution", layer("Pooling", layer("Convolution", data, pad=100, kernel_size=3), kernel_size=2,
                stride=2), kernel_size=7)  # fmt: skip
    proved = netspec.crop_fields(layer("Deconvolution", fc6, kernel_size=4, stride=2), data)
    assert proved == {"axis": 2, "offset": [94]}
    assert offsets(FCN + crop("score", "up", "data")) == [[94]]


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.parent.name)
def test_nets_get_the_offsets_that_are_written_in_them(path):
    message = prototxt.load_net(path)[0]
    cropped = [spec for spec in message.layer if spec.type == "Crop"]
    written = [list(spec.crop_param.offset) for spec in cropped]
    for spec in cropped:
        spec.clear("crop_param")
    crops.set_offsets(message.layer)
    assert [list(spec.crop_param.offset) for spec in cropped] == written


def test_without_a_word_0_is_taken_with_a_warning_that_says_what_to_write():
    text = FCN + crop("score", "up", "data")
    with pytest.warns(ReproductionWarning) as caught:
        built = Net(prototxt.loads(text, NetParameter))
    (warning,) = caught
    assert str(warning.message) == (
        "layer 'score' (Crop), line 6: no offset is set; Caffe 1.0 takes 0, as is done here, and the Caffe of 2015 "
        "took 94, which aligns 'up' with 'data'. Write crop_param { axis: 2 offset: 94 }, "
        "or load the net with legacy_crop=True (tools: --legacy-crop)."
    )
    assert built.layers["score"].cuts((1, 1, 200, 200), (1, 1, 32, 32)) == [(2, 0, 32), (3, 0, 32)]


def test_the_switch_takes_the_offset_without_a_warning(tmp_path):
    path = tmp_path / "n.prototxt"
    path.write_text(FCN + crop("score", "up", "data"))
    loaded = net.load(path, legacy_crop=True)
    with torch.no_grad():
        for name, place in (("conv", 1), ("fc6", 3)):
            loaded.layers[name].weight.zero_()[:, :, place, place] = 1
        loaded.layers["up"].weight.fill_(1)
    x = torch.zeros(1, 1, 32, 32)
    x[..., 20, 10] = 1
    where = loaded({"data": x})["score"][0, 0].nonzero().float()
    assert (where.mean(0) - torch.tensor([20.0, 10.0])).abs().max() <= 0.5
    assert prototxt.load_net(path, legacy_crop=True)[1] == ["Crop layer 'score' got crop_param { axis: 2 offset: 94 }."]


@pytest.mark.parametrize(
    "text",
    [
        FCN + crop("score", "up", "data", "crop_param { offset: 3 }"),
        FCN + crop("score", "up", "data", "crop_param { offset: 0 }"),
        DATA + conv("c", "data", "kernel_size: 3 pad: 1") + crop("score", "c", "data"),
        DATA + POOL % ("p", "data", "p") + up("u", "p", "kernel_size: 4 stride: 2 pad: 1") + crop("s", "u", "data"),
        FCN + crop("score", "up", "data", "crop_param { axis: 1 }"),
        FCN.replace("kernel_size: 4", "kernel_size: 5") + crop("score", "up", "data"),
        FCN + 'layer { name: "o" type: "Input" top: "o" input_param { shape { dim: 1 dim: 1 dim: 9 dim: 9 } } }'
        + crop("s", "up", "o"),
    ],
    ids=["set", "set_to_0", "0_pointwise", "0_padded", "other_axes", "fraction", "unconnected"],
)  # fmt: skip
def test_no_warning_where_the_offset_is_set_is_0_or_is_not_known(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Net(prototxt.loads(text, NetParameter))


def test_a_unet_is_aligned_from_the_inside_out():
    text = DATA + conv("a", "data", "kernel_size: 3") + POOL % ("p", "a", "p") + conv("b", "p", "kernel_size: 3")
    text += POOL % ("q", "b", "q") + conv("c", "q", "kernel_size: 3") + up("u", "c", "kernel_size: 2 stride: 2")
    text += 'layer { name: "r" type: "ReLU" bottom: "u" top: "u" }\n' + crop("inner", "b", "u")
    text += 'layer { name: "cat" type: "Concat" bottom: "u" bottom: "inner" top: "cat" }\n'
    text += conv("d", "cat", "kernel_size: 3") + up("v", "d", "kernel_size: 2 stride: 2") + crop("outer", "a", "v")
    assert offsets(text) == [[2], [8]]
    with pytest.warns(ReproductionWarning) as caught:
        Net(prototxt.loads(text, NetParameter))
    assert [str(each.message).split(",")[0] for each in caught] == ["layer 'inner' (Crop)", "layer 'outer' (Crop)"]


def test_axes_may_have_offsets_of_their_own():
    text = DATA + conv("c", "data", "kernel_h: 3 kernel_w: 5 pad_h: 4 pad_w: 7") + crop("s", "c", "data")
    assert offsets(text) == [[3, 5]]
    with pytest.warns(ReproductionWarning, match=r"took 3 and 5, .* axis: 2 offset: 3 offset: 5 \}"):
        Net(prototxt.loads(text, NetParameter))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DATA + POOL % ("p", "data", "p") + crop("s", "data", "p"), "'data' and 'p' have different scales; got 1/2"),
        (DATA + conv("c", "data", "kernel_size: 3") + crop("s", "c", "data"), "cropping 'c' and 'data' needs a neg"),
        (FCN.replace("kernel_size: 7", "kernel_size: 7 ") + crop("s", "up", "pool"), "'up' and 'pool' have different"),
        (DATA + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }' + crop("s", "ip", "data"),
         "'ip' and 'data' have no common ancestor through layers that keep pixels in place"),
    ],
)  # fmt: skip
def test_the_switch_refuses_what_it_cannot_align(text, said):
    with pytest.raises(NetError) as error:
        offsets(text)
    assert str(error.value).startswith(f"layer 's' (Crop), line {text.count(chr(10))}: {said}")


def test_many_crops_in_a_row_take_no_time():
    text = DATA + "".join(crop(f"c{i + 1}", f"c{i}" if i else "data", "data") for i in range(2000))
    assert offsets(text) == [[0]] * 2000


# ---- type: CROP

UNET = """input: "data" input_dim: 1 input_dim: 1 input_dim: 28 input_dim: 28
layers { bottom: "data" top: "a" name: "a" type: CONVOLUTION convolution_param { num_output: 2 kernel_size: 3 } }
layers { bottom: "a" top: "p" name: "p" type: POOLING pooling_param { kernel_size: 2 stride: 2 } }
layers { bottom: "p" top: "b" name: "b" type: CONVOLUTION convolution_param { num_output: 2 kernel_size: 3 } }
layers { bottom: "b" top: "u" name: "u" type: DECONVOLUTION
         convolution_param { num_output: 2 kernel_size: 2 stride: 2 } }
layers { bottom: "a" bottom: "u" top: "c" name: "crop" type: CROP }
layers { bottom: "u" bottom: "c" top: "cat" name: "cat" type: CONCAT }
"""


def test_crop_layers_of_v1_have_the_automatic_offset(tmp_path):
    (tmp_path / "n.prototxt").write_text(UNET)
    message, notes = prototxt.load_net(tmp_path / "n.prototxt")
    assert "Crop layer 'crop' got crop_param { axis: 2 offset: 2 }." in notes
    built = Net(message)
    assert built.layers["crop"].cuts((1, 2, 26, 26), (1, 2, 22, 22)) == [(2, 2, 22), (3, 2, 22)]
    (tmp_path / "n.prototxt").write_text(UNET.replace('bottom: "a" bottom: "u"', 'bottom: "p" bottom: "u"'))
    with pytest.raises(NetError, match=r"n.prototxt: layer 'crop' \(Crop\), line 7: 'p' and 'u' have different sc"):
        prototxt.load_net(tmp_path / "n.prototxt")


def octets(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def test_crop_layers_are_found_in_weights_of_v1_by_their_number(tmp_path):
    net_of_text = prototxt.loads(UNET, NetParameter)
    for spec in net_of_text.layers:
        if spec.name == "a":
            spec.blobs.add(num=2, channels=1, height=3, width=3, data=np.ones(18))
    wire = caffemodel.dumps(net_of_text)
    assert octets(4, b"crop") + varint(5 << 3) + varint(40) in wire.replace(b"\x0a\x00", b"") or b"\x28\x28" in wire
    (tmp_path / "w.caffemodel").write_bytes(wire)
    found = weights.read(tmp_path / "w.caffemodel")
    by_name = {spec.name: spec for spec in found.net.layer}
    assert (by_name["crop"].type, list(by_name["crop"].crop_param.offset)) == ("Crop", [2])
    crop = next(spec for spec in net_of_text.layers if spec.name == "crop")
    crop.bottom = ["p", "u"]  # weights are read even if the net cannot be aligned
    (tmp_path / "w.caffemodel").write_bytes(caffemodel.dumps(net_of_text))
    notes = weights.read(tmp_path / "w.caffemodel").notes
    assert any(note.startswith("The offset of a Crop layer is not known: layer 'crop' (Crop)") for note in notes)

"""Fields of forks that are converted, have no effect here, or stop what they would change."""

import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt, upgrade
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from tests.helpers import tiny_training

HEAD = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 3 dim: 2 } } }\n'


def built(text):
    net = prototxt.loads(f'{HEAD}layer {{ name: "x" bottom: "data" top: "x" {text} }}', NetParameter)
    notes = upgrade.upgrade_net(net)
    return Net(net).eval(), notes


def test_hole_becomes_dilation():
    net, notes = built('type: "Convolution" convolution_param { num_output: 1 kernel_size: 2 hole_h: 2 hole_w: 1 }')
    assert net.blob_shapes["x"] == (1, 1, 1, 1)
    assert notes == ["hole of 'x' became dilation."]
    with pytest.raises(ReproductionError, match="the distance between taps is set twice; got hole and dilation"):
        built('type: "Convolution" convolution_param { num_output: 1 kernel_size: 2 hole: 2 dilation: 1 }')


def test_channels_become_pixels_as_by_torch():
    x = torch.rand(1, 4, 3, 2)
    net, _ = built('type: "Reshape" reshape_param { pixelshuffler: 2 }')
    assert net(x)["x"].equal(torch.pixel_shuffle(x, 2))
    with pytest.raises(ReproductionError, match="such a bottom cannot be shuffled"):
        built('type: "Reshape" reshape_param { pixelshuffler: 3 }')


def test_fields_that_only_choose_how_to_compute_are_read():
    text = 'forward_type: FLOAT16 type: "Convolution" quantization_param { bw_params: 8 } '
    text += 'convolution_param { num_output: 1 kernel_size: 1 conv_algorithm: "winograd" }'
    assert built(text)[1] == []


def test_a_field_that_changes_a_training_stops_it_and_others_are_named():
    assert tiny_training.built('eval_type: "detection" larc: false').notes == [
        "eval_type of SSD, Single Shot MultiBox Detector (weiliu89/caffe@4817bf8) changes nothing here.",
        "larc of NVIDIA Caffe (NVIDIA/caffe@87a2554) changes nothing here.",
    ]
    with pytest.raises(
        ReproductionError, match="solver: larc changes the training, but is not implemented; got a field"
    ):
        tiny_training.built("larc: true")

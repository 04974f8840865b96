"""The fields that Synopsys Caffe, Fast R-CNN and SegNet add to BVLC's layer types."""

import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import netspec
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

HEAD = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 8 dim: 9 } } }\n'


def built(text):
    return Net(prototxt.loads(f'{HEAD}layer {{ name: "x" bottom: "data" top: "x" {text} }}', NetParameter))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 1 pad_l: 1 }', "padding is set in several ways; got pad"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad_type: 1 pad_l: 1 }', "got pad_type and pad_l"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad_type: 2 }', "unknown pad_type; got 2, want 0 or 1"),
        ('type: "Convolution" convolution_param { num_output: 1 axis: 2 kernel_size: 2 pad_t: 1 }',
         "need two spatial axes; got 1"),
        ('type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 2 pad_type: 1 }',
         "Deconvolution layers do not read 'convolution_param.pad_type'; got a field or value of Synopsys"),
        ('type: "Pooling" pooling_param { pool: AVE_EXC kernel_size: 2 }', "Did you mean 'AVE_EXC_PAD'"),
        ('type: "ReLU" relu_param { relu_6: true }', "unknown field 'relu_6' in ReLUParameter. Did you mean 'relu6'"),
    ],
)  # fmt: skip
def test_wrong_settings_are_errors(text, problem):
    with pytest.raises(ReproductionError, match=problem.replace("(", r"\(")):
        built(text)


def test_an_average_without_the_padding_is_read_written_and_computed():
    net = built('type: "Pooling" pooling_param { pool: AVE_TF kernel_size: 3 pad: 1 }')
    assert net(torch.ones(1, 2, 8, 9))["x"].unique().tolist() == [1]
    param = net.graph.nodes[1].layer_param.pooling_param
    assert "pool: AVE_EXC_PAD" in prototxt.dumps(param)
    assert prototxt.loads(prototxt.dumps(param), type(param)) == param


def test_coordinates_begin_at_the_top_and_left_padding():
    n = netspec.NetSpec()
    n["data"] = netspec.layer("Input", shape={"dim": [1, 2, 8, 9]})
    n["x"] = netspec.layer("Convolution", n["data"], num_output=1, kernel_size=3, pad_l=1, pad_r=1, pad_t=0, pad_b=2)
    assert netspec.crop_fields(n["data"], n["x"])["offset"] == [1, 0]


def test_coordinates_of_a_deconvolution_begin_where_pixels_are_removed():
    n = netspec.NetSpec()
    n["data"] = netspec.layer("Input", shape={"dim": [1, 2, 8, 9]})
    fields = {"num_output": 1, "kernel_size": 4, "stride": 2}
    n["x"] = netspec.layer("Deconvolution", n["data"], pad_l=1, pad_r=0, pad_t=0, pad_b=2, **fields)
    n["y"] = netspec.layer("Deconvolution", n["data"], pad_w=1, pad_h=0, **fields)
    assert netspec.crop_fields(n["y"], n["x"])["offset"] == [0, 0]


def test_dropout_in_testing_keeps_the_mean_and_is_random():
    net = built('type: "Dropout" dropout_param { dropout_ratio: 0.25 sample_weights_test: true }').eval()
    x = torch.ones(1, 2, 300, 300)
    torch.manual_seed(1)
    first, second = net(x)["x"], net(x)["x"]
    assert not first.equal(second)
    assert sorted(first.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert first.mean().item() == pytest.approx(1, abs=0.01)

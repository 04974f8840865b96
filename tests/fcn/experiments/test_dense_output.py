"""Shift-and-stitch and filter rarefaction give the same dense output."""

import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import net_info
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.experiments import dense_output
from reproduction.fcn.nets import registry

SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 30 dim: 30 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 3 stride: 3 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 4 kernel_size: 2 dilation: 2 group: 2 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Convolution" bottom: "conv2" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 bias_term: false weight_filler { type: "xavier" } } }
"""


def parse(text):
    return prototxt.loads(text, NetParameter)


def compare(net_param, blob, stride, field, side, channels):
    torch.manual_seed(0)
    net = Net(net_param, inputs={"data": (1, channels, field, field)}, seed=1)
    with torch.no_grad():
        for blobs in net.params.values():
            blobs[0].copy_(torch.randn(blobs[0].shape) * (2 / blobs[0][0].numel()) ** 0.5)
    image = torch.randn(1, channels, side, side)
    dense = dense_output.RarefiedNet(net)
    with torch.inference_mode():
        stitched = dense_output.shift_and_stitch(lambda shifted: net({"data": shifted})[blob], image, stride)
        rarefied = dense(image)
    assert stitched.shape == rarefied.shape == (1, stitched.shape[1], side - field + 1, side - field + 1)
    assert stitched.abs().max() > 0
    assert (stitched - rarefied).abs().max() <= 1e-6 * stitched.abs().max()
    return net, dense


@pytest.mark.parametrize("cells", [1, 2])
def test_they_are_equal_for_strided_and_dilated_convolutions_and_overlapping_pools(cells):
    # The receptive field: 3, then 2 * 2 more for the pool, then 6 * 2 more for the dilated convolution.
    compare(parse(SMALL), "score", 6, 19, 19 + 6 * cells - 1, 2)


def test_they_are_equal_for_the_layers_of_vgg16_up_to_the_third_pooling():
    whole = registry.load_net("mini-fcn8s")
    net_param = dense_output.drop_padding(dense_output.cut_before(whole, "score_pool3"))
    net, dense = compare(net_param, "score_pool3", 8, 44, 51, 3)
    assert [layer.name for layer in net_param.layer][-1] == "score_pool3"
    assert dense.count_products(44, 44) >= net_info.count_products(net)


def test_without_subsampling_one_shift_is_the_net_itself():
    net_param = parse(SMALL.replace("stride: 2", "stride: 1").replace("stride: 3", "stride: 1"))
    _, dense = compare(net_param, "score", 1, 7, 9, 2)
    net = Net(net_param, inputs={"data": (1, 2, 9, 9)})
    assert dense.count_products(9, 9) == net_info.count_products(net)


def test_a_layer_that_rarefaction_does_not_cover_is_an_error():
    with pytest.raises(NetError, match="square windows without padding"):
        dense_output.RarefiedNet(Net(registry.load_net("mini-fcn32s")))
    added = SMALL + 'layer { name: "lrn" type: "LRN" bottom: "score" top: "lrn" }'
    with pytest.raises(NetError, match="does not cover this layer"):
        dense_output.RarefiedNet(Net(parse(added)))
    with pytest.raises(NetError, match="no layer computes the blob"):
        dense_output.cut_before(registry.load_net("mini-fcn32s"), "nowhere")

"""Layers of several families equal those of OpenCV, an independent reader of the same files."""

import cv2
import numpy as np
import pytest
import torch

from reproduction.caffe.formats import blobs, caffemodel, prototxt
from reproduction.caffe.schema import LayerParameter, NetParameter
from tests.helpers.single_layer import single


def randomise(layer):
    for blob in layer.blobs:
        torch.nn.init.normal_(blob)
    return layer


PEERS = [
    'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 stride: 2 pad: 1 group: 3 }',
    'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 4 dilation: 2 bias_term: false }',
    'type: "Convolution" convolution_param { num_output: 4 kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 2 }',
    'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 }',
    'type: "Deconvolution" convolution_param { num_output: 3 kernel_size: 4 stride: 2 group: 3 bias_term: false }',
    'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 }',
    'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 pad: 1 }',
    'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }',
    'type: "Pooling" pooling_param { pool: AVE global_pooling: true }',
    'type: "LRN" lrn_param { local_size: 5 alpha: 0.01 beta: 0.75 }',
    'type: "ReLU" relu_param { negative_slope: 0.1 }',
    'type: "PReLU"',
    'type: "ELU" elu_param { alpha: 1 }',
    'type: "Sigmoid"',
    'type: "TanH"',
    'type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }',
    'type: "AbsVal"',
]


@pytest.mark.parametrize("text", PEERS)
def test_layer_equals_opencvs(text):
    layer = randomise(single(text, (2, 3, 9, 11)))
    net = NetParameter()
    net.layer.add(
        name="peer", type=layer.layer_param.type, blobs=[blobs.from_array(b.detach().numpy()) for b in layer.blobs]
    )
    spec: LayerParameter = layer.layer_param.copy()
    spec.name = "peer"
    spec.clear("phase")
    body = prototxt.dumps(NetParameter(layer=[spec]))
    head = 'layer { name: "in" type: "Input" top: "in0" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 11 } } }\n'
    peer = cv2.dnn.readNetFromCaffe(
        np.frombuffer((head + body).encode(), np.uint8), np.frombuffer(caffemodel.dumps(net), np.uint8)
    )
    x = torch.randn(2, 3, 9, 11)
    peer.setInput(x.numpy(), "in0")
    want = torch.from_numpy(peer.forward())
    torch.testing.assert_close(layer(x)[0].detach(), want, rtol=1e-4, atol=1e-5)

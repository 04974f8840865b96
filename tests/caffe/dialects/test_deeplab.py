"""V1 nets of DeepLab and CRF-RNN: their layer types and fields become those of the current form."""

import pytest

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt, upgrade
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

NET = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 17 input_dim: 17
layers { name: "pool" type: POOLING bottom: "data" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layers { name: "fc8" type: CONVOLUTION bottom: "pool" top: "fc8" strict_dim: false convolution_param { num_output: 4 kernel_size: 1 } }
layers { name: "up" type: INTERP bottom: "fc8" top: "up" interp_param { zoom_factor: 2 } }
"""  # noqa: E501


def load(text):
    net = prototxt.loads(text, NetParameter)
    return net, upgrade.upgrade_net(net)


def test_interp_and_strict_dim_of_v1_nets_are_read():
    net, notes = load(NET)
    assert [layer.type for layer in net.layer] == ["Input", "Pooling", "Convolution", "Interp"]
    assert any("Interp: as in" in note for note in notes)
    assert Net(net).blob_shapes["up"] == (1, 4, 17, 17)
    assert "strict_dim" not in prototxt.dumps(net)


def test_mean_field_layers_of_v1_nets_are_read():
    net, _ = load("""
    input: "unary" input_dim: 1 input_dim: 2 input_dim: 4 input_dim: 4
    input: "image" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
    layers { name: "crf" type: MULTI_STAGE_MEANFIELD bottom: "unary" bottom: "unary" bottom: "image" top: "pred"
      blobs_lr: 10000 blobs_lr: 10000 blobs_lr: 1000
      multi_stage_meanfield_param { num_iterations: 2 theta_alpha: 160 theta_beta: 3 theta_gamma: 3 } }""")
    built = Net(net)
    assert built.blob_shapes["pred"] == (1, 2, 4, 4)
    assert [spec.lr_mult for spec in built.param_specs["crf"]] == [10000, 10000, 1000]


def test_a_softmax_loss_with_an_ignored_label_becomes_a_loss_param():
    text = """
    layers { name: "loss" type: SOFTMAX_LOSS bottom: "up" bottom: "label" softmaxloss_param { ignore_label: 255 } }
    layers { name: "accuracy" type: SEG_ACCURACY bottom: "up" bottom: "label" top: "accuracy"
      seg_accuracy_param { ignore_label: 255 } }
    """
    net, notes = load(NET + 'input: "label" input_dim: 1 input_dim: 1 input_dim: 17 input_dim: 17' + text)
    loss, accuracy = net.layer[-2:]
    assert (loss.type, accuracy.type) == ("SoftmaxWithLoss", "SegAccuracy")
    assert loss.loss_param.ignore_label == 255
    assert "softmaxloss_param of 'loss' became loss_param." in notes
    assert Net(net).blob_shapes["accuracy"] == (1, 1, 1, 3)


def test_weights_of_classes_in_a_file_are_an_error():
    text = 'layers { name: "loss" type: SOFTMAX_LOSS bottom: "a" bottom: "b" softmaxloss_param { weight_source: "w" } }'
    with pytest.raises(NetError, match=r"^layer 'loss' \(SoftmaxWithLoss\), line 1: softmaxloss_param has weights, or"):
        load(text)


def test_a_dense_crf_is_an_error_that_says_whose_it_is():
    net, _ = load(f"""{NET}
    layers {{ name: "crf" type: DENSE_CRF bottom: "up" bottom: "data" bottom: "data" top: "crf_inf"
      dense_crf_param {{ max_iter: 10 pos_w: 3 bi_rgb_std: 10 }} }}""")
    with pytest.raises(NetError) as raised:
        Net(net)
    assert "DenseCRF" in str(raised.value)
    assert "It is a layer of DeepLab (TheLegendAli/DeepLab-Context@fb04e9e), which is not implemented." in str(
        raised.value
    )
    assert "the scores before it are the net's output" in str(raised.value)

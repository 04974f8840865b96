"""Nets drawn as graphs in Graphviz's language."""

import shutil

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.pycaffe.extras import draw
from reproduction.pycaffe.proto import caffe_pb2, text_format

NET = """
name: "small"
layer { name: "data" type: "Data" top: "data" data_param { batch_size: 8 } include { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 3 }
  convolution_param { num_output: 4 kernel_size: 5 pad: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" exclude { phase: TEST } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
"""


def net():
    return text_format.Merge(NET, caffe_pb2.NetParameter())


def test_layers_and_blobs_are_nodes():
    assert draw.get_dot(net(), "TB", display_lrm=True).splitlines() == [
        'digraph "small" {',
        "  rankdir=TB;",
        '  "data_Data" [label="data (Data)", shape=record, style=filled, fillcolor="#6495ED"];',
        '  "data_blob" [label="data", shape=octagon, style=filled, fillcolor="#E0E0E0"];',
        '  "data_Data" -> "data_blob" [label="Batch 8"];',
        (
            '  "conv_Convolution" [label="conv (Convolution) kernel size: 5 stride: 1 pad: 2 lr mult: 3.0, 1.0", '
            'shape=record, style=filled, fillcolor="#FF5050"];'
        ),
        '  "conv_blob" [label="conv", shape=octagon, style=filled, fillcolor="#E0E0E0"];',
        '  "data_blob" -> "conv_Convolution";',
        '  "conv_Convolution" -> "conv_blob" [label="4"];',
        '  "relu_ReLU" [label="relu (ReLU)", shape=record, style=filled, fillcolor="#90EE90"];',
        '  "conv_blob" -> "relu_ReLU";',
        '  "relu_ReLU" -> "conv_blob";',
        (
            '  "pool_Pooling" [label="pool (Pooling AVE) kernel size: 2 stride: 2 pad: 0", '
            'shape=record, style=filled, fillcolor="#FF9900"];'
        ),
        '  "pool_blob" [label="pool", shape=octagon, style=filled, fillcolor="#E0E0E0"];',
        '  "conv_blob" -> "pool_Pooling";',
        '  "pool_Pooling" -> "pool_blob";',
        "}",
    ]


def test_a_phase_leaves_the_layers_of_the_other_out():
    train, test = (draw.get_dot(net(), phase=phase) for phase in (caffe_pb2.TRAIN, caffe_pb2.TEST))
    assert '"data_Data"' in train
    assert '"relu_ReLU"' in train
    assert '"data_Data"' not in test
    assert '"relu_ReLU"' not in test


def test_text_is_written_without_graphviz_and_pictures_ask_for_it(tmp_path, monkeypatch):
    draw.draw_net_to_file(net(), tmp_path / "net.dot", "TB")
    assert (tmp_path / "net.dot").read_text() == draw.get_dot(net(), "TB")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ReproductionError) as error:
        draw.draw_net(net(), "LR")
    assert str(error.value) == (
        "drawing an image of a net needs Graphviz, which is not installed. "
        "Install it, or draw to a file that ends in .dot."
    )


def test_pictures_are_what_graphviz_gives(tmp_path, monkeypatch):
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\n[ "$1" = -Tpng ] && cat || { echo "no such format" >&2; exit 1; }\n')
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert draw.draw_net(net(), "LR") == draw.get_dot(net()).encode()
    with pytest.raises(ReproductionError, match="Graphviz could not draw the net: no such format"):
        draw.draw_net(net(), "LR", "xyz")


def test_layers_without_a_rate_of_their_own_have_none():
    with pytest.raises(ReproductionError) as error:
        draw.get_layer_lr_mult(net().layer[3])
    assert str(error.value) == "layer 'pool' (Pooling) does not have weights and a bias."

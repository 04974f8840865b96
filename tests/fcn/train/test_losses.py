"""The divisor of each loss, and losses printed as a sum and per pixel."""

import math

import numpy as np
import pytest

from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from reproduction.fcn.nets import net_files, published_nets
from reproduction.fcn.train.losses import Loss, Meter, find_losses

SHAPES = {"data": (1, 2, 3, 4), "label": (1, 1, 3, 4)}


def net(loss="", shapes=SHAPES):
    slots = "".join(
        f"""layer {{ name: "{top}" type: "Input" top: "{top}"
                    input_param {{ shape {{ {" ".join(f"dim: {n}" for n in shape)} }} }} }}"""
        for top, shape in shapes.items()
    )
    text = f"""{slots}
        layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
                 convolution_param {{ num_output: 5 kernel_size: 1 }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" {loss} }}"""
    return Net(prototxt.loads(text, NetParameter), Phase.TRAIN)


@pytest.mark.parametrize(
    ("text", "summed", "ignored", "weight"),
    [
        ("", False, None, 1.0),
        ("loss_param { ignore_label: 255 normalize: false }", True, 255, 1.0),
        ("loss_param { normalization: NONE }", True, None, 1.0),
        ("loss_param { normalization: FULL normalize: false } loss_weight: 0.5", False, None, 0.5),
    ],
)
def test_what_a_loss_is_divided_by_is_read_as_caffe_reads_it(text, summed, ignored, weight):
    assert find_losses(net(text)) == [Loss("loss", "label", 5, True, summed, ignored, weight)]


def test_the_loss_of_a_classifier_is_of_images():
    shapes = {"data": (4, 2, 1, 1), "label": (4, 1)}
    (loss,) = find_losses(net("loss_param { normalize: false }", shapes))
    assert (loss.dense, loss.summed) == (False, False)
    meter = Meter(net(shapes=shapes), lambda draw: {})
    assert meter.read([2.0, 4.0], [0, 0]) == (3.0, None)


def test_published_nets_learn_from_sums_but_for_alexnet():
    for name in ("voc-fcn8s", "siftflow-fcn16s", "voc-fcn-alexnet"):
        row = published_nets.NETS[name]
        message = net_files.build_net(row, row.data_layers[0])
        for layer in message.layer:
            if layer.type == "Convolution" and layer.convolution_param.num_output > 60:
                layer.convolution_param.num_output = 2
        shapes = {"data": (1, 3, 9, 9), **{head.label: (1, 1, 9, 9) for head in row.heads}}
        found = find_losses(Net(message, Phase.TRAIN, inputs=shapes))
        assert [(loss.label, loss.classes) for loss in found] == [(head.label, len(head.classes)) for head in row.heads]
        assert {loss.summed for loss in found} == {name != "voc-fcn-alexnet"}


def labels(*counts):
    """Draws whose labels have so many pixels that count, of 12."""
    return lambda draw: {"label": np.where(np.arange(12) < counts[draw], 1, 255).reshape(1, 1, 3, 4)}


def test_a_summed_loss_reads_per_pixel_too():
    meter = Meter(net("loss_param { ignore_label: 255 normalize: false }"), labels(12, 3))
    meter(0), meter(1)
    assert meter.pixels == [12, 3]
    assert meter.read([24.0, 9.0], meter.pixels) == (16.5, 33 / 15)
    meter.reset()
    meter(1)
    assert meter.read([3 * math.log(5)], meter.pixels) == (3 * math.log(5), math.log(5))


def test_a_mean_loss_reads_as_a_sum_too():
    meter = Meter(net("loss_param { ignore_label: 255 }"), labels(12, 3))
    meter(0), meter(1)
    assert meter.read([2.0, 4.0], meter.pixels) == ((24.0 + 12.0) / 2, 3.0)


def test_labels_that_are_cropped_are_counted_where_the_loss_compares_them():
    """As in U-Net, which scores the middle of its input; here without padding, 1 x 2 of 3 x 4 pixels."""
    text = """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 2, 3, 4] } } }
        layer { name: "label" type: "Input" top: "label" input_param { shape { dim: [1, 1, 3, 4] } } }
        layer { name: "score" type: "Convolution" bottom: "data" top: "score"
                convolution_param { num_output: 5 kernel_size: 3 } }
        layer { name: "crop" type: "Crop" bottom: "label" bottom: "score" top: "label_c"
                crop_param { axis: 2 offset: 1 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label_c" top: "loss"
                loss_param { ignore_label: 255 normalize: false } }"""
    cropped = Net(prototxt.loads(text, NetParameter), Phase.TRAIN)
    array = np.array([[1, 1, 1, 1], [1, 255, 1, 1], [1, 1, 1, 1]], np.uint8)[None, None]
    larger = np.pad(array, [(0, 0), (0, 0), (0, 2), (0, 0)], constant_values=2)
    images = [{"data": np.zeros((1, 2, *each.shape[2:]), np.float32), "label": each} for each in (array, larger)]
    meter = Meter(cropped, lambda draw: images[draw])
    meter(0), meter(1)
    assert find_losses(cropped)[0].label == "label"
    assert meter.pixels == [1, 5]
    assert meter.read([2.0, 10.0], meter.pixels) == (6.0, 2.0)


def test_an_image_without_labels_divides_by_nothing():
    meter = Meter(net("loss_param { ignore_label: 255 normalize: false }"), labels(0))
    meter(0)
    assert meter.read([0.0], meter.pixels) == (0.0, 0.0)

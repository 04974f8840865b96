"""Input, DummyData, Parameter and MemoryData."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from tests.helpers.single_layer import single


def test_input_shapes_are_given_once_or_for_each_top():
    tops = 'type: "Input" top: "a" top: "b" input_param { %s }'
    assert single(tops % "shape { dim: 2 dim: 3 }").shapes([]) == [(2, 3), (2, 3)]
    assert single(tops % "shape { dim: 2 } shape { }").shapes([]) == [(2,), ()]


def test_input_has_no_values_of_its_own():
    with pytest.raises(NetError, match=r"^an Input layer computes no values; got tops data\. Feed them\.$"):
        single('type: "Input" top: "data" input_param { shape { dim: 1 } }')()


def test_dummy_data_fills_each_top_with_its_filler():
    layer = single(
        """type: "DummyData" top: "a" top: "b" top: "c" dummy_data_param { shape { dim: 2 dim: 3 }
        data_filler { value: 4 } data_filler { type: "uniform" min: 5 max: 6 }
        data_filler { type: "gaussian" mean: 100 std: 1 } }""",
        seed=1,
    )
    a, b, c = layer()
    assert a.shape == b.shape == c.shape == (2, 3)
    assert (a == 4).all()
    assert ((b >= 5) & (b <= 6)).all()
    assert c.mean() > 90
    again = layer()
    assert torch.equal(again[0], a)
    assert not torch.equal(again[1], b)


def test_dummy_data_is_zero_without_a_filler():
    assert not single('type: "DummyData" dummy_data_param { shape { dim: 3 } }')()[0].any()


def test_dummy_data_reads_the_old_sizes():
    layer = single(
        'type: "DummyData" top: "a" top: "b" dummy_data_param { num: 2 channels: 3 channels: 4 height: 5 width: 6 }'
    )
    assert layer.shapes([]) == [(2, 3, 5, 6), (2, 4, 5, 6)]


def test_what_a_source_makes_follows_the_type_of_the_net():
    text = (
        'layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 } data_filler { value: 3 } } }'
    )
    net = Net(prototxt.loads(text, NetParameter)).double()
    assert net()["d"].dtype == torch.float64
    assert not net.state_dict()


def test_parameter_is_a_learned_blob():
    text = """layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 2 } } }
    layer { name: "r" type: "Reduction" bottom: "p" top: "r" reduction_param { operation: SUMSQ } }"""
    net = Net(prototxt.loads(text, NetParameter))
    (weight,) = net.params["p"]
    assert weight.tolist() == [0, 0]
    weight.data.copy_(torch.tensor([3.0, 4.0]))
    top = net()["r"]
    top.backward()
    assert top.item() == 25
    assert weight.grad.tolist() == [6, 8]


MEMORY = (
    'type: "MemoryData" top: "data" top: "label" memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }'
)


def test_memory_data_begin_with_the_first_batch_asked_for_after_a_reset():
    layer = single(MEMORY)
    data, labels = np.zeros((6, 1, 1, 3), np.float32), np.arange(6, dtype=np.float32)
    layer.seek(3)
    for first in (0, 7):
        layer.reset(data, labels)
        got = []
        for draw in (first, first + 2, first + 3, first + 1):
            layer.seek(draw)
            got.append(layer()[1].flatten().tolist())
        assert got == [[0, 1], [4, 5], [0, 1], [2, 3]]


def test_memory_data_goes_around_and_around():
    layer = single(MEMORY)
    assert layer.shapes([]) == [(2, 1, 1, 3), (2, 1, 1, 1)]
    data, labels = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3), np.arange(4, dtype=np.float32)
    layer.reset(data, labels)
    batches = [layer() for _ in range(3)]
    assert [batch[1].flatten().tolist() for batch in batches] == [[0, 1], [2, 3], [0, 1]]
    assert torch.equal(batches[1][0], torch.tensor(data[2:]))
    assert layer.shapes([]) == [tuple(top.shape) for top in batches[0]]


@pytest.mark.parametrize(
    ("shape", "labels", "error"),
    [
        ((2, 1, 3), 2, "the data do not fit memory_data_param; got (2, 1, 3), want ('n', 1, 1, 3)."),
        ((3, 1, 1, 3), 3, "the data must be a multiple of batch_size; got 3, want a multiple of 2."),
        ((0, 1, 1, 3), 0, "the data must be a multiple of batch_size; got 0, want a multiple of 2."),
        ((2, 1, 1, 3), 3, "there must be one label for each instance; got 3, want 2."),
    ],
)
def test_memory_data_refuses_arrays_that_do_not_fit(shape, labels, error):
    with pytest.raises(NetError) as caught:
        single(MEMORY).reset(np.zeros(shape, np.float32), np.zeros(labels, np.float32))
    assert str(caught.value) == error


def test_memory_data_without_data_says_how_to_give_them():
    with pytest.raises(NetError) as caught:
        single(MEMORY)()
    assert str(caught.value) == "there are no data yet. Pass them to the layer's reset(data, labels)."


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('type: "Input" top: "a" top: "b" top: "c" input_param { shape { dim: 1 } shape { dim: 1 } }',
         "shape must be given once, or once for each top; got 2, want 1 or 3."),
        ('type: "Input" top: "data"',
         "there is no shape. Write one into input_param, or pass inputs={'data': (1, 3, H, W)}."),
        ('type: "Input" input_param { shape { dim: -1 } }', "a shape cannot have negative sizes; got (-1,)."),
        ('type: "DummyData"', "shape must be given once, or once for each top; got 0, want 1 or 1."),
        ('type: "DummyData" dummy_data_param { num: 1 shape { dim: 1 } }',
         "shape and num, channels, height, width are both set; want one kind."),
        ('type: "DummyData" dummy_data_param { num: 1 channels: 1 height: 1 }',
         "width must be given once, or once for each top; got 0, want 1 or 1."),
        ('type: "DummyData" dummy_data_param { shape { dim: 1 } data_filler { } data_filler { } }',
         "data_filler must be given once, or once for each top; got 2, want 1 or 1."),
        ('type: "MemoryData" top: "a" top: "b"',
         "batch_size, channels, height, width must be positive; got 0, 0, 0, 0."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, error):
    with pytest.raises(NetError) as caught:
        single(text).shapes([])
    assert str(caught.value) == error

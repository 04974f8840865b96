"""Concat, Slice, Reshape, Flatten, Tile, Filter, BatchReindex and Silence: where each value goes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduction.caffe.errors import NetError
from tests.helpers.single_layer import gradient, single

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def counting(*shape):
    return torch.arange(float(math.prod(shape))).reshape(shape)


@given(SHAPES, st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
@settings(max_examples=40, deadline=None)
def test_slice_takes_apart_what_concat_joined(shape, lengths, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    name = data.draw(st.sampled_from(["axis: {}", "axis: {0}", "{}_dim: {}"]))
    parts = [torch.randn(*shape[:axis], length, *shape[axis + 1 :]) for length in lengths]
    shapes = [tuple(part.shape) for part in parts]
    join = single(
        f'type: "Concat" concat_param {{ {name.format("concat" if "dim" in name else axis, axis)} }}', *shapes
    )
    (whole,) = join(*parts)
    assert torch.equal(whole, torch.cat(parts, axis))
    points = " ".join(f"slice_point: {point}" for point in np.cumsum(lengths)[:-1])
    tops = " ".join(f'top: "t{i}"' for i in range(len(parts)))
    cut = single(f'type: "Slice" {tops} slice_param {{ axis: {axis - len(shape)} {points} }}', tuple(whole.shape))
    assert cut.shapes([tuple(whole.shape)]) == shapes
    assert all(torch.equal(got, want) for got, want in zip(cut(whole), parts, strict=True))


def test_slice_without_points_cuts_evenly():
    layer = single('type: "Slice" top: "a" top: "b" top: "c" slice_param { slice_dim: 0 }', (6, 2))
    assert [top[:, 0].tolist() for top in layer(counting(6, 2))] == [[0, 2], [4, 6], [8, 10]]


def test_concat_sends_each_bottom_its_part_of_the_gradient():
    layer = single('type: "Concat"', (1, 2), (1, 1))
    a, b = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    layer(a, b)[0].backward(torch.tensor([[1.0, 2.0, 3.0]]))
    assert (a.grad.tolist(), b.grad.tolist()) == ([[1, 2]], [[3]])


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ("shape { dim: 0 dim: -1 }", (2, 60)),
        ("shape { dim: 0 dim: 0 dim: 5 dim: -1 }", (2, 3, 5, 4)),
        ("shape { dim: 120 }", (120,)),
        ("shape { dim: -1 } axis: 1 num_axes: 2", (2, 12, 5)),
        ("shape { dim: 1 } axis: 1 num_axes: 0", (2, 1, 3, 4, 5)),
        ("shape { dim: 1 } axis: -1 num_axes: 0", (2, 3, 4, 5, 1)),
        ("shape { dim: 2 dim: 2 } axis: -3 num_axes: 1", (2, 3, 2, 2, 5)),
        ("shape { dim: 0 dim: 2 dim: -1 } axis: 1", (2, 3, 2, 10)),
        ("axis: 1 num_axes: 0", (2, 3, 4, 5)),
    ],
)
def test_reshape_reads_zeros_minus_one_axis_and_num_axes(fields, want):
    layer = single(f'type: "Reshape" reshape_param {{ {fields} }}', (2, 3, 4, 5))
    assert layer.shapes([(2, 3, 4, 5)]) == [want]
    (top,) = layer(counting(2, 3, 4, 5))
    assert torch.equal(top, counting(*want))


def test_reshape_works_its_shape_out_anew_at_every_size():
    layer = single('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }', (2, 3, 4))
    assert layer(torch.zeros(5, 2, 2))[0].shape == (5, 4)


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ("", (2, 60)),
        ("axis: 0", (120,)),
        ("axis: 1 end_axis: 2", (2, 12, 5)),
        ("axis: -2 end_axis: -1", (2, 3, 20)),
        ("axis: 2 end_axis: 2", (2, 3, 4, 5)),
        ("axis: 2 end_axis: 1", (2, 3, 1, 4, 5)),
    ],
)
def test_flatten_makes_its_axes_one(fields, want):
    layer = single(f'type: "Flatten" flatten_param {{ {fields} }}', (2, 3, 4, 5))
    assert layer.shapes([(2, 3, 4, 5)]) == [want]
    assert torch.equal(layer(counting(2, 3, 4, 5))[0], counting(*want))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_tile_puts_copy_after_copy_and_adds_up_their_gradients(axis):
    layer = single(f'type: "Tile" tile_param {{ axis: {axis} tiles: 3 }}', (2, 3, 2))
    x = counting(2, 3, 2)
    assert torch.equal(layer(x)[0], torch.cat([x] * 3, axis))
    (diff,) = gradient(layer, x)
    assert torch.equal(diff, torch.full((2, 3, 2), 3.0))


def test_filter_keeps_selected_instances_and_gives_the_others_no_gradient():
    layer = single('type: "Filter" top: "a" top: "b"', (4, 2), (4, 1, 3), (4, 1, 1))
    assert layer.shapes([(4, 2), (4, 1, 3), (4, 1, 1)]) == [(4, 2), (4, 1, 3)]
    a, b, selector = counting(4, 2), counting(4, 1, 3), torch.tensor([0.0, 0.5, 0.0, -1.0]).reshape(4, 1, 1)
    tops = layer(a, b, selector)
    assert torch.equal(tops[0], a[[1, 3]])
    assert torch.equal(tops[1], b[[1, 3]])
    diff, *_, selector_diff = gradient(layer, a, b, selector)
    assert diff.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]
    assert not selector_diff.any()


def test_filter_may_keep_nothing():
    layer = single('type: "Filter"', (2, 3), (2,))
    assert layer(torch.ones(2, 3), torch.zeros(2))[0].shape == (0, 3)


def test_batch_reindex_picks_instances_and_adds_up_their_gradients():
    layer = single('type: "BatchReindex"', (3, 2), (4,))
    x, index = counting(3, 2), torch.tensor([2.0, 0.0, 2.0, 2.0])
    assert layer.shapes([(3, 2), (4,)]) == [(4, 2)]
    assert torch.equal(layer(x, index)[0], x[[2, 0, 2, 2]])
    diff, _ = gradient(layer, x, index)
    assert diff.tolist() == [[1, 1], [0, 0], [3, 3]]


def test_silence_makes_nothing():
    from reproduction.caffe.layers.shaping import Silence
    from reproduction.caffe.schema import LayerParameter

    layer = Silence(LayerParameter(type="Silence", bottom=["a", "b"]), [(1, 2), (3,)])
    assert layer.shapes([(1, 2), (3,)]) == []
    assert layer(torch.ones(1, 2), torch.ones(3)) == ()


SLICE, RESHAPE = 'type: "Slice" top: "a" top: "b" slice_param { %s }', 'type: "Reshape" reshape_param { %s }'


@pytest.mark.parametrize(
    ("text", "shapes", "error"),
    [
        ('type: "Concat" concat_param { axis: 1 concat_dim: 1 }', [(1, 3)],
         "axis and concat_dim are both set; want one of them."),
        ('type: "Concat" concat_param { concat_dim: 2 }', [(1, 3)], "concat_dim is out of range; got 2, want 0 to 1."),
        ('type: "Concat"', [(1, 3, 4), (1, 3, 5)],
         "bottom 1 differs in shape from bottom 0 outside axis 1; got (1, 3, 5), want (1, 3, 4)."),
        ('type: "Concat"', [(1, 3, 4), (1, 3)],
         "bottom 1 differs in shape from bottom 0 outside axis 1; got (1, 3), want (1, 3, 4)."),
        (SLICE % "", [(1, 3)], "axis 1 of (1, 3) cannot be cut into 2 equal parts; got 3."),
        (SLICE % "slice_point: 1 slice_point: 2", [(1, 3)],
         "there must be one slice_point less than there are tops; got 2, want 1."),
        (SLICE % "slice_point: 0", [(1, 3)], "slice_point must increase within the axis; got [0], want 1 to 3."),
        (SLICE % "slice_point: 4", [(1, 3)], "slice_point must increase within the axis; got [4], want 1 to 3."),
        (RESHAPE % "shape { dim: -1 dim: -1 }", [(1, 3)], "shape may hold sizes, zeros, and one -1; got [-1, -1]."),
        (RESHAPE % "shape { dim: -2 }", [(1, 3)], "shape may hold sizes, zeros, and one -1; got [-2]."),
        (RESHAPE % "shape { dim: 2 }", [(1, 3)],
         "the new shape must hold as many values as the old; got (2,), want as (1, 3)."),
        (RESHAPE % "shape { dim: 2 dim: -1 }", [(1, 3)],
         "the -1 in (2, -1) cannot be worked out; got (1, 3), 3 values."),
        (RESHAPE % "shape { dim: 0 dim: 0 dim: 0 }", [(1, 3)],
         "the zero at place 2 of shape has no axis of the bottom to copy; got (1, 3)."),
        (RESHAPE % "axis: 1 num_axes: 2", [(1, 3)],
         "axis and num_axes reach outside the bottom; got axis 1, num_axes 2, want within 2 axes."),
        ('type: "Reshape" bottom: "a" top: "a"', [(1, 3)],
         "Reshape layers cannot work in place; got top 'a' for both."),
        ('type: "Flatten" bottom: "a" top: "a"', [(1, 3)],
         "Flatten layers cannot work in place; got top 'a' for both."),
        ('type: "Flatten" flatten_param { axis: 2 end_axis: 0 }', [(1, 3, 4)],
         "axis must not come after end_axis; got axis 2, end_axis 0."),
        ('type: "Tile"', [(1, 3)], "tiles must be positive; got 0."),
        ('type: "Filter"', [(2, 3), (2, 3), (2,)],
         "there must be a top for each bottom but the selector; got 1, want 2."),
        ('type: "Filter"', [(2, 3), (2, 3)],
         "the selector must have one value for each instance; got (2, 3), want (N,) or (N, 1, 1)."),
        ('type: "Filter"', [(2, 3), (3,)],
         "bottom 0 and the selector differ in their first axis; got (2, 3), want (3,)."),
        ('type: "BatchReindex"', [(2, 3), (3, 1)],
         "the second bottom must be a vector of indices into the first; got (3, 1) into (2, 3)."),
    ],
)  # fmt: skip
def test_what_caffe_refuses_is_an_error(text, shapes, error):
    with pytest.raises(NetError) as caught:
        single(text, *shapes).shapes(list(shapes))
    assert str(caught.value) == error


@pytest.mark.parametrize("index", [-1.0, 2.0, float("nan")])
def test_an_index_beyond_the_batch_is_an_error(index):
    layer = single('type: "BatchReindex"', (2, 3), (1,))
    with pytest.raises(NetError, match=rf"^an index is out of range; got {index:g}, want 0\.\.1\.$"):
        layer(torch.zeros(2, 3), torch.tensor([index]))

"""pycaffe's interface to coordinate maps and crops; tests/caffe checks the arithmetic."""

import numpy as np
import pytest

import reproduction.pycaffe as caffe
from reproduction.pycaffe import layers as L
from reproduction.pycaffe.net.coord_map import (
    AxisMismatchException,
    UndefinedMapException,
    compose,
    conv_params,
    coord_map,
    coord_map_from_to,
    crop,
    crop_params,
    inverse,
)


def spec(**conv):
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 50, 50]})
    n.conv = L.Convolution(n.data, num_output=3, **dict({"kernel_size": 3}, **conv))
    n.pool = L.Pooling(n.conv, kernel_size=2, stride=2)
    n.up = L.Deconvolution(n.pool, convolution_param={"num_output": 3, "kernel_size": 4, "stride": 2})
    return n


def test_a_map_is_axis_scale_and_shift():
    n = spec(pad=4)
    axis, scale, shift = coord_map_from_to(n.up, n.data)
    assert (axis, scale.tolist(), shift.tolist()) == (1, [1.0], [-4.0])


def test_windows_of_two_sizes_give_two_of_each():
    n = spec(kernel_size=[3, 5], pad=[1, 0])
    axis, scale, shift = coord_map(n.conv.fn)
    assert (axis, scale.tolist(), shift.tolist()) == (1, [1.0, 1.0], [0.0, -2.0])
    axis, *windows = conv_params(n.conv.fn)
    assert (axis, [each.tolist() for each in windows]) == (1, [[1, 1], [3, 5], [1, 0]])


def test_windows_with_holes_reach_further():
    _, _, extent, _ = conv_params(spec(dilation=2).conv.fn)
    assert extent.tolist() == [5]
    assert conv_params(spec().pool.fn)[1].tolist() == [2]


def test_layers_that_keep_pixels_in_place_are_the_identity():
    assert coord_map(L.ReLU(spec().conv).fn) == (None, 1, 0)


def test_crop_writes_the_offset_that_aligns():
    n = spec(pad=4)
    n.score = crop(n.up, n.data)
    assert n.to_proto().layer[-1].crop_param.offset == [4]
    assert crop_params(n.score.fn)[0] == 2
    assert crop_params(n.score.fn)[1].tolist() == [4]
    assert np.all(coord_map_from_to(n.score, n.data)[2] == 0)


def test_maps_compose_and_invert():
    there = (1, np.array([2.0]), np.array([3.0]))
    back = inverse(there)
    axis, scale, shift = compose(back, there)
    assert (axis, scale.tolist(), shift.tolist()) == (1, [1.0], [0.0])
    assert compose((None, 1, 0), there)[2].tolist() == [3.0]


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        (
            lambda n: coord_map_from_to(L.InnerProduct(n.up, num_output=2), n.data),
            RuntimeError,
            (
                "no coordinate map leads from the InnerProduct top to the Input top. "
                "They need a common ancestor, through layers that keep pixels in place."
            ),
        ),
        (
            lambda n: crop(n.pool, n.data),
            AssertionError,
            (
                "the Pooling top and the Input top have different scales; got 2, want 1. "
                "The strides down and up between them must cancel."
            ),
        ),
        (
            lambda n: crop(n.data, n.up),
            AssertionError,
            (
                "cropping the Input top and the Deconvolution top needs a negative offset; got -4. "
                "Pad the input more, or the deconvolution less."
            ),
        ),
        (
            lambda n: crop(L.Deconvolution(n.pool, convolution_param={"kernel_size": 3, "stride": 2}), n.data),
            AssertionError,
            (
                "cropping the Deconvolution top and the Input top needs an integer offset; got 7/2. "
                "Make a kernel between them one pixel longer or shorter."
            ),
        ),
        (
            lambda n: coord_map(L.InnerProduct(n.up, num_output=2).fn),
            UndefinedMapException,
            "InnerProduct: the layer has no coordinate map.",
        ),
        (
            lambda n: compose((1, 1, 0), (2, 1, 0)),
            AxisMismatchException,
            "coordinate maps start at different axes; got 2 and 3.",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused_as_by_pycaffe(wrong, kind, text):
    with pytest.raises(kind) as error:
        wrong(spec(pad=4))
    assert str(error.value) == text

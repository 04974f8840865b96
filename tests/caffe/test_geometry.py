"""Windows, sizes and coordinate maps."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import (
    CoordMap,
    Window,
    conv_map,
    conv_size,
    conv_windows,
    crop_map,
    deconv_map,
    deconv_size,
    pool_sizes,
    pool_windows,
)
from reproduction.caffe.schema import ConvolutionParameter, PoolingParameter, RoundMode

sizes = st.integers(1, 200)
fractions = st.fractions(min_value=-8, max_value=8, max_denominator=16)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    kernel = draw(st.integers(1, 9))
    return Window(kernel, draw(st.integers(1, 6)), draw(st.integers(0, kernel - 1)), draw(st.integers(1, 3)))


@st.composite
def maps(draw: st.DrawFn, axes: int = 2) -> CoordMap:
    count = draw(st.sampled_from((1, axes)))
    scale = draw(st.lists(fractions.filter(bool), min_size=count, max_size=count))
    shift = draw(st.lists(fractions, min_size=count, max_size=count))
    return CoordMap(draw(st.sampled_from((None, 2))), tuple(scale), tuple(shift))


def look(through: CoordMap, x: Fraction, axis: int = 0) -> Fraction:
    """Apply a map to a coordinate of one axis."""
    at = min(axis, len(through.scale) - 1)
    return through.scale[at] * x + through.shift[at]


# Windows from messages


def test_windows_default_to_stride_1_and_no_padding():
    assert conv_windows(ConvolutionParameter(kernel_size=[3])) == [Window(3), Window(3)]
    assert pool_windows(PoolingParameter(kernel_size=3), 9, 9) == [Window(3), Window(3)]


def test_height_and_width_are_read_apart():
    conv = ConvolutionParameter(kernel_h=3, kernel_w=5, stride_h=1, stride_w=2, pad_h=0, pad_w=4, dilation=[2])
    assert conv_windows(conv) == [Window(3, 1, 0, 2), Window(5, 2, 4, 2)]
    pool = PoolingParameter(kernel_h=3, kernel_w=5, stride_h=1, stride_w=2, pad_h=0, pad_w=4)
    assert pool_windows(pool, 9, 9) == [Window(3, 1, 0), Window(5, 2, 4)]


def test_a_repeated_field_gives_each_axis_its_own_value():
    param = ConvolutionParameter(kernel_size=[1, 2, 3], stride=[2], pad=[0, 1, 2])
    assert conv_windows(param, 3) == [Window(1, 2, 0), Window(2, 2, 1), Window(3, 2, 2)]


def test_global_pooling_is_one_window_over_everything():
    assert pool_windows(PoolingParameter(global_pooling=True), 7, 11) == [Window(7), Window(11)]
    assert pool_sizes((7, 11), [Window(7), Window(11)]) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "axes", "text"),
    [
        ({}, 2, "kernel_size must be given once, or once for each spatial axis; got 0, want 1 or 2."),
        (
            {"kernel_size": [3, 3, 3]},
            2,
            "kernel_size must be given once, or once for each spatial axis; got 3, want 1 or 2.",
        ),
        (
            {"kernel_size": [3], "kernel_h": 3},
            2,
            "kernel_size and kernel_h/kernel_w are both set; want one of them.",
        ),
        ({"kernel_h": 3, "kernel_w": 3}, 3, "kernel_h and kernel_w are for two spatial axes; got 3."),
        ({"kernel_h": 3}, 2, "kernel must be positive; got [3, 0]."),
        ({"kernel_size": [3], "stride": [0]}, 2, "stride must be positive; got [0, 0]."),
        ({"kernel_size": [3], "dilation": [0]}, 2, "dilation must be positive; got [0, 0]."),
    ],
)
def test_a_convolution_window_that_makes_no_sense_is_an_error(fields: dict, axes: int, text: str):
    with pytest.raises(NetError) as error:
        conv_windows(ConvolutionParameter(**fields), axes)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "the kernel size is missing; want kernel_size, or kernel_h and kernel_w."),
        (
            {"kernel_h": 3},
            "kernel_size is set twice, or for one axis only; want kernel_size, or kernel_h and kernel_w.",
        ),
        (
            {"kernel_size": 3, "kernel_w": 2},
            "kernel_size is set twice, or for one axis only; want kernel_size, or kernel_h and kernel_w.",
        ),
        (
            {"kernel_size": 3, "stride": 2, "stride_h": 2, "stride_w": 2},
            "stride is set twice, or for one axis only; want stride, or",
        ),
        ({"kernel_size": 3, "pad_h": 1}, "pad is set twice, or for one axis only; want pad, or pad_h and pad_w."),
        ({"kernel_size": 3, "stride": 0}, "kernel and stride must be positive; got kernel (3, 3), stride (0, 0)."),
        ({"kernel_size": 2, "pad": 2}, "the padding must be smaller than the kernel; got pad (2, 2), kernel (2, 2)."),
        ({"global_pooling": True, "kernel_size": 2}, "global_pooling and a kernel size are both set; want one of"),
        ({"global_pooling": True, "stride": 2}, "global_pooling requires padding 0 and stride 1; got pad (0, 0), "),
    ],
)
def test_a_pooling_window_that_makes_no_sense_is_an_error(fields: dict, text: str):
    with pytest.raises(NetError) as error:
        pool_windows(PoolingParameter(**fields), 9, 9)
    assert str(error.value).startswith(text)


# Sizes


@given(sizes, windows())
def test_a_convolution_counts_the_windows_that_fit(size: int, window: Window):
    starts = range(-window.pad, size + window.pad - window.extent + 1, window.stride)
    short = window.extent - size - 2 * window.pad
    if starts:
        assert conv_size(size, window) == len(starts)
    elif short < window.stride:
        assert conv_size(size, window) == 1  # Caffe's division rounds towards zero
    else:
        with pytest.raises(NetError, match="the kernel is longer than the padded input"):
            conv_size(size, window)


@given(sizes, windows())
def test_a_deconvolution_is_as_long_as_the_convolution_that_it_turns_round(size: int, window: Window):
    span = window.stride * (size - 1) + window.extent
    if span > 2 * window.pad:
        assert deconv_size(size, window) == span - 2 * window.pad
        assert conv_size(deconv_size(size, window), window) == size
    else:
        with pytest.raises(NetError, match="the padding removes the whole output"):
            deconv_size(size, window)


@given(sizes, windows())
def test_pooling_covers_every_pixel_and_no_window_starts_past_the_end(size: int, window: Window):
    window = Window(window.kernel, window.stride, window.pad)
    short = window.kernel - size - 2 * window.pad
    if short >= window.stride:
        with pytest.raises(NetError, match="the window is longer than the padded input"):
            pool_sizes([size], [window])
        return
    (count,) = pool_sizes([size], [window])
    last = (count - 1) * window.stride - window.pad
    if window.pad:
        assert last < size
    # Windows that leave no gap between them reach the last pixel.
    if window.stride <= window.kernel:
        assert last + window.kernel >= size


@pytest.mark.parametrize(
    ("size", "window", "count"),
    [
        (5, Window(2, 2), 3),  # rounds up: the last window hangs over the end
        (1, Window(2, 2, 1), 1),  # with padding, the window that starts in it is dropped
        (4, Window(2, 3), 2),
        (3, Window(1, 2, 0), 2),
        (2, Window(3, 2), 1),  # longer than the input, by less than a stride
    ],
)
def test_pooling_rounds_as_caffe_does(size: int, window: Window, count: int):
    assert pool_sizes([size], [window]) == (count,)


def test_padding_on_one_axis_clips_the_other_too():
    # The rows are not padded; the second window starts past the last row, and is dropped because columns are padded.
    assert pool_sizes([2], [Window(1, 3)]) == (2,)
    assert pool_sizes([2, 3], [Window(1, 3), Window(3, 3, 1)]) == (1, 2)


def test_pooling_rounds_down_on_request():
    assert pool_sizes([5], [Window(2, 2)], RoundMode.FLOOR) == (2,)


def test_a_pooling_window_longer_than_its_input_is_an_error():
    with pytest.raises(NetError) as error:
        pool_sizes([1], [Window(4, 2)])
    assert str(error.value) == "the window is longer than the padded input; got 1 + 2 * 0 pixels, want 4."


# Coordinate maps


@given(windows(), st.integers(0, 50))
def test_an_output_looks_at_the_middle_of_its_window(window: Window, index: int):
    first = index * window.stride - window.pad
    middle = Fraction(first + first + window.extent - 1, 2)
    assert look(conv_map([window]), middle) == index
    assert look(deconv_map([window]), Fraction(index)) == middle


@given(maps())
def test_a_map_and_its_inverse_cancel(there: CoordMap):
    assert (there @ there.inverse()).agrees(CoordMap())
    assert (there.inverse() @ there).agrees(CoordMap())
    assert there.inverse().inverse() == there


@given(maps(), maps(), maps(), fractions)
def test_composing_is_looking_through_one_map_after_the_other(a: CoordMap, b: CoordMap, c: CoordMap, x: Fraction):
    for axis in (0, 1):
        assert look(a @ b, x, axis) == look(a, look(b, x, axis), axis)
    assert ((a @ b) @ c).agrees(a @ (b @ c))


@given(windows(), windows(), st.sampled_from((conv_map, deconv_map)))
def test_a_rectangular_map_is_its_two_square_maps(high: Window, wide: Window, kind):
    both, one, two = kind([high, wide]), kind([high]), kind([wide])
    assert both.scale == one.scale + two.scale
    assert both.shift == one.shift + two.shift


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_crop_of_a_crop_is_one_crop(first: int, second: int):
    assert crop_map(2, [second]) @ crop_map(2, [first]) == crop_map(2, [first + second])


@given(maps())
def test_the_identity_takes_the_axis_and_the_length_of_the_other_map(there: CoordMap):
    assert there @ CoordMap() == there
    assert CoordMap() @ there == there


def test_maps_agree_when_they_say_the_same_in_fewer_numbers():
    assert CoordMap(2, (Fraction(2),), (Fraction(1),)).agrees(CoordMap(2, (Fraction(2),) * 2, (Fraction(1),) * 2))
    assert not CoordMap(2, (Fraction(2),), (Fraction(1),)).agrees(CoordMap(1, (Fraction(2),), (Fraction(1),)))
    assert not CoordMap(2, (Fraction(2),), (Fraction(1),)).agrees(CoordMap(2, (Fraction(2),), (Fraction(0),)))


def test_maps_of_different_axes_do_not_compose():
    with pytest.raises(NetError) as error:
        conv_map([Window(3)], axis=1) @ conv_map([Window(3)], axis=2)
    assert str(error.value) == "coordinate maps start at different axes; got 1 and 2."
    with pytest.raises(NetError) as error:
        conv_map([Window(3)] * 2) @ conv_map([Window(3)] * 3)
    assert str(error.value) == "coordinate maps have different numbers of axes; got 2 and 3."

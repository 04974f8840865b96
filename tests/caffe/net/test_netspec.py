"""Nets written in Python: names, checks at each call, and crops with verified offsets."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.geometry import CoordMap
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.net.netspec import Function, NetSpec, Top, crop, layer, layers, map_between, to_proto
from reproduction.caffe.schema import LayerParameter, PoolMethod
from reproduction.caffe.schema.types import TYPES


def picture() -> Top:
    return layer("Input", shape={"dim": [1, 3, 100, 100]})


def conv(bottom: Top, kernel=3, stride=1, pad=0, **more) -> Top:
    return layer("Convolution", bottom, num_output=2, kernel_size=kernel, stride=stride, pad=pad, **more)


def deconv(bottom: Top, kernel=4, stride=2, pad=0) -> Top:
    return layer("Deconvolution", bottom, num_output=2, kernel_size=kernel, stride=stride, pad=pad)


def pool(bottom: Top, kernel=2, stride=2) -> Top:
    return layer("Pooling", bottom, pool="MAX", kernel_size=kernel, stride=stride)


def after_picture(make: Callable[[Top], Top]) -> tuple[Top, Top]:
    """Return an image's top, and the top of a layer that is made from it."""
    data = picture()
    return data, make(data)


def hourglass(kernel=3, stride=1, pad=0, shrink=2, grow=2, grow_pad=0) -> tuple[Top, Top]:
    """Convolve, pool and upsample; return the first and the last top."""
    data = picture()
    small = pool(conv(data, kernel, stride, pad), shrink, shrink)
    taps = [2 * each for each in grow] if isinstance(grow, list) else 2 * grow
    return data, deconv(small, taps, grow, grow_pad)


def shift(top_from: Top, top_to: Top) -> Fraction:
    found = map_between(top_from, top_to)
    assert set(found.scale) == {1}
    assert len(set(found.shift)) == 1
    return found.shift[0]


# Names and order


def test_a_net_reads_like_its_figure():
    n = NetSpec()
    n["data"], n["label"] = layers("Python", ntop=2, module="m", layer="l", param_str="{}")
    n["conv1"] = conv(n["data"], pad=1, param=[{"lr_mult": 1}, {"lr_mult": 2}])
    n["relu1"] = layer("ReLU", n["conv1"], in_place=True)
    n["pool1"] = pool(n["relu1"])
    n["loss"] = layer("SoftmaxWithLoss", n["pool1"], n["label"], ignore_label=255, axis=1)
    net = n.to_proto()
    assert [(spec.name, spec.type, spec.bottom, spec.top) for spec in net.layer] == [
        ("data", "Python", [], ["data", "label"]),
        ("conv1", "Convolution", ["data"], ["conv1"]),
        ("relu1", "ReLU", ["conv1"], ["conv1"]),
        ("pool1", "Pooling", ["conv1"], ["pool1"]),
        ("loss", "SoftmaxWithLoss", ["pool1", "label"], ["loss"]),
    ]
    assert net.layer[1].convolution_param.pad == [1]
    assert [param.lr_mult for param in net.layer[1].param] == [1, 2]
    assert net.layer[4].loss_param.ignore_label == 255
    assert net.layer[4].softmax_param.has("axis")


def test_only_what_is_given_is_set():
    spec = conv(picture(), pad=0).function.layer_param
    assert spec.convolution_param.has("pad")
    assert not spec.convolution_param.has("dilation")
    assert [field.name for field, _ in spec.set_fields()] == ["type", "convolution_param"]


def test_unnamed_tops_are_called_by_type_and_number():
    data = picture()
    first, second = conv(data), conv(data)
    net = to_proto(layer("Eltwise", second, first))
    assert [spec.name for spec in net.layer] == ["Input1", "Convolution1", "Convolution2", "Eltwise1"]
    assert net.layer[3].bottom == ["Convolution1", "Convolution2"]
    assert net.layer[1].top == ["Convolution1"]


def test_a_number_that_is_taken_is_passed_over():
    n = NetSpec()
    n["Convolution1"] = conv(conv(picture()))
    assert [spec.name for spec in n.to_proto().layer] == ["Input1", "Convolution2", "Convolution1"]


def test_several_tops_number_each():
    one, two = layers("DummyData", ntop=2, shape={"dim": [1]})
    net = to_proto(layer("Concat", two, one))
    assert net.layer[0].top == ["DummyData1", "DummyData2"]
    assert net.layer[0].name == "DummyData1"
    assert net.layer[1].bottom == ["DummyData2", "DummyData1"]


def test_a_layer_without_tops_is_named_by_its_function():
    n = NetSpec()
    n["data"] = picture()
    n["quiet"] = Function("Silence", [n["data"]], {}, ntop=0)
    net = n.to_proto()
    assert (net.layer[1].name, net.layer[1].top) == ("quiet", [])
    assert to_proto(Function("Silence", [picture()], {}, ntop=0)).layer[1].name == "Silence1"


def test_a_layer_may_be_named_apart_from_its_top():
    n = NetSpec()
    n["data"] = layer("Input", name="input", shape={"dim": [1]})
    spec = n.to_proto().layer[0]
    assert (spec.name, spec.top) == ("input", ["data"])


def test_in_place_layers_in_a_row_share_one_blob():
    top = conv(picture())
    for _ in range(3):
        top = layer("ReLU", top, in_place=True)
    net = to_proto(layer("Power", top))
    assert [spec.top for spec in net.layer[1:5]] == [["Convolution1"]] * 4
    assert net.layer[5].bottom == ["Convolution1"]
    assert [spec.name for spec in net.layer[2:]] == ["ReLU1", "ReLU2", "ReLU3", "Power1"]


def test_in_place_takes_the_first_bottom_as_its_top():
    spec = to_proto(layer("Scale", conv(picture()), picture(), in_place=True)).layer[-1]
    assert (spec.bottom, spec.top) == (["Convolution1", "Input2"], ["Convolution1"])


def test_a_net_is_written_twice_the_same_and_is_not_shared():
    n = NetSpec()
    n["conv"] = conv(picture())
    first = n.to_proto()
    first.layer[1].name = "changed"
    assert n.to_proto().layer[1].name == "conv"


def test_a_deep_net_needs_no_recursion():
    top = picture()
    for _ in range(5000):
        top = layer("Power", top)
    assert len(to_proto(top).layer) == 5001


def test_values_take_the_form_that_the_field_wants():
    spec = layer(
        "DummyData",
        shape=({"dim": (1, 2)}, {"dim": 3}),
        data_filler={"type": "constant", "value": 1},
        include={"phase": "TEST", "stage": "one"},
        loss_weight=2,
    ).function.layer_param
    assert [list(shape.dim) for shape in spec.dummy_data_param.shape] == [[1, 2], [3]]
    assert spec.dummy_data_param.data_filler[0].value == 1
    assert spec.include[0].stage == ["one"]
    assert spec.loss_weight == [2]
    assert pool(picture()).function.layer_param.pooling_param.pool is PoolMethod.MAX


def test_every_type_of_caffe_is_known_and_its_fields_exist():
    assert len([name for name in TYPES if name not in LAYERS or LAYERS[name].dialect is None]) == 61
    for params in TYPES.values():
        assert all(param in LayerParameter.fields for param in params)


def test_every_layer_that_runs_can_be_written():
    assert LAYERS.keys() <= TYPES.keys()


# What is refused


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: layer("Convolutoin"), "there is no layer type 'Convolutoin'. Did you mean 'Convolution'?"),
        (
            lambda: conv(picture(), kernal_size=3),
            "Convolution: unknown field 'kernal_size'. Did you mean 'kernel_size'?",
        ),
        (lambda: conv(picture(), pool="MAX"), "Convolution: unknown field 'pool'."),
        (lambda: layer("ReLU", picture(), top="x"), "ReLU: unknown field 'top'."),
        (
            lambda: conv(picture(), param=[{"lr_mul": 1}]),
            "Convolution: unknown field 'lr_mul' in ParamSpec. Did you mean 'lr_mult'?",
        ),
        (
            lambda: layer("Convolution", picture(), convolution_param={"pads": 1}),
            "Convolution: unknown field 'pads' in ConvolutionParameter. Did you mean 'pad'?",
        ),
        (
            lambda: layer("Pooling", picture(), pool="MAXIMUM"),
            (
                "Pooling: wrong value for PoolingParameter.pool; got 'MAXIMUM', want one of MAX, AVE, STOCHASTIC."
                " Did you mean 'MAX'?"
            ),
        ),
        (
            lambda: layer("ReLU", layers("DummyData", ntop=2)),
            "ReLU: bottom 0 is not a top; got (<top 0 of DummyData>, <top 1 of DummyData>).",
        ),
        (lambda: layer("Input", in_place=True), "Input: in_place needs a bottom for each top; got 0, want 1."),
    ],
)
def test_a_wrong_call_is_refused_at_the_call(call, text: str):
    with pytest.raises(ReproductionError) as error:
        call()
    assert str(error.value) == text


def test_names_are_given_to_tops_alone_and_asked_for_by_the_right_name():
    n = NetSpec()
    with pytest.raises(NetError) as error:
        n["data"] = layers("DummyData", ntop=2)  # type: ignore[assignment] # the mistake
    assert str(error.value) == (
        "'data' must be assigned a top; got (<top 0 of DummyData>, <top 1 of DummyData>)."
        " A layer with several tops returns a tuple: assign each of them."
    )
    n["conv1"] = conv(picture())
    with pytest.raises(NetError) as error:
        n["conv2"]
    assert str(error.value) == "the net has no top 'conv2' yet. Did you mean 'conv1'?"


# Coordinate maps and crops


@given(st.integers(1, 8).map(lambda half: 2 * half))
def test_shrinking_and_growing_again_shifts_by_what_the_window_leaves(times: int):
    data, top = hourglass(shrink=times, grow=times)
    # A 3x3 convolution moves by 1, an n-fold deconvolution of 2n taps by n/2 back.
    assert shift(top, data) == 1 - Fraction(times, 2)


@given(st.integers(0, 10), st.integers(0, 10))
def test_padding_the_input_and_padding_the_upsampling_cancel(pad: int, grow_pad: int):
    plain = shift(*reversed(hourglass()))
    assert shift(*reversed(hourglass(pad=pad, grow_pad=grow_pad))) == plain - pad + grow_pad
    assert shift(*reversed(hourglass(pad=pad, grow_pad=pad))) == plain


def test_pointwise_layers_and_1x1_convolutions_move_nothing():
    data, top = hourglass()
    relu = layer("ReLU", top)
    same = [relu, conv(relu, 1), layer("Concat", relu, top), layer("Scale", top, picture())]
    for each in same:
        assert map_between(each, data).agrees(map_between(top, data))


def test_a_rectangular_net_maps_as_its_square_parts():
    high, wide = hourglass(3, 1, 0), hourglass(5, 2, 10)
    both = hourglass([3, 5], [1, 2], [0, 10])
    parts = [map_between(top, data) for data, top in (high, wide, both)]
    assert parts[2].scale == (parts[0].scale[0], parts[1].scale[0])
    assert parts[2].shift == (parts[0].shift[0], parts[1].shift[0])


def test_kernel_h_and_kernel_w_map_as_a_list_of_two():
    data = picture()
    sides = layer("Convolution", data, num_output=1, kernel_h=3, kernel_w=5, pad=1)
    assert map_between(sides, data).agrees(map_between(conv(data, [3, 5], pad=1), data))
    sides = layer("Pooling", data, kernel_h=3, kernel_w=5)
    assert map_between(sides, data).agrees(map_between(conv(data, [3, 5]), data))


def test_three_axes_map_as_two_do():
    data = layer("Input", shape={"dim": [1, 3, 50, 50, 50]})
    top = deconv(pool(conv(data, [3, 3, 3], pad=[0, 1, 2])))
    found = map_between(top, data)
    assert found.axis == 2
    assert set(found.scale) == {1}
    assert list(found.shift) == [0, -1, -2]


def test_each_top_of_a_wide_convolution_comes_from_its_own_bottom():
    data, aux = picture(), picture()
    tops = layers("Convolution", data, aux, ntop=2, num_output=1, kernel_size=5, stride=2)
    assert map_between(tops[0], data).agrees(map_between(tops[1], aux))
    with pytest.raises(NetError, match="no coordinate map"):
        map_between(tops[0], aux)


@given(st.integers(0, 20))
def test_a_crop_adds_its_offset_and_ignores_the_bottom_that_gives_its_size(offset: int):
    data, top = hourglass()
    cropped = layer("Crop", top, picture(), axis=2, offset=offset)
    assert shift(cropped, data) == shift(top, data) + offset
    again = layer("Crop", cropped, data, axis=2, offset=offset)
    assert shift(again, data) == shift(top, data) + 2 * offset


@given(st.integers(1, 60), st.sampled_from((2, 4, 8, 16)))
def test_a_crop_aligns_what_it_cropped(pad: int, times: int):
    data, top = hourglass(pad=pad, shrink=times, grow=times)
    if shift(top, data) > 0:
        return
    aligned = crop(top, data)
    assert aligned.function.type == "Crop"
    assert aligned.function.bottoms == (top, data)
    assert map_between(aligned, data).agrees(CoordMap())
    assert crop(aligned, data).function.layer_param.crop_param.offset == [0]


def test_a_crop_through_skips_agrees_along_all_paths():
    data = picture()
    fine = conv(data, pad=20)
    coarse = deconv(pool(fine))
    fused = layer("Eltwise", crop(coarse, data), crop(conv(fine, 1), data))
    assert crop(fused, data).function.layer_param.crop_param.offset == [0]


def test_a_crop_between_equal_sizes_is_one_of_nothing():
    data = picture()
    spec = crop(layer("ReLU", data), data).function.layer_param
    assert (spec.crop_param.axis, spec.crop_param.offset) == (2, [0])


def test_a_rectangular_crop_has_an_offset_for_each_axis():
    data, top = hourglass(pad=[1, 3])
    assert crop(top, data).function.layer_param.crop_param.offset == [1, 3]


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (
            lambda: hourglass(shrink=3, grow=2),
            (
                "the Deconvolution top and the Input top have different scales; got 3/2, want 1."
                " The strides down and up between them must cancel."
            ),
        ),
        (
            lambda: hourglass(grow_pad=10),
            (
                "cropping the Deconvolution top and the Input top needs a negative offset; got -10."
                " Pad the input more, or the deconvolution less."
            ),
        ),
        (
            lambda: hourglass(kernel=4, pad=7),
            (
                "cropping the Deconvolution top and the Input top needs an integer offset; got 13/2."
                " Make a kernel between them one pixel longer or shorter."
            ),
        ),
        (
            lambda: hourglass(kernel=[3, 4], pad=[1, 7]),
            (
                "cropping the Deconvolution top and the Input top needs an integer offset; got (1, 13/2)."
                " Make a kernel between them one pixel longer or shorter."
            ),
        ),
        (
            lambda: (picture(), picture()),
            (
                "no coordinate map leads from the Input top to the Input top."
                " They need a common ancestor, through layers that keep pixels in place."
            ),
        ),
        (
            lambda: after_picture(lambda data: layer("InnerProduct", data, num_output=1)),
            (
                "no coordinate map leads from the InnerProduct top to the Input top."
                " They need a common ancestor, through layers that keep pixels in place."
            ),
        ),
        (
            lambda: after_picture(lambda data: layer("Pooling", data, global_pooling=True)),
            (
                "no coordinate map leads from the Pooling top to the Input top."
                " They need a common ancestor, through layers that keep pixels in place."
            ),
        ),
        (
            lambda: after_picture(lambda data: layer("Concat", data, data, axis=2)),
            (
                "no coordinate map leads from the Concat top to the Input top."
                " They need a common ancestor, through layers that keep pixels in place."
            ),
        ),
        (
            lambda: after_picture(lambda data: layer("Eltwise", conv(data), conv(data, pad=1))),
            (
                "paths from the Eltwise top to the Input top disagree; got shifts 0 and 1."
                " Crop the branches to each other before they are joined."
            ),
        ),
    ],
)
def test_a_crop_that_cannot_be_proved_is_an_error_with_its_numbers(pair, text: str):
    data, top = pair()
    with pytest.raises(NetError) as error:
        crop(top, data)
    assert str(error.value) == text


def test_many_paths_that_disagree_are_walked_in_little_time():
    top = data = picture()
    for _ in range(60):
        top = layer("Eltwise", conv(top), conv(top, pad=1))
    with pytest.raises(NetError, match="disagree"):
        crop(top, data)


def test_what_lies_behind_the_common_ancestor_does_not_matter():
    data = picture()
    mixed = layer("Eltwise", conv(data), conv(data, pad=1))
    assert crop(conv(mixed, pad=1), mixed).function.layer_param.crop_param.offset == [0]


def test_tops_show_what_made_them():
    assert re.fullmatch("<top 0 of Input>", repr(picture()))

"""Surgery: copying weights into nets of another shape, and the initial weights of every published net."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import blobs, caffemodel, prototxt
from reproduction.caffe.net.copy_weights import ReshapedBlob
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import BlobProto, LayerParameter, NetParameter, Phase
from reproduction.fcn.nets import mini_nets, net_files, published_nets, surgery
from tests.helpers import thin_nets


def net(text: str) -> Net:
    return Net(prototxt.loads(text, NetParameter))


def conv(name: str, inputs: int, outputs: int, kernel: int = 1, more: str = "") -> Net:
    return net(f"""
        layer {{ name: "in" type: "Input" top: "in" input_param {{ shape {{ dim: 1 dim: {inputs} dim: 9 dim: 9 }} }} }}
        layer {{ name: "{name}" type: "Convolution" bottom: "in" top: "{name}"
                convolution_param {{ num_output: {outputs} kernel_size: {kernel} {more} }} }}""")


def up(channels: int, outputs: int, more: str) -> Net:
    return net(f"""
        layer {{ name: "in" type: "Input" top: "in"
                input_param {{ shape {{ dim: 1 dim: {channels} dim: 3 dim: 3 }} }} }}
        layer {{ name: "up" type: "Deconvolution" bottom: "in" top: "up"
                convolution_param {{ num_output: {outputs} bias_term: false {more} }} }}""")


def weights(**arrays: tuple[np.ndarray, ...] | list[np.ndarray]) -> NetParameter:
    layers = [
        LayerParameter(name=name, blobs=[blobs.from_array(np.asarray(a, np.float32)) for a in values])
        for name, values in arrays.items()
    ]
    return NetParameter(layer=layers)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def values(a_net: Net, layer: str, i: int = 0) -> np.ndarray:
    return a_net.params[layer][i].detach().numpy()


# Transplant


CLASSIFIER = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 7 } } }
    layer { name: "fc6" type: "InnerProduct" bottom: "data" top: "fc6"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } bias_filler { type: "xavier" } } }
    layer { name: "fc7" type: "InnerProduct" bottom: "fc6" top: "fc7"
            inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
    layer { name: "fc8" type: "InnerProduct" bottom: "fc7" top: "fc8" inner_product_param { num_output: 2 } }"""

CONVOLUTIONAL = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 7 } } }
    layer { name: "fc6" type: "Convolution" bottom: "data" top: "fc6"
            convolution_param { num_output: 5 kernel_size: 7 } }
    layer { name: "fc7" type: "Convolution" bottom: "fc6" top: "fc7"
            convolution_param { num_output: 4 kernel_size: 1 } }
    layer { name: "score" type: "Convolution" bottom: "fc7" top: "score"
            convolution_param { num_output: 2 kernel_size: 1 } }"""


def test_a_classifier_made_convolutional_computes_the_same():
    old, new = net(CLASSIFIER), net(CONVOLUTIONAL)
    report = surgery.transplant(new, old)
    assert report.copied == ["fc6", "fc7"]
    assert report.reshaped == [
        ReshapedBlob("fc6", 0, (5, 147), (5, 3, 7, 7)),
        ReshapedBlob("fc7", 0, (4, 5), (4, 5, 1, 1)),
    ]
    assert (report.ignored, report.untouched) == (["fc8"], ["score"])
    assert str(report) == (
        "2 layers copied; reshaped: fc6 0 (5, 147) -> (5, 3, 7, 7), fc7 0 (4, 5) -> (4, 5, 1, 1); ignored: fc8; "
        "untouched: score"
    )
    data = torch.randn(2, 3, 7, 7)
    want, got = (each({"data": data}, blobs=["fc7"])["fc7"] for each in (old, new))
    torch.testing.assert_close(got[:, :, 0, 0], want)


def test_weights_of_a_file_go_the_same_way_as_those_of_a_net():
    old, new, again = net(CLASSIFIER), net(CONVOLUTIONAL), net(CONVOLUTIONAL)
    file = caffemodel.loads(caffemodel.dumps(old.to_proto()), NetParameter)
    assert surgery.transplant(new, file) == surgery.transplant(again, old)
    assert np.array_equal(values(new, "fc6"), values(again, "fc6"))
    assert values(new, "fc6").any()


def test_four_axes_of_an_old_file_are_no_other_shape():
    bias = blobs.from_array(normal(6))
    old = BlobProto(num=1, channels=1, height=1, width=6, data=bias.data)
    source = weights(c=[normal(6, 3, 1, 1)])
    source.layer[0].blobs.append(old)
    target = conv("c", 3, 6)
    assert surgery.transplant(target, source).reshaped == []
    assert np.array_equal(values(target, "c", 1), bias.data)


def test_a_suffix_ends_the_targets_names():
    target = conv("conv1color", 3, 2)
    report = surgery.transplant(target, weights(conv1=[normal(2, 3, 1, 1), normal(2)]), suffix="color")
    assert (report.copied, report.ignored) == (["conv1color"], [])


def test_blobs_that_one_side_lacks_are_left_out():
    target = conv("c", 3, 2, more="bias_term: false")
    assert surgery.transplant(target, weights(c=[normal(2, 3, 1, 1), normal(2)])).ignored == ["c 1"]
    target = conv("c", 3, 2, more='bias_filler { type: "constant" value: 3 }')
    assert surgery.transplant(target, weights(c=[normal(2, 3, 1, 1)])).copied == ["c"]
    assert values(target, "c", 1).tolist() == [3, 3]


def test_another_count_is_refused_and_nothing_is_changed():
    source = weights(a=[normal(2, 3, 1, 1)], c=[normal(2, 3)])
    target = conv("c", 3, 4)
    with pytest.raises(ReproductionError) as error:
        surgery.transplant(target, source)
    assert str(error.value) == (
        "layer 'c' blob 0 has another number of elements; got (2, 3), want as many as (4, 3, 1, 1)."
    )
    assert not values(target, "c").any()


def test_weights_of_another_net_are_refused():
    with pytest.raises(ReproductionError) as error:
        surgery.transplant(conv("c", 3, 4), weights(a=[normal(2)], b=[normal(2)]))
    assert str(error.value) == (
        "no layer of these weights has the name of a layer of the net; got a, b, want c. They belong to another net."
    )


# Interpolation


@pytest.mark.parametrize(
    ("size", "taps"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_the_kernel_falls_linearly_from_its_middle(size, taps):
    kernel = surgery.upsample_filt(size)
    assert kernel.dtype == np.float64
    np.testing.assert_allclose(kernel, np.outer(taps, taps), rtol=1e-15)


@pytest.mark.parametrize("size", [2, 4, 5, 16, 32, 63, 64])
def test_the_kernel_is_the_bilinear_fillers(size):
    filled = up(1, 1, f'kernel_size: {size} weight_filler {{ type: "bilinear" }}')
    np.testing.assert_allclose(values(filled, "up")[0, 0], surgery.upsample_filt(size), atol=1e-6)


def test_every_deconvolution_leads_each_channel_to_itself():
    a_net = up(3, 3, 'kernel_size: 4 stride: 2 weight_filler { type: "constant" value: 7 }')
    assert surgery.interp(a_net) == ["up"]
    kernel = surgery.upsample_filt(4).astype(np.float32)
    for i in range(3):
        for j in range(3):
            assert np.array_equal(values(a_net, "up")[i, j], kernel if i == j else np.full((4, 4), 7))


def test_a_layer_with_a_group_for_each_channel_interpolates_too():
    a_net = up(3, 3, "kernel_size: 4 stride: 2 group: 3")
    surgery.interp(a_net, ["up"])
    assert np.array_equal(values(a_net, "up"), np.tile(surgery.upsample_filt(4).astype(np.float32), (3, 1, 1, 1)))
    ones = a_net({"in": torch.ones(1, 3, 3, 3)})["up"]
    assert bool((ones[:, :, 2:-2, 2:-2] == 1).all())


@pytest.mark.parametrize(
    ("a_net", "layers", "problem"),
    [
        (
            up(3, 2, "kernel_size: 4"),
            None,
            (
                "layer 'up': a layer that interpolates has as many outputs as inputs, or one output a group; "
                "got (3, 2, 4, 4), want (C, C, K, K) or (C, 1, K, K)."
            ),
        ),
        (
            up(2, 2, "kernel_h: 4 kernel_w: 2"),
            None,
            "layer 'up': only square kernels interpolate; got (2, 2, 4, 2), want (C, C, K, K) or (C, 1, K, K).",
        ),
        (up(2, 2, "kernel_size: 4"), ["upp"], "layer 'upp': there is no blob 0 to write into. Did you mean 'up'?"),
        (up(2, 2, "kernel_size: 4"), ["up", "in"], "layer 'in': there is no blob 0 to write into."),
    ],
)
def test_a_layer_that_cannot_interpolate_is_an_error(a_net, layers, problem):
    with pytest.raises(ReproductionError) as error:
        surgery.interp(a_net, layers)
    assert str(error.value) == problem
    assert not values(a_net, "up").any()


# More classes, more channels


def test_a_score_layer_becomes_the_first_classes_of_a_larger_one():
    target, old = conv("new", 3, 6), (normal(4, 3, 1, 1), normal(4))
    for source in (weights(score=old), weights(score=[old[0], old[1].reshape(1, 1, 1, 4)])):
        surgery.expand_score(target, "new", source, "score")
        assert np.array_equal(values(target, "new")[:4], old[0])
        assert np.array_equal(values(target, "new", 1)[:4], old[1])
        assert not values(target, "new")[4:].any()


@pytest.mark.parametrize(
    ("new", "old", "problem"),
    [
        (
            "new",
            "scor",
            "the weights have no layer 'scor'. Did you mean 'score'?",
        ),
        ("newer", "score", "layer 'newer': there is no blob 0 to write into. Did you mean 'new'?"),
        (
            "new",
            "wide",
            "layer 'wide' blob 0 does not fit into layer 'new'; got (2, 4, 1, 1), want (6, 3, 1, 1), or fewer classes.",
        ),
        (
            "new",
            "more",
            "layer 'more' blob 0 does not fit into layer 'new'; got (7, 3, 1, 1), want (6, 3, 1, 1), or fewer classes.",
        ),
    ],
)
def test_a_score_layer_that_does_not_fit_is_an_error(new, old, problem):
    source = weights(score=[normal(4, 3, 1, 1)], wide=[normal(2, 4, 1, 1)], more=[normal(7, 3, 1, 1)])
    with pytest.raises(ReproductionError) as error:
        surgery.expand_score(conv("new", 3, 6), new, source, old)
    assert str(error.value) == problem


def test_a_fourth_channel_starts_as_the_mean_of_the_three():
    target, old = conv("c_bgrd", 4, 5, 3), (normal(5, 3, 3, 3), normal(5))
    surgery.widen_input(target, "c_bgrd", weights(c=old), "c")
    assert np.array_equal(values(target, "c_bgrd")[:, :3], old[0])
    assert np.array_equal(values(target, "c_bgrd")[:, 3], np.mean(old[0], axis=1))
    assert np.array_equal(values(target, "c_bgrd", 1), old[1])


WIDEN = "layer 'c' does not widen to layer 'd'"


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ([normal(5, 3, 1, 1)], f"{WIDEN}; got (5, 3, 1, 1), want (5, 4, 3, 3), or fewer channels."),
        ([normal(5, 5, 3, 3)], f"{WIDEN}; got (5, 5, 3, 3), want (5, 4, 3, 3), or fewer channels."),
        ([normal(5, 3, 3, 3), normal(4)], "layer 'c' blob 1 does not fit layer 'd'; got (4,), want (5,)."),
    ],
)
def test_a_convolution_that_does_not_widen_is_an_error(arrays, problem):
    target = conv("d", 4, 5, 3)
    with pytest.raises(ReproductionError) as error:
        surgery.widen_input(target, "d", weights(c=arrays), "c")
    assert str(error.value) == problem
    assert not values(target, "d").any()


# The start of every net's training

DIVISOR = 16  # what AlexNet's groups allow


def narrow(name: str) -> Net:
    """The net, 16 times as narrow, as it is built for training: zero but for constant fillers."""
    return Net(thin_nets.deploy(name, DIVISOR), Phase.TRAIN)


@functools.cache
def imagenet(trunk: str) -> NetParameter:
    """Weights of a narrow classifier under VGG16's or CaffeNet's names, with its InnerProduct layers."""
    name = {"vgg16": "voc-fcn32s", "caffenet": "voc-fcn-alexnet"}[trunk]
    message = thin_nets.net(name, DIVISOR).to_proto()
    kept = [layer for layer in message.layer if layer.blobs and not layer.name.startswith(("score", "up"))]
    for layer in kept:
        if layer.name.startswith("fc"):
            matrix = blobs.to_array(layer.blobs[0]).reshape(len(blobs.to_array(layer.blobs[1])), -1)
            layer.blobs[0] = blobs.from_array(matrix)
    fc8 = LayerParameter(name="fc8", blobs=[blobs.from_array(normal(10, 256)), blobs.from_array(normal(10))])
    return NetParameter(layer=[*kept, fc8])


@functools.cache
def parent_weights(name: str) -> NetParameter:
    return imagenet(name) if name in ("vgg16", "caffenet") else thin_nets.net(name, DIVISOR).to_proto()


def start(name: str) -> tuple[Net, surgery.InitReport]:
    a_net, row = narrow(name), published_nets.NETS[name]
    return a_net, surgery.initialize(a_net, row, {parent: parent_weights(parent) for parent in row.parents})


FRESH = {
    "voc-fcn32s": ["score_fr"],
    "voc-fcn16s": ["score_pool4"],
    "voc-fcn8s": ["score_pool3"],
    "voc-fcn8s-atonce": ["score_fr", "scale_pool4", "score_pool4", "scale_pool3", "score_pool3"],
    "voc-fcn-alexnet": ["score_fr"],
    "nyud-fcn32s-color": ["score_fr"],
    "nyud-fcn32s-color-d": ["score_fr"],
    "nyud-fcn32s-hha": ["score_fr"],
    "nyud-fcn32s-color-hha": [],
    "siftflow-fcn32s": ["score_fr_sem", "score_fr_geo"],
    "siftflow-fcn16s": ["score_pool4_sem", "score_pool4_geo"],
    "siftflow-fcn8s": ["score_pool3_sem", "score_pool3_geo"],
    "pascalcontext-fcn32s": ["score_fr"],
    "pascalcontext-fcn16s": ["score_pool4"],
    "pascalcontext-fcn8s": ["score_pool3"],
}


@pytest.mark.parametrize("name", FRESH)
def test_a_published_net_starts_with_weights_in_every_layer_but_the_new(name: str):
    a_net, report = start(name)
    assert report.new == FRESH[name]
    assert sorted(report.new) == sorted(surgery.find_new_layers(published_nets.NETS[name]))
    for layer in a_net.params:
        if layer.startswith("scale_"):
            assert values(a_net, layer).std() == 0
            assert values(a_net, layer)[0] == np.float32(0.01 if layer == "scale_pool4" else 0.0001)
        elif layer in report.new:
            assert not any(values(a_net, layer, i).any() for i in range(2)), layer
        else:
            assert values(a_net, layer).any(), layer
    assert report.interpolated == [layer for layer in a_net.params if "up" in layer]
    assert report.widened == (["conv1_1_bgrd"] if name == "nyud-fcn32s-color-d" else [])


def test_the_table_of_new_layers_is_for_every_net():
    assert FRESH.keys() == published_nets.NETS.keys()


def test_each_picture_of_a_late_fusion_starts_from_its_own_net():
    a_net, report = start("nyud-fcn32s-color-hha")
    for what in ("color", "hha"):
        parent = thin_nets.net(f"nyud-fcn32s-{what}", DIVISOR)
        for layer in ("conv1_1", "fc7", "score_fr"):
            assert np.array_equal(values(a_net, layer + what), values(parent, layer)), layer
        assert report.transplants[f"nyud-fcn32s-{what}"].ignored == ["upscore"]


def test_depth_starts_as_the_mean_of_the_colours():
    a_net, report = start("nyud-fcn32s-color-d")
    first = blobs.to_array(imagenet("vgg16").layer[0].blobs[0])
    assert np.array_equal(values(a_net, "conv1_1_bgrd")[:, 3], first.mean(axis=1))
    assert report.transplants["vgg16"].ignored == ["conv1_1", "fc8"]


def test_a_stage_computes_what_the_stage_before_does_but_for_the_way_up():
    before, (after, report) = thin_nets.net("voc-fcn32s", DIVISOR), start("voc-fcn16s")
    data = torch.randn(1, 3, 40, 50)
    want, got = (each.eval()({"data": data}, blobs=["score_fr"])["score_fr"] for each in (before, after))
    assert torch.equal(want, got)
    assert str(report).splitlines()[1:] == ["interpolated: upscore2, upscore16", "new: score_pool4"]


def test_the_mini_nets_start_like_their_models():
    classifier = Net(mini_nets.build_classifier_deploy(), seed=1)
    parent = classifier
    for row in mini_nets.NETS.values():
        a_net = Net(net_files.build_deploy(row), Phase.TRAIN)
        report = surgery.initialize(a_net, row, {name: parent.to_proto() for name in row.parents})
        assert report.new == surgery.find_new_layers(row)
        assert [str(blob) for blob in report.transplants[next(iter(row.parents))].reshaped] == (
            ["fc6 0 (96, 2352) -> (96, 48, 7, 7)", "fc7 0 (96, 96) -> (96, 96, 1, 1)"] if parent is classifier else []
        )
        parent = a_net


@pytest.mark.parametrize(
    ("name", "parents", "problem"),
    [
        (
            "voc-fcn16s",
            {"vgg16": "vgg16"},
            "voc-fcn16s starts from the weights of other nets; got vgg16, want voc-fcn32s.",
        ),
        (
            "voc-fcn16s",
            {"voc-fcn32s": "vgg16"},
            (
                "layer 'score_fr' of voc-fcn16s is not in the weights of voc-fcn32s; got conv1_1, conv1_2, conv2_1, "
                "conv2_2 and 12 more. They belong to another net, or to an earlier stage."
            ),
        ),
        (
            "voc-fcn8s",
            {"voc-fcn16s": "voc-fcn32s"},
            (
                "layer 'score_pool4' of voc-fcn8s is not in the weights of voc-fcn16s; got conv1_1, conv1_2, conv2_1, "
                "conv2_2 and 13 more. They belong to another net, or to an earlier stage."
            ),
        ),
        (
            "nyud-fcn32s-hha",
            {"vgg16": "caffenet"},
            (
                "layer 'conv1_2' of nyud-fcn32s-hha is not in the weights of vgg16; got conv1, conv2, conv3, conv4 and "
                "4 more. They belong to another net, or to an earlier stage."
            ),
        ),
        (
            "nyud-fcn32s-color-hha",
            {"nyud-fcn32s-color": "nyud-fcn32s-color"},
            (
                "nyud-fcn32s-color-hha starts from the weights of other nets; got nyud-fcn32s-color, want "
                "nyud-fcn32s-color, nyud-fcn32s-hha."
            ),
        ),
        (
            "pascalcontext-fcn16s",
            {"pascalcontext-fcn32s": "voc-fcn32s"},
            (
                "pascalcontext-fcn16s from pascalcontext-fcn32s: layer 'score_fr' blob 0 has another number of "
                "elements; got (21, 256, 1, 1), want as many as (60, 256, 1, 1)."
            ),
        ),
    ],
)
def test_weights_that_a_net_does_not_start_from_are_refused(name, parents, problem):
    a_net = narrow(name)
    with pytest.raises(ReproductionError) as error:
        surgery.initialize(
            a_net, published_nets.NETS[name], {want: parent_weights(got) for want, got in parents.items()}
        )
    assert str(error.value) == problem
    assert not values(a_net, next(iter(a_net.params))).any()

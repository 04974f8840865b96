"""Architecture figures: every tap, offset and size is named, nothing overlaps, and any net can be drawn."""

import itertools
from xml.etree import ElementTree

import pytest

from reproduction import figure
from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.nets import registry, systems
from reproduction.figure.shapes import Rect
from tests.helpers.paths import GOLDEN

ASCII = str.maketrans({"\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-", "\N{SUPERSCRIPT TWO}": "^2"})
SVG = "{http://www.w3.org/2000/svg}"
# One net of each structure.
DRAWN = [*systems.NETS, "voc-fcn16s", "voc-fcn8s-atonce", "voc-fcn-alexnet", "nyud-fcn32s-color-hha", "siftflow-fcn8s"]
RESIDUAL = """
name: "residual"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 64 dim: 64 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 stride: 2 } }
""" + "".join(  # two residual units, of which the second has three branches
    f"""
layer {{ name: "{unit}_a" type: "Convolution" bottom: "{before}" top: "{unit}_a"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 }} }}
layer {{ name: "{unit}_relu" type: "ReLU" bottom: "{unit}_a" top: "{unit}_a" }}
layer {{ name: "{unit}_b" type: "Convolution" bottom: "{unit}_a" top: "{unit}_b"
  convolution_param {{ num_output: 8 kernel_size: 3 pad: 1 }} }}
layer {{ name: "{unit}" type: "Eltwise" bottom: "{before}" bottom: "{unit}_b" top: "{unit}" }}
layer {{ name: "{unit}_out" type: "ReLU" bottom: "{unit}" top: "{unit}" }}"""
    for before, unit in (("conv1", "res1"), ("res1", "res2"), ("res2", "res3"))
)


def load(name, side=None):
    return figure.load_training_net(registry.NETS[name], side)


def texts(net_param, inputs=None):
    """Return the texts of a figure in ASCII, and check that it is well-formed."""
    root = ElementTree.fromstring(figure.draw_net(net_param, inputs=inputs))
    assert root.tag == f"{SVG}svg"
    return [text.text.translate(ASCII) for text in root.iter(f"{SVG}text")]


def overlaps(drawing):
    """Yield the pairs of shapes that overlap, and those outside of the drawing."""
    boxes = [(box.style, box.rect) for box in drawing.boxes]
    written = [(text.text, text.rect) for text in drawing.texts]
    wires = [("wire", rect) for line in drawing.lines for rect in line.rects]
    solid = boxes + [(name, text) for (name, text) in written if not inside_a_box(text, drawing)]
    for (name, one), (other, two) in itertools.combinations(solid, 2):
        if one.overlaps(two):
            yield name, other
    for name, one in solid:
        if one.left < 0 or one.top < 0 or one.right > drawing.width or one.bottom > drawing.height:
            yield name, "the edge"
        for _, wire in wires:
            if one.overlaps(Rect(wire.left + 1, wire.top + 1, wire.right - 1, wire.bottom - 1)):
                yield name, "a wire"


def inside_a_box(text, drawing):
    """Return whether a text is the sign in a join, a loss or another layer."""
    return any(box.rect.overlaps(text) for box in drawing.boxes if box.style in ("join", "loss", "other"))


def draw(name):
    net_param, inputs = load(name)
    return figure.find_net_drawing(net_param, inputs=inputs)


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_overlaps(name):
    assert not list(overlaps(draw(name)))


def test_a_published_net_shows_its_taps_offsets_and_sizes():
    shown = texts(*load("voc-fcn8s"))
    assert {"pool3", "pool4", "score_pool3", "score_pool4", "score_fr", "fuse_pool3", "fuse_pool4"} <= {*shown}
    assert [text for text in shown if text.startswith("crop")] == [
        "crop 5",
        "crop 9",
        "crop 31",
        "crop: offset in pixels",
    ]
    # The sizes of the score maps of a 500 x 500 image; FCN's texts print 16, 34 and 70.
    assert {"21 x 16^2", "21 x 34^2", "21 x 70^2", "21 x 568^2", "21 x 500^2"} <= {*shown}
    assert {"conv5_1-3", "3 conv 3x3", "pad 100", "x8, kernel 16", "fixed", "sum over pixels"} <= {*shown}
    assert "134,362,751 learned parameters; receptive field 404 px; stride 32" in shown
    assert [text for text in shown if text.startswith("stride")] == [f"stride {2**level}" for level in range(6)]


def test_factors_of_an_at_once_net_are_shown():
    assert {"x 0.01", "x 0.0001"} <= {*texts(*load("voc-fcn8s-atonce"))}


def test_inputs_and_outputs_of_several_kinds_are_shown():
    assert {"color", "hha", "score_fused", "fc6-7hha"} <= {*texts(*load("nyud-fcn32s-color-hha"))}
    assert {"33 x 500^2", "3 x 500^2", "score_sem", "score_geo"} <= {*texts(*load("siftflow-fcn8s"))}


def test_concatenations_and_learned_upsampling_are_shown():
    shown = texts(prototxt.load_net(GOLDEN / "unet.prototxt")[0])
    assert shown.count("concat") == 4
    assert "learned" in shown


def test_residual_units_are_drawn_together():
    net_param = prototxt.loads(RESIDUAL, NetParameter)
    shown = texts(net_param)
    assert {"res1-3", "3 residual units", "8 x 32^2", "conv1", "stride 2"} <= {*shown}
    assert "res2_a" not in shown
    widths = [
        box.rect.right - box.rect.left for box in figure.find_net_drawing(net_param).boxes if box.style == "module"
    ]
    assert len(widths) == 3 + 1  # and one in the legend


def test_a_tap_ends_a_group():
    tap = """layer { name: "score" type: "Convolution" bottom: "res2" top: "score"
        convolution_param { num_output: 2 kernel_size: 1 } }"""
    shown = texts(prototxt.loads(RESIDUAL + tap, NetParameter))
    assert {"res1-2", "res3", "score", "2 x 32^2"} <= {*shown}


def test_a_classifier_has_a_lane_of_vectors():
    assert {"vectors", "fc6-7", "fully connected"} <= {*texts(registry.load_net("mini-vgg", "train.prototxt"))}


def test_names_from_a_file_stay_text():
    net_param = prototxt.loads(
        RESIDUAL.replace('top: "conv1"', 'top: "a<b>&\\"c"').replace('"conv1"', '"a<b>&\\"c"'), NetParameter
    )
    net_param.name = "<script>alert(1)</script>\x1b"
    assert {'a<b>&"c'} <= {*texts(net_param)}
    assert "<script" not in figure.draw_net(net_param)


def test_many_equal_layers_are_one_group():
    layers = [f'layer {{ name: "c{n}" type: "Convolution" bottom: "c{n - 1}" top: "c{n}" convolution_param'
              f" {{ num_output: 4 kernel_size: 3 pad: 1 }} }}" for n in range(1, 100)]  # fmt: skip
    net_param = prototxt.loads(
        RESIDUAL.partition('layer { name: "conv1"')[0].replace('"data"', '"c0"') + "".join(layers), NetParameter
    )
    shown = texts(net_param)
    assert {"c1-99", "99 conv 3x3"} <= {*shown}

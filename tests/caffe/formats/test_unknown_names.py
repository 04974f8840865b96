"""Names that Caffe does not know are all listed at once, and only likely typing errors get a suggestion."""

import pytest

from reproduction.caffe.errors import NetError, PrototxtError, spelling_hint
from reproduction.caffe.formats import prototxt, upgrade
from reproduction.caffe.layers import LAYERS, UNSUPPORTED
from reproduction.caffe.net import graph, netspec
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.caffe.schema.types import TYPES

FORK = """
layer { name: "a" type: "Wavelet" bottom: "x" top: "a" wavelet_param { height: 3 deep { on: [1, { }] s: 'a' "b" } } }
layer { name: "b" type: "Curvelet" bottom: "a" top: "b" curvelet_param: < slope_filler { type: "constant" } > }
layer { name: "c" type: "Convolution" bottom: "b" top: "c" convolution_param { kernal_size: -3; num_output: 2 } }
layer { name: "d" type: "Curvelet" bottom: "c" top: "d" curvelet_param { } norm: true }
layer { name: "e" type: "Curvelet" curvelet_param { } }
layer { name: "f" type: "Curvelet" curvelet_param { } }
"""


def refused(text: str, message: type = NetParameter) -> str:
    with pytest.raises(PrototxtError) as error:
        prototxt.loads(text, message, "n.prototxt")
    assert error.value.args == (str(error.value),)
    return str(error.value)


def test_unknown_fields_and_types_are_one_error_with_the_place_of_the_first():
    assert refused(FORK) == (
        "n.prototxt:2:56: unknown field 'wavelet_param' in LayerParameter. A fork of Caffe may have it. "
        "Also unknown: 'curvelet_param' in LayerParameter (lines 3, 5, 6 and 1 more), "
        "'kernal_size' in ConvolutionParameter (line 4), 'norm' in LayerParameter (line 5), "
        "layer type 'Wavelet' (line 2), layer type 'Curvelet' (lines 3, 5, 6 and 1 more)."
    )


def test_one_unknown_field_is_said_as_ever():
    assert refused('layer { nam: "a" }') == (
        "n.prototxt:1:9: unknown field 'nam' in LayerParameter. Did you mean 'name'?"
    )
    assert refused("base_lr: 1 warmup: 3", SolverParameter).endswith(": unknown field 'warmup' in SolverParameter.")


def test_unknown_types_of_v1_are_listed_too():
    text = "layers { type: WARP }\nlayers { type: RELU }\nlayers { type: WAVELET zoom: 2 }\nlayers { type: RELU9 }"
    assert refused(text) == (
        "n.prototxt:1:16: wrong value for V1LayerParameter.type; got 'WARP', want a name of V1LayerType. "
        "Newer types are written 'layer { type: \"Name\" }'. "
        "Also unknown: layer type 'WAVELET' (line 3), 'zoom' in V1LayerParameter (line 3), layer type 'RELU9' (line 4)."
    )


def test_the_list_has_an_end():
    text = "".join(f"layer {{ x{i}: 1 name: 'a' type: 'ReLU' }}\n" for i in range(5000))
    said = refused(text)
    assert said.startswith("n.prototxt:1:9: unknown field 'x0' in LayerParameter. Also unknown: 'x1' in")
    assert said.endswith("'x20' in LayerParameter (line 21) and 980 more.")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("layer { foo: 1 ", "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
        ("layer { foo { bar: ] } }", "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
        ("layer { foo { bar: [ }", "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
        ("layer { foo bar: 1 }", "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
        ("layer { foo: } layer { name: 3 }", "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
        ("layer { foo: 'a }", "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
        ("layer { foo: " + "{ a: " * 100_000, "n.prototxt:1:9: unknown field 'foo' in LayerParameter."),
    ],
    ids=range(7),
)
def test_of_what_cannot_be_skipped_the_unknown_field_is_named(text, start):
    assert refused(text).startswith(start)


def test_after_a_block_that_is_not_closed_nothing_is_listed():
    text = 'layer { name: "a" type: "ReLU" relu_param { engine: CAFFE bottom: "x" top: "y" foo: 1 }'
    assert refused(text) == (
        "n.prototxt:1:59: unknown field 'bottom' in ReLUParameter. It is a field of LayerParameter: "
        "is the block 'relu_param' of line 1 closed?"
    )


def test_unknown_types_of_a_net_are_one_error_with_the_place_of_the_first():
    text = "".join(
        f'layer {{ name: "{name}" type: "{kind}" {rule} }}\n'
        for name, kind, rule in [
            ("a", "Parameter", ""), ("b", "Wavelet", ""), ("c", "Curvelet", "include { phase: TRAIN }"),
            ("d", "Warp", ""), ("e", "Wavelet", ""), ("f", "Wavelet", ""),
        ]
    )  # fmt: skip
    with pytest.raises(NetError) as error:
        graph.build_graph(prototxt.loads(text, NetParameter))
    assert str(error.value) == (
        "layer 'b' (Wavelet), line 2: unknown layer type 'Wavelet'. "
        "Also unknown: layer type 'Warp' (line 4), layer type 'Wavelet' (lines 5, 6)."
    )


def test_unknown_types_of_v0_are_listed_too():
    text = "".join(f'layers {{ layer {{ name: "{kind}" type: "{kind}" }} }}\n' for kind in ("relu", "bn", "up", "bn"))
    with pytest.raises(NetError) as error:
        upgrade.upgrade_net(prototxt.loads(text, NetParameter))
    assert str(error.value) == (
        "layer 'bn' (bn), line 2: unknown type. Also unknown: layer type 'up' (line 3), layer type 'bn' (line 4)."
    )


def test_the_types_that_are_known_are_those_of_the_layers():
    assert TYPES.keys() == LAYERS.keys() | UNSUPPORTED.keys()


@pytest.mark.parametrize(
    "kind",
    [
        "CReLU",
        "HSwish",
        "NDConvolution",
        "Convolution3D",
        "Mish",
        "GroupNorm",
        "CoordConv",
    ],
)
def test_a_type_of_a_fork_is_no_typing_error(kind):
    assert spelling_hint(kind, TYPES) == ""
    with pytest.raises(NetError, match=f"^there is no layer type '{kind}'.$"):
        netspec.layer(kind)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("Convolutoin", "Convolution"), ("Relu", "ReLU"), ("Conv", "Convolution"), ("Elwise", "Eltwise"),
     ("Dopout", "Dropout"), ("SoftMax", "Softmax"), ("InnerProducts", "InnerProduct"), ("lrn", "LRN")],
)  # fmt: skip
def test_a_typing_error_gets_a_suggestion(written, meant):
    assert spelling_hint(written, TYPES) == f"Did you mean {meant!r}?"

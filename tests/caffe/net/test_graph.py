"""The order of layers: rules, splits, slots, and the errors of Caffe."""

import pytest

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import graph
from reproduction.caffe.schema import NetParameter, NetState, Phase

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }\n'


def build(text: str, phase: Phase | None = Phase.TEST, level=0, stages=(), fed=None) -> graph.Graph:
    state = None if phase is None else NetState(phase=phase, level=level, stage=list(stages))
    return graph.build_graph(prototxt.loads(text, NetParameter), state, fed=fed)


def names(text: str, phase: Phase | None = Phase.TEST, **state) -> list[str]:
    return [node.name for node in build(text, phase, **state).nodes]


def relu(name: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "{bottom}" top: "{top}" {more} }}\n'


@pytest.mark.parametrize(
    ("rule", "state", "kept"),
    [
        ("include { phase: TRAIN }", {"phase": Phase.TEST}, False),
        ("include { phase: TRAIN }", {"phase": Phase.TRAIN}, True),
        ("exclude { phase: TEST }", {"phase": Phase.TEST}, False),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ["a"]}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ["b", "a"]}, True),
        ('include { not_stage: "a" }', {"stages": ["a"]}, False),
        ('include { not_stage: "a" }', {}, True),
        ('include { stage: "a" } include { phase: TEST }', {}, True),
        ('exclude { stage: "a" } exclude { phase: TRAIN }', {"stages": ["a"]}, False),
    ],
)
def test_rules_choose_layers_as_caffe_does(rule, state, kept):
    assert ("r" in names(INPUT + relu("r", "x", "y", rule), **state)) is kept


def test_the_state_of_the_net_itself_counts_when_no_phase_is_given():
    text = 'state { phase: TRAIN stage: "deep" }' + INPUT + relu("r", "x", "y", 'include { stage: "deep" }')
    built = build(text, None)
    assert built.state.phase is Phase.TRAIN
    assert [node.name for node in built.nodes] == ["in", "r"]


@pytest.mark.parametrize(
    ("own", "state", "kept"),
    [
        ('stage: "a"', {"phase": Phase.TRAIN}, ["a", "train"]),  # a phase from the caller keeps the stages of the net
        ('stage: "a"', {"stages": ["b"]}, ["a", "b"]),  # the caller's stages are added
        ("level: 2", {}, []),  # the caller's level, 0 by default, replaces that of the net
        ("level: 2", {"level": 3}, ["deep"]),
        ("phase: TRAIN", {"phase": Phase.TEST}, []),
        ('phase: TRAIN level: 2 stage: "a"', {"phase": None, "level": 0}, ["a", "deep", "train"]),
    ],
)
def test_the_callers_state_is_merged_over_that_of_the_net_as_in_caffe(own, state, kept):
    text = f"state {{ {own} }} {INPUT}"
    text += relu("a", "x", "1", 'include { stage: "a" }') + relu("b", "x", "2", 'include { stage: "b" }')
    text += relu("deep", "x", "3", "include { min_level: 2 }") + relu("train", "x", "4", "include { phase: TRAIN }")
    assert [name for name in names(text, **state) if not name.startswith(("in", "x_in"))] == kept


def test_every_consumer_of_a_blob_gets_a_split_of_its_own():
    built = build(INPUT + relu("a", "x", "y") + relu("b", "x", "z"))
    assert [(node.name, node.bottoms, node.tops) for node in built.nodes] == [
        ("in", (), ("x",)),
        ("x_in_0_split", ("x",), ("x_in_0_split_0", "x_in_0_split_1")),
        ("a", ("x_in_0_split_0",), ("y",)),
        ("b", ("x_in_0_split_1",), ("z",)),
    ]
    assert built.outputs == ("y", "z")


def test_a_loss_weight_counts_as_a_consumer():
    built = build(INPUT + relu("a", "x", "y", "loss_weight: 2") + relu("b", "y", "z"))
    split = next(node for node in built.nodes if node.type == "Split")
    assert split.tops == ("y_a_0_split_0", "y_a_0_split_1")
    assert split.layer_param.loss_weight == [2, 0]
    assert not built.nodes[1].layer_param.loss_weight
    assert built.nodes[-1].bottoms == ("y_a_0_split_1",)


def test_a_layer_in_place_needs_no_split():
    assert names(INPUT + relu("a", "x", "x") + relu("b", "x", "x") + relu("c", "x", "y")) == ["in", "a", "b", "c"]


def test_layers_take_the_phase_of_the_net_unless_they_have_their_own():
    built = build(INPUT + relu("a", "x", "y") + relu("b", "y", "z", "phase: TRAIN"))
    assert [node.layer_param.phase for node in built.nodes] == [Phase.TEST, Phase.TEST, Phase.TRAIN]


def test_the_message_that_was_given_stays_as_it_was():
    net = prototxt.loads(INPUT + relu("a", "x", "y") + relu("b", "x", "z"), NetParameter)
    before = prototxt.dumps(net)
    graph.build_graph(net, Phase.TEST)
    assert prototxt.dumps(net) == before


def test_a_layer_that_is_fed_becomes_a_slot():
    text = 'layer { name: "d" type: "Python" top: "x" top: "l" python_param { module: "m" layer: "L" } }'
    built = build(text + relu("a", "x", "y"), fed={"x": (1, 3, 4, 4), "l": (1, 1, 4, 4)})
    assert built.inputs == ("x", "l")
    assert built.outputs == ("l", "y")


@pytest.mark.parametrize(
    "kind", ["Data", "WindowData", "ImageData", "HDF5Data", "MemoryData", "DummyData", "DenseData"]
)
def test_a_data_layer_of_any_type_that_is_fed_becomes_a_slot(kind):
    text = f'layer {{ name: "d" type: "{kind}" top: "x" top: "l" }}'
    built = build(text + relu("a", "x", "y"), fed={"x": (1, 3, 4, 4), "l": (1,)})
    assert (built.inputs, built.outputs) == (("x", "l"), ("l", "y"))
    with pytest.raises(
        NetError, match=r"^layer 'd' \(WindowData\), line 1: R-CNN.* inputs={'x': \(1, C, H, W\), 'l': \(1,\)}"
    ):
        build(text.replace(kind, "WindowData"), fed={"x": (1, 3, 4, 4)})  # both tops are fed, or none


def test_a_loss_without_a_top_has_one():
    text = INPUT + 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "x" }'
    assert build(text).nodes[-1].tops == ("l(automatic)",)


def test_labels_take_no_gradient_and_propagate_down_stops_others():
    text = INPUT + relu("a", "x", "y", "propagate_down: false")
    assert build(text).nodes[-1].propagate == (False,)
    text = INPUT + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "x" top: "loss" }'
    assert build(text).nodes[-1].propagate == (True, False)


def test_needed_picks_only_what_a_blob_depends_on():
    text = INPUT + relu("a", "x", "y") + relu("a2", "y", "y") + relu("b", "x", "z") + relu("c", "y", "w")
    built = build(text)
    assert [node.name for node in built.find_needed(["y"])] == ["in", "x_in_0_split", "a", "a2"]
    with pytest.raises(NetError, match=r"^the net has no blob 'ww'\. Did you mean 'w'\?$"):
        built.find_needed(["ww"])


def test_inputs_that_no_needed_layer_reads_are_left_out():
    text = 'layer { name: "in" type: "Input" top: "x" top: "l" top: "m" input_param { shape { dim: 1 } } }'
    built = build(text + relu("a", "x", "y"))
    assert built.find_inputs(built.find_needed(["y"]), ["y"]) == ["x"]
    assert built.find_inputs(built.find_needed(["y", "m"]), ["y", "m"]) == ["x", "m"], "an input may be wanted itself"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            relu("r", "nowhere", "y"),
            "layer 'r' (ReLU), line 2: no layer before it makes bottom 'nowhere'.",
        ),
        (
            'layer { name: "r" type: "Convolutoin" bottom: "x" top: "y" }',
            "layer 'r' (Convolutoin), line 2: unknown layer type 'Convolutoin'. Did you mean 'Convolution'?",
        ),
        (
            'layer { name: "w" type: "WindowData" top: "y" top: "l" window_data_param { batch_size: 2 } }',
            (
                "layer 'w' (WindowData), line 2: R-CNN's window files are not read here, so its tops must be fed. "
                "Pass inputs={'y': (2, C, H, W), 'l': (2,)}."
            ),
        ),
        (
            relu("a", "x", "y") + relu("b", "y", "x"),
            "layer 'b' (ReLU), line 3: top 'x' is made by an earlier layer already.",
        ),
        (
            relu("r", "x", "y", "include { phase: TEST } exclude { level: 1 }".replace("level", "min_level")),
            "layer 'r' (ReLU), line 2: include and exclude rules together; want one kind.",
        ),
        (
            relu("r", "x", "y", "propagate_down: true propagate_down: true"),
            "layer 'r' (ReLU), line 2: propagate_down is for no bottom or for each; got 2, want 1.",
        ),
    ],
)
def test_what_caffe_refuses_is_one_line_with_the_layer(text, message):
    with pytest.raises(NetError) as error:
        build(INPUT + text)
    assert str(error.value) == message

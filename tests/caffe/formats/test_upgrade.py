"""Old formats of nets and solvers, compared with the output of Caffe's own upgrade of the same texts."""

from pathlib import Path

import numpy as np
import pytest

from reproduction.caffe.errors import NetError, ReproductionError, ReproductionWarning
from reproduction.caffe.formats import caffemodel, prototxt, upgrade
from reproduction.caffe.schema import NetParameter, SolverParameter, SolverType, V1LayerType
from tests.helpers.paths import GOLDEN

CORPUS = Path(__file__).parent / "prototxt" / "upgraded"
REFUSED = sorted((CORPUS.parent / "refused").glob("*.prototxt"))
LEGACY = GOLDEN / "legacy"
OLD = [*sorted(CORPUS.glob("*.prototxt")), *sorted(LEGACY.glob("*.prototxt"))]


def upgraded(text: str) -> tuple[NetParameter, list[str]]:
    net = prototxt.loads(text, NetParameter)
    return net, upgrade.upgrade_net(net)


def test_the_corpus_was_found():
    assert len(OLD) >= 14
    assert len(REFUSED) >= 10


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_a_net_becomes_what_caffe_makes_of_it(path):
    net, _ = prototxt.load_net(path)
    assert prototxt.dumps(net) == (CORPUS / f"{path.stem}.txt").read_text()
    assert upgrade.upgrade_net(net) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "x" type: "pool" kernelsize: 2 group: 2', "layer 'x' (pool), line 1: pool layers do not read 'group'"),
        ('name: "x" type: "images" new_num: 1', "layer 'x' (images), line 1: images layers do not read 'new_num'"),
        ('name: "x" type: "relu" num_output: 1 hdf5_output_param { file_name: "f" }',
         "layer 'x' (relu), line 1: relu layers do not read 'num_output', 'hdf5_output_param'"),
    ],
)  # fmt: skip
def test_a_field_of_v0_that_caffe_drops_is_a_warning(text, said):
    with pytest.warns(ReproductionWarning) as caught:
        net, _ = upgraded(f"layers {{ layer {{ {text} }} }}")
    (warning,) = caught
    assert str(warning.message).startswith(f"{said}, here and in Caffe. Remove ")
    assert len(net.layer) == 1


def test_the_corpus_has_every_old_type_and_every_field_of_v1():
    text = "".join(path.read_text() for path in OLD)
    assert all(f"type: {member.name} " in text for member in V1LayerType)
    full = prototxt.load(CORPUS / "v1_every_field.prototxt", NetParameter).layers[0]
    assert [field.name for field in full.by_number.values() if not full.has(field.name)] == ["layer", "type"]


@pytest.mark.parametrize("name", ["v0", "v1_tiny_vgg"])
def test_weights_upgrade_like_the_text_and_bring_their_blobs(name):
    text, _ = prototxt.load_net(LEGACY / f"{name}.prototxt")
    binary = caffemodel.load(LEGACY / f"{name}.caffemodel", NetParameter)
    old = binary.layers.copy()
    blobs = [blob for layer in old for blob in (layer.layer.blobs if layer.has("layer") else layer.blobs)]
    notes = upgrade.upgrade_net(binary)
    kept = [blob for layer in binary.layer for blob in layer.blobs]
    assert len(kept) == len(blobs) > 0
    assert all(np.shares_memory(now.data, then.data) for now, then in zip(kept, blobs, strict=True) if then.has("data"))
    assert notes[0].startswith("Upgraded ")
    types = {layer.name: layer.type for layer in text.layer}
    assert {layer.name: layer.type for layer in binary.layer} == types


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("today", []),
        (
            "v0_padding",
            [
                "Upgraded 5 layers from V0, the form of 2013.",
                "The padding of 'pad1', 'pad2' became 'pad' of what follows.",
                "An Input layer now produces 'data'.",
            ],
        ),
        (
            "v0_drops",
            [
                "Upgraded 1 layer from V0, the form of 2013.",
                "Dropped 'state', 'debug_info', 'input_shape' of the net, which V0 did not have.",
                "Dropped the input fields of 'data', which have no shape.",
            ],
        ),
        (
            "v1_transformations",
            [
                "Upgraded 5 layers from V1, the form of 2014.",
                "The transformations of 'data', 'images', 'window' moved to 'transform_param'.",
            ],
        ),
        ("input_shapes", ["An Input layer now produces 'a', 'b'."]),
        ("batch_norm", ["lr_mult and decay_mult of 'three' became 0."]),
    ],
)
def test_the_notes_say_what_was_upgraded(name, notes):
    assert prototxt.load_net(CORPUS / f"{name}.prototxt")[1] == notes


def test_layers_keep_the_lines_of_the_file():
    net, _ = upgraded('name: "x"\nlayers { type: RELU }\n\nlayers {\n type: TANH }')
    assert [layer.line for layer in net.layer] == [2, 4]
    net, _ = upgraded('input: "a"\nlayers { layer { type: "relu" } bottom: "a" }')
    assert net.layer[0].line == 2


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_what_caffe_refuses_or_would_lose_is_an_error_that_names_the_layer(path):
    net = prototxt.load(path, NetParameter)
    with pytest.raises(ReproductionError) as info:
        upgrade.upgrade_net(net)
    assert f"{info.value}\n" == path.with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SolverType.SGD, "SGD"),
        (SolverType.NESTEROV, "Nesterov"),
        (SolverType.ADAGRAD, "AdaGrad"),
        (SolverType.RMSPROP, "RMSProp"),
        (SolverType.ADADELTA, "AdaDelta"),
        (SolverType.ADAM, "Adam"),
    ],
)
def test_an_old_solver_type_becomes_a_name(old, new):
    solver = SolverParameter(solver_type=old)
    assert upgrade.upgrade_solver(solver) == [f"solver_type: {old.name} became type: {new!r}."]
    assert solver == SolverParameter(type=new)
    assert upgrade.upgrade_solver(solver) == []


def test_a_solver_with_both_types_is_an_error():
    with pytest.raises(NetError) as info:
        upgrade.upgrade_solver(SolverParameter(solver_type=SolverType.ADAM, type="SGD"))
    assert str(info.value) == (
        "the solver has both 'solver_type', the older form, and 'type'; got ADAM and 'SGD'. Remove 'solver_type'."
    )


def test_a_current_layer_among_v1_layers_keeps_its_place():
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
        layers { name: "relu" type: RELU bottom: "x" top: "x" }
        layer { name: "tanh" type: "TanH" bottom: "x" top: "y" }"""
    net = prototxt.loads(text, NetParameter)
    upgrade.upgrade_net(net)
    assert [(layer.name, layer.type) for layer in net.layer] == [("in", "Input"), ("relu", "ReLU"), ("tanh", "TanH")]
    net = prototxt.loads(text.replace("\n", " "), NetParameter)  # the order of layers on one line is not known
    with pytest.raises(NetError, match="the net has both 'layers', the older form, and 'layer'"):
        upgrade.upgrade_net(net)

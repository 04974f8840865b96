"""How the dialects of Caffe's forks are declared, chosen and read."""

import subprocess
import sys

import pytest
import torch

from reproduction.caffe.errors import ReproductionError, ReproductionWarning
from reproduction.caffe.formats import caffemodel, prototxt, upgrade
from reproduction.caffe.formats.wire_reader import varint
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers import CLASSES, LAYERS, neuron
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.choice import find_class
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import DIALECTS, LayerParameter, Message, NetParameter, ReLUParameter, add_dialect
from reproduction.caffe.schema.field import boolean, nested, single, uint32
from reproduction.caffe.schema.types import TYPES
from reproduction.pycaffe.proto import caffe_pb2
from tests.helpers.paths import ROOT

Message.import_late_fields()


class _Same(Layer):
    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        return bottoms[:1]

    def forward(self, *bottoms: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (bottoms[0] * self.scale(),)


@pytest.fixture(scope="module")
def forks():
    """Two forks with a type and a field of the same names, one of which extends a message of BVLC's."""
    one, two = (add_dialect(name, name.title(), f"example/{name}@0123abc", 2016) for name in ("one", "two"))

    class WarpParameter(Message):
        amount = single(1, 3.0)
        rate = single(2, 1.0)

    first = LayerParameter.add_field("warp_param", nested(143, WarpParameter), one)  # BVLC's number of input_param

    class OtherWarpParameter(Message):
        amount = single(1, 5.0)
        mode = uint32(7)

    second = LayerParameter.add_field("warp_param", nested(201, OtherWarpParameter), two)
    boolean_field = ReLUParameter.add_field("upside_down", boolean(9), two)

    @register
    class Warp(_Same):
        dialect = one
        reads = frozenset({"warp_param.amount", "warp_param.rate"})
        blob_counts = (4,)

        def scale(self):
            return first.get(self.layer_param).amount

    @register
    class Warp(_Same):  # type: ignore[no-redef]  # noqa: F811
        dialect = two
        reads = frozenset({"warp_param.amount", "warp_param.mode"})
        bottoms = (1, 2)
        blob_counts = (2,)

        def scale(self):
            return second.get(self.layer_param).amount

    @register
    class ReLU(neuron.ReLU):
        dialect = two
        reads = neuron.ReLU.reads | {"relu_param.upside_down"}

        def forward(self, *bottoms):
            flip = boolean_field.get(self.layer_param.relu_param)
            return (bottoms[0].clamp(max=0) if flip else bottoms[0].clamp(min=0),)

    yield first, second
    for name in ("one", "two"):
        del DIALECTS[name]
    forms: list[type[Message]] = [LayerParameter, *LayerParameter.older_forms]
    for each in forms:
        each.fields = {key: field for key, field in each.fields.items() if key != "warp_param"}
        delattr(each, "warp_param")
    ReLUParameter.fields = {key: field for key, field in ReLUParameter.fields.items() if key != "upside_down"}
    del LAYERS["Warp"], CLASSES["Warp"], TYPES["Warp"]
    CLASSES["ReLU"].remove(ReLU)


def net_of(*layers, **options):
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }\n'
    net = prototxt.loads(text + "\n".join(layers), NetParameter)
    return net, upgrade.upgrade_net(net, **options)


def warp(fields="", bottoms='bottom: "data"', name="w"):
    return f'layer {{ name: "{name}" type: "Warp" {bottoms} top: "{name}" warp_param {{ {fields} }} }}'


def dialect_of(net, index=1):
    return find_class(net.layer[index]).dialect.name


@pytest.mark.usefixtures("forks")
def test_the_fields_that_a_layer_sets_show_its_fork():
    assert dialect_of(net_of(warp("rate: 1"))[0]) == "one"
    net, notes = net_of(warp("mode: 1"))
    assert dialect_of(net) == "two"
    assert notes == ["Warp: as in Two (example/two@0123abc)."]
    assert Net(net)(torch.ones(1, 2))["w"].tolist() == [[5, 5]]  # the default of its fork


@pytest.mark.usefixtures("forks")
def test_the_number_of_bottoms_shows_the_fork():
    assert dialect_of(net_of(warp(bottoms='bottom: "data" bottom: "data"'))[0]) == "two"


@pytest.mark.usefixtures("forks")
def test_the_number_of_blobs_in_the_weights_shows_the_fork():
    weights = NetParameter(layer=[LayerParameter(name="w", blobs=[{}, {}])])
    assert dialect_of(net_of(warp(), weights=weights)[0]) == "two"


@pytest.mark.usefixtures("forks")
def test_the_other_layers_of_the_net_show_the_fork():
    net, _ = net_of(warp("amount: 1", name="a"), warp("mode: 1", 'bottom: "a"', name="b"))
    assert [dialect_of(net, 1), dialect_of(net, 2)] == ["two", "two"]


@pytest.mark.usefixtures("forks")
def test_a_guess_is_a_warning_and_can_be_replaced():
    with pytest.warns(ReproductionWarning, match="several forks have Warp layers, .* name the dialect: 'two'"):
        net, _ = net_of(warp("amount: 1"))
    assert dialect_of(net) == "one"
    assert dialect_of(net_of(warp("amount: 1"), dialect="two")[0]) == "two"
    with pytest.raises(ReproductionError, match=r"there is no dialect 'tow'.* Did you mean 'two'"):
        net_of(warp(), dialect="tow")


@pytest.mark.usefixtures("forks")
def test_the_class_of_a_fork_computes_the_layers_of_caffes_type_that_set_its_fields():
    relu = 'layer {{ name: "r" type: "ReLU" bottom: "data" top: "r" relu_param {{ {} }} }}'
    plain, flipped = net_of(relu.format(""))[0], net_of(relu.format("upside_down: true"))[0]
    assert find_class(plain.layer[1]).dialect is None
    assert Net(flipped)(torch.tensor([[-1.0, 1.0]]))["r"].tolist() == [[-1, 0]]


@pytest.mark.usefixtures("forks")
def test_fields_of_two_forks_in_one_layer_are_refused():
    with pytest.raises(
        ReproductionError, match=r"Warp layers do not read 'warp_param.mode'; got a field or value of Two"
    ):
        Net(net_of(warp("rate: 1 mode: 1"))[0])


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("fields", ["amount: 2 rate: 4", "amount: 2 mode: 4", "mode: 0"])
def test_the_message_of_a_fork_is_written_and_read_with_its_number(fields):
    net, _ = net_of(warp(fields))
    read = caffemodel.loads(caffemodel.dumps(net), NetParameter)
    upgrade.upgrade_net(read)
    assert read == net
    assert prototxt.loads(prototxt.dumps(net), NetParameter) == net


def test_a_message_of_another_number_that_is_not_caffes_is_kept_and_the_weights_are_read():
    blob = LayerParameter(name="x", type="Elsewhere", blobs=[{"shape": {"dim": [1]}, "data": [7.0]}])
    clip = varint(148 << 3 | 2) + varint(2) + b"\x08\x01"  # no ClipParameter: its required fields are missing
    broken = varint(143 << 3 | 2) + varint(3) + b"\x0a\x09\x00"  # no InputParameter: a shape that is cut off
    layer = caffemodel.loads(caffemodel.dumps(blob) + clip + broken, LayerParameter)
    assert layer.blobs[0].data.tolist() == [7]
    assert not layer.has("clip_param")
    assert not layer.has("input_param")
    assert layer.unknown in (clip + broken, broken + clip)


@pytest.mark.usefixtures("forks")
def test_the_fields_are_known_to_import_caffe():
    layer = caffe_pb2.LayerParameter(type="Warp")
    layer.warp_param.mode = 3
    assert str(layer) == 'type: "Warp"\nwarp_param {\n  mode: 3\n}\n'
    assert caffe_pb2.LayerParameter().shuffle_channel_param.group == 1


@pytest.mark.usefixtures("forks")
def test_a_second_field_of_a_dialect_or_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="has a field 'warp_param' of one or BVLC"):
        LayerParameter.add_field("warp_param", nested(9, LayerParameter), DIALECTS["one"])
    with pytest.raises(TypeError, match="has a field 'name' of one or BVLC"):
        LayerParameter.add_field("name", uint32(9), DIALECTS["one"])
    with pytest.raises(TypeError, match="fields 'warp_param' of different kinds"):
        LayerParameter.add_field("warp_param", uint32(9), DIALECTS["shufflenet"])


def test_a_prototxt_of_caffe_is_read_and_chosen_without_the_forks():
    code = """if True:
        import sys
        from reproduction.caffe.formats import prototxt
        prototxt.load_net("prototxt/voc-fcn8s/deploy.prototxt")
        assert "torch" not in sys.modules
        prototxt.loads("layer { shuffle_channel_param { group: 2 } }", prototxt.NetParameter)
        assert "reproduction.caffe.dialects.shufflenet" in sys.modules
        print("done")"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout == "done\n", ran.stderr

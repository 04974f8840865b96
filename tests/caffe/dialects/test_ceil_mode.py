"""``ceil_mode`` of pooling layers is converted to ``round_mode``."""

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import net
from reproduction.caffe.schema import RoundMode
from reproduction.pycaffe.net import net_spec

TEXT = """input: "data" input_dim: 1 input_dim: 1 input_dim: 7 input_dim: 7
layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 2 stride: 2 %s } }"""
V1 = """input: "data" input_dim: 1 input_dim: 1 input_dim: 7 input_dim: 7
layers { name: "p" type: POOLING bottom: "data" top: "p" pooling_param { kernel_size: 2 stride: 2 %s } }"""


def load(tmp_path, text, fields):
    (tmp_path / "n.prototxt").write_text(text % fields)
    return net.load(tmp_path / "n.prototxt")


@pytest.mark.parametrize("text", [TEXT, V1], ids=["layer", "layers"])
@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ("ceil_mode: false", 3),
        ("ceil_mode: true", 4),
        ("", 4),
        ("ceil_mode: 0; round_mode: FLOOR", 3),
        ("round_mode: CEIL ceil_mode: true pool: MAX", 4),
    ],
)
def test_false_rounds_down_and_true_up(tmp_path, text, fields, size):
    assert load(tmp_path, text, fields).blob_shapes["p"] == (1, 1, size, size)


@pytest.mark.parametrize("fields", ["ceil_mode: false round_mode: CEIL", "round_mode: CEIL ceil_mode: false"])
def test_round_mode_wins(tmp_path, fields):
    assert load(tmp_path, TEXT, fields).blob_shapes["p"] == (1, 1, 4, 4)


def test_what_is_written_is_round_mode(tmp_path):
    (tmp_path / "n.prototxt").write_text(TEXT % "ceil_mode: false")
    message, notes = prototxt.load_net(tmp_path / "n.prototxt")
    assert message.layer[1].pooling_param.round_mode is RoundMode.FLOOR
    assert notes[-1] == "ceil_mode of 'p' became round_mode."
    assert "round_mode: FLOOR" in prototxt.dumps(message)
    assert "ceil_mode" not in prototxt.dumps(message)


def test_a_value_of_another_kind_is_an_error(tmp_path):
    with pytest.raises(ReproductionError, match=r"n.prototxt:2:\d+: wrong value for PoolingParameter.ceil_mode"):
        load(tmp_path, TEXT, "ceil_mode: FLOOR")


def test_a_net_that_is_written_in_python_may_have_it(tmp_path):
    spec = net_spec.NetSpec()
    spec.data = net_spec.layers.Input(shape={"dim": [1, 1, 7, 7]})
    spec.p = net_spec.layers.Pooling(spec.data, kernel_size=2, stride=2, ceil_mode=False)
    (tmp_path / "n.prototxt").write_text(str(spec.to_proto()))
    assert net.load(tmp_path / "n.prototxt").blob_shapes["p"] == (1, 1, 3, 3)

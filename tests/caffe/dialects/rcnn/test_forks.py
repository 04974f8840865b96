"""Which fork's layer is taken, the values that forks add to enums, and the Python layers of published programs."""

import sys

import pytest

from reproduction import Net
from reproduction.caffe.dialects.faster_rcnn.python_layers import ProposalLayer
from reproduction.caffe.errors import NetError, PrototxtError, ReproductionError
from reproduction.caffe.formats import prototxt, upgrade
from reproduction.caffe.layers.python import find_python_class
from reproduction.caffe.schema import LossParameter, NetParameter
from reproduction.pycaffe.net.layer_runner import find_class
from tests.helpers.single_layer import single

INPUT = 'layer {{ name: "{0}" type: "Input" top: "{0}" input_param {{ shape {{ dim: 2 dim: 4 dim: 1 dim: 1 }} }} }}\n'
PSROI = """
layer { name: "rois" type: "Input" top: "rois" input_param { shape { dim: 2 dim: 5 } } }
layer { name: "pool" type: "PSROIPooling" bottom: "x0" bottom: "rois" top: "pool"
  psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 } }
"""


def choose(bottoms, rest="", other=""):
    text = "".join(INPUT.format(f"x{i}") for i in range(bottoms)) + other
    names = " ".join(f'bottom: "x{i}"' for i in range(bottoms))
    text += f'layer {{ name: "loss" type: "SmoothL1Loss" {names} top: "loss" {rest} }}'
    net_param = prototxt.loads(text, NetParameter)
    sentences = upgrade.upgrade_net(net_param)
    layer = Net(net_param).layers["loss"]
    assert any(f"SmoothL1Loss: as in {layer.dialect}." in each or "PSROI" in each for each in sentences)
    return layer.dialect.name


@pytest.mark.filterwarnings("error")
def test_the_fork_of_a_loss_follows_from_bottoms_fields_and_other_layers():
    assert choose(4) == "faster_rcnn"
    assert choose(2, "smooth_l1_loss_param { sigma: 3 }") == "faster_rcnn"
    assert choose(3) == "rfcn"
    assert choose(2, "loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 9 }") == "rfcn"
    assert choose(4, "smooth_l1_loss_param { abssum: false }") == "synopsys"
    assert choose(2, "", PSROI) == "rfcn"


def test_a_value_of_a_fork_is_read_written_and_refused_by_other_layers():
    text = 'layer { type: "SmoothL1LossOHEM" loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 2 } }'
    net_param = prototxt.loads(text, NetParameter)
    again = prototxt.loads(prototxt.dumps(net_param), NetParameter)
    for each in (net_param, again, again.copy()):
        assert each.layer[0].loss_param.normalization.name == "PRE_FIXED"
    merged = LossParameter()
    merged.normalization = again.layer[0].loss_param.normalization
    assert merged == LossParameter(normalization="PRE_FIXED")
    with pytest.raises(NetError) as error:
        single('type: "SoftmaxWithLoss" loss_param { normalization: PRE_FIXED }', (2, 3), (2,))
    assert str(error.value).startswith("SoftmaxWithLoss layers do not read 'loss_param.normalization.PRE_FIXED'; got")
    with pytest.raises(PrototxtError, match=r"want one of FULL, VALID, BATCH_SIZE, NONE\."):
        prototxt.loads(text.replace("PRE_FIXED p", "PRE_FIXD p"), NetParameter)
    with pytest.raises(ReproductionError, match=r"wrong value for LossParameter\.normalization"):
        LossParameter(normalization=7)


@pytest.mark.parametrize("known", [None, {}, find_class])
def test_a_published_python_layer_needs_no_module(known):
    assert find_python_class(known, "rpn.proposal_layer", "ProposalLayer") is ProposalLayer
    with pytest.raises(NetError, match=r"'rpn\.anchor_target_layer\.AnchorTargetLayer' (is not known|was not found)"):
        find_python_class(known, "rpn.anchor_target_layer", "AnchorTargetLayer")


def test_the_module_of_the_program_is_used_and_its_errors_are_shown(tmp_path, monkeypatch):
    (tmp_path / "rpn").mkdir()
    module = tmp_path / "rpn" / "proposal_layer.py"
    module.write_text("import a_module_that_was_not_compiled\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NetError, match="was not found: ModuleNotFoundError: No module named 'a_module_that_was_not"):
        find_python_class(find_class, "rpn.proposal_layer", "ProposalLayer")
    module.write_text("class ProposalLayer:\n    pass\n")
    assert find_python_class(find_class, "rpn.proposal_layer", "ProposalLayer").__module__ == "rpn.proposal_layer"
    for name in ("rpn", "rpn.proposal_layer"):
        sys.modules.pop(name, None)

"""tools/exactness.py: every figure can fail, and the output names what this CPU cannot check."""

import importlib
import json
import sys

import pytest

from reproduction.caffe import tested_devices
from reproduction.caffe.layers.exact import blas
from tests.helpers import parity
from tests.helpers.parity import Parity
from tests.helpers.paths import ROOT


@pytest.fixture
def exactness(monkeypatch, capsys):
    """Run the tool with measurements that are made up; returns the exit code and the output."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("exactness")
    monkeypatch.setattr(parity, "layer_cases", lambda: ["conv"])
    monkeypatch.setattr(parity, "legacy_parity", lambda path: 1e-7)

    def run(*args, ordered=True, layer=1e-6, **nets):
        def measured(path, *, blas_order=False, backward=True, device="cpu"):
            return nets.get("blas" if blas_order else "torch") or Parity(values=4, same=4 if blas_order else 2)

        monkeypatch.setattr(blas, "adds_in_order", lambda: ordered)
        monkeypatch.setattr(parity, "layer_parity", lambda case: layer)
        monkeypatch.setattr(parity, "net_parity", measured)
        monkeypatch.setattr(sys, "argv", ["exactness.py", *args])
        return tool.main(), capsys.readouterr().out

    return run


def test_all_is_well(exactness):
    code, said = exactness("--check")
    assert code == 0
    assert said.endswith("beyond the tolerance: none\n")


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"layer": 1e-4}, "conv"),
        ({"layer": float("nan")}, "conv"),
        ({"blas": Parity(values=4, same=4, off=["blob score 1e-2"])}, "voc-fcn8s"),
        ({"blas": Parity(values=4, same=3)}, "voc-fcn8s, bit for bit"),
        ({"torch": Parity(forward=0.5, off=["blob score 5e-1"])}, "voc-fcn8s, torch's order"),
        ({"torch": Parity(labels_off=1)}, "voc-fcn8s, torch's order"),
    ],
)
def test_each_figure_can_fail(exactness, broken, name):
    code, said = exactness("--check", **broken)
    assert code == 1
    assert name in said.splitlines()[-1]


def test_what_this_cpu_cannot_check_is_no_success(exactness):
    code, said = exactness("--check", ordered=False)
    assert code == 3
    assert said.splitlines()[-1].startswith("not checked: gradients, and the order of Caffe's BLAS bit for bit")
    assert "backward not checked" in said


def test_a_device_is_recorded_only_when_its_nets_match(exactness, monkeypatch, tmp_path):
    tool = sys.modules["exactness"]
    record = ROOT / "no such file"
    monkeypatch.setattr(tested_devices, "RECORD", record)
    monkeypatch.setattr(tool.devices, "select_device", lambda name: tool.torch.device("cuda"))
    monkeypatch.setattr(tool.torch.cuda, "get_device_name", lambda place: "a device")
    for wrong in (Parity(forward=1e-3), Parity(labels_off=1), Parity(backward=0.1), Parity(off=["blob a nan"])):
        assert exactness("--device", "cuda", torch=wrong)[0] == 1
        assert not record.exists()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tested_devices, "RECORD", tmp_path / "tested.json")
    code, said = exactness("--device", "cuda")
    assert (code, said.splitlines()[-1]) == (0, "recorded in tested.json")
    assert json.loads((tmp_path / "tested.json").read_text())["device"] == "a device"

"""tools/gpu.py: stages with limits of time, on a machine without a GPU."""

import importlib
import json

import pytest
import torch

from reproduction.caffe.errors import ReproductionError
from tests.helpers.paths import ROOT
from tests.helpers.run_tool import run_tool

MEASURED = {"cpu": "A processor", "device": "Some GPU", "date": "2031-01-02T03:04:05+00:00"}


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "tools")
    module = importlib.import_module("gpu")
    monkeypatch.setattr(module.results, "FOLDER", tmp_path)
    return module


def test_a_stage_that_fails_or_takes_too_long_does_not_lose_the_others(gpu, tmp_path, capsys):
    stages = {
        "fails": gpu.Stage(("-c", "raise SystemExit('error: too large')"), 20),
        "hangs": gpu.Stage(("-c", "import time; print('begun', flush=True); time.sleep(60)"), 2),
        "lacks": gpu.Stage(("-c", ""), 20, needs=("torch7_of_lua",)),
        "passes": gpu.Stage(("-c", "print('3 passed')"), 20),
    }
    with pytest.raises(ReproductionError, match=r"^gpu: 2 of 4 stages failed: fails, hangs[.]$"):
        gpu.run_stages(stages, MEASURED, 60)
    found = json.loads((tmp_path / "some-gpu.json").read_text())["stages"]
    assert {name: stage["outcome"] for name, stage in found.items()} == {
        "fails": "failed", "hangs": "failed", "lacks": "left out", "passes": "passed"
    }  # fmt: skip
    assert found["fails"]["reason"] == "error: too large"
    assert found["hangs"]["reason"] == "stopped after 2 s; the last line was: begun"
    assert found["lacks"]["reason"] == "torch7_of_lua is not installed"
    assert found["passes"]["reason"] == "3 passed"
    assert found["passes"]["measured"] == MEASURED
    assert "lacks: left out, torch7_of_lua is not installed" in capsys.readouterr().out


def test_a_stage_without_time_is_named(gpu, tmp_path):
    with pytest.raises(ReproductionError, match="1 of 1 stages failed"):
        gpu.run_stages({"late": gpu.Stage(("-c", ""), 20)}, MEASURED, 0)
    assert json.loads((tmp_path / "some-gpu.json").read_text())["stages"]["late"]["reason"] == "no time was left for it"


def test_the_stages_fit_into_nine_minutes_and_name_what_exists(gpu):
    from bench.contenders import FORWARD

    assert sum(stage.seconds for stage in gpu.STAGES.values()) <= gpu.LIMIT == 540
    on_cuda = {contender.name for contender in FORWARD if "cuda" in contender.devices}
    assert set(gpu._CONTENDERS) == on_cuda
    for stage in gpu.STAGES.values():
        assert stage.arguments[0] == "-m" or (ROOT / stage.arguments[0]).is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line():
    done = run_tool("gpu")
    got = f"torch {torch.__version__}, which finds no CUDA device"
    remedy = "Name an interpreter whose torch does: make gpu PYTHON=python3.12."
    assert (done.returncode, done.stderr) == (1, f"error: no GPU can be used; got {got}. {remedy}\n")

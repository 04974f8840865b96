"""The README says what is true: its generated parts are current, its example runs, its commands exist."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reproduction.fcn.datasets import mini

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_generated_parts_are_current():
    done = subprocess.run(
        [sys.executable, "tools/readme.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_claim_of_speed_names_all_peers_and_those_that_were_not_measured(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    readme = importlib.import_module("readme")
    figures = json.loads((ROOT / "tools/peers/measured.json").read_text())
    for section in figures["forward"].values():
        section["contenders"]["ncnn"] = section["contenders"]["OpenVINO"]
        section["measured"]["ncnn"] = "1.0.1"
    monkeypatch.setattr(readme, "SPEED", tmp_path / "measured.json")
    readme.SPEED.write_text(json.dumps(figures))
    said = readme.speed()
    assert "| ncnn | 2.91 |" in said
    assert "openvino 2026.4.1, ncnn 1.0.1." in said
    assert "the best of PyTorch channels_last, OpenCV dnn, onnxruntime, OpenVINO and ncnn in the same round: " in said
    assert "Not measured" not in said
    assert "These were measured elsewhere" not in said
    for section in figures["forward"].values():
        section["measured"]["cpu"] = "another, AVX-512"
    readme.SPEED.write_text(json.dumps(figures))
    assert readme.speed().endswith(" alone. These were measured elsewhere: 2026-11-26, AMD EPYC, AVX2.")
    for section in figures["forward"].values():
        del section["contenders"]["ncnn"]
    readme.SPEED.write_text(json.dumps(figures))
    said = readme.speed()
    assert "the best of PyTorch channels_last, OpenCV dnn, onnxruntime and OpenVINO in the same round: " in said
    assert " Not measured yet: ncnn.\n" in said


def test_the_python_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("torch.Size([1, 21, 97, 131])\n")


def test_the_picture_that_is_segmented_is_one_that_make_draws():
    assert f"{mini.FOLDER}/pascal/VOC2011/JPEGImages/{mini.SEED}_{mini.TRAIN + 1:06d}.jpg --net mini-fcn8s" in README


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z][a-z-]*)", README))))
def test_every_target_named_is_in_the_makefile(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("tool", sorted(set(re.findall(r"tools/([a-z_]+\.py)", README))))
def test_every_tool_named_is_there_and_has_help(tool):
    done = subprocess.run(
        [sys.executable, f"tools/{tool}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"tools/{tool}" in done.stdout, "the help has an example"

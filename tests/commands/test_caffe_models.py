"""docs/caffe_models.md: its commands and code, run in order on a net of Mini-VOC."""

import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import reproduction
from reproduction.commands import program
from tests.helpers.paths import ROOT
from tests.helpers.small_ssd import write_small_ssd

PAGE = (ROOT / "docs/caffe_models.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SCRIPT = next(block for block in CODE if "import caffe" in block)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the page starts from; the working directory."""
    shutil.copy(ROOT / "weights/mini/mini-fcn8s.caffemodel", tmp_path / "old.caffemodel")
    shutil.copy(ROOT / "prototxt/mini-fcn8s/deploy.prototxt", tmp_path)
    write_small_ssd(tmp_path, "detector")
    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "photo.jpg")
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tools_of_the_page_run_in_its_order(folder, monkeypatch, capsys):
    commands = [shlex.split(line) for line in COMMANDS if line.startswith("fcn ")]
    assert [name for _, name, *_ in commands] == ["info", *["convert"] * 5, *["export"] * 4, "infer"]
    for _, *args in commands:
        with pytest.raises(SystemExit) as end:
            program.main(args)
        said = capsys.readouterr()
        assert end.value.code == 0, f"{args}\n{said.out}{said.err}"
    old, back = (reproduction.read_weights(name).net for name in ("old.caffemodel", "back.caffemodel"))
    for before, after in zip((x for x in old.layer if x.blobs), (x for x in back.layer if x.blobs), strict=True):
        for one, other in zip(before.blobs, after.blobs, strict=True):
            np.testing.assert_array_equal(one.data, other.data)


def test_the_code_of_the_page_runs(folder):
    scope = {}
    for block in CODE:
        if block is not SCRIPT:
            exec(compile(block, "caffe_models.md", "exec"), scope)
    assert scope["outputs"]["score"].shape == (1, 7, 96, 128)
    assert scope["features"].ndim == 4
    assert scope["scores"].shape == (1, 7, 96, 128)
    assert scope["labels"].shape == (48, 64)
    assert scope["rows"].shape[1] == 7
    assert scope["fast"]({"data": scope["torch"].zeros(1, 3, 96, 128)})["score"].shape == (1, 7, 96, 128)


def test_the_program_of_the_page_runs(folder):
    (command,) = (shlex.split(line) for line in COMMANDS if not line.startswith("fcn "))
    done = subprocess.run(
        [sys.executable, *command[1:]], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("(1, 7, 96, 128)\n")

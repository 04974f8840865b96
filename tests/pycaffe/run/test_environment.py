"""``import caffe`` without a runner, in an environment of its own."""

import os
import subprocess
import sys

import pytest

from reproduction.caffe.errors import ReproductionError
from reproduction.pycaffe.run import environment
from tests.helpers.paths import ROOT

# What pyspacer's extractor does (spacer/config.py, spacer/extractors/vgg16.py), and modules that programs import.
PROGRAM = """
import importlib.util, site, sys
site.addsitedir(sys.argv[1])
assert importlib.util.find_spec("caffe") is not None
assert "torch" not in sys.modules
import caffe
from caffe.proto import caffe_pb2
import caffe.io
from caffe import layers as L
assert caffe.__name__ == "reproduction.pycaffe" and caffe.io.caffe_pb2 is caffe_pb2
caffe.set_mode_cpu()
net = caffe.Net(sys.argv[2], sys.argv[3], caffe.TEST)
net.blobs["data"].reshape(2, *net.blobs["data"].shape[1:])
net.blobs["data"].data[1] = 7
net.forward(start="conv1_1")
print(net.blobs["fc7"].data.shape, float(net.blobs["fc7"].data[1].sum()) != 0)
"""


def run(program, *args):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environ)


def test_a_program_imports_caffe_without_a_runner(tmp_path):
    path = environment.install(tmp_path)
    assert path.parent == tmp_path
    files = ROOT / "prototxt/mini-vgg/deploy.prototxt", ROOT / "weights/mini/mini-vgg.caffemodel"
    ended = run(PROGRAM, tmp_path, *files)
    assert ended.stderr == ""
    assert ended.stdout.startswith("(2, ")
    assert ended.stdout.endswith("True\n")


def test_it_can_be_removed(tmp_path):
    path = environment.install(tmp_path)
    assert environment.remove(tmp_path) == [path]
    assert environment.remove(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_real_caffe_is_not_touched_and_found_first(tmp_path, monkeypatch):
    real = tmp_path / "real" / "caffe"
    real.mkdir(parents=True)
    (real / "__init__.py").write_text("NAME = 'real'\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(real.parent)])
    with pytest.raises(ReproductionError, match=f"^another package named caffe is installed; got {real}"):
        environment.install(tmp_path)
    monkeypatch.undo()
    environment.install(tmp_path)
    program = (
        "import site, sys; sys.path.append(sys.argv[2]); site.addsitedir(sys.argv[1]); import caffe; print(caffe.NAME)"
    )
    assert run(program, tmp_path, real.parent).stdout == "real\n"


def test_an_environment_that_cannot_be_written_to_is_an_error(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ReproductionError, match=r"can be written to; got .* Create a virtual environment"):
        environment.install()

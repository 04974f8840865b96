"""The public names of the package, and that importing it is cheap."""

import subprocess
import sys

import pytest

import reproduction
from tests.helpers.paths import ROOT


def test_import_needs_no_torch():
    code = "import sys, reproduction; print(reproduction.__version__, {'torch', 'numpy', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1.0.0 set()\n"


@pytest.mark.parametrize("name", reproduction.__all__)
def test_every_public_name_is_there(name):
    assert name in dir(reproduction)
    assert getattr(reproduction, name) is getattr(reproduction, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'reproduction' has no attribute 'nothing'"):
        reproduction.nothing  # noqa: B018


def test_a_net_is_loaded_compiled_and_run():
    import torch

    net = reproduction.load_net(
        ROOT / "prototxt/mini-fcn8s/deploy.prototxt", ROOT / "weights/mini/mini-fcn8s.caffemodel"
    )
    picture = {"data": torch.zeros(1, 3, 40, 50)}
    expected = net(picture)["score"]
    torch.testing.assert_close(reproduction.compile(net)(picture)["score"], expected, rtol=0, atol=1e-4)


def test_weights_are_read_and_written(tmp_path):
    weights = reproduction.read_weights(ROOT / "weights/mini/mini-fcn8s.caffemodel")
    reproduction.write_weights(weights, tmp_path / "mini.npz")
    assert reproduction.read_weights(tmp_path / "mini.npz").format == "NumPy"

"""Nets on which Caffe's own numbers are hard to guess: what it overwrites, adds up and leaves out, recorded from it."""

from pathlib import Path

import numpy as np
import pytest

from reproduction import pycaffe as caffe
from reproduction.caffe.layers import blas
from tests.pycaffe import quirks

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "quirks"
ROUNDED = {"force_over_propagate_down", "prelu_batch1"}  # TanH and the slopes of PReLU are torch's
NETS = sorted(path.stem for path in GOLDEN.glob("*.prototxt"))


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "caffe.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_are_caffe_s(name, recorded):
    found = quirks.run(caffe, GOLDEN / f"{name}.prototxt")
    wanted = {key.partition("|")[2]: value for key, value in recorded.items() if key.startswith(f"{name}|")}
    assert found.keys() == wanted.keys()
    greatest = max(np.abs(value).max() for key, value in wanted.items() if "/grad/" in key)
    for key, want in wanted.items():
        assert found[key].shape == want.shape, key
        # A gradient whose parts cancel is all rounding: it is measured by the greatest of the net, or by 1.
        scale = max(np.abs(want).max(), greatest, 1) if "/grad/" in key else np.abs(want).max()
        assert np.abs(found[key] - want).max() <= 2e-6 * scale, key
        if blas.adds_in_order() and "/grad/" in key and name not in ROUNDED:
            assert np.array_equal(found[key], want), key

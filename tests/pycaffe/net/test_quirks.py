"""Nets on which Caffe's numbers are peculiar: values that it overwrites, accumulates or omits, as recorded."""

import warnings

import numpy as np
import pytest

from reproduction import pycaffe as caffe
from reproduction.caffe.errors import ReproductionWarning
from reproduction.caffe.layers.exact import blas
from tests.helpers import paths, quirk_nets

GOLDEN = paths.GOLDEN / "" / "quirks"
ALIAS = "weights_of_an_overwritten_bottom"
NETS = sorted(path.stem for path in GOLDEN.glob("*.prototxt") if path.stem != ALIAS)
ROUNDED = {"force_over_propagate_down", "prelu_batch1"}  # TanH and the slopes of PReLU are torch's


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "caffe.npz") as file:
        return {key: file[key] for key in file.files}


def off(found, wanted):
    """List the arrays that are not Caffe's but for rounding."""
    assert found.keys() == wanted.keys()
    greatest = max(np.abs(value).max() for key, value in wanted.items() if "/grad/" in key)
    names = []
    for key, want in wanted.items():
        assert found[key].shape == want.shape, key
        # A gradient whose parts cancel is all rounding: it is measured by the greatest of the net, or by 1.
        scale = max(np.abs(want).max(), greatest, 1) if "/grad/" in key else np.abs(want).max()
        if np.abs(found[key] - want).max() > 2e-6 * scale:
            names.append(key)
    return names


@pytest.mark.parametrize("name", NETS)
def test_the_numbers_are_caffe_s_or_there_is_a_warning(name, recorded):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = quirk_nets.run(caffe, GOLDEN / f"{name}.prototxt")
    wanted = {key.partition("|")[2]: value for key, value in recorded.items() if key.startswith(f"{name}|")}
    warned = [w for w in caught if issubclass(w.category, ReproductionWarning)]
    assert bool(off(found, wanted)) == bool(warned)
    if warned:
        assert all("here" in str(w.message) for w in warned)
    elif blas.adds_in_order() and name not in ROUNDED:
        assert all(np.array_equal(found[key], want) for key, want in wanted.items() if "/grad/" in key)


@pytest.mark.filterwarnings("ignore::reproduction.caffe.errors.ReproductionWarning")
@pytest.mark.parametrize("name", ["scale_batch1_accumulates", "chain_Swish_in_then_Scale", "chain_LRN_in_then_ReLU"])
def test_arrays_that_a_program_holds_change_nothing(name):
    path = GOLDEN / f"{name}.prototxt"
    found, held = (quirk_nets.run(caffe, path, hold) for hold in (False, True))
    assert all(np.array_equal(found[key], value) for key, value in held.items())


def test_a_layer_that_learns_from_what_another_branch_overwrites_is_caffe_s(recorded):
    path = GOLDEN / f"{ALIAS}.prototxt"
    with pytest.warns(ReproductionWarning, match="as a torch module it reads the values of the forward pass"):
        found = quirk_nets.run(caffe, path)
    wanted = {key.partition("|")[2]: value for key, value in recorded.items() if key.startswith(path.stem + "|")}
    assert off(found, wanted) == []

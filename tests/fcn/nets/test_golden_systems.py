"""The systems compared with Caffe: at full width forward and backward, and thinned in training."""

import json
import re

import numpy as np
import pytest
import torch

from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.exact import blas
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import Phase, SolverParameter
from reproduction.caffe.training.solver import Solver
from reproduction.fcn.nets import systems
from tests.helpers import parity, system_parity
from tests.helpers.paths import GOLDEN, ROOT

SEED = 7  # of the weights, and of the first image of a training
SIZES = {  # of the images of each training, in turn
    "googlenet": ((61, 83), (70, 52), (48, 64)),
    "resnet50_frozen": ((61, 83), (70, 52), (64, 96)),
    "unet": ((188, 204), (204, 188)),
}


def net_of(path):
    return json.loads(bytes(np.load(path)["meta"]))["net"]


#: The others take ten seconds and more, most of which are for weights.
QUICK = ("unet", "voc-fcn-googlenet")
HERE = [path for path in system_parity.FILES if net_of(path) in systems.NETS]


def compare(path, **how):
    return parity.net_parity(path, make_inputs=system_parity.make_inputs, make_weight=system_parity.make_weight, **how)


def test_the_golden_files_of_six_systems_are_here():
    assert len(system_parity.FILES) == 6


@pytest.mark.slow
@pytest.mark.parametrize("path", HERE, ids=net_of)
def test_every_blob_gradient_and_label_is_caffe_s(path):
    result = compare(path, blas_order=True)
    assert not result.labels_off
    assert result.forward <= parity.FORWARD_TOLERANCE, result.off
    if blas.adds_in_order():
        assert not result.off
    else:  # another order of additions may put a unit on the other side of a kink, and its gradient with it
        assert result.backward <= parity.KINK_TOLERANCE


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if net_of(path) in QUICK else pytest.mark.slow) for path in HERE],
    ids=net_of,
)
def test_torch_s_own_order_of_additions_differs_by_rounding_alone(path):
    result = compare(path, backward=False)
    assert not result.off
    assert not result.labels_off


@pytest.mark.parametrize(("file", "digest"), json.loads((GOLDEN / "systems/prototxt_digests.json").read_text()).items())
def test_layers_are_those_of_the_recorded_prototxts(file, digest):
    assert system_parity.layers_digest(ROOT / "prototxt" / file) == digest


def recorded(case):
    with np.load(GOLDEN / "systems/trajectories.npz") as file:
        return {key.partition("|")[2]: file[key] for key in file.files if key.startswith(f"{case}|")}


@pytest.mark.parametrize("case", SIZES)
def test_losses_and_weights_of_a_training_follow_caffe(case):
    golden = recorded(case)
    name = bytes(golden["net"]).decode()
    net_param = system_parity.thinned(name, int(golden["thin"]), frozen="frozen" in case)
    samples = [
        system_parity.make_inputs(name, "train", *size, SEED + number) for number, size in enumerate(SIZES[case])
    ]
    net = Net(net_param, Phase.TRAIN, inputs={top: value.shape for top, value in samples[0].items()})
    parity.seed_weights(net, lambda layer, index, shape: system_parity.make_weight(layer, index, shape, SEED))
    text = re.sub(r'(train_net|snapshot_prefix):\s*"[^"]*"', "", bytes(golden["solver"]).decode())
    solver = Solver(prototxt.loads(text, SolverParameter), net, lambda draw: samples[draw % len(samples)])
    iterations, losses = int(golden["iters"]), []
    for iteration in range(1, iterations + 1):
        solver.step()
        losses.append(solver.sample_losses[-1])
        if iteration in (1, iterations):
            assert worst_weight(net, golden, iteration) < 2e-3
    off = np.abs(losses - golden["losses"]) / np.abs(golden["losses"])
    assert off[0] < 1e-4
    assert off.max() < 2e-3


def worst_weight(net, golden, iteration):
    """Return the largest error of a weight, relative to the largest change in its blob since the start."""
    keys = [key[:-5] for key in golden if key.startswith(f"iter{iteration}/") and key.endswith("/delta")]
    assert len(keys) > 40
    worst = 0.0
    for key in keys:
        layer, index = key.split("/", 1)[1].rstrip("/").rsplit("/", 1)
        got = net.params[layer][int(index)].detach().numpy().reshape(-1)[golden[f"{key}idx"]]
        change, want = np.abs(golden[f"{key}delta"]).max(), golden[f"{key}val"]
        if change:
            worst = max(worst, float(np.abs(got - want).max() / max(change, 1e-7 * np.abs(want).max())))
        else:
            assert torch.equal(torch.from_numpy(got), torch.from_numpy(want))
    return worst

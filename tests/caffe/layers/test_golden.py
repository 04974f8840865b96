"""Every single-layer case that BVLC Caffe recorded, forward and backward."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reproduction.caffe import prototxt
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.schema import NetParameter, Phase

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "layers.npz")
CASES: dict[str, str] = json.loads(bytes(GOLDEN["prototxt.json"]))
TOLERANCE = 1e-5  # of the greatest magnitude of the array

# The recorder set the gradient of the tops and then cleared that of the bottoms. Caffe's Reshape keeps both in the
# same memory (reshape_layer.cpp L85), so what it passed on there is zero.
CLEARED = {"reshape"}


def recorded(case: str, kind: str) -> list[torch.Tensor]:
    """The arrays ``kind/0``, ``kind/1`` ... of a case."""
    names = [name for name in GOLDEN.files if name.startswith(f"{case}|{kind}/")]
    return [torch.from_numpy(GOLDEN[f"{case}|{kind}/{i}"]) for i in range(len(names))]


def build(case: str):
    """The layer with the recorded parameters, in phase TEST."""
    spec = prototxt.loads(CASES[case], NetParameter).layer[0]
    spec.phase = Phase.TEST
    layer = LAYERS[spec.type](spec, [tuple(bottom.shape) for bottom in recorded(case, "bottom")]).eval()
    with torch.no_grad():
        for blob, value in zip(layer.blobs, recorded(case, "param"), strict=True):
            assert blob.shape == value.shape
            blob.copy_(value)
    return layer


def assert_close(name: str, got: torch.Tensor, want: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert got.shape == want.shape, name
    assert got.dtype == want.dtype, name
    if want.numel():
        error = float((got.double() - want.double()).abs().max() / want.abs().max().clamp(min=1e-6))
        assert error <= tolerance, f"{name} is off by {error:.1e} of its greatest magnitude"


def check(case: str, dtype: torch.dtype) -> None:
    layer = build(case).to(dtype)
    bottoms = [bottom.to(dtype) for bottom in recorded(case, "bottom")]
    diffs = {i: want for i, want in enumerate(recorded(case, "bottom_diff"))}
    for i in diffs:
        bottoms[i].requires_grad_()
    tops = layer(*bottoms)
    assert layer.shapes([tuple(bottom.shape) for bottom in bottoms]) == [tuple(top.shape) for top in tops]
    for i, (got, want) in enumerate(zip(tops, recorded(case, "top"), strict=True)):
        assert_close(f"top {i}", got.detach(), want.to(dtype))
    param_diffs = recorded(case, "param_diff")
    if not diffs and not param_diffs:
        return
    sources = [bottoms[i] for i in diffs] + layer.blobs[: len(param_diffs)]
    top_diffs = [diff.to(dtype) * (case not in CLEARED) for diff in recorded(case, "top_diff")]
    grads = torch.autograd.grad(tops, sources, top_diffs, materialize_grads=True)
    names = [f"bottom_diff {i}" for i in diffs] + [f"param_diff {i}" for i in range(len(param_diffs))]
    for name, got, want in zip(names, grads, [*diffs.values(), *param_diffs], strict=True):
        assert_close(name, got, want.to(dtype))


def test_the_cases_were_found():
    assert len(CASES) == 68


@pytest.mark.parametrize("case", CASES)
def test_layer_equals_caffe_forward_and_backward(case):
    check(case, torch.float32)


@pytest.mark.parametrize("case", CASES)
def test_layer_also_works_in_double_precision(case):
    check(case, torch.float64)

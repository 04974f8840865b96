"""Functions that oneDNN Graph computes."""

import gc
import weakref

import pytest
import torch
from torch.nn import functional as F

from reproduction.fast import onednn_graph
from reproduction.fast.onednn_graph import OneDnnFunction
from tests.helpers.parity import relative

pytestmark = pytest.mark.skipif(not onednn_graph.is_available(), reason="this build of torch has no oneDNN Graph")


class Block:
    """A convolution, a sum and a ReLU, with a count of the calls that torch's operators compute."""

    def __init__(self):
        self.weight, self.calls = torch.randn(8, 6, 3, 3), 0

    def __call__(self, x, y):
        self.calls += 1
        z = F.relu(F.conv2d(x, self.weight, None, 1, 1) + y)
        return z, F.max_pool2d(z, 3, 2, ceil_mode=True)


def images(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("after", [0, 3])
def test_every_call_returns_what_the_function_returns(after, dtype):
    block = Block()
    block.weight = block.weight.to(dtype)
    function = OneDnnFunction(block, after=after)
    with torch.inference_mode():
        for _ in range(5):
            given = images(2, 6, 9, 7, dtype=dtype), images(2, 8, 9, 7, dtype=dtype)
            for found, want in zip(function(*given), block(*given), strict=True):
                assert found.dtype is dtype
                assert relative(found.float().numpy(), want.float().numpy()) < (
                    1e-2 if dtype is torch.bfloat16 else 1e-6
                )
    others = 5  # calls of the block itself, to compare with
    assert block.calls - others == (5 if dtype is torch.float64 else after + 1), "oneDNN computes no doubles"


def test_the_weights_are_freed_with_the_function():
    block, given = Block(), (images(1, 6, 9, 7), images(1, 8, 9, 7))
    function, weight = OneDnnFunction(block, after=0), weakref.ref(block.weight)
    function(*given)
    del block, function
    gc.collect()
    assert weight() is None


def test_the_users_setting_is_kept():
    given = images(1, 6, 9, 7), images(1, 8, 9, 7)
    for enabled in (True, False):
        torch.jit.enable_onednn_fusion(enabled)
        OneDnnFunction(Block(), after=0)(*given)
        assert torch.jit.onednn_fusion_enabled() == enabled


def test_without_onednn_graph_torch_computes_the_function(monkeypatch):
    monkeypatch.setattr(onednn_graph, "is_available", lambda: False)
    block, given = Block(), (images(1, 6, 9, 7), images(1, 8, 9, 7))
    function = OneDnnFunction(block, after=0)
    assert torch.equal(function(*given)[0], block(*given)[0])
    assert block.calls == 2


def test_a_torch_without_its_functions_is_noticed(monkeypatch):
    def refuse(*_):
        raise AttributeError("_get_trace_graph")

    monkeypatch.setattr(torch.jit, "_get_trace_graph", refuse)
    assert not onednn_graph.is_available.__wrapped__()

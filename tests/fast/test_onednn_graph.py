"""Functions that oneDNN Graph computes."""

import gc
import platform
import weakref

import pytest
import torch
from torch.nn import functional as F

from reproduction.fast import compiler, kernels, onednn_graph
from reproduction.fast.onednn_graph import OneDnnFunction
from reproduction.fcn.nets import published_nets
from tests.fast.test_folding import EXACT, build, conv, layer
from tests.helpers import thin_nets
from tests.helpers.parity import relative

# There, a torch without the functions that are used must fail a test: nets would silently be slower.
HAS_ONEDNN_GRAPH = platform.system() == "Linux" and platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(not HAS_ONEDNN_GRAPH, reason="torch has oneDNN Graph on x86-64 CPUs with Linux only")


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


def test_this_torch_has_onednn_graph():
    assert onednn_graph.is_available()


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


CHAIN = (
    conv("a")
    + layer("p", "Pooling", "a", param="pooling_param { kernel_size: 3 stride: 2 }")
    + conv("b", "p", "kernel_size: 1")
    + layer("k", "Concat", "p b")
    + layer("t", "TanH", "k")
    + conv("c", "t")
)


def merged(compiled):
    """Return the names of the layers of each step that is recorded, after one call of each size."""
    (plan,) = (cached.plan for cached in compiled._plans.values())
    return [[op.name for op in step.ops] for step in plan.steps if isinstance(step.kernel, kernels.RecordedKernels)]


def test_adjacent_layers_are_one_step_up_to_a_layer_that_torch_computes(always_winograd):
    compiled = compiler.compile(build(CHAIN))
    compiled(data=images(2, 6, 9, 9))
    assert merged(compiled) == [["a", "p", "b", "k"], ["c"]]


def test_nothing_is_recorded_where_results_must_be_steady(always_winograd):
    compiled, x = compiler.compile(build(CHAIN), steady=True), images(2, 6, 9, 9)
    found = [compiled(data=x)["c"] for _ in range(6)]
    assert merged(compiled) == []
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("name", published_nets.NETS)
def test_recorded_steps_of_the_published_nets_compute_the_scores_of_the_net(name):
    net = thin_nets.net(name, divisor=16)
    compiled = compiler.compile(net)
    inputs = {blob: torch.randn(1, net.blob_shapes[blob][1], 75, 102) * 50 for blob in net.inputs}
    with torch.inference_mode():
        want = net(inputs)
    for _ in range(6):
        found = compiled(inputs)
    assert merged(compiled), "the borders of images are in the blobs that these steps read"
    assert all(relative(found[blob].numpy(), want[blob].numpy()) < EXACT for blob in want)

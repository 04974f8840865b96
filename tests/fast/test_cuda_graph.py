"""CUDA graphs: the order of events with a stand-in for CUDA, and the real thing if there is a GPU."""

from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch

from reproduction.fast import compiler
from reproduction.fast.cuda_graph import RecordedFunction
from reproduction.fast.precisions import set_cudnn_flags
from tests.fast.test_compiler import EXACT, images
from tests.helpers import thin_nets
from tests.helpers.parity import relative

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: run the tests where torch sees one")


class Stage:
    """Stands in for torch.cuda: runs the recorded function again at each replay, on the tensors that were recorded."""

    def __init__(self):
        self.events: list[str] = []
        self.play: Callable[[], object] | None = None  # what is recorded

    def Stream(self):  # noqa: N802 - torch.cuda's name
        return self

    def current_stream(self):
        return self

    def wait_stream(self, other):
        self.events.append("wait")

    @contextmanager
    def stream(self, stream):
        yield

    def CUDAGraph(self):  # noqa: N802 - torch.cuda's name
        return self

    @contextmanager
    def graph(self, graph, pool, capture_error_mode):
        self.events.append(f"record in {pool}")
        yield

    def replay(self):
        self.events.append("play")
        assert self.play is not None
        self.play()


def test_a_recorded_function_copies_its_inputs_and_outputs(monkeypatch):
    stage = Stage()
    monkeypatch.setattr(torch, "cuda", stage)
    top = torch.zeros(3)

    def double(inputs):
        torch.mul(inputs["data"], 2, out=top)
        stage.play = lambda: torch.mul(inputs["data"], 2, out=top)
        return {"top": top}

    first = torch.ones(3)
    made = RecordedFunction(double, {"data": first}, "a pool")
    assert stage.events == ["wait", "wait", "record in a pool"]
    found = [made({"data": torch.full((3,), value)})["top"] for value in (1.0, 5.0)]
    assert [tensor.tolist() for tensor in found] == [[2.0] * 3, [10.0] * 3], "results are kept"
    assert first.tolist() == [1.0] * 3, "the caller's inputs are not written to"


def on_a_gpu(monkeypatch, record):
    """A compiled net that takes the way of the GPU, with something else for recordings."""
    monkeypatch.setattr(compiler, "RecordedFunction", record)
    compiled = compiler.compile(thin_nets.net("voc-fcn8s", divisor=32))
    monkeypatch.setattr(compiled, "_graph_pool", "a pool")
    return compiled


def test_the_second_call_of_a_size_is_recorded_and_then_replayed(monkeypatch, always_winograd):
    made = []

    def record(run, inputs, pool):
        made.append((tuple(inputs["data"].shape), pool))
        return run

    compiled = on_a_gpu(monkeypatch, record)
    for height, width, count in [(40, 50, 0), (50, 40, 0), (40, 50, 1), (40, 50, 1), (50, 40, 2)]:
        inputs = images(compiled.net, height, width)
        with torch.inference_mode():
            want = compiled.net(inputs, ["score"])["score"]
        assert relative(compiled(inputs, ["score"])["score"].numpy(), want.numpy()) < EXACT
        assert len(made) == count
    assert made == [((1, 3, 40, 50), "a pool"), ((1, 3, 50, 40), "a pool")]


def test_a_plan_that_cannot_be_recorded_is_executed(monkeypatch, always_winograd):
    def record(run, inputs, pool):
        raise RuntimeError("operation not permitted when stream is capturing")

    compiled = on_a_gpu(monkeypatch, record)
    inputs = images(compiled.net, 40, 50)
    found = [compiled(inputs, ["score"])["score"] for _ in range(4)]
    assert relative(found[0].numpy(), found[1].numpy()) < EXACT, "the second call of a size may have another plan"
    assert all(relative(found[1].numpy(), other.numpy()) < EXACT for other in found[2:])


@pytest.mark.parametrize("precision", ["exact", "tf32", "bf16"])
@pytest.mark.parametrize("tune", [False, True])
def test_cudnn_flags_are_set_for_the_precision_and_restored(precision, tune):
    def settings():
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic

    before = settings()
    with set_cudnn_flags(torch.device("cuda"), precision, tune=tune):
        assert settings() == (precision == "tf32", tune, not tune)
    assert settings() == before


@CUDA
@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "allowed"), [("exact", EXACT), ("tf32", 1e-2), ("bf16", 3e-2)])
def test_recorded_nets_score_as_the_net(precision, allowed):
    net = thin_nets.net("voc-fcn8s", divisor=8).cuda()
    compiled = compiler.compile(net, precision)
    assert compiled.precision == precision
    for seed, (height, width) in enumerate([(160, 96), (97, 131), (160, 96), (160, 96), (97, 131), (97, 131)]):
        inputs = images(net, height, width, seed=seed)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            want = net(inputs, ["score"])["score"]
        got = compiled(inputs, ["score"])["score"]
        assert relative(got.cpu().numpy(), want.cpu().numpy()) < allowed
    assert all(cached.graph for cached in compiled._plans.values()), "every plan was recorded"

"""The runtimes of the extra fast, and which of them computes a size."""

import copy
import itertools
import weakref
from functools import partial

import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.fast import compiler, engines
from tests.fast.conftest import draw_image
from tests.helpers import thin_nets
from tests.helpers.parity import relative

EXACT = 2e-5
INSTALLED = [name for name, runtime in engines.RUNTIMES.items() if runtime.is_installed()]


@pytest.fixture
def clock(monkeypatch):
    """Let engines take the seconds of a table, and be measured at the third call of a size."""
    monkeypatch.setattr(engines, "CALLS", 2)
    seconds, measured = {"torch": 1.0, "onnxruntime": 2.0, "openvino": 2.0}, []

    def measure(runs):
        names = [getattr(getattr(run, "func", None), "name", "torch") for run in runs]
        for run in runs:
            run()
        measured.extend(names)
        return [seconds[name] for name in names]

    monkeypatch.setattr(engines, "measure", measure)
    return seconds, measured


@pytest.mark.parametrize("engine", engines.RUNTIMES)
def test_a_runtime_computes_the_blobs_of_the_net_also_after_a_change_of_the_weights(net, engine):
    pytest.importorskip(engine, reason=f"{engine} is not installed: pip install -e '.[fast]'")
    compiled = compiler.compile(net, engine=engine)
    for height in (64, 81):
        inputs = draw_image(net, height, 70, batch=2)
        with torch.inference_mode():
            want = net(inputs, ["pool3", "score"])
        got = compiled(inputs, ["pool3", "score"])
        again = compiled({"data": inputs["data"].flip(3)}, ["score"])["score"]
        assert all(relative(got[name].numpy(), want[name].numpy()) < EXACT for name in want), "results are kept"
        assert relative(again.numpy(), want["score"].numpy()) > EXACT
    assert compiled.explain(81, 70).endswith(f"The engine is {engine}.")
    with torch.no_grad():
        net.params["conv1_1"][0].mul_(0.5)
    with torch.inference_mode():
        changed = net(inputs)["score"]
    assert relative(compiled(inputs)["score"].numpy(), changed.numpy()) < EXACT
    assert relative(copy.deepcopy(compiled)(inputs)["score"].numpy(), changed.numpy()) < EXACT


def test_the_graphs_of_few_sizes_are_kept(net, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[fast]'")
    monkeypatch.setattr(compiler, "SIZES", 2)
    compiled = compiler.compile(net, engine="onnxruntime")
    found = [compiled(draw_image(net, height, 48))["score"] for height in (32, 33, 34, 32)]
    assert [cached.graph is not None for cached in compiled._plans.values()] == [False, True, True]
    assert torch.equal(found[0], found[-1])


def test_an_image_that_is_not_contiguous_is_copied(net):
    inputs = {"data": draw_image(net, 48, 64)["data"].transpose(2, 3)}
    with torch.inference_mode():
        want = net(inputs)["score"].numpy()
    for engine in INSTALLED:
        assert relative(compiler.compile(net, engine=engine)(inputs)["score"].numpy(), want) < EXACT


@pytest.mark.parametrize("fastest", engines.RUNTIMES)
def test_auto_measures_a_size_that_comes_often_and_keeps_the_fastest_engine(clock, net, fastest):
    pytest.importorskip(fastest, reason=f"{fastest} is not installed: pip install -e '.[fast]'")
    seconds, measured = clock
    seconds[fastest] = 0.9
    compiled = compiler.compile(net, engine="auto")
    assert compiled.explain(64, 64).endswith(f"The engine is {compiled._engines.describe()}.")
    found = [compiled(draw_image(net, 64, 64))["score"].numpy() for _ in range(4)]
    first, *second = INSTALLED
    before = first if fastest == first else "torch"
    assert measured == [first, "torch", *(name for each in second for name in (each, before))]
    assert compiled.explain(64, 64).endswith(f"The engine is {fastest}.")
    assert all(relative(values, found[0]) < EXACT for values in found)
    measured.clear()
    for _ in range(3):
        compiled(draw_image(net, 65, 64))
    assert measured == [fastest, "torch"], "the others are not prepared for another size"


def test_no_runtime_is_measured_again_after_torch_was_the_fastest(clock, net):
    seconds, measured = clock
    seconds["openvino"] = 0.99  # too little to gain
    compiled = compiler.compile(net, engine="auto")
    for height in (64, 65):
        for _ in range(4):
            compiled(draw_image(net, height, 64))
    assert measured == [name for each in INSTALLED for name in (each, "torch")]
    assert compiled.explain(64, 64).endswith("The engine is torch.")
    assert compiled.explain(65, 64).endswith("The engine is torch.")


def test_a_runtime_that_fails_is_left_out(clock, net, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[fast]'")

    def fail(*_):
        raise RuntimeError("not implemented\nat a line of the runtime")

    monkeypatch.setattr(engines.OnnxRuntimeGraph, "_prepare", fail)
    graph = compiler.compile(net)._write_graph(["score"], draw_image(net, 64, 64))
    with pytest.raises(NetError, match=r"onnxruntime cannot compute this net: not implemented\.$"):
        engines.OnnxRuntimeGraph(graph, ["score"], "exact")
    for engine in ("auto", "onnxruntime"):
        compiled = compiler.compile(net, engine=engine)
        found = [compiled(draw_image(net, 64, 64))["score"].numpy() for _ in range(4)]
        assert relative(found[-1], found[0]) < EXACT
        assert "onnxruntime" not in compiled.explain(64, 64).splitlines()[-1]


def test_bf16_is_computed_by_runtimes_that_have_it():
    assert engines.EngineChoice("auto", "bf16").runtimes == [engines.OpenVinoGraph] * ("openvino" in INSTALLED)


def test_results_that_must_be_steady_do_not_depend_on_times(clock, net):
    compiled = compiler.compile(net, steady=True, engine="auto")
    inputs = draw_image(net, 64, 64)
    found = [compiled(inputs)["score"] for _ in range(4)]
    assert all(torch.equal(scores, found[0]) for scores in found)
    assert not clock[1]


def test_freed_weights_are_computed_by_torch(clock, monkeypatch, always_winograd):
    net = thin_nets.net("voc-fcn8s", 16)
    monkeypatch.setattr("reproduction.fast.convolution.LARGE", 1)
    compiled = compiler.compile(net, discard=True, engine="auto")
    assert compiled._discarded
    for _ in range(4):
        compiled(draw_image(net, 64, 64))
    assert not clock[1]


def test_a_graph_that_lost_is_freed_before_the_next_one_is_prepared(clock):
    alive = []

    class Graph:
        name = "openvino"

        def __call__(self, inputs):
            return {}

    def prepare(runtime):
        assert not [each for each in alive if each() is not None]
        graph = Graph()
        alive.append(weakref.ref(graph))
        return graph

    choice = engines.EngineChoice("auto", "exact")
    choice.runtimes = [engines.OnnxRuntimeGraph, engines.OpenVinoGraph]
    assert choice.choose(prepare, {}, lambda: None) is None
    assert len(alive) == 2


def test_engines_are_measured_in_turns_and_the_first_run_of_a_turn_does_not_count(monkeypatch):
    now, calls = [0.0], []

    def run(name, times):
        now[0] += next(times)
        calls.append(name)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    quick, other = itertools.cycle([0.05, 0.03, 0.01, 0.02]), itertools.cycle([0.08, 0.06])
    found = engines.measure([partial(run, "quick", quick), partial(run, "other", other)])
    assert found == pytest.approx([0.02, 0.06]), "the first run of a turn does not count"
    assert calls == [*["quick"] * 4, *["other"] * 2] * 5
    calls.clear()
    found = engines.measure([partial(run, "slow", iter([0.9, 0.7, 0.8])), partial(run, "slower", iter([1.0, 1.2, 9]))])
    assert found == pytest.approx([0.8, 1.2])
    assert calls == ["slow", "slower"] * 3, "two seconds are enough, but a median needs three turns"


def test_an_engine_that_is_unknown_or_missing_is_an_error(monkeypatch, net):
    with pytest.raises(NetError, match="no such engine; got 'cudnn', want auto, torch, onnxruntime, openvino"):
        compiler.compile(net, engine="cudnn")
    for name, runtime in engines.RUNTIMES.items():
        monkeypatch.setattr(runtime, "is_installed", lambda: False)
        with pytest.raises(ReproductionError, match=rf"{name} is not installed. Install it by .*\[fast\]"):
            compiler.compile(net, engine=name)
    assert not compiler.compile(net, engine="auto")._engines.runtimes

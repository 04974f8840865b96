"""Plans as graphs of standard operators: what other runtimes compute from them, compared with the nets."""

import copy

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.onnx_graph import OnnxGraph
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fast import compiler
from tests.fast.test_random_nets import RandomNet
from tests.helpers import thin_nets
from tests.helpers.parity import relative


def draw_image(net, height, width, batch=1):
    shape = (batch, net.blob_shapes["data"][1], height, width)
    return {"data": torch.from_numpy(np.random.default_rng(3).standard_normal(shape, np.float32))}


@pytest.fixture
def net():
    """A thin voc-fcn8s with biases, so that the pixels around the image are not zero."""
    made = Net(thin_nets.deploy("voc-fcn8s", 16), seed=1).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for blob in made.parameters():
            if blob.dim() == 1:
                blob.normal_(0, 0.3, generator=generator)
            elif not blob.any():
                blob.normal_(0, 0.1, generator=generator)
    return made


def write_graph(net, inputs, blobs):
    graph, shapes = OnnxGraph(), {name: tuple(value.shape) for name, value in inputs.items()}
    values = {name: graph.input(name, np.float32, shape) for name, shape in shapes.items()}
    for name, value in compiler.compile(net).add_to_onnx(graph, values, shapes, blobs).items():
        graph.output(f"{name}_out", value, np.float32, [f"{name}{i}" for i in range(len(net.blob_shapes[name]))])
    return graph


def run_onnx(graph, inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(graph.model("planned", {}).SerializeToString())
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


@pytest.mark.parametrize("size", [(64, 97), (150, 130)])
def test_the_graph_of_a_plan_computes_the_blobs_of_the_net(net, size):
    inputs = draw_image(net, size[0], size[1], batch=2)
    wanted = ["pool3", "score"]
    with torch.inference_mode():
        want = net(inputs, wanted)
    got = run_onnx(write_graph(net, inputs, wanted), inputs)
    for name, values in zip(wanted, got, strict=True):
        assert relative(values, want[name].numpy()) < 2e-5, name


def test_only_what_depends_on_the_image_is_computed(net):
    graph = write_graph(net, draw_image(net, 64, 64), ["score"])
    assert sum(node.operator == "Concat" for node in graph.nodes) >= 2  # constants around computed pixels
    first = next(node for node in graph.nodes if node.operator == "Conv")
    assert max(first.attributes["pads"]) <= 10  # of the 100 pixels of padding


@pytest.mark.parametrize("seed", range(12))
def test_a_random_net_computes_the_same_as_a_graph(planned, seed):
    drawn = RandomNet(np.random.default_rng(seed), 3)
    for _ in range(8):
        drawn.grow()
    net = Net(prototxt.loads("\n".join(drawn.text), NetParameter), seed=seed)
    inputs, wanted = draw_image(net, 50, 61), list(net.outputs)
    try:
        with torch.inference_mode():
            want = net(inputs, wanted)
        graph = write_graph(net, inputs, wanted)
    except NetError as error:
        pytest.skip(f"too small, or without an operator of ONNX: {error}")
    for name, values in zip(wanted, run_onnx(graph, inputs), strict=True):
        assert relative(values, want[name].numpy()) < 1e-4, (name, "\n".join(drawn.text))


def test_openvino_computes_the_same_also_after_a_change_of_the_weights(net):
    pytest.importorskip("openvino")
    compiled = compiler.compile(net, engine="openvino")
    for height in (64, 81):
        inputs = draw_image(net, height, 70)
        with torch.inference_mode():
            want = net(inputs, ["pool3", "score"])
        got = compiled(inputs, ["pool3", "score"])
        assert all(relative(got[name].numpy(), want[name].numpy()) < 2e-5 for name in want)
    with torch.no_grad():
        net.params["conv1_1"][0].mul_(0.5)
    with torch.inference_mode():
        changed = net(inputs)["score"]
    assert relative(compiled(inputs)["score"].numpy(), changed.numpy()) < 2e-5
    assert relative(copy.deepcopy(compiled)(inputs)["score"].numpy(), changed.numpy()) < 2e-5


@pytest.mark.parametrize(("seconds", "used"), [(1e9, True), (0.0, False)])
def test_a_size_that_comes_often_is_computed_by_the_faster_engine(monkeypatch, net, seconds, used):
    pytest.importorskip("openvino")
    monkeypatch.setattr(compiler, "_ENGINE_CALLS", 2)
    monkeypatch.setattr(compiler, "_ENGINE_GAIN", seconds)
    compiled = compiler.compile(net, engine="auto")
    inputs = draw_image(net, 64, 64)
    found = [compiled(inputs)["score"].numpy() for _ in range(4)]
    [cached] = compiled._plans.values()
    assert (cached.graph is not None, compiled._uses_engine) == (used, used)
    assert all(relative(values, found[0]) < 2e-5 for values in found)


def test_results_that_must_be_steady_do_not_depend_on_the_engines_times(monkeypatch, net):
    monkeypatch.setattr(compiler, "_ENGINE_CALLS", 0)
    compiled = compiler.compile(net, steady=True, engine="auto")
    inputs = draw_image(net, 64, 64)
    first = compiled(inputs)["score"]
    assert all(torch.equal(compiled(inputs)["score"], first) for _ in range(2))


def test_an_engine_that_is_unknown_or_missing_is_an_error(monkeypatch, net):
    with pytest.raises(NetError, match="no such engine; got 'cudnn', want auto, torch, openvino"):
        compiler.compile(net, engine="cudnn")
    monkeypatch.setattr(compiler, "is_installed", lambda: False)
    with pytest.raises(ReproductionError, match=r"openvino is not installed. Install it by .*\[fast\]"):
        compiler.compile(net, engine="openvino")
    assert not compiler.compile(net, engine="auto")._uses_engine

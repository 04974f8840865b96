"""Plans as graphs of standard operators: what other runtimes compute from them, compared with the nets."""

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.layers.onnx_graph import OnnxGraph
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fast import blob_regions, compiler
from tests.fast.conftest import draw_image
from tests.fast.test_random_nets import RandomNet
from tests.helpers.parity import relative


def write_graph(net, inputs, blobs):
    graph, shapes = OnnxGraph(), {name: tuple(value.shape) for name, value in inputs.items()}
    values = {name: graph.input(name, np.float32, shape) for name, shape in shapes.items()}
    for name, value in compiler.compile(net).add_to_onnx(graph, values, shapes, blobs).items():
        graph.output(f"{name}_out", value, np.float32, [f"{name}{i}" for i in range(len(net.blob_shapes[name]))])
    return graph


def run_onnx(graph, inputs):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[fast]'")
    session = onnxruntime.InferenceSession(graph.model("always_winograd", {}).SerializeToString())
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


@pytest.mark.parametrize(("cost", "saves"), [(0, True), (1 << 40, False)])
def test_constants_are_concatenated_where_that_saves_time(net, monkeypatch, cost, saves):
    monkeypatch.setattr(blob_regions, "GRAPH_BORDER_COST", cost)
    inputs = draw_image(net, 64, 64)
    graph = write_graph(net, inputs, ["score"])
    assert (sum(node.operator == "Concat" for node in graph.nodes) >= 2) == saves
    first = next(node for node in graph.nodes if node.operator == "Conv")
    assert (max(first.attributes["pads"]) <= 10) == saves  # of the 100 pixels of padding
    with torch.inference_mode():
        want = net(inputs)["score"].numpy()
    assert relative(run_onnx(graph, inputs)[0], want) < 2e-5


@pytest.mark.parametrize("seed", range(12))
def test_a_random_net_computes_the_same_as_a_graph(always_winograd, seed):
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

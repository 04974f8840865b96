"""Every layer of a fork gives the values and gradients that the fork's own code computed."""

import numpy as np
import onnxruntime
import pytest
import torch

import reproduction
from reproduction.caffe.errors import NetError
from reproduction.caffe.layers import LAYERS
from reproduction.caffe.net import onnx_export
from reproduction.caffe.schema import Message
from tests.helpers.fork_parity import fork_cases, fork_layer_errors, layer_type, plain_net
from tests.helpers.parity import LAYER_TOLERANCE, relative

Message.import_late_fields()
KNOWN = [case for case in fork_cases() if layer_type(case) in LAYERS]


@pytest.mark.parametrize("case", KNOWN)
def test_a_layer_of_a_fork_gives_its_values_and_gradients(tmp_path, case):
    errors = fork_layer_errors(case, tmp_path)
    assert max(errors.values()) <= LAYER_TOLERANCE, errors


@pytest.mark.parametrize("case", [case for case in KNOWN if "phase:TRAIN" not in fork_cases()[case]])
def test_a_layer_of_a_fork_computes_the_same_compiled_and_exported(tmp_path, case):
    net, inputs = plain_net(case, tmp_path)
    with torch.no_grad():
        want = {name: value.numpy() for name, value in net(inputs).items()}
        got = reproduction.compile(net)(inputs)
    assert max(relative(got[name].numpy(), want[name]) for name in want) <= LAYER_TOLERANCE
    graph = onnx_export.OnnxGraph()
    fed = {name: graph.input(name, np.float32, value.shape) for name, value in inputs.items()}
    try:
        values = onnx_export.add_layers(net, graph, fed, list(want))
    except NetError as error:
        if "cannot be written as ONNX" not in error.problem:
            raise
        return
    for name, value in want.items():
        graph.output(f"{name}_out", values[name], np.float32, value.shape)
    session = onnxruntime.InferenceSession(graph.model("net", {}).SerializeToString())
    outputs = session.run(None, {name: value.astype(np.float32) for name, value in inputs.items()})
    for name, output in zip(want, outputs, strict=True):
        assert relative(output, want[name]) <= LAYER_TOLERANCE, name


def test_every_recorded_layer_type_is_there():
    assert not {layer_type(case) for case in fork_cases()} - LAYERS.keys()

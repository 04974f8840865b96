"""ONNX Runtime computes from each layer's ONNX form what Caffe computed, on the recorded cases of all layer types."""

import numpy as np
import onnxruntime
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.layers.onnx_graph import OnnxGraph, OnnxLayer
from reproduction.caffe.net.onnx_export import has_onnx_form
from reproduction.caffe.schema import Phase
from tests.helpers import parity
from tests.helpers.single_layer import single

# Layers of training alone, which a deploy net does not have.
WITHOUT = {
    "Accuracy", "ContrastiveLoss", "EuclideanLoss", "HingeLoss", "HDF5Data", "HDF5Output", "ImageData", "InfogainLoss",
    "Input", "MemoryData", "MultinomialLogisticLoss", "Python", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss",
}  # fmt: skip
# Settings that no operator has, with the beginning of the error.
REFUSED = {
    "conv_no_spatial_axis": "such a convolution cannot be written as ONNX; got axis 1 of 2, want axis 1 of 3 to 5.",
    "conv_4d": "such a convolution cannot be written as ONNX; got axis 1 of 6, want axis 1 of 3 to 5.",
    "conv_axis2": "such a convolution cannot be written as ONNX; got axis 2 of 5, want axis 1 of 3 to 5.",
    "conv_negative_axis": "such a convolution cannot be written as ONNX; got axis 2 of 4, want axis 1 of 3 to 5.",
    "deconv_4d": "such a convolution cannot be written as ONNX; got axis 1 of 6, want axis 1 of 3 to 5.",
    "pool_ave_past_the_end": "an average of windows that may be empty cannot be written as ONNX; got kernel 1,"
    " stride 3.",
}  # fmt: skip


def run_onnx(layer, bottoms):
    graph = OnnxGraph()
    names = [graph.input(f"bottom{i}", np.float32, [f"a{i}{j}" for j in range(x.dim())]) for i, x in enumerate(bottoms)]
    tops = layer.to_onnx(OnnxLayer(graph, layer, [tuple(x.shape) for x in bottoms]), *names)
    with torch.no_grad():
        want = [top.numpy() for top in layer(*bottoms)]
    for i, top in enumerate(want):
        graph.output(f"output{i}", tops[i], np.float32, [f"b{i}{j}" for j in range(top.ndim)])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.model("one", {}).SerializeToString(), options)
    return session.run(None, {name: x.numpy() for name, x in zip(names, bottoms, strict=True)}), want


def run_case(case):
    """Return what ONNX Runtime computes for a recorded case, and what Caffe computed or, in training, our own layer."""
    layer = parity._layer(case)
    is_training = layer.layer_param.phase is Phase.TRAIN
    got, ours = run_onnx(layer.eval(), list(parity._recorded(case, "bottom").values()))
    return got, ours if is_training else [top.numpy() for top in parity._recorded(case, "top").values()]


@pytest.mark.parametrize("case", sorted(set(parity.layer_cases()) - set(REFUSED)))
def test_a_recorded_layer_computes_the_same(case):
    kind = type(parity._layer(case))
    if kind.__name__ in WITHOUT:
        assert not has_onnx_form(kind)
        return
    got, want = run_case(case)
    for mine, theirs in zip(got, want, strict=True):
        # ELU of tiny values is 0 up to rounding in Caffe, which subtracts 1 from exp(x).
        assert case == "elu_small" or parity.relative(mine, theirs) < 2e-5
        assert parity.relative(1 + mine, 1 + theirs) < 2e-5


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_without_an_operator_is_refused(case):
    with pytest.raises(NetError) as error:
        run_case(case)
    assert str(error.value) == REFUSED[case]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["embed", "batch_reindex", "lstm_static", "argmax_flat"])
def test_torch_export_takes_layers_that_check_values_or_have_a_state(case):
    layer, bottoms = parity._layer(case).eval(), tuple(parity._recorded(case, "bottom").values())
    with torch.no_grad():
        tops = torch.export.export(layer, bottoms).module()(*bottoms)
    for mine, theirs in zip(tops, parity._recorded(case, "top").values(), strict=True):
        assert parity.relative(mine.numpy(), theirs.numpy()) < 1e-5


@pytest.mark.parametrize("window", ["kernel_size: 2 stride: 2", "kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2"])
def test_positions_of_adjacent_maxima_are_those_of_the_first_ones(window):
    layer = single(f'type: "Pooling" top: "max" top: "position" pooling_param {{ {window} }}', (2, 3, 7, 9))
    few = torch.randint(
        -1, 2, (2, 3, 7, 9), generator=torch.Generator().manual_seed(0)
    ).float()  # so that many are equal
    for mine, theirs in zip(*run_onnx(layer, [few]), strict=True):
        np.testing.assert_array_equal(mine, theirs)

"""ONNX Runtime computes the module's values from exported layers, also at sizes that the export did not use."""

import numpy as np
import onnxruntime
import pytest
import torch

from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net import onnx_export
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

SIZES = ((9, 12), (16, 16), (11, 7))
CONV = "convolution_param { num_output: 4 weight_filler { type: 'gaussian' std: 0.3 }"
DECONV = "convolution_param { num_output: 3 weight_filler { type: 'gaussian' std: 0.3 }"

LAYERS = {
    "convolution": f"type: 'Convolution' {CONV} kernel_size: 3 stride: 2 pad: 1 bias_filler {{ value: 0.5 }} }}",
    "dilated": f"type: 'Convolution' {CONV} kernel_h: 3 kernel_w: 2 pad_h: 2 pad_w: 0 dilation: 2 }}",
    "groups without bias": f"type: 'Convolution' {CONV} kernel_size: 1 group: 2 bias_term: false }}",
    "deconvolution": f"type: 'Deconvolution' {DECONV} kernel_size: 4 stride: 2 pad: 1 }}",
    "deconvolution in groups": f"type: 'Deconvolution' {CONV} kernel_size: 5 stride: 3 group: 2 }}",
    "max pooling, rounded up": "type: 'Pooling' pooling_param { kernel_size: 2 stride: 2 }",
    "max pooling of AlexNet": "type: 'Pooling' pooling_param { kernel_size: 3 stride: 2 }",
    "max pooling, clipped by its padding": "type: 'Pooling' pooling_param { kernel_size: 2 stride: 2 pad: 1 }",
    "max pooling, with padding": "type: 'Pooling' pooling_param { kernel_size: 3 stride: 2 pad: 1 }",
    "max pooling, rounded down": "type: 'Pooling' pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }",
    "average pooling, rounded up": "type: 'Pooling' pooling_param { pool: AVE kernel_size: 3 stride: 2 }",
    "average pooling, with padding": "type: 'Pooling' pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
    "average of everything": "type: 'Pooling' pooling_param { pool: AVE global_pooling: true }",
    "ReLU": "type: 'ReLU'",
    "leaky ReLU": "type: 'ReLU' relu_param { negative_slope: 0.1 }",
    "LRN": "type: 'LRN' lrn_param { local_size: 3 alpha: 0.2 beta: 0.75 k: 2 }",
    "dropout": "type: 'Dropout'",
    "softmax": "type: 'Softmax'",
    "sigmoid": "type: 'Sigmoid'",
    "tanh": "type: 'TanH'",
    "absolute value": "type: 'AbsVal'",
    "ELU": "type: 'ELU' elu_param { alpha: 0.5 }",
    "scale": "type: 'Scale' scale_param { filler { type: 'gaussian' std: 1 } }",
    "scale and bias": "type: 'Scale' scale_param { filler { value: 2 } bias_term: true bias_filler { value: 3 } }",
    "one scale for all": "type: 'Scale' scale_param { num_axes: 0 filler { value: 0.01 } }",
    "bias": "type: 'Bias' bias_param { filler { type: 'gaussian' std: 1 } }",
    "batch norm": "type: 'BatchNorm' batch_norm_param { eps: 0.01 }",
    "sum": "type: 'Eltwise' bottom: 'other'",
    "weighted sum": "type: 'Eltwise' bottom: 'other' eltwise_param { coeff: 0.5 coeff: -1 }",
    "product": "type: 'Eltwise' bottom: 'other' eltwise_param { operation: PROD }",
    "maximum": "type: 'Eltwise' bottom: 'other' eltwise_param { operation: MAX }",
    "concat": "type: 'Concat' bottom: 'other'",
    "crop": "type: 'Crop' bottom: 'small' crop_param { axis: 2 offset: 1 }",
    "crop at two offsets": "type: 'Crop' bottom: 'small' crop_param { axis: 2 offset: 0 offset: 2 }",
    "flatten": "type: 'Flatten'",
}  # fmt: skip


def net_of(layer, size=(9, 12)):
    """A net of an input, a sibling of it, a smaller one, and the layer."""
    dims = " ".join(f"dim: {dim}" for dim in (1, 4, *size))
    text = f"""name: "one"
        layer {{ name: "input" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "other" type: "Convolution" bottom: "data" top: "other" {CONV} kernel_size: 1 }} }}
        layer {{ name: "small" type: "Convolution" bottom: "data" top: "small" {CONV} kernel_size: 3 }} }}
        layer {{ name: "it" bottom: "data" top: "it" {layer} }}"""
    net = Net(prototxt.loads(text, NetParameter), seed=3)
    with torch.no_grad():
        for values in net.params.get("it", []):
            if values.shape == (1,) and net.layers["it"].layer_param.type == "BatchNorm":
                values.fill_(2.0)
            elif not values.any():
                values.uniform_(0.5, 1.5)
    return net


def session(net, blobs):
    writer = onnx_export.OnnxGraph()
    fed = {name: writer.input(name, np.float32, ["N", 4, "H", "W"]) for name in net.inputs}
    for blob, value in onnx_export.add_layers(net, writer, fed, blobs).items():
        axes = len(net.blob_shapes[blob])
        writer.output(f"{blob}_out", value, np.float32, [f"axis{i}" for i in range(axes)])
    return onnxruntime.InferenceSession(writer.model(net.graph.name, {"of": "a test"}).SerializeToString())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same(name):
    net = net_of(LAYERS[name])
    run = session(net, ["it"])
    for n, size in enumerate(SIZES, 1):
        x = np.random.default_rng(n).normal(0, 3, (n, 4, *size)).astype(np.float32)
        with torch.inference_mode():
            want = net({"data": x}, ["it"])["it"].numpy()
        [got] = run.run(None, {"data": x})
        assert got.shape == want.shape
        assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()


def test_fully_connected_layers_are_written_for_the_size_they_were_made_for():
    text = "type: 'InnerProduct' inner_product_param { num_output: 5 weight_filler { type: 'xavier' } }"
    for layer in (text, text.replace("num_output", "transpose: true num_output")):
        net = net_of(layer)
        x = np.random.default_rng(1).normal(0, 3, (2, 4, 9, 12)).astype(np.float32)
        with torch.inference_mode():
            want = net({"data": x}, ["it"])["it"].numpy()
        assert np.allclose(session(net, ["it"]).run(None, {"data": x})[0], want, rtol=1e-5, atol=1e-5)


def test_blobs_that_are_overwritten_in_place_have_their_last_values():
    text = prototxt.loads(
        """layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 5 dim: 5 } } }
        layer { name: "split" type: "Split" bottom: "data" top: "a" top: "b" }
        layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
        layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }""",
        NetParameter,
    )
    net, x = Net(text), np.random.default_rng(1).normal(size=(1, 4, 5, 5)).astype(np.float32)
    a, total = session(net, ["a", "sum"]).run(None, {"data": x})
    assert np.array_equal(a, np.maximum(x, 0))
    assert np.array_equal(total, np.maximum(x, 0) + x)


def test_layers_without_an_onnx_form_are_listed_at_once_with_what_to_export_instead():
    text = """layer { name: "input" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 5 dim: 5 } } }
        layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
                pooling_param { pool: AVE kernel_size: 1 stride: 2 } }
        layer { name: "sum" type: "Reduction" bottom: "pool" top: "sum" }
        layer { name: "loss" type: "EuclideanLoss" bottom: "pool" bottom: "pool" top: "loss" }"""
    net = Net(prototxt.loads(text, NetParameter))
    with pytest.raises(NetError) as raised:
        session(net, ["sum", "loss"])
    assert str(raised.value) == (
        "2 layers cannot be written as ONNX: layer 'pool' (Pooling), line 2: an average of windows that may be empty"
        " cannot be written as ONNX; got kernel 1, stride 2; layer 'loss' (EuclideanLoss), line 5: this type cannot be"
        " written as ONNX. Export the net up to the blobs before: data, pool."
    )
    with pytest.raises(NetError) as raised:
        session(net, ["pool"])
    assert str(raised.value) == (
        "layer 'pool' (Pooling), line 2: an average of windows that may be empty cannot be written as ONNX; got kernel"
        " 1, stride 2. Export the net up to the blobs before: data."
    )


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ReproductionError) as error:
        onnx_export.OnnxGraph().model("net", {})
    assert str(error.value) == (
        "the package onnx is not installed. Install it by `pip install 'fcn-reproduction[export]'`."
    )


def test_weights_that_no_file_of_onnx_can_hold_are_an_error():
    graph = onnx_export.OnnxGraph()
    graph.constants["weight"] = np.broadcast_to(np.float32(0), (1 << 15, 1 << 14))  # which takes no memory
    with pytest.raises(NetError, match=r"an ONNX file holds less than 2 GiB; got 2\.0 GiB of weights"):
        graph.model("net", {})


def test_a_serialized_graph_leaves_large_constants_to_the_reader():
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
    graph = onnx_export.OnnxGraph()
    x = graph.input("x", np.float32, [1, 400])
    weight = graph.constant(np.arange(400 * 3, dtype=np.float32).reshape(400, 3), "weight")
    shape = graph.constant(np.array([3, 1]), "shape")
    y = graph.node("Reshape", [graph.node("MatMul", [x, weight], "product"), shape], "y")
    graph.output("out", y, np.float32, [3, 1])
    assert list(graph.large_constants) == ["weight"]
    with_inputs = onnx.load_from_string(graph.serialize(as_inputs=True))
    assert [each.name for each in with_inputs.graph.input] == ["x", "weight"]
    assert [each.name for each in with_inputs.graph.initializer] == ["shape"]
    external = onnx.load_from_string(graph.serialize())
    assert [each.name for each in external.graph.input] == ["x"]
    left = {each.name: each for each in external.graph.initializer}
    assert left["weight"].data_location == onnx.TensorProto.EXTERNAL
    assert not left["weight"].raw_data
    assert left["shape"].raw_data, "small constants stay"

"""``reproduction.cv2dnn`` returns what OpenCV 4's ``cv2.dnn`` does, layer by layer."""

import re

import cv2
import numpy as np
import pytest

from reproduction import cv2dnn
from reproduction.caffe.errors import NetError, ReproductionError
from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.nets import published_nets
from tests.helpers import classifiers, thin_nets
from tests.helpers.paths import ROOT

MINI = (ROOT / "prototxt/mini-fcn8s/deploy.prototxt", ROOT / "weights/mini/mini-fcn8s.caffemodel")
SMALL = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 10
layer { name: "sl" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { axis: 1 slice_point: 1 } }
layer { name: "r" type: "ReLU" bottom: "a" top: "a" }
layer { name: "d" type: "Dropout" bottom: "a" top: "a" }
layer { name: "sm" type: "Softmax" bottom: "b" top: "prob" }
layer { name: "c" type: "Convolution" bottom: "a" top: "c_top" convolution_param { num_output: 1 kernel_size: 1 } }
layer { name: "p" type: "Power" bottom: "c_top" top: "pp" power_param { scale: 2 } }
layer { name: "p" type: "AbsVal" bottom: "pp" top: "last" }
"""
WEIGHTS = caffemodel.dumps(
    NetParameter(
        layer=[
            {
                "name": "c",
                "blobs": [{"data": [0.5], "shape": {"dim": [1, 1, 1, 1]}}, {"data": [-0.25], "shape": {"dim": [1]}}],
            }
        ]
    )
)


def as_bytes(text):
    return np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)


def both(net_param, weights):
    """Return the net as loaded here and by OpenCV, from the content of its two files."""
    files = as_bytes(prototxt.dumps(net_param)), as_bytes(weights)
    return cv2dnn.readNetFromCaffe(*files), cv2.dnn.readNetFromCaffe(*files)


def check_equal(mine, theirs, inputs):
    assert mine.getLayerNames() == theirs.getLayerNames()
    assert mine.getUnconnectedOutLayersNames() == theirs.getUnconnectedOutLayersNames()
    np.testing.assert_array_equal(mine.getUnconnectedOutLayers(), theirs.getUnconnectedOutLayers())
    assert mine.getLayerTypes() == tuple(kind for kind in theirs.getLayerTypes() if kind != "__NetInputLayer__")
    for name, values in inputs.items():
        mine.setInput(values, name)
        theirs.setInput(values, name)
    names = theirs.getLayerNames()
    for name, got, want in zip(names, mine.forward(names), theirs.forward(names), strict=True):
        assert got.dtype == np.float32
        assert got.shape == want.shape, name
        assert np.abs(got - want).max() <= 3e-5 * np.abs(want).max(), name
    np.testing.assert_array_equal(mine.forward(), mine.forward(names[-1]))


@pytest.mark.parametrize("name", published_nets.NETS)
def test_every_layer_of_a_published_net_equals_opencvs(name):
    divisor = 16 if name == "voc-fcn-alexnet" else 32  # its groups divide the channels
    net = thin_nets.net(name, divisor)
    rng = np.random.default_rng(1)
    inputs = {blob: 50 * rng.standard_normal((1, net.blob_shapes[blob][1], 61, 45), np.float32) for blob in net.inputs}
    mine, theirs = both(thin_nets.deploy(name, divisor), caffemodel.dumps(net.to_proto()))
    check_equal(mine, theirs, inputs)


@pytest.mark.parametrize("name", classifiers.NETS)
def test_every_layer_of_a_classifier_equals_opencvs(name):
    net = classifiers.net(name, 16)
    inputs = {"data": np.random.default_rng(2).standard_normal(net.blob_shapes["data"], np.float32)}
    mine, theirs = both(classifiers.NETS[name](16), caffemodel.dumps(net.to_proto()))
    check_equal(mine, theirs, inputs)


def test_a_real_net_is_loaded_from_paths():
    mine, theirs = cv2dnn.readNetFromCaffe(*MINI), cv2.dnn.readNetFromCaffe(*map(str, MINI))
    check_equal(mine, theirs, {"data": 100 * np.random.default_rng(3).random((1, 3, 97, 131), np.float32)})
    assert cv2dnn.readNet(str(MINI[1]), str(MINI[0])).getLayerNames() == mine.getLayerNames()


def test_names_are_opencvs_and_results_belong_to_layers():
    mine, theirs = (
        cv2dnn.readNetFromCaffe(as_bytes(SMALL), WEIGHTS),
        cv2.dnn.readNetFromCaffe(as_bytes(SMALL), as_bytes(WEIGHTS)),
    )
    x = np.random.default_rng(4).standard_normal((1, 3, 8, 10), np.float32)
    check_equal(mine, theirs, {"data": x})
    assert mine.getLayerNames() == ("sl", "r", "d", "sm", "c_top", "p", "p_1")
    assert mine.forward("sl").min() < 0 <= mine.forward("r").min()  # the ReLU works in place
    np.testing.assert_array_equal(mine.forward("b"), x[:, 1:])  # the second top, which OpenCV does not return
    np.testing.assert_array_equal(mine.forward("c"), mine.forward("c_top"))
    assert [[top.shape[1] for top in tops] for tops in mine.forwardAndRetrieve(["sl", "p"])] == [[1, 2], [1]]


def test_mean_and_scale_are_applied_as_by_opencv():
    mine, theirs = (
        read(as_bytes(SMALL), as_bytes(WEIGHTS)) for read in (cv2dnn.readNetFromCaffe, cv2.dnn.readNetFromCaffe)
    )
    pixels = np.random.default_rng(5).integers(0, 256, (2, 3, 5, 7), np.uint8)
    for mean in ((1, 2, 3), (4,), ()):
        for net in (mine, theirs):
            net.setInput(pixels, "", 0.5, mean)
        np.testing.assert_allclose(mine.forward("sm"), theirs.forward("sm"), rtol=1e-5)


def test_layers_and_parameters_are_found_by_name_and_number():
    mine, theirs = cv2dnn.readNetFromCaffe(*MINI), cv2.dnn.readNetFromCaffe(*map(str, MINI))
    for name in ("conv1_1", "score", "data", "absent"):
        assert mine.getLayerId(name) == theirs.getLayerId(name)
    assert mine.getLayersCount("ReLU") == theirs.getLayersCount("ReLU") == 15
    layer = mine.getLayer(1)
    assert (layer.name, layer.type) == (theirs.getLayer(1).name, theirs.getLayer(1).type)
    for got, want in zip(layer.blobs, theirs.getLayer(1).blobs, strict=True):
        np.testing.assert_array_equal(got.ravel(), want.ravel())
    np.testing.assert_array_equal(mine.getParam("conv1_1", 0), layer.blobs[0])
    mine.setInput(np.ones((1, 3, 8, 8), np.float32))
    before = mine.forward("conv1_1")
    mine.setParam("conv1_1", 1, layer.blobs[1] + 1)
    np.testing.assert_allclose(mine.forward("conv1_1"), before + 1, rtol=1e-4, atol=1e-4)
    assert not mine.empty()
    assert mine.getPerfProfile()[0] > 0


def test_the_caller_may_change_the_array_after_setting_it():
    net = cv2dnn.readNetFromCaffe(as_bytes(SMALL))
    x = np.ones((1, 3, 8, 10), np.float32)
    net.setInput(x)
    x[:] = 7
    result = net.forward("sl")
    assert result.max() == 1
    result[:] = 5
    assert net.forward("sl").max() == 1


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda net: net.setInput(np.ones((1, 3, 8, 10)), "dta"), "no input 'dta'; want one of ['data']. Did you mean"),
        (lambda net: net.forward(), "input 'data' is missing; got no inputs, want data."),
        (lambda net: net.forward("sofmax"), "the net has no layer 'sofmax'."),
        (lambda net: net.getLayer(0), "the net has no layer 0."),
        (lambda net: net.getParam("c", 2), "layer 'c' has no parameter 2; want less than 2."),
        (lambda net: net.setParam("c", 0, np.ones(2)), "another number of values; got (2,), want (1, 1, 1, 1)."),
    ],
)
def test_errors_name_what_is_wrong(use, text):
    with pytest.raises(NetError, match=re.escape(text)):
        use(cv2dnn.readNetFromCaffe(as_bytes(SMALL), WEIGHTS))


def test_other_frameworks_are_left_to_opencv():
    with pytest.raises(ReproductionError, match=r"^only Caffe's nets are loaded; got onnx\. Use OpenCV for others\.$"):
        cv2dnn.readNet("a.onnx", framework="onnx")


def test_an_unknown_target_warns_and_computes_on_the_cpu():
    net = cv2dnn.readNetFromCaffe(*MINI)
    net.setPreferableBackend(cv2dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2dnn.DNN_TARGET_CPU)
    with pytest.warns(UserWarning, match="the net is computed on the CPU; got target 1"):
        net.setPreferableTarget(1)
    assert net.net.device.type == "cpu"

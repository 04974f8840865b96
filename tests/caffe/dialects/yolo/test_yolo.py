"""The layers of YOLO, compared with plain loops; OpenCV judges Reorg and ReLU6."""

import itertools
import math

import cv2
import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter, Phase
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import gradient, single


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def opencv(layer, x):
    sizes = " ".join(f"input_dim: {size}" for size in x.shape)
    text = f'input: "x" {sizes}\nlayer {{ name: "y" bottom: "x" top: "y" {layer} }}'
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(x.numpy(), "x")
    return net.forward("y")


# ---- ReLU6


@pytest.mark.parametrize("slope", [0, 0.1, -0.5])
def test_relu6_and_its_gradient(slope):
    x = torch.tensor([-9.0, -1, 0, 1, 5.5, 6, 7, -70])
    layer = single(f'type: "ReLU6" relu6_param {{ negative_slope: {slope} }}', (8,))
    want = [min(max(v, 0) + slope * min(v, 0), 6) for v in x.tolist()]
    assert layer(x)[0].tolist() == pytest.approx(want)
    (got,) = gradient(layer, x)
    assert got.tolist() == pytest.approx([(1 if v > 0 else slope) * (v < 6) for v in x.tolist()])
    (exported,), _ = run_onnx(layer, [x])
    assert exported.tolist() == pytest.approx(want)
    assert layer.positive == (slope == 0)


def test_relu6_in_place_and_in_opencv():
    x = randn(1, 3, 4, 5) * 5
    layer = single('type: "ReLU6"', (1, 3, 4, 5))
    want = x.clamp(0, 6)
    np.testing.assert_array_equal(opencv('type: "ReLU6"', x), want)
    layer.inplace = True
    (top,) = layer(x)
    assert top.data_ptr() == x.data_ptr()
    assert torch.equal(top, want)


# ---- Reorg


def reorg_loop(x, stride, reverse):
    images, channels, height, width = x.shape
    few = channels // stride**2
    top = np.empty(x.size, x.dtype)
    other = np.empty(x.size, int)  # the place in the image of more pixels of each value of that of more channels
    for n, c, h, w in itertools.product(*map(range, x.shape)):
        offset, c2 = divmod(c, few)
        i, j = divmod(offset, stride)
        large = w * stride + j + width * stride * (h * stride + i + height * stride * (c2 + few * n))
        other[w + width * (h + height * (c + channels * n))] = large
    if reverse:
        top[other] = x.reshape(-1)
        return top.reshape(images, few, height * stride, width * stride)
    return x.reshape(-1)[other].reshape(images, channels * stride**2, height // stride, width // stride)


@pytest.mark.parametrize(("stride", "reverse"), [(1, False), (2, False), (3, False), (2, True), (3, True)])
def test_reorg_has_the_order_of_darknet(stride, reverse):
    x = randn(2, 2 * stride**2, 6, 12)
    layer = single(f'type: "Reorg" reorg_param {{ stride: {stride} reverse: {str(reverse).lower()} }}', tuple(x.shape))
    want = reorg_loop(x.numpy(), stride, reverse)
    (top,) = layer(x)
    np.testing.assert_array_equal(top, want)
    assert layer.shapes([tuple(x.shape)]) == [want.shape]
    (exported,), _ = run_onnx(layer, [x])
    np.testing.assert_array_equal(exported, want)
    leaf = x.clone().requires_grad_()
    layer(leaf)[0].backward(top)  # the gradient takes the way back
    assert torch.equal(leaf.grad, x)
    if stride == 2 and not reverse:
        np.testing.assert_array_equal(opencv('type: "Reorg" reorg_param { stride: 2 }', x), want)


@pytest.mark.parametrize(
    ("fields", "shape", "problem"),
    [
        ("", (1, 4, 2, 2), "stride must be set and positive"),
        ("stride: 2", (1, 6, 2, 2), "the channels must be a multiple of stride^2; got 6, want a multiple of 4."),
        ("stride: 2", (1, 4, 3, 2), "height and width must be multiples of stride; got (3, 2), want 2."),
        ("stride: 2", (4, 4), "the bottom must be images; got (4, 4), want (N, C, H, W)."),
    ],
)
def test_reorg_refuses_sizes(fields, shape, problem):
    with pytest.raises(NetError) as error:
        single(f'type: "Reorg" reorg_param {{ {fields} }}', shape).shapes([shape])
    assert problem in str(error.value)


# ---- Upsample


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ('type: "Upsample" upsample_param { scale: 3 }', 3),
        ('type: "Upsample" upsample_param { }', 1),
        ('type: "UpsampleDarknet" upsample_darknet_param { stride: 2 }', 2),
    ],
)
def test_upsampling_repeats_pixels(text, times):
    x = randn(2, 3, 2, 4)
    layer = single(text, tuple(x.shape))
    want = np.kron(x.numpy(), np.ones((times, times), np.float32))
    np.testing.assert_array_equal(layer(x)[0], want)
    assert layer.shapes([tuple(x.shape)]) == [want.shape]
    (got,) = gradient(layer, x)
    assert (got == times**2).all()
    (exported,), _ = run_onnx(layer, [x])
    np.testing.assert_array_equal(exported, want)


def test_upsampling_refuses_a_scale_of_zero():
    with pytest.raises(NetError, match="scale must be positive; got 0"):
        single('type: "Upsample" upsample_param { scale: 0 }', (1, 1, 2, 2))


# ---- detections


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def overlap(a, b):
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    shared = 0 if min(sides) < 0 else sides[0] * sides[1]
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def rows_of(found, threshold):
    """Return the rows for (score, class, box), after non-maximum suppression."""
    kept = []
    for score, label, box in sorted(found, key=lambda each: -each[0]):
        if all(overlap(box, other) < threshold for _, _, other in kept):
            kept.append((score, label, box))
    return [[0, c + 1, s, x - w / 2, y - h / 2, x + w / 2, y + h / 2] for s, c, (x, y, w, h) in kept]


def v3_loop(bottoms, anchors, masks, scales, classes, least, threshold):
    found = []
    for bottom, mask, scale in zip(bottoms, masks, scales, strict=True):
        images, _, height, width = bottom.shape
        for n, h, w, box in itertools.product(range(images), range(height), range(width), range(len(mask))):
            v = bottom[n, box * (5 + classes) : (box + 1) * (5 + classes), h, w].tolist()
            anchor = anchors[mask[box]]
            place = ((w + sigmoid(v[0])) / width, (h + sigmoid(v[1])) / height)
            size = (math.exp(v[2]) * anchor[0] / (width * scale), math.exp(v[3]) * anchor[1] / (height * scale))
            found += [(sigmoid(v[5 + c]) * sigmoid(v[4]), c, (*place, *size)) for c in range(classes)]
    return rows_of([each for each in found if each[0] > least], threshold)


@pytest.mark.parametrize(("images", "least", "threshold"), [(1, 0.3, 0.45), (2, 0.4, 0.2)])
def test_version_3_finds_the_boxes_of_a_plain_loop(images, least, threshold):
    bottoms = [randn(images, 2 * 8, 3, 4, seed=1), randn(images, 2 * 8 + 1, 6, 5, seed=2)]
    anchors, masks, scales = [(20, 37), (49, 94), (73, 21), (14, 65)], [(3, 2), (0, 1)], (32, 16)
    fields = " ".join(f"biases: {side}" for anchor in anchors for side in anchor)
    fields += " mask: 3 mask: 2 mask: 0 mask: 1 anchors_scale: 32 anchors_scale: 16 num_classes: 3 num_box: 2"
    fields += f" confidence_threshold: {least} nms_threshold: {threshold}"
    layer = single(
        f'name: "d" type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {fields} }}',
        *(tuple(x.shape) for x in bottoms),
    )
    want = v3_loop(bottoms, anchors, masks, scales, 3, least, threshold)
    assert len(want) > 10
    np.testing.assert_allclose(layer(*bottoms)[0][0, 0], want, atol=1e-6)
    (exported,), _ = run_onnx(layer, bottoms)
    np.testing.assert_allclose(exported[0, 0], want, atol=1e-6)
    none = [x - 20 for x in bottoms]
    empty = [[i, *[-1] * 6] for i in range(images)]
    assert layer(*none)[0][0, 0].tolist() == empty
    assert run_onnx(layer, none)[0][0][0, 0].tolist() == empty


def v2_loop(bottoms, anchors, classes, least, threshold):
    found = []
    for bottom in bottoms:
        images, channels, side, _ = bottom.shape
        each = channels // len(anchors)
        for n, h, w, box in itertools.product(range(images), range(side), range(side), range(len(anchors))):
            v = bottom[n, box * each : (box + 1) * each, h, w].tolist()
            powers = [math.exp(x) for x in v[5 : 5 + classes]]
            score = sigmoid(v[4]) * max(powers) / sum(powers)
            place = ((w + sigmoid(v[0])) / side, (h + sigmoid(v[1])) / side)
            size = [math.exp(v[2 + i]) * anchors[box][i] / side for i in (0, 1)]
            if score >= least:
                found.append((score, powers.index(max(powers)), (*place, *size)))
    return rows_of(found, threshold)


@pytest.mark.parametrize("sides", [(4,), (3, 5)])
def test_version_2_finds_the_boxes_of_a_plain_loop(sides):
    bottoms = [randn(2, 2 * 8, side, side, seed=side) for side in sides]
    anchors = [(0.57, 0.68), (1.87, 2.06)]
    fields = "num_classes: 3 num_box: 2 confidence_threshold: 0.25 biases: 0.57 biases: 0.68 biases: 1.87 biases: 2.06"
    layer = single(
        f'name: "d" type: "YoloDetectionOutput" yolo_detection_output_param {{ {fields} }}',
        *(tuple(x.shape) for x in bottoms),
    )
    want = v2_loop(bottoms, anchors, 3, 0.25, 0.45)
    assert len(want) > 10
    np.testing.assert_allclose(layer(*bottoms)[0][0, 0], want, atol=1e-6)
    (exported,), _ = run_onnx(layer, bottoms)
    np.testing.assert_allclose(exported[0, 0], want, atol=1e-6)


V3 = "num_classes: 3 num_box: 1 biases: 2 biases: 3 mask: 0 mask: 0 anchors_scale: 32 anchors_scale: 16"


@pytest.mark.parametrize(
    ("kind", "fields", "shapes", "problem"),
    [
        ("Yolov3", V3.replace("num_classes: 3", ""), [(1, 8, 2, 2)] * 2, "num_classes is missing"),
        ("Yolov3", f"{V3} gaussian_box: true", [(1, 8, 2, 2)] * 2, "gaussian_box is not supported"),
        ("Yolov3", V3, [(1, 8, 2, 2)], "there must be mask_group_num bottoms; got 1, want 2."),
        ("Yolov3", V3.replace("mask: 0", "mask: 1"), [(1, 8, 2, 2)] * 2, "mask must name an anchor of biases"),
        ("Yolov3", V3.replace("anchors_scale: 32", ""), [(1, 8, 2, 2)] * 2, "anchors_scale is needed for each bottom"),
        ("Yolov3", V3, [(1, 7, 2, 2)] * 2, "a bottom has too few channels; got (1, 7, 2, 2)"),
        ("Yolo", "num_classes: 3 num_box: 1", [(1, 8, 2, 2)], "there must be two biases for each box; got 0, want 2."),
        ("Yolo", "num_classes: 3 num_box: 1 biases: 1 biases: 1", [(1, 8, 2, 3)], "a bottom is not square"),
    ],
)
def test_detections_refuse_settings_and_sizes(kind, fields, shapes, problem):
    text = f'type: "{kind}DetectionOutput" {kind.lower()}_detection_output_param {{ {fields} }}'
    with pytest.raises(NetError) as error:
        single(text, *shapes).shapes(shapes)
    assert problem in str(error.value)


def test_a_loss_that_is_not_here_is_left_to_training():
    text = """
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 8 dim: 2 dim: 2 } } }
        layer { name: "loss" type: "Yolov3" bottom: "data" top: "loss" yolov3_param { num_class: 3 iou_loss: GIOU }
          include { phase: TRAIN } }
        layer { name: "cut" type: "ReLU6" bottom: "data" top: "cut" }"""
    message = prototxt.loads(text, NetParameter)
    assert Net(message, Phase.TEST).outputs == ["cut"]
    with pytest.raises(NetError) as error:
        Net(message, Phase.TRAIN)
    assert "It is a layer of YOLO for Caffe (eric612/MobileNet-YOLO@69b4441), which is not implemented." in str(
        error.value
    )

"""PriorBox: the boxes of each cell in their order, compared with a plain loop and with OpenCV."""

import itertools
import math

import cv2
import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from tests.caffe.layers.test_onnx_forms import run_onnx
from tests.helpers.single_layer import single


def build(fields, feature_map=(3, 4), image=(50, 70)):
    bottoms = ((1, 2, *feature_map), (1, 3, *image))
    layer = single(f'name: "p" type: "PriorBox" prior_box_param {{ {fields} }}', *bottoms)
    return layer, [torch.zeros(shape) for shape in bottoms]


def run(fields, *sizes):
    layer, bottoms = build(fields, *sizes)
    (top,) = layer(*bottoms)
    assert layer.shapes([tuple(x.shape) for x in bottoms]) == [tuple(top.shape)]
    (exported,), _ = run_onnx(layer, bottoms)
    np.testing.assert_array_equal(exported, top)
    return top.numpy()[0].reshape(2, -1, 4)


def loop(boxes, feature_map, image, offset=0.5, step=None, **shifts):
    """Return the boxes of all cells for boxes (width, height) of a cell, each with a shift and an inset."""
    found = []
    for row, column in itertools.product(*map(range, feature_map)):
        y, x = ((i + offset) * (step or size / n) for i, size, n in zip((row, column), image, feature_map, strict=True))
        for width, height, right, down, inset in ((*box, 0, 0, 0)[:5] for box in boxes):
            sides = (x + right - width / 2, y + down - height / 2, x + right + width / 2, y + down + height / 2)
            found.append([s / image[1 - i % 2] + (inset if i < 2 else -inset) for i, s in enumerate(sides)])
    return np.array(found)


def ratio(size, r):
    return size * math.sqrt(r), size / math.sqrt(r)


@pytest.mark.parametrize(
    ("fields", "boxes"),
    [
        ("min_size: 16.9", [(16, 16)]),
        ("min_size: 16 max_size: 25.7", [(16, 16), (20, 20)]),
        ("min_size: 16 aspect_ratio: 2", [(16, 16), ratio(16, 2), ratio(16, 0.5)]),
        ("min_size: 16 aspect_ratio: 2 aspect_ratio: 2 aspect_ratio: 1 flip: false", [(16, 16), ratio(16, 2)]),
        (
            "min_size: 10 min_size: 20 max_size: 40 max_size: 45 aspect_ratio: 3 flip: false",
            [(10, 10), (20, 20), ratio(10, 3), (20, 20), (30, 30), ratio(20, 3)],
        ),
        ("box_width: 7.5 box_width: 30 box_height: 9 box_height: 4.25", [(7.5, 9), (30, 4.25)]),
        (
            "keras: true min_size: 16 max_size: 25 aspect_ratio: 2 aspect_ratio: 3",
            [(20, 20), (16, 16), ratio(16, 2), ratio(16, 3), ratio(16, 1 / 2), ratio(16, 1 / 3)],
        ),
        (
            "tf: true min_size: 16 max_size: 25 aspect_ratio: 2",
            [(16, 16), ratio(16, 2), ratio(16, 0.5), (20, 20)],
        ),
        ("tf: true min_size: 60 aspect_ratio: 2 flip: false", [(60, 60, 0, 0, 0.05), ratio(60, 2)]),
        (
            "faceboxes: true min_size: 64 min_size: 128",
            [*((63, 63, x, y) for y in (-16, 0) for x in (-16, 0)), (127, 127)],
        ),
        ("faceboxes: true min_size: 32", [(31, 31, x, y) for y in (-16, -8, 0, 8) for x in (-16, -8, 0, 8)]),
    ],
)
def test_each_cell_has_its_boxes_in_order(fields, boxes):
    top = run(fields)
    np.testing.assert_allclose(top[0], loop(boxes, (3, 4), (50, 70)), atol=2e-7)
    np.testing.assert_array_equal(top[1], np.float32(0.1))


def test_sizes_steps_and_offsets_can_be_given():
    box = [(10, 10)]
    size = "min_size: 10"
    np.testing.assert_allclose(run(f"{size} img_size: 100")[0], loop(box, (3, 4), (100, 100)), atol=2e-7)
    np.testing.assert_allclose(run(f"{size} img_h: 30 img_w: 60")[0], loop(box, (3, 4), (30, 60)), atol=2e-7)
    np.testing.assert_allclose(run(f"{size} step: 8")[0], loop(box, (3, 4), (50, 70), step=8), atol=2e-7)
    np.testing.assert_allclose(run(f"{size} step_h: 8 step_w: 8")[0], loop(box, (3, 4), (50, 70), step=8), atol=2e-7)
    np.testing.assert_allclose(run(f"{size} offset: 0")[0], loop(box, (3, 4), (50, 70), offset=0), atol=2e-7)


def test_boxes_are_cut_to_the_image_only_if_asked():
    plain, cut = run("min_size: 30")[0], run("min_size: 30 clip: true")[0]
    assert plain.min() < 0
    np.testing.assert_array_equal(cut, plain.clip(0, 1))
    swapped = run("min_size: 30 yx_order: true")[0]
    np.testing.assert_array_equal(swapped, plain[:, [1, 0, 3, 2]])


def test_four_variances_repeat():
    top = run("min_size: 30 variance: 0.1 variance: 0.2 variance: 0.3 variance: 0.4")
    np.testing.assert_array_equal(top[1], np.broadcast_to(np.float32([0.1, 0.2, 0.3, 0.4]), top[1].shape))


def test_the_boxes_follow_the_size_of_the_image():
    layer, _ = build("min_size: 30 aspect_ratio: 2")
    (top,) = layer(torch.zeros(2, 5, 2, 6), torch.zeros(2, 3, 80, 33))
    want = loop([(30, 30), ratio(30, 2), ratio(30, 0.5)], (2, 6), (80, 33))
    np.testing.assert_allclose(top[0, 0].reshape(-1, 4), want, atol=2e-7)


@pytest.mark.parametrize(
    "fields",
    [
        "min_size: 30 max_size: 60 aspect_ratio: 2 aspect_ratio: 3 clip: true step: 8",
        "min_size: 12 min_size: 20 max_size: 30 max_size: 33 aspect_ratio: 2 clip: false flip: false offset: 0.25",
    ],
)
def test_opencv_computes_the_same(fields):
    fields += " variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
    text = f"""
        input: "map" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 6
        input: "image" input_dim: 1 input_dim: 3 input_dim: 40 input_dim: 48
        layer {{ name: "p" type: "PriorBox" bottom: "map" bottom: "image" top: "p" prior_box_param {{ {fields} }} }}"""
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text.encode(), np.uint8))
    net.setInput(np.zeros((1, 2, 5, 6), np.float32), "map")
    net.setInput(np.zeros((1, 3, 40, 48), np.float32), "image")
    np.testing.assert_allclose(run(fields, (5, 6), (40, 48)).reshape(1, 2, -1), net.forward("p"), atol=2e-7)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("", "min_size is missing"),
        ("min_size: 0", "min_size must be positive"),
        ("min_size: 10 variance: 0.1 variance: 0.2", "there must be one variance or four; got 2."),
        ("min_size: 10 variance: -1", "variance must be positive"),
        ("min_size: 10 max_size: 10", "max_size must be greater than min_size"),
        ("min_size: 10 max_size: 20 max_size: 30", "there must be as many max_size as min_size; got 2."),
        ("min_size: 10 img_h: 30", "img_h and img_w must be positive"),
        ("min_size: 10 img_h: 30 img_w: 30 img_size: 3", "img_size and img_h are both set"),
        ("min_size: 10 step: 0", "step must be positive"),
        ("min_size: 10 step: 8 step_w: 8", "step and step_w are both set"),
        ("box_width: 10", "there must be as many box_width as box_height"),
    ],
)
def test_it_refuses_settings_that_exclude_each_other(fields, problem):
    with pytest.raises(NetError, match=problem.replace(".", r"\.")):
        build(fields)

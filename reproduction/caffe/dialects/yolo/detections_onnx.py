"""The ONNX forms of YoloDetectionOutput and Yolov3DetectionOutput: decoding, and the operator NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reproduction.caffe.dialects.ssd.onnx_operators import FLOAT, Operators
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.typing import Float32


@dataclass(frozen=True)
class Grid:
    """One bottom, the predictions of the cells of a grid.

    Attributes:
        value: The name of the bottom, (N, C, H, W), in the graph.
        anchors: Width and height of the anchor of each box of a cell, (boxes, 2).
        scale: The unit of the anchors: how many of them a cell is wide and high.
    """

    value: str
    anchors: Float32
    scale: float


def add_detections(
    onnx: OnnxLayer, grids: Sequence[Grid], classes: int, threshold: float, nms_threshold: float, *, is_softmax: bool
) -> str:
    """Add the operators of a layer, and return the name of its top.

    Args:
        onnx: Adds operators and constants to the graph.
        grids: The bottoms.
        classes: The number of classes.
        threshold: The score that a detection must exceed.
        nms_threshold: The greatest overlap of two detections that are kept.
        is_softmax: Whether the softmax of the classes is taken and only the best class counts.
    """
    ops = Operators(onnx)
    parts = [_decode(ops, grid, classes, is_softmax=is_softmax) for grid in grids]
    boxes, scores, labels = (ops.Concat(*part, axis=0) for part in zip(*parts, strict=True))
    selected = ops.NonMaxSuppression(
        ops.Unsqueeze(boxes, np.array([0])),
        ops.Unsqueeze(scores, np.array([0, 1])),
        ops.size(scores, 0),
        np.array([np.clip(nms_threshold, 0, 1)], np.float32),
        np.array([threshold], np.float32),
        center_point_box=1,
    )
    kept = ops.Gather(selected, np.array(2), axis=1)
    box = ops.Gather(boxes, kept, axis=0)
    center, size = (ops.Gather(box, np.array(pair), axis=1) for pair in ((0, 1), (2, 3)))
    half = ops.Mul(size, np.float32(0.5))
    columns = [ops.Unsqueeze(ops.Gather(each, kept, axis=0), np.array([1])) for each in (labels, scores)]
    found = ops.Concat(
        ops.Mul(columns[0], np.float32(0)), *columns, ops.Sub(center, half), ops.Add(center, half), axis=1
    )
    images, count = ops.size(grids[0].value, 0), ops.size(found, 0)
    rows = ops.Concat(found, ops.rows_without_detections(images, count), axis=0)
    return onnx.node("Reshape", rows, ops.name(np.array([1, 1, -1, 7])))


def _decode(ops: Operators, grid: Grid, classes: int, *, is_softmax: bool) -> tuple[str, str, str]:
    """Return boxes (M, 4), scores (M,) and labels (M,) of all boxes of all cells, for each class that counts."""
    boxes, length = len(grid.anchors), 5 + classes
    read = ops.Slice(grid.value, np.array([0]), np.array([boxes * length]), np.array([1]))
    cells = ops.Transpose(
        ops.Reshape(read, np.array([0, boxes, length, -1])), perm=[0, 3, 1, 2]
    )  # (N, H * W, k, 5 + C)
    shift, stretch, is_object, likely = (
        ops.Slice(cells, np.array([low]), np.array([high]), np.array([3]))
        for low, high in ((0, 2), (2, 4), (4, 5), (5, length))
    )
    width, height = (ops.size(grid.value, axis) for axis in (3, 2))
    sides = ops.Cast(ops.vector(width, height), to=FLOAT)
    index = ops.Range(np.array(0), ops.Squeeze(ops.Mul(width, height)), np.array(1))
    places = [ops.Unsqueeze(place, np.array([1, 2])) for place in (ops.Mod(index, width), ops.Div(index, width))]
    corner = ops.Cast(ops.Concat(*places, axis=2), to=FLOAT)  # (H * W, 1, 2)
    center = ops.Div(ops.Add(ops.Sigmoid(shift), corner), sides)
    size = ops.Div(ops.Mul(ops.Exp(stretch), grid.anchors), ops.Mul(sides, np.float32(grid.scale)))
    box, chance = ops.Concat(center, size, axis=3), ops.Sigmoid(is_object)
    if is_softmax:
        likely = ops.Softmax(likely, axis=3)
        scores = ops.Mul(chance, ops.ReduceMax(likely, axes=[3], keepdims=1))
        labels = ops.Cast(ops.ArgMax(likely, axis=3, keepdims=1), to=FLOAT)
    else:
        scores = ops.Mul(chance, ops.Sigmoid(likely))
        labels = ops.Expand(np.arange(classes, dtype=np.float32), ops.Shape(scores))
        box = ops.Expand(ops.Unsqueeze(box, np.array([3])), np.array([1, 1, 1, classes, 1]))
    flat = [ops.Reshape(each, np.array([-1])) for each in (scores, ops.Add(labels, np.float32(1)))]
    return ops.Reshape(box, np.array([-1, 4])), flat[0], flat[1]

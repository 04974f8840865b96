"""The ONNX form of DetectionOutput: decoding, and the operator NonMaxSuppression for each class.

The graph has any number of images and prior boxes. Its rows have the order of the layer's; boxes of equal score, too,
because TopK prefers the lower index and ONNX Runtime's NonMaxSuppression sorts its result by class and score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reproduction.caffe.dialects.ssd.messages import CodeType, list_foreground
from reproduction.caffe.dialects.ssd.onnx_operators import FLOAT, INT64, Operators
from reproduction.caffe.layers.onnx_graph import OnnxLayer

if TYPE_CHECKING:
    from reproduction.caffe.dialects.ssd.detection_output import DetectionOutput

_LOWEST = np.finfo(np.float32).min


def add_detections(onnx: OnnxLayer, layer: DetectionOutput, locations: str, scores: str, priors: str) -> str:
    """Add the operators of a DetectionOutput layer, and return the name of its top.

    Args:
        onnx: Adds operators and constants to the graph.
        layer: The layer.
        locations: The name of the predicted locations, (N, P * L * 4).
        scores: The name of the scores, (N, P * classes).
        priors: The name of the prior boxes and variances, (1, 2, P * 4).
    """
    ops, param = Operators(onnx), layer.settings()
    labels = np.array(list_foreground(param))
    by_class = ops.Gather(_split(ops, scores, [param.num_classes], (0, 2, 1)), labels, axis=1)  # (N, F, P)
    width = 1 if param.share_location else param.num_classes
    decoded = _decode(ops, layer, _split(ops, locations, [width, 4], None), priors)
    boxes = ops.Transpose(decoded, perm=[0, 2, 1, 3])  # (N, L, P, 4)
    if not param.share_location:
        boxes = ops.Gather(boxes, labels, axis=1)
    images, count = ops.size(by_class, 0), ops.size(by_class, 2)
    if layer.top_k > 0:
        count = ops.Min(count, np.array([layer.top_k]))
    best, index = ops.top(by_class, count, axis=2)  # (N, F, K), with K = count
    spread = ops.Expand(boxes, ops.vector(images, len(labels), ops.size(boxes, 2), 4))
    places = ops.Expand(ops.Unsqueeze(index, np.array([3])), ops.vector(images, len(labels), count, 4))
    chosen = ops.GatherElements(spread, places, axis=2)  # (N, F, K, 4)
    flat_scores, flat_boxes = ops.Reshape(best, np.array([-1])), ops.Reshape(chosen, np.array([-1, 4]))
    kept = _suppress(ops, layer, chosen, best, count)  # indices into flat_scores
    empty = ops.Expand(_LOWEST, ops.Shape(flat_scores))
    masked = ops.ScatterElements(empty, kept, ops.Gather(flat_scores, kept), axis=0)
    in_image = ops.Mul(count, np.array([len(labels)]))
    image, place = _find_rows(ops, param.keep_top_k, ops.Reshape(masked, ops.vector(images, in_image)), in_image)
    row = ops.Add(ops.Mul(image, in_image), place)
    label = ops.Gather(labels.astype(np.float32), ops.Div(place, count), axis=0)
    columns = [ops.Cast(image, to=FLOAT), label, ops.Gather(flat_scores, row, axis=0)]
    found = ops.Concat(
        *(ops.Unsqueeze(column, np.array([1])) for column in columns), ops.Gather(flat_boxes, row, axis=0), axis=1
    )
    rows = ops.Concat(found, ops.rows_without_detections(images, ops.size(found, 0)), axis=0)
    return onnx.node("Reshape", rows, ops.name(np.array([1, 1, -1, 7])))


def _split(ops: Operators, value: str, last: list[int], order: tuple[int, ...] | None) -> str:
    """Return a value (N, P * ...) as (N, P, *last), with its axes in another order if one is given."""
    found: str = ops.Reshape(value, np.array([0, -1, *last]))
    return found if order is None else ops.Transpose(found, perm=list(order))


def _decode(ops: Operators, layer: DetectionOutput, codes: str, priors: str) -> str:
    """Return the boxes (N, P, L, 4) of predictions (N, P, L, 4); see ``boxes.decode``."""
    param = layer.settings()
    both = ops.Reshape(priors, np.array([2, -1, 1, 4]))
    prior, variances = (ops.Gather(both, np.array(i), axis=0) for i in (0, 1))
    scaled = codes if param.variance_encoded_in_target else ops.Mul(variances, codes)
    if param.code_type is CodeType.CORNER:
        return str(ops.Add(prior, scaled))
    low, high = (ops.Gather(prior, np.array(pair), axis=2) for pair in ((0, 1), (2, 3)))
    size = ops.Sub(high, low)
    if param.code_type is CodeType.CORNER_SIZE:
        return str(ops.Add(prior, ops.Mul(scaled, ops.Concat(size, size, axis=2))))
    half = np.float32(0.5)
    shift, stretch = (ops.Gather(scaled, np.array(pair), axis=3) for pair in ((0, 1), (2, 3)))
    middle = ops.Add(ops.Mul(shift, size), ops.Mul(ops.Add(low, high), half))
    half_size = ops.Mul(ops.Mul(ops.Exp(stretch), size), half)
    return str(ops.Concat(ops.Sub(middle, half_size), ops.Add(middle, half_size), axis=3))


def _suppress(ops: Operators, layer: DetectionOutput, boxes: str, scores: str, count: str) -> str:
    """Return the indices, into all scores as a vector, of the boxes that remain.

    Args:
        ops: Adds the operators.
        layer: The layer.
        boxes: (N, F, K, 4).
        scores: (N, F, K), sorted.
        count: K.
    """
    low, high = (ops.Gather(boxes, np.array(pair), axis=3) for pair in ((0, 1), (2, 3)))
    # ONNX swaps the corners of a box whose high corner is below the low one; in the fork it has the area 0.
    proper = ops.Concat(low, ops.Max(low, high), axis=3)
    limit = _LOWEST if layer.score_threshold is None else np.float32(layer.score_threshold)
    selected = ops.NonMaxSuppression(
        ops.Reshape(proper, ops.vector(-1, count, 4)),
        ops.Reshape(scores, ops.vector(-1, 1, count)),
        count,
        np.array([min(layer.settings().nms_param.nms_threshold, 1)], np.float32),
        np.array([limit], np.float32),
    )
    group, place = (ops.Gather(selected, np.array(i), axis=1) for i in (0, 2))
    return str(ops.Add(ops.Mul(group, count), place))


def _find_rows(ops: Operators, keep_top_k: int, scores: str, width: str) -> list[str]:
    """Return the indices of the image and of the place in it, of each detection in order.

    Args:
        ops: Adds the operators.
        keep_top_k: The number of detections of an image; -1 for all.
        scores: The scores of the boxes that remain, the lowest number for others, (N, F * K).
        width: F * K.
    """
    kept = ops.Cast(ops.Greater(scores, _LOWEST), to=INT64)
    if keep_top_k > 0:
        best, index = ops.top(scores, ops.Min(width, np.array([keep_top_k])), axis=1)
        zeros = ops.Mul(kept, np.array(0))
        kept = ops.ScatterElements(zeros, index, ops.Cast(ops.Greater(best, _LOWEST), to=INT64), axis=1)
    found = ops.NonZero(kept)
    return [ops.Gather(found, np.array(i), axis=0) for i in (0, 1)]

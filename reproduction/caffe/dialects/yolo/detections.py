"""The layers YoloDetectionOutput and Yolov3DetectionOutput, which turn predictions of YOLO into boxes of objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from reproduction.caffe.dialects.ssd import boxes
from reproduction.caffe.dialects.yolo import YOLO, detections_onnx
from reproduction.caffe.errors import NetError
from reproduction.caffe.geometry import Shape
from reproduction.caffe.layers.base import Layer, register
from reproduction.caffe.layers.bottom_checks import legacy_shape
from reproduction.caffe.layers.onnx_graph import OnnxLayer
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, integers, nested, single, singles, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32
from reproduction.caffe.typing import Float32, Int64


class YoloDetectionOutputParameter(Message):
    """The fields of YoloDetectionOutput layers: the classes, the anchors of a cell, and which boxes are kept."""

    side = uint32(1, 13)
    num_classes = uint32(2, 20)
    num_box = uint32(3, 5)
    coords = uint32(4, 4)
    confidence_threshold = single(5, 0.01)
    nms_threshold = single(6, 0.45)
    biases = singles(7)
    label_map_file = string(8)


class Yolov3DetectionOutputParameter(Message):
    """The fields of Yolov3DetectionOutput layers: the classes, the anchors of each map, and which boxes are kept."""

    num_classes = uint32(1, 20)
    num_box = uint32(2, 3)
    confidence_threshold = single(3, 0.01)
    nms_threshold = single(4, 0.45)
    biases = singles(5)
    anchors_scale = integers(6, UINT32)
    mask_group_num = uint32(7, 2)
    mask = integers(8, UINT32)
    gaussian_box = boolean(9)


YOLO_DETECTION_OUTPUT = LayerParameter.add_field(
    "yolo_detection_output_param", nested(601, YoloDetectionOutputParameter), YOLO
)
YOLOV3_DETECTION_OUTPUT = LayerParameter.add_field(
    "yolov3_detection_output_param", nested(602, Yolov3DetectionOutputParameter), YOLO
)


class _YoloOutput(Layer):
    """The base class of layers whose top has a row for each detection.

    Shapes:
        top  (1, 1, D, 7)   for each of D detections 0, label, score, left, top, right, bottom; scores descend. If there
             are none, N rows of -1 except for the index of the image. ``shapes`` returns D = 1.

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/yolov3_detection_output_layer.cpp.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (1, None)
    differentiable = ()
    sizes_vary = True

    message: Callable[[Message], Any]  # returns the layer's message

    @property
    def param(self) -> Any:
        """The layer's message."""
        return self.message(self.layer_param)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check that the number of classes is set."""
        if not self.param.has("num_classes"):
            raise NetError("num_classes is missing")

    def predict(self, index: int, bottom: Float32) -> tuple[Float32, Float32, Int64]:
        """Return boxes, scores and classes that reach the threshold, in the order of the fork.

        Args:
            index: The index of the bottom.
            bottom: Its values, (N, C, H, W).

        Returns:
            The boxes (D, 4) as x and y of the center, width and height, in fractions of the image; the scores (D,); the
            classes (D,), from 0.
        """
        raise NotImplementedError

    @property
    def greatest_overlap(self) -> float:
        """The greatest overlap of two boxes that are kept: the number before ``nms_threshold``, at which a box goes."""
        return _number_before(self.param.nms_threshold)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check the channels of the bottoms, and return the shape of the top for one detection."""
        param = self.param
        want = param.num_box * (5 + param.num_classes)
        for bottom in bottoms:
            if len(bottom) != 4 or bottom[1] < want:
                raise NetError(
                    "a bottom has too few channels", got=bottom, want=f"(N, {want}, H, W) for {param.num_box} boxes"
                )
        return [(1, 1, 1, 7)]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """Compute the detections; they are computed on the CPU in single precision."""
        arrays = [bottom.detach().cpu().float().numpy() for bottom in bottoms]
        parts = [self.predict(i, array) for i, array in enumerate(arrays)]
        found, scores, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = boxes.sort_scores(scores, None, -1)
        # Upstream bug, kept: boxes of all classes and of all images of the batch suppress each other, and the rows of
        # all images have the index 0 (yolov3_detection_output_layer.cpp L340-L376).
        kept = order[boxes.suppress(found[order], self.greatest_overlap, overlaps=compute_overlaps)]
        rows = np.zeros((len(kept), 7), np.float32)
        rows[:, 1], rows[:, 2] = classes[kept] + 1, scores[kept]
        half = found[kept, 2:] / np.float64(2)
        rows[:, 3:5], rows[:, 5:] = found[kept, :2] - half, found[kept, :2] + half
        if not len(rows):
            rows = np.full((len(arrays[0]), 7), -1, np.float32)
            rows[:, 0] = np.arange(len(rows))
        return (torch.from_numpy(rows)[None, None].to(bottoms[0]),)

    def add_detections(
        self, onnx: OnnxLayer, grids: list[detections_onnx.Grid], threshold: float, *, is_softmax: bool
    ) -> list[str]:
        """Add the operators of the layer; see ``detections_onnx.add_detections``."""
        classes, overlap = self.param.num_classes, self.greatest_overlap
        return [detections_onnx.add_detections(onnx, grids, classes, threshold, overlap, is_softmax=is_softmax)]


def compute_overlaps(first: Float32, second: Float32) -> Float32:
    """Return the intersection over union of each pair of boxes, given as x and y of the center, width and height.

    Args:
        first: (A, 4).
        second: (B, 4).

    Returns:
        An array (A, B).

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/yolov3_detection_output_layer.cpp L24-L56.
    """
    sides = []
    for axis in (0, 1):
        (low, high), (other_low, other_high) = (
            (each[:, axis] - each[:, axis + 2] / 2, each[:, axis] + each[:, axis + 2] / 2) for each in (first, second)
        )
        sides.append(np.minimum(high[:, None], other_high) - np.maximum(low[:, None], other_low))
    shared = np.where((sides[0] < 0) | (sides[1] < 0), np.float32(0), sides[0] * sides[1])
    areas, others = (each[:, 2] * each[:, 3] for each in (first, second))
    union = areas[:, None] + others - shared
    found: Float32 = np.divide(shared, union, out=np.zeros_like(shared), where=union != 0)
    return found


def _number_before(value: float) -> float:
    """Return the greatest single-precision number below ``value``."""
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))


def _exp(x: Float32) -> Float32:
    """Return the correctly rounded exponential, as glibc does."""
    with np.errstate(over="ignore"):
        return np.exp(x, dtype=np.float64).astype(np.float32)


def _sigmoid(x: Float32) -> Float32:
    return (1 / (1 + _exp(-x).astype(np.float64))).astype(np.float32)


@register
class YoloDetectionOutput(_YoloOutput):
    """The boxes of objects that YOLO (version 2) predicts, after non-maximum suppression over all classes together.

    Each cell of the bottom has ``num_box`` boxes of 5 + ``num_classes`` channels: x and y relative to the cell, and
    width and height as logarithms relative to the ``biases``, which are in cells; a score for an object; and scores of
    the classes, of which the softmax is taken and the greatest counts. A box is kept if the product of both scores is
    at least ``confidence_threshold`` and its overlap with each better box is below ``nms_threshold``.

    Shapes:
        bottoms  (N, num_box * (5 + num_classes), S, S), one or two; further channels are not read
        top      (1, 1, D, 7)   for each of D detections 0, class + 1, score, left, top, right, bottom; scores descend.
                 If there are none, N rows of -1 except for the index of the image. ``shapes`` returns D = 1.

    Raises:
        NetError: If ``num_classes`` or biases are missing, a bottom is not square or has too few channels.

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/yolo_detection_output_layer.cpp L122-L346.
    """

    dialect = YOLO
    reads = frozenset(f"yolo_detection_output_param.{name}" for name in YoloDetectionOutputParameter.fields)
    bottoms = (1, 2)
    message = staticmethod(YOLO_DETECTION_OUTPUT.get)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings."""
        super().setup(bottoms)
        param = self.param
        if len(param.biases) < 2 * param.num_box:
            raise NetError("there must be two biases for each box", got=len(param.biases), want=2 * param.num_box)

    def shapes(self, bottoms: list[Shape]) -> list[Shape]:
        """Check the sizes of the bottoms, and return the shape of the top for one detection."""
        for bottom in bottoms:
            if legacy_shape(bottom)[2] != legacy_shape(bottom)[3]:
                raise NetError("a bottom is not square, which the fork requires", got=bottom, want="(N, C, S, S)")
            if bottom[1] % self.param.num_box:
                raise NetError("the channels must be a multiple of num_box", got=bottom)
        return super().shapes(bottoms)

    def predict(self, index: int, bottom: Float32) -> tuple[Float32, Float32, Int64]:
        """Return boxes, scores and classes of the cells that reach the threshold, row by row."""
        param, side = self.param, bottom.shape[3]
        cells = bottom.reshape(len(bottom), param.num_box, -1, side, side).transpose(0, 3, 4, 1, 2)
        scores = cells[..., 5 : 5 + param.num_classes]
        powers = _exp(scores - scores.max(-1, keepdims=True))
        likely = powers / powers.sum(-1, keepdims=True)
        confidence = _sigmoid(cells[..., 4]) * likely.max(-1)
        kept = np.nonzero(confidence >= np.float32(param.confidence_threshold))
        _, row, column, box = kept
        anchors = np.array(param.biases, np.float32).reshape(-1, 2)[box]
        corner = np.stack([column, row], 1).astype(np.float32)
        center = (corner + _sigmoid(cells[kept][:, :2])) / np.float32(side)
        size = _exp(cells[kept][:, 2:4]) * anchors / np.float32(side)
        return np.concatenate([center, size], 1), confidence[kept], likely.argmax(-1)[kept]

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add decoding and the operator NonMaxSuppression."""
        param = self.param
        anchors = np.array(param.biases, np.float32)[: 2 * param.num_box].reshape(-1, 2)
        grids = [detections_onnx.Grid(bottom, anchors, 1) for bottom in bottoms]
        return self.add_detections(onnx, grids, _number_before(param.confidence_threshold), is_softmax=True)


@register
class Yolov3DetectionOutput(_YoloOutput):
    """The boxes of objects that YOLO (version 3) predicts, after non-maximum suppression over all classes together.

    Each cell of a bottom has ``num_box`` boxes of 5 + ``num_classes`` channels: x and y relative to the cell, width and
    height as logarithms relative to an anchor, a score for an object, and a score for each class, all but width and
    height through a sigmoid. The anchors are the ``biases``, width and height in pixels; ``mask`` has the indices of
    the anchors of each bottom in turn, and ``anchors_scale`` its stride. A box counts for each class for which the
    product of both scores is above ``confidence_threshold``; it is kept if its overlap with each better box is below
    ``nms_threshold``.

    Shapes:
        bottoms  (N, num_box * (5 + num_classes), H_i, W_i), ``mask_group_num`` of them; further channels are not read
        top      (1, 1, D, 7)   for each of D detections 0, class + 1, score, left, top, right, bottom; scores descend.
                 If there are none, N rows of -1 except for the index of the image. ``shapes`` returns D = 1.

    Raises:
        NetError: If ``num_classes``, masks, biases or scales are missing, the number of bottoms is not
            ``mask_group_num``, a bottom has too few channels, or ``gaussian_box`` is set.

    Source: eric612/MobileNet-YOLO@69b4441 src/caffe/layers/yolov3_detection_output_layer.cpp L188-L391,
    src/caffe/util/bbox_util.cpp L369-L375.
    """

    dialect = YOLO
    reads = frozenset(f"yolov3_detection_output_param.{name}" for name in Yolov3DetectionOutputParameter.fields)
    message = staticmethod(YOLOV3_DETECTION_OUTPUT.get)

    def setup(self, bottoms: list[Shape]) -> None:
        """Check the settings, and find the anchors of each bottom."""
        super().setup(bottoms)
        param = self.param
        if param.gaussian_box:
            raise NetError("gaussian_box is not supported", remedy="The fork's own code for it reads unset values.")
        if len(bottoms) != param.mask_group_num:
            raise NetError("there must be mask_group_num bottoms", got=len(bottoms), want=param.mask_group_num)
        if len(param.anchors_scale) < len(bottoms):
            raise NetError("anchors_scale is needed for each bottom", got=len(param.anchors_scale), want=len(bottoms))
        step = len(param.mask) // len(bottoms)
        masks = [param.mask[i * step : i * step + param.num_box] for i in range(len(bottoms))]
        if any(len(mask) < param.num_box for mask in masks) or max(map(max, masks), default=0) * 2 + 1 >= len(
            param.biases
        ):
            raise NetError(
                "mask must name an anchor of biases for each box of each bottom",
                got=f"{len(param.mask)} masks, {len(param.biases)} biases",
                want=f"{len(bottoms) * param.num_box} masks of 0..{len(param.biases) // 2 - 1}",
            )
        self.anchors = [
            np.array(param.biases, np.float32)[: len(param.biases) // 2 * 2].reshape(-1, 2)[m] for m in masks
        ]

    def predict(self, index: int, bottom: Float32) -> tuple[Float32, Float32, Int64]:
        """Return boxes, scores and classes of the cells that reach the threshold, row by row."""
        param, (height, width) = self.param, bottom.shape[2:]
        length = 5 + param.num_classes
        read = bottom[:, : param.num_box * length].reshape(len(bottom), param.num_box, length, height, width)
        cells = read.transpose(0, 3, 4, 1, 2)
        scores = _sigmoid(cells[..., 5:]) * _sigmoid(cells[..., 4:5])
        kept = np.nonzero(scores > np.float32(param.confidence_threshold))
        _, row, column, box, classes = kept
        chosen = cells[kept[:-1]]
        grid = np.array([width, height], np.float32)
        center = (np.stack([column, row], 1).astype(np.float32) + _sigmoid(chosen[:, :2])) / grid
        size = _exp(chosen[:, 2:4]) * self.anchors[index][box] / (grid * np.float32(param.anchors_scale[index]))
        return np.concatenate([center, size], 1), scores[kept], classes

    def to_onnx(self, onnx: OnnxLayer, *bottoms: str) -> list[str]:
        """Add decoding and the operator NonMaxSuppression."""
        param = self.param
        grids = [
            detections_onnx.Grid(bottom, anchors, scale)
            for bottom, anchors, scale in zip(bottoms, self.anchors, param.anchors_scale, strict=False)
        ]
        return self.add_detections(onnx, grids, param.confidence_threshold, is_softmax=False)

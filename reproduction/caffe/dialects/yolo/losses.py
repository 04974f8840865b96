"""The fields of YOLO's losses, which are declared so that nets for training can be read; the losses are not here.

Source: eric612/MobileNet-YOLO@69b4441 src/caffe/proto/caffe.proto L481-L545.
"""

from __future__ import annotations

import enum

from reproduction.caffe.dialects.yolo import YOLO
from reproduction.caffe.schema import LayerParameter
from reproduction.caffe.schema.field import boolean, choice, integers, nested, single, singles, string, uint32
from reproduction.caffe.schema.message import Message
from reproduction.caffe.schema.scalar_types import UINT32


class RegionLossParameter(Message):
    """The fields of RegionLoss layers, the loss of YOLO version 2."""

    side = uint32(1, 13)
    num_class = uint32(2, 20)
    bias_match = uint32(3, 1)
    coords = uint32(4, 4)
    num = uint32(5, 5)
    softmax = uint32(6, 1)
    jitter = single(7, 0.2)
    rescore = uint32(8, 1)
    object_scale = single(9, 1.0)
    class_scale = single(10, 1.0)
    noobject_scale = single(11, 0.5)
    coord_scale = single(12, 5.0)
    absolute = uint32(13, 1)
    thresh = single(14, 0.2)
    random = uint32(15, 1)
    biases = singles(16)
    softmax_tree = string(17)
    class_map = string(18)


class IouLoss(enum.IntEnum):
    """The loss of boxes in Yolov3 layers: a form of intersection over union, or the mean squared error."""

    IOU = 0
    GIOU = 1
    MSE = 2
    DIOU = 3
    CIOU = 4


class Yolov3Parameter(Message):
    """The fields of Yolov3 layers, the loss of YOLO version 3."""

    side = uint32(1, 13)
    num_class = uint32(2, 20)
    num = uint32(3, 5)
    object_scale = single(4, 1.0)
    class_scale = single(5, 1.0)
    noobject_scale = single(6, 0.5)
    coord_scale = single(7, 5.0)
    thresh = single(8, 0.2)
    anchors_scale = uint32(10, 32)
    biases = singles(11)
    mask = integers(12, UINT32)
    use_logic_gradient = boolean(13)
    use_focal_loss = boolean(14)
    iou_loss = choice(15, IouLoss, IouLoss.MSE)
    iou_normalizer = single(16, 0.25)
    iou_thresh = single(17, 0.5)
    max_delta = single(18, 10.0)
    accumulate = boolean(19, True)
    label_smooth_eps = single(20, 0.1)


class YoloSegParameter(Message):
    """The fields of YoloSeg layers, a loss of segmentations."""

    num_class = uint32(1)
    object_scale = single(2, 5.0)
    class_scale = single(3, 1.0)
    use_logic_gradient = boolean(4)
    use_hardsigmoid = boolean(5)


class SegmentationEvaluateParameter(Message):
    """The fields of SegmentationEvaluate layers, which score segmentations."""

    num_classes = uint32(1, 1)
    threshold = single(2, 0.5)


LayerParameter.add_field("region_loss_param", nested(600, RegionLossParameter), YOLO)
LayerParameter.add_field("yolov3_param", nested(603, Yolov3Parameter), YOLO)
LayerParameter.add_field("yolo_seg_param", nested(604, YoloSegParameter), YOLO)
LayerParameter.add_field("segmentation_evaluate_param", nested(605, SegmentationEvaluateParameter), YOLO)

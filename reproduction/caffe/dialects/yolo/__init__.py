"""YOLO for Caffe: the layers of darknet, and detection from their grids."""

from reproduction.caffe.schema import add_dialect

_LOSS = "It computes a loss; remove it, or limit it to training by include { phase: TRAIN }."

YOLO = add_dialect(
    "yolo",
    "YOLO for Caffe",
    "eric612/MobileNet-YOLO@69b4441",
    2018,
    missing={
        "GaussianYolov3": _LOSS,
        "RegionLoss": _LOSS,
        "SegmentationEvaluate": "It computes scores of training; remove it.",
        "YoloSeg": _LOSS,
        "Yolov3": _LOSS,
    },
)

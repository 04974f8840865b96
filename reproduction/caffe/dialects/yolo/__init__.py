"""YOLO for Caffe: the layers of darknet, and detection from their grids."""

from reproduction.caffe.schema import add_dialect

YOLO = add_dialect("yolo", "YOLO for Caffe", "eric612/MobileNet-YOLO@69b4441", 2018)

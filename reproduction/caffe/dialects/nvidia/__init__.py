"""NVIDIA Caffe, the Caffe of DIGITS: its weights, its BatchNorm and its losses."""

from reproduction.caffe.schema import add_dialect

NVIDIA = add_dialect("nvidia", "NVIDIA Caffe", "NVIDIA/caffe@87a2554", 2015)

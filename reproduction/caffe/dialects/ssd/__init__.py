"""SSD, the Single Shot MultiBox Detector: prior boxes, their decoding and their loss."""

from reproduction.caffe.schema import add_dialect

SSD = add_dialect("ssd", "SSD, Single Shot MultiBox Detector", "weiliu89/caffe@4817bf8", 2015)

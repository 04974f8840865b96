"""Fast and Faster R-CNN: pooling of regions, and the loss of their boxes."""

from reproduction.caffe.schema import add_dialect

FASTER_RCNN = add_dialect("faster_rcnn", "Faster R-CNN", "rbgirshick/caffe-fast-rcnn@4115385", 2015)

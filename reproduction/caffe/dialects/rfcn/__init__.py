"""R-FCN: position-sensitive pooling, and hard examples."""

from reproduction.caffe.schema import add_dialect

RFCN = add_dialect("rfcn", "R-FCN", "daijifeng001/caffe-rfcn@543f8f6", 2016)

"""Synopsys Caffe: the layers of many forks, TensorFlow's padding and resizing, and quantization."""

from reproduction.caffe.schema import add_dialect

SYNOPSYS = add_dialect(
    "synopsys", "Synopsys Caffe", "foss-for-synopsys-dwc-arc-processors/synopsys-caffe@977ba36", 2017
)

"""Small nets with weights in files, as users have them: a classifier, a segmentation net, and one with ArgMax."""

from pathlib import Path

from reproduction.caffe.formats import caffemodel, prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter

INPUT = """name: "thin"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 10 dim: %d dim: %d dim: %d } } %s }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: %d kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
"""
FC = """layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
    inner_product_param { num_output: 7 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
ARGMAX = 'layer { name: "best" type: "ArgMax" bottom: "conv" top: "best" argmax_param { axis: 1 } }\n'


def write_net(folder, layers="", *, channels=3, size=(12, 16), outputs=4, transform="") -> tuple[Path, Path]:
    """Write ``deploy.prototxt`` and ``thin.caffemodel`` with seeded weights, and return both paths."""
    text = INPUT % (channels, *size, transform, outputs) + layers
    (folder / "deploy.prototxt").write_text(text)
    net = Net(prototxt.loads(text, NetParameter), seed=5)
    caffemodel.dump(net.to_proto(), folder / "thin.caffemodel")
    return folder / "deploy.prototxt", folder / "thin.caffemodel"

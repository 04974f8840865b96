"""Small nets for the tests of pycaffe."""

from reproduction import pycaffe as caffe

INPUT = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }\n'
IMAGE = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 5 dim: 6 } } }\n'
IP = (
    'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4 '
    'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 2 } } }\n'
)
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'


def layer(name, type, bottom="x", top="y", rest=""):
    """Return the text of a layer; bottoms and tops are separated by spaces."""
    ends = "".join(f'bottom: "{b}" ' for b in bottom.split()) + "".join(f'top: "{t}" ' for t in top.split())
    return f'layer {{ name: "{name}" type: "{type}" {ends}{rest} }}\n'


def python(name, kind, bottom="x", top="y", param_str=""):
    """Return the text of a Python layer of ``python_layers``."""
    module = "tests.helpers.python_layers"
    param = f'python_param {{ module: "{module}" layer: "{kind}" param_str: "{param_str}" }}'
    return layer(name, "Python", bottom, top, param)


def write(folder, text, name="net.prototxt"):
    """Write a text and return its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


def net(folder, text, phase=caffe.TEST, **rest):
    """Build a net from a text."""
    return caffe.Net(write(folder, text), phase, **rest)

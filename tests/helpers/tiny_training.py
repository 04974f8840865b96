"""A net that trains in milliseconds, its samples, and its solver."""

import numpy as np

from reproduction.caffe.formats import prototxt
from reproduction.caffe.schema import NetParameter, SolverParameter
from reproduction.caffe.training import solver

NET = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.3 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 4 group: 4 kernel_size: 4 stride: 2 bias_term: false
    weight_filler { type: "bilinear" } } }
layer { name: "drop" type: "Dropout" bottom: "up" top: "drop" dropout_param { dropout_ratio: 0.5 } }
layer { name: "fc" type: "InnerProduct" bottom: "drop" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def net(text: str = NET) -> NetParameter:
    return prototxt.loads(text, NetParameter)


def feed(draw: int) -> dict[str, np.ndarray]:
    random = np.random.RandomState(draw)
    data = random.randn(2, 3, 6, 6).astype(np.float32)
    label = random.randint(0, 5, 2)
    data[0, :, :, 0] += label[0]
    data[1, :, :, 0] += label[1]
    return {"data": data, "label": label.astype(np.float32)}


def param(text: str = "", **fields) -> SolverParameter:
    """Return a solver of the tiny net: SGD with defaults that ``text`` and ``fields`` override."""
    made = SolverParameter(
        base_lr=0.01, lr_policy="fixed", momentum=0.9, weight_decay=0.005, max_iter=1000, random_seed=7
    )
    made.snapshot_after_train = False
    made.net_param = net()
    made.merge(prototxt.loads(text, SolverParameter))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def built(text: str = "", *, feed=feed, test_feeds=(feed, feed), **kwargs) -> solver.Solver:
    return solver.build_solver(param(text), feed=feed, test_feeds=test_feeds, **kwargs)


def weights(run: solver.Solver) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in run.net.state_dict().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

"""Published nets with seeded weights, narrowed by a divisor, so that real weight files are written quickly."""

import numpy as np
import torch

from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fcn.nets import net_files, registry
from tests.golden import seeded


def patch(monkeypatch, divisor=32):
    """Have the registry load deploy nets that are narrowed by the divisor."""
    load = registry.load_net

    def load_thin(name, file="deploy.prototxt"):
        return deploy(name, divisor) if file == "deploy.prototxt" else load(name, file)

    monkeypatch.setattr(registry, "load_net", load_thin)


def deploy(name, divisor=32):
    """Return the deploy net, with convolutions of 64 channels and more narrowed by the divisor."""
    message = net_files.build_deploy(registry.NETS[name])
    for layer in message.layer:
        if layer.type == "Convolution" and layer.convolution_param.num_output >= 64:
            layer.convolution_param.num_output //= divisor
    return message


def net(name, divisor=32, seed=1) -> Net:
    """Build the deploy net with weights from ``seeded.make_weight``; layers named ``scale_*`` keep their constants."""
    made = Net(deploy(name, divisor))
    with torch.no_grad():
        for layer, blobs in made.params.items():
            if not layer.startswith("scale_"):
                for i, blob in enumerate(blobs):
                    blob.copy_(torch.from_numpy(_weight(layer, i, tuple(blob.shape), seed)))
    return made


def write(path, name, divisor=32, seed=1):
    """Write the net's weights as a caffemodel; return the path."""
    message: NetParameter = net(name, divisor, seed).to_proto()
    message.name = name
    caffemodel.dump(message, path)
    return path


def _weight(layer, i, shape, seed):
    if i == 0 and "up" not in layer and np.prod(shape) > 1 << 22:
        # He-normal as in seeded.make_weight, but with numpy's faster generator: fc6 alone has 103 million weights.
        rng = np.random.default_rng([seed, len(layer), shape[0]])
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return seeded.make_weight(layer, i, shape, "up" in layer, seed)

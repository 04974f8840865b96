"""Classification nets written from their published tables, with widths that a test can reduce.

Each function takes a divisor of the widths and returns an upgraded NetParameter.
"""

from collections.abc import Callable
from typing import Any

import torch

from reproduction.caffe.net.net import Net
from reproduction.caffe.net.netspec import NetSpec, layer
from tests.golden import seeded


class Chain:
    """A builder that appends layers to the end of a net.

    Attributes:
        end: The newest top.
    """

    def __init__(self, channels: int, side: int, divisor: int, batch: int = 1) -> None:
        self.net, self.divisor = NetSpec(), divisor
        self.end = self.net["data"] = layer("Input", shape={"dim": [batch, channels, side, side]})

    def put(self, name: str, kind: str, *bottoms: Any, **fields: Any) -> Any:
        self.end = self.net[name] = layer(kind, *(bottoms or [self.end]), **fields)
        return self.end

    def width(self, count: int) -> int:
        if self.divisor == 1:
            return count
        return max(4, count // self.divisor // 4 * 4)  # a multiple of 4, so that groups divide it

    def conv(self, name: str, count: int, kernel: int, relu: bool = True, bottom: Any = None, **fields: Any) -> Any:
        group = fields.pop("group", 1)
        group = group if group <= 2 else self.width(group)
        self.put(
            name, "Convolution", bottom or self.end, num_output=self.width(count), kernel_size=kernel, group=group,
            weight_filler={"type": "msra"}, **fields,
        )  # fmt: skip
        return self.relu(name) if relu else self.end

    def dense(self, name: str, count: int, relu: bool = False, drop: bool = False, bottom: Any = None) -> Any:
        self.put(name, "InnerProduct", bottom or self.end, num_output=count, weight_filler={"type": "xavier"})
        if relu:
            self.relu(name)
        return self.put(f"drop_{name}", "Dropout", in_place=True) if drop else self.end

    def relu(self, name: str) -> Any:
        return self.put(f"relu_{name}", "ReLU", in_place=True)

    def pool(self, name: str, kernel: int, stride: int, bottom: Any = None, **fields: Any) -> Any:
        return self.put(name, "Pooling", bottom or self.end, kernel_size=kernel, stride=stride, **fields)

    def batch_norm(self, name: str, relu: bool = True) -> Any:
        self.put(f"bn_{name}", "BatchNorm", in_place=True, batch_norm_param={"use_global_stats": True})
        self.put(f"scale_{name}", "Scale", in_place=True, scale_param={"bias_term": True})
        return self.relu(name) if relu else self.end

    def classify(self, name: str, count: int) -> Any:
        self.dense(name, count)
        self.put("prob", "Softmax")
        return self.net.to_proto()


def lenet(divisor=1):
    net = Chain(1, 28, divisor, batch=64)
    net.conv("conv1", 20, 5, relu=False)
    net.pool("pool1", 2, 2)
    net.conv("conv2", 50, 5, relu=False)
    net.pool("pool2", 2, 2)
    net.dense("ip1", net.width(500), relu=True)
    return net.classify("ip2", 10)


def siamese(divisor=1):
    net = Chain(1, 28, divisor)
    net.conv("conv1", 20, 5, relu=False)
    net.pool("pool1", 2, 2)
    net.conv("conv2", 50, 5, relu=False)
    net.pool("pool2", 2, 2)
    net.dense("ip1", net.width(500), relu=True)
    net.dense("ip2", 10)
    net.dense("feat", 2)
    return net.net.to_proto()


def cifar10_quick(divisor=1):
    net = Chain(3, 32, divisor)
    net.conv("conv1", 32, 5, relu=False, pad=2)
    net.pool("pool1", 3, 2)
    net.relu("pool1")
    net.conv("conv2", 32, 5, pad=2)
    net.pool("pool2", 3, 2, pool="AVE")
    net.conv("conv3", 64, 5, pad=2)
    net.pool("pool3", 3, 2, pool="AVE")
    net.dense("ip1", net.width(64))
    return net.classify("ip2", 10)


def cifar10_full(divisor=1):
    net = Chain(3, 32, divisor)
    norm = {"local_size": 3, "alpha": 5e-05, "beta": 0.75, "norm_region": "WITHIN_CHANNEL"}
    net.conv("conv1", 32, 5, relu=False, pad=2)
    net.pool("pool1", 3, 2)
    net.relu("pool1")
    net.put("norm1", "LRN", **norm)
    net.conv("conv2", 32, 5, pad=2)
    net.pool("pool2", 3, 2, pool="AVE")
    net.put("norm2", "LRN", **norm)
    net.conv("conv3", 64, 5, pad=2)
    net.pool("pool3", 3, 2, pool="AVE")
    return net.classify("ip1", 10)


def _alexnet(divisor, norm_first, dense):
    net = Chain(3, 227, divisor)
    for index, (count, kernel, fields) in enumerate(
        [(96, 11, {"stride": 4}), (256, 5, {"pad": 2, "group": 2}), (384, 3, {"pad": 1}),
         (384, 3, {"pad": 1, "group": 2}), (256, 3, {"pad": 1, "group": 2})], 1,
    ):  # fmt: skip
        net.conv(f"conv{index}", count, kernel, **fields)
        if index < 3:
            steps = [
                lambda i=index: net.put(f"norm{i}", "LRN", local_size=5, alpha=0.0001, beta=0.75),
                lambda i=index: net.pool(f"pool{i}", 3, 2),
            ]
            for step in steps if norm_first else steps[::-1]:
                step()
    net.pool("pool5", 3, 2)
    dense(net)
    return net.net.to_proto()


def _dense_end(outputs, last="fc8", softmax=True):
    def add(net):
        net.dense("fc6", net.width(4096), relu=True, drop=True)
        net.dense("fc7", net.width(4096), relu=True, drop=True)
        net.dense(last, outputs)
        if softmax:
            net.put("prob", "Softmax")

    return add


def _convolved_end(net):
    net.conv("fc6-conv", 4096, 6)
    net.conv("fc7-conv", 4096, 1)
    net.conv("fc8-conv", 1000, 1, relu=False)
    net.put("prob", "Softmax")


def alexnet(divisor=1):
    return _alexnet(divisor, True, _dense_end(1000))


def caffenet(divisor=1):
    return _alexnet(divisor, False, _dense_end(1000))


def flickr_style(divisor=1):
    return _alexnet(divisor, False, _dense_end(20, "fc8_flickr"))


def rcnn(divisor=1):
    return _alexnet(divisor, False, _dense_end(200, "fc-rcnn", softmax=False))


def caffenet_full_conv(divisor=1):
    return _alexnet(divisor, False, _convolved_end)


def single_conv(divisor=1):
    net = Chain(1, 100, divisor)
    net.conv("conv", 3, 5, relu=False)
    return net.net.to_proto()


# Output channels of each inception module of GoogLeNet: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64), "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64), "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128), "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(divisor=1):
    net = Chain(3, 224, divisor)
    net.conv("conv1", 64, 7, stride=2, pad=3)
    net.pool("pool1", 3, 2)
    net.put("norm1", "LRN", local_size=5, alpha=0.0001, beta=0.75)
    net.conv("conv2_reduce", 64, 1)
    net.conv("conv2", 192, 3, pad=1)
    net.put("norm2", "LRN", local_size=5, alpha=0.0001, beta=0.75)
    net.pool("pool2", 3, 2)
    for name, (one, reduce3, three, reduce5, five, projected) in _INCEPTION.items():
        bottom = net.end
        parts = [net.conv(f"{name}_1", one, 1)]
        net.conv(f"{name}_3r", reduce3, 1, bottom=bottom)
        parts.append(net.conv(f"{name}_3", three, 3, pad=1))
        net.conv(f"{name}_5r", reduce5, 1, bottom=bottom)
        parts.append(net.conv(f"{name}_5", five, 5, pad=2))
        net.pool(f"{name}_pool", 3, 1, bottom=bottom, pad=1)
        parts.append(net.conv(f"{name}_p", projected, 1))
        net.put(f"{name}_out", "Concat", *parts)
        if name in ("3b", "4e"):
            net.pool(f"pool_{name}", 3, 2)
    net.pool("pool5", 7, 1, pool="AVE")
    net.put("pool5_drop", "Dropout", in_place=True)
    return net.classify("loss3", 1000)


def vgg16(divisor=1):
    net = Chain(3, 224, divisor)
    for block, (count, layers) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for index in range(1, layers + 1):
            net.conv(f"conv{block}_{index}", count, 3, pad=1)
        net.pool(f"pool{block}", 2, 2)
    _dense_end(1000)(net)
    return net.net.to_proto()


def _resnet(divisor, blocks_of_stages, **fields):
    net = Chain(3, 224, divisor)
    net.conv("conv1", 64, 7, relu=False, stride=2, pad=3, **fields)
    net.batch_norm("conv1")
    net.pool("pool1", 3, 2)
    for stage, (count, blocks) in enumerate(zip((64, 128, 256, 512), blocks_of_stages, strict=True), 2):
        for block in range(blocks):
            name, stride = f"res{stage}{chr(ord('a') + block)}", 2 if block == 0 and stage > 2 else 1
            bottom = shortcut = net.end
            if block == 0:
                net.conv(f"{name}_branch1", 4 * count, 1, relu=False, stride=stride, bias_term=False)
                shortcut = net.batch_norm(f"{name}_branch1", relu=False)
            net.conv(f"{name}_2a", count, 1, relu=False, bottom=bottom, stride=stride, bias_term=False)
            net.batch_norm(f"{name}_2a")
            net.conv(f"{name}_2b", count, 3, relu=False, pad=1, bias_term=False)
            net.batch_norm(f"{name}_2b")
            net.conv(f"{name}_2c", 4 * count, 1, relu=False, bias_term=False)
            net.put(name, "Eltwise", shortcut, net.batch_norm(f"{name}_2c", relu=False))
            net.relu(name)
    net.pool("pool5", 7, 1, pool="AVE")
    return net.classify("fc1000", 1000)


def resnet50(divisor=1):
    return _resnet(divisor, (3, 4, 6, 3))


def resnet101(divisor=1):
    return _resnet(divisor, (3, 4, 23, 3), bias_term=False)


def mobilenet(divisor=1):
    net = Chain(3, 224, divisor)
    net.conv("conv1", 32, 3, relu=False, pad=1, stride=2, bias_term=False)
    net.batch_norm("conv1")
    widths = [(32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    for index, (before, count, stride) in enumerate([*widths, *[(512, 512, 1)] * 5, (512, 1024, 2), (1024, 1024, 1)]):
        net.conv(
            f"conv{index}_dw", before, 3, relu=False, pad=1, stride=stride, group=before, bias_term=False,
        )  # fmt: skip
        net.batch_norm(f"conv{index}_dw")
        net.conv(f"conv{index}_sep", count, 1, relu=False, bias_term=False)
        net.batch_norm(f"conv{index}_sep")
    net.put("pool6", "Pooling", pool="AVE", global_pooling=True)
    net.conv("fc7", 1000, 1, relu=False)
    net.put("prob", "Softmax")
    return net.net.to_proto()


# The eleven nets that BVLC's Caffe has deploy files for; OTHERS are popular nets of its users.
# Source: BVLC/caffe@9b89154 models/*/deploy.prototxt, examples/{mnist,cifar10,siamese,net_surgery}.
BVLC = {
    made.__name__: made
    for made in (lenet, siamese, cifar10_quick, cifar10_full, alexnet, caffenet, flickr_style, rcnn,
                 caffenet_full_conv, single_conv, googlenet)
}  # fmt: skip
OTHERS = {made.__name__: made for made in (vgg16, resnet50, resnet101, mobilenet)}
NETS: dict[str, Callable[..., Any]] = BVLC | OTHERS


def net(name, divisor=1, seed=1):
    """Build a net by name, with weights and batch statistics that keep values near 1."""
    made = Net(NETS[name](divisor), seed=seed)
    with torch.no_grad():
        for layer_name, found in made.layers.items():
            if found.layer_param.type == "BatchNorm":
                mean, variance, count = found.blobs
                mean.copy_(torch.from_numpy(seeded.make_weight(layer_name, 1, tuple(mean.shape), seed=seed)))
                variance.fill_(1.3)
                count.fill_(1)
    return made

"""Compiled nets of random layers, compared with the nets that they were compiled from."""

import re

import numpy as np
import pytest
import torch

from reproduction.caffe.errors import NetError
from reproduction.caffe.formats import prototxt
from reproduction.caffe.net.net import Net
from reproduction.caffe.schema import NetParameter
from reproduction.fast import compiler, convolution
from tests.helpers.parity import relative


class RandomNet:
    """A net of one input that grows by a layer at a time.

    Attributes:
        text: its prototxt.
        channels: of the blobs so far.
    """

    def __init__(self, rng, channels):
        self.rng, self.text, self.channels = rng, [], {"data": channels}
        shape = f"shape {{ dim: 1 dim: {channels} dim: 64 dim: 64 }}"
        self.text.append(f'layer {{ name: "data" type: "Input" top: "data" input_param {{ {shape} }} }}')

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def bottom(self):
        """Most often the newest blob."""
        names = list(self.channels)
        return names[-1] if self.rng.random() < 0.7 else self.pick(*names)

    def add(self, kind, bottoms, channels, param="", tops=1):
        name = f"{kind.lower()}{len(self.text)}"
        found = [name] if tops == 1 else [f"{name}_{i}" for i in range(tops)]
        places = [f'bottom: "{bottom}"' for bottom in bottoms] + [f'top: "{top}"' for top in found]
        self.text.append(f'layer {{ name: "{name}" type: "{kind}" {" ".join(places)} {param} }}')
        self.channels.update(dict.fromkeys(found, channels))
        return name

    def grow(self):
        getattr(self, self.pick(*["convolve"] * 4, "pool", "pool", "point", "plain", "slice", "up", "crop"))()

    def convolve(self):
        kernel, count = self.pick(1, 2, 3, 3, 3, 5, 6, 7), self.pick(7, 32, 48)
        pad, stride, dilation = self.pick(0, 0, 1, 3, 20), self.pick(1, 1, 1, 2), self.pick(1, 1, 1, 2)
        group = self.pick(1, 1, 1, 16) if count % 16 == 0 else 1
        bottom = self.bottom()
        group = group if self.channels[bottom] % group == 0 else 1
        text = f"num_output: {count} kernel_size: {kernel} pad: {pad} stride: {stride} dilation: {dilation}"
        fillers = 'weight_filler { type: "xavier" } bias_filler { type: "gaussian" std: 0.3 }'
        name = self.add("Convolution", [bottom], count, f"convolution_param {{ {text} group: {group} {fillers} }}")
        if self.rng.random() < 0.5:
            slope = self.pick("", "", "relu_param { negative_slope: 0.1 }")
            self.text.append(f'layer {{ name: "r{name}" type: "ReLU" bottom: "{name}" top: "{name}" {slope} }}')

    def pool(self):
        bottom, kernel = self.bottom(), self.pick(2, 2, 3)
        param = f"pool: {self.pick('MAX', 'MAX', 'AVE')} kernel_size: {kernel} stride: {self.pick(1, 2, 2)}"
        self.add("Pooling", [bottom], self.channels[bottom], f"pooling_param {{ {param} pad: {self.pick(0, 0, 1)} }}")

    def point(self):
        bottom = self.bottom()
        if self.rng.random() < 0.5:
            self.add(self.pick("Sigmoid", "TanH", "AbsVal"), [bottom], self.channels[bottom])
        else:
            self.add("Concat", [bottom, bottom], 2 * self.channels[bottom])

    def plain(self):
        bottom = self.bottom()
        self.add(self.pick("Softmax", "MVN"), [bottom], self.channels[bottom])

    def slice(self):
        bottom = self.bottom()
        if self.channels[bottom] % 2 == 0:
            self.add("Slice", [bottom], self.channels[bottom] // 2, tops=2)

    def up(self):
        bottom, count = self.bottom(), self.pick(4, 32)
        text = f'num_output: {count} kernel_size: 4 stride: 2 weight_filler {{ type: "xavier" }}'
        if self.rng.random() < 0.5:
            count = self.channels[bottom]
            text = f"num_output: {count} group: {count} kernel_size: 4 stride: 2 bias_term: false"
            text += ' weight_filler { type: "bilinear" }'
        self.add("Deconvolution", [bottom], count, f"convolution_param {{ {text} }}")

    def crop(self):
        bottom = self.bottom()
        padded = self.add(
            "Convolution",
            [bottom],
            32,
            'convolution_param { num_output: 32 kernel_size: 1 pad: 4 weight_filler { type: "xavier" } }',
        )
        self.add("Crop", [padded, bottom], 32, f"crop_param {{ axis: 2 offset: {self.pick(0, 3, 8)} }}")


@pytest.mark.parametrize("seed", range(60))
def test_a_random_net_computes_the_same_when_compiled(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(convolution, "READ_TIME", int(rng.choice([0, convolution.READ_TIME])))
    monkeypatch.setattr(convolution, "TRANSFORM_TIME", 0)
    monkeypatch.setattr(convolution, "LARGE", int(rng.choice([1 << 10, 4 << 20])))
    drawn = RandomNet(rng, int(rng.choice([3, 32])))
    for _ in range(rng.integers(3, 12)):
        drawn.grow()
    net = Net(prototxt.loads("\n".join(drawn.text), NetParameter), seed=seed)
    compiled = compiler.compile(net, str(rng.choice(["exact", "winograd"])))
    names = [name for name in net.blob_shapes if "_split" not in name]
    for _ in range(2):
        height, width = (int(side) for side in rng.integers(24, 70, 2))
        batch, width = int(rng.integers(1, 3)), int(rng.choice([height, width]))
        shape = (batch, drawn.channels["data"], height, width)
        inputs = {"data": torch.from_numpy(rng.standard_normal(shape, np.float32))}
        wanted = list(rng.choice(names, rng.integers(1, 3), replace=False))
        try:
            with torch.inference_mode():
                want = net(inputs, wanted)
        except NetError as error:  # too small for the net
            with pytest.raises(NetError, match=re.escape(str(error))):
                compiled(inputs, wanted)
            continue
        for _ in range(2):  # at the second call it may be another plan
            got = compiled(inputs, wanted)
            for name in wanted:
                assert relative(got[name].numpy(), want[name].numpy()) < 1e-4, (name, "\n".join(drawn.text))

"""Python layers that prototxts of the tests name."""

import ast

import numpy as np

from reproduction import pycaffe as caffe


class Times(caffe.Layer):
    """A layer that multiplies by its param_str and stores its arguments."""

    def setup(self, bottom, top):
        self.factor = float(self.param_str)
        self.seen = (bottom, top)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.propagate_down = propagate_down
        bottom[0].diff[...] = self.factor * top[0].diff


class Learned(caffe.Layer):
    """A layer that multiplies by a learned parameter, whose array it stores."""

    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.weight = self.blobs[0].data
        self.weight[0] = 3

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.weight[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.weight[0] * top[0].diff
        self.blobs[0].diff[0] += (bottom[0].data * top[0].diff).sum()


class Late(caffe.Layer):
    """A layer that adds a parameter after the solver was built, and overwrites ``type``."""

    def setup(self, bottom, top):
        self.type = "mine"

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        if not self.blobs:
            self.blobs.add_blob(2)
        self.blobs[0].data[...] += 1


class Feed(caffe.Layer):
    """A layer that outputs the samples of a recorded file in order."""

    def setup(self, bottom, top):
        with np.load(self.param_str) as file:
            self.samples = [[file[f"{kind}/{i}"] for kind in ("data", "label")] for i in range(int(file["n"]))]
        self.next = 0

    def reshape(self, bottom, top):
        for blob, array in zip(top, self.samples[self.next], strict=True):
            blob.reshape(*array.shape)

    def forward(self, bottom, top):
        for blob, array in zip(top, self.samples[self.next], strict=True):
            blob.data[...] = array
        self.next = (self.next + 1) % len(self.samples)

    def backward(self, top, propagate_down, bottom):
        pass


class OwnError(Exception):
    """An exception that a layer's author may raise."""


class Broken(caffe.Layer):
    """A layer that raises in the method that its param_str names."""

    def _maybe(self, method):
        if ast.literal_eval(self.param_str) == method:
            raise OwnError(f"no {method}\ntoday")

    def setup(self, bottom, top):
        self._maybe("setup")

    def reshape(self, bottom, top):
        self._maybe("reshape")
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self._maybe("forward")

    def backward(self, top, propagate_down, bottom):
        self._maybe("backward")

import random

import caffe
import numpy as np
from PIL import Image

class ToySegDataLayer(caffe.Layer):

    def setup(self, bottom, top):
        params = eval(self.param_str)
        self.folder = params['folder']
        self.indices = open('{}/{}.txt'.format(self.folder, params['split'])).read().splitlines()
        self.random = 'train' in params['split']
        self.idx = 0
        if len(top) != 2:
            raise Exception("Need to define two tops: data and label.")
        if self.random:
            random.seed(params['seed'])
            self.idx = random.randint(0, len(self.indices)-1)
        self.seen = []

    def reshape(self, bottom, top):
        im = Image.open('{}/{}.png'.format(self.folder, self.indices[self.idx]))
        self.data = np.array(im, dtype=np.float)[:, :, ::-1].transpose((2, 0, 1)) / 255
        self.label = (self.data.argmax(0) % 3)[np.newaxis, ...]
        top[0].reshape(1, *self.data.shape)
        top[1].reshape(1, *self.label.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.data
        top[1].data[...] = self.label
        self.seen.append(self.indices[self.idx])
        if self.random:
            self.idx = random.randint(0, len(self.indices)-1)
        else:
            self.idx = (self.idx + 1) % len(self.indices)

    def backward(self, top, propagate_down, bottom):
        pass

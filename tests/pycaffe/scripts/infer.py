import sys
import numpy as np
from PIL import Image

import caffe
from google.protobuf import text_format
from caffe.proto import caffe_pb2

proto = caffe_pb2.NetParameter()
text_format.Merge(open('val.prototxt').read(), proto)
for layer in list(proto.layer):
    if layer.type == 'SoftmaxWithLoss':
        proto.layer.remove(layer)
proto.layer[0].CopyFrom(caffe_pb2.LayerParameter(name='data', type='Input', top=['data']))
proto.layer[0].input_param.shape.add().dim.extend([1, 3, 1, 1])
with open('deploy.prototxt', 'w') as f:
    f.write(text_format.MessageToString(proto))

in_ = np.array(Image.open('data/{}.png'.format(sys.argv[1])), dtype=np.float32)[:, :, ::-1].transpose((2, 0, 1)) / 255
net = caffe.Net('deploy.prototxt', 'toy.caffemodel', caffe.TEST)
net.blobs['data'].reshape(1, *in_.shape)
net.blobs['data'].data[...] = in_
net.forward()
Image.fromarray(net.blobs['score'].data[0].argmax(axis=0).astype(np.uint8)).save('labels.png')

# Scores pictures against labels, in the idiom of scripts that judge generated images.
import os, sys, glob, argparse
import caffe
import numpy as np
import scipy.misc
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=str, required=True)
parser.add_argument("--output", type=str, required=True)
parser.add_argument("--model", type=str, default="./")
parser.add_argument("--gpu", type=int, default=0)
args = parser.parse_args()

class Set:
    def __init__(self, path):
        self.path = path
        sys.path.insert(0, '{}/helpers/'.format(path))
        helper = __import__('labels')
        self.ids = {label.id: label.train for label in helper.labels}
        self.mean = np.array((72.5, 83.25, 73.5), dtype=np.float32)

    def frames(self):
        return sorted(os.path.basename(f).split('_')[0] for f in glob.glob('{}/*_label.png'.format(self.path)))

    def label(self, name):
        label = np.array(Image.open('{}/{}_label.png'.format(self.path, name)), dtype=np.float32)
        for k, v in (self.ids.iteritems() if sys.version_info[0] < 3 else self.ids.items()):
            label[label == k] = v
        return np.array(label, dtype=np.uint8)[np.newaxis, ...]

    def prepare(self, im):
        in_ = np.array(im, dtype=np.float32)[:, :, ::-1]
        in_ -= self.mean
        return in_.transpose((2, 0, 1))

def run(net, in_):
    net.blobs['data'].reshape(1, *in_.shape)
    net.blobs['data'].data[...] = in_
    net.forward()
    return net.blobs['score'].data[0].argmax(axis=0).astype(np.uint8)

def main():
    if not os.path.isdir(args.output):
        os.makedirs(args.output)
    data = Set(args.data)
    caffe.set_device(args.gpu)
    caffe.set_mode_gpu()
    net = caffe.Net(args.model + '/deploy.prototxt', args.model + 'fcn.caffemodel', caffe.TEST)
    hist = np.zeros((4, 4))
    for i, name in enumerate(data.frames()):
        label = data.label(name)
        im = scipy.misc.imresize(np.array(Image.open('{}/{}.png'.format(args.data, name))), label.shape[1:])
        out = run(net, data.prepare(im))
        k = (label.flatten() < 4)
        hist += np.bincount(4 * label.flatten()[k].astype(int) + out.flatten()[k], minlength=16).reshape(4, 4)
        scipy.misc.imsave(args.output + '/' + str(i) + '.png', out)
    with open(args.output + '/results.txt', 'w') as f:
        f.write('accuracy: %f\n' % (np.diag(hist).sum() / (hist.sum() + 1e-12)))
main()

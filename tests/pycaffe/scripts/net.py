import caffe
from caffe import layers as L, params as P
from caffe.coord_map import crop

def conv_relu(bottom, nout, ks=3, pad=1):
    conv = L.Convolution(bottom, kernel_size=ks, num_output=nout, pad=pad,
        weight_filler=dict(type='xavier'), param=[dict(lr_mult=1), dict(lr_mult=2, decay_mult=0)])
    return conv, L.ReLU(conv, in_place=True)

def toy(split):
    n = caffe.NetSpec()
    n.data, n.label = L.Python(module='toy_layers', layer='ToySegDataLayer', ntop=2,
        param_str=str(dict(split=split, folder='data', seed=1337)))
    n.conv1, n.relu1 = conv_relu(n.data, 9 / 2, pad=10)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.score_fr = L.Convolution(n.pool1, num_output=3, kernel_size=1)
    n.upscore = L.Deconvolution(n.score_fr,
        convolution_param=dict(num_output=3, kernel_size=4, stride=2, bias_term=False), param=[dict(lr_mult=0)])
    n.score = crop(n.upscore, n.data)
    n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_param=dict(normalize=True, ignore_label=255))
    return n.to_proto()

if __name__ == '__main__':
    for split in ('train', 'val'):
        with open(split + '.prototxt', 'w') as f:
            f.write(str(toy(split)))
        print 'wrote', split

from __future__ import division
import numpy as np

def fast_hist(a, b, n):
    k = (a >= 0) & (a < n)
    return np.bincount(n * a[k].astype(int) + b[k], minlength=n**2).reshape(n, n)

def seg_tests(solver, dataset):
    net = solver.test_nets[0]
    net.share_with(solver.net)
    n_cl = net.blobs['score'].channels
    hist, loss = np.zeros((n_cl, n_cl)), 0
    for idx in dataset:
        net.forward()
        hist += fast_hist(net.blobs['label'].data[0, 0].flatten(), net.blobs['score'].data[0].argmax(0).flatten(), n_cl)
        loss += net.blobs['loss'].data.flat[0]
    print 'Iteration', solver.iter, 'pixels', int(hist.sum()), 'loss fell below 2:', loss / len(dataset) < 2
    return np.diag(hist).sum() / hist.sum()

from __future__ import division
import numpy as np

def interp(net, layers):
    for l in layers:
        m, k, h, w = net.params[l][0].data.shape
        if m != k or h != w:
            print 'cannot interpolate', l
            raise Exception
        factor = (h + 1) // 2
        center = factor - 1 if h % 2 == 1 else factor - 0.5
        og = np.ogrid[:h, :h]
        filt = (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
        net.params[l][0].data[range(m), range(k), :, :] = filt
        print 'interpolating', l

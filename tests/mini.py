"""Mini-VOC in small: a few pictures, and its nets with seeded weights."""

import torch

from reproduction.caffe import caffemodel
from reproduction.caffe.net import Net
from reproduction.fcn import mininets, nets
from reproduction.fcn.datasets import mini

COUNTS = {"TRAIN": 4, "VAL": 3, "IN_BOTH": 2, "OBJECTS": {"train": 8, "val": 7}}


def shrink(patch):
    """Draw a data set of 22 pictures instead of 1,404."""
    for name, value in COUNTS.items():
        patch.setattr(mini, name, value)


def weights(folder, seed=1):
    """Write the three nets with seeded weights, which tell something apart; returns the folder of all weights."""
    (folder / "mini").mkdir(parents=True, exist_ok=True)
    for row in mininets.NETS.values():
        net, draw = Net(nets.deploy(row)), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for blobs in net.params.values():
                spread = (2 / blobs[0][0].numel()) ** 0.5
                blobs[0].copy_(torch.randn(blobs[0].shape, generator=draw) * spread)
        caffemodel.dump(net.to_proto(), folder / row.caffemodel)
    return folder

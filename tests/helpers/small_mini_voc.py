"""A small Mini-VOC: a few images, and its nets with seeded weights."""

import torch

from reproduction.caffe.formats import caffemodel
from reproduction.caffe.net.net import Net
from reproduction.fcn.datasets.mini import mini_voc
from reproduction.fcn.nets import mini_nets, net_files

COUNTS = {"TRAIN": 4, "VAL": 3, "IN_BOTH": 2, "OBJECTS": {"train": 8, "val": 7}}


def shrink(patch):
    """Reduce Mini-VOC from 1,404 to 22 images."""
    for name, value in COUNTS.items():
        patch.setattr(mini_voc, name, value)


def weights(folder, seed=1):
    """Write the three nets with seeded weights that predict several classes; return the weights folder."""
    (folder / "mini").mkdir(parents=True, exist_ok=True)
    for row in mini_nets.NETS.values():
        net, draw = Net(net_files.build_deploy(row)), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for blobs in net.params.values():
                spread = (2 / blobs[0][0].numel()) ** 0.5
                blobs[0].copy_(torch.randn(blobs[0].shape, generator=draw) * spread)
        caffemodel.dump(net.to_proto(), folder / row.caffemodel)
    return folder

"""SegNet and ENet: unpooling with a mask, batch normalization with two blobs, weights of classes."""

from reproduction.caffe.schema import add_dialect

SEGNET = add_dialect("segnet", "SegNet", "alexgkendall/caffe-segnet@344c113", 2015)
ENET = add_dialect("enet", "ENet", "TimoSaemann/caffe-enet@22d356c", 2016)

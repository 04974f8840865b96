"""PSPNet and DeepLab v2: resizing with aligned corners, batch normalization with four blobs."""

from reproduction.caffe.schema import add_dialect

PSPNET = add_dialect("pspnet", "PSPNet", "hszhao/PSPNet@798bdc9", 2016)

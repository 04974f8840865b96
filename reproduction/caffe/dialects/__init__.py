"""Support for files of Caffe forks: their extensions are converted to BVLC Caffe's fields.

A dialect is a module for one fork or extension. It declares the fields that the fork adds to a message of the schema
(``Message.dialects``). It registers functions in ``upgrade`` and ``blobs`` that convert these fields when a file is
read. The rest of ``caffe`` contains no code for forks, and files are always written in BVLC's form. Only
``reproduction.caffe`` itself imports the dialects, so that all of them are registered whichever module is imported.

1. ``future``: Crop layers of the FCN branch of Caffe, 2014 and 2015
2. ``ceil_mode``: the rounding of pooling output sizes in forks
3. ``nvidia``: the weights and BatchNorm layers of NVIDIA Caffe
4. ``layer_messages``: messages of layer types that BVLC Caffe does not have
"""

from reproduction.caffe.dialects import ceil_mode, future, layer_messages, nvidia

__all__ = ["ceil_mode", "future", "layer_messages", "nvidia"]

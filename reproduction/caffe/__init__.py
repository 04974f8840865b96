"""Caffe in PyTorch: file formats, layers, nets and the solver, without a dependency on Caffe.

1. ``errors``, ``locks``, ``devices``: error classes, locks between processes, and the devices that nets run on
2. ``schema``    the messages of ``caffe.proto``;  ``geometry``, ``fillers``: output sizes and initial values
3. ``formats``   read and write prototxt, caffemodel, HDF5 and other files; upgrade old nets to the current form
4. ``dialects``  convert the extensions of Caffe forks to BVLC Caffe's fields
5. ``layers``    one class for each layer type
6. ``net``       message -> graph -> ``nn.Module``; nets written in Python; ONNX
7. ``training``  Caffe's solver: learning rates, updates, snapshots
"""

from reproduction.caffe import dialects as dialects

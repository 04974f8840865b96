"""Caffe's semantics, without Caffe.

1. ``errors``, ``locks``, ``devices``: the one family of errors, locks between processes, where nets run
2. ``schema``    every message of Caffe's formats, declared once;  ``geometry``, ``fillers``: sizes and initial values
3. ``formats``   files <-> messages: prototxt, caffemodel, HDF5 and others; old nets upgraded to the current form
4. ``dialects``  what forks of Caffe wrote, read as Caffe's own
5. ``layers``    one class for each layer type
6. ``net``       message -> graph -> ``nn.Module``; nets written in Python; ONNX
7. ``training``  Caffe's solver: rates, updates, snapshots
"""

from reproduction.caffe import dialects as dialects

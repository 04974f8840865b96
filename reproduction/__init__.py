"""Fully convolutional networks, reproduced from Caffe in PyTorch.

The rooms, in the order in which data flows:

1. ``caffe``   Caffe's formats and arithmetic: prototxt, caffemodel, layers, nets. Knows no data set and no paper.
2. ``fcn``     The paper: its nets, data sets, scores, published numbers and published files.
3. ``report``  Tables from scores.
4. ``fast``    Nets compiled for inference: the same numbers, sooner.
5. ``pycaffe`` ``import caffe`` for programs written against Caffe's Python interface.
"""

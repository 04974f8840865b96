"""pycaffe's Net, solvers and NetSpec, with blobs that a program can read and write at any time.

This room imports ``caffe`` and ``pycaffe.proto``.
"""

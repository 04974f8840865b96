"""pycaffe's Net, solvers and NetSpec, with blobs that a program can read and write at any time.

This package imports ``caffe`` and ``pycaffe.proto``.
"""

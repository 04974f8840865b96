"""pycaffe's Net, solvers and NetSpec: live blobs over ``reproduction.caffe``.

This room imports ``caffe`` and ``pycaffe.proto``.
"""

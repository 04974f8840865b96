"""Readers and writers of files: prototxt, caffemodel, HDF5, safetensors, npz, PyTorch, images and JSON.

Caffe's files are read as messages of ``schema``, such as NetParameter. This package imports ``errors``, ``locks``,
``schema`` and ``geometry`` only. It imports torch only inside functions, as that takes seconds.
"""

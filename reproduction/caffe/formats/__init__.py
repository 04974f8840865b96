"""Readers and writers of prototxt, caffemodel, HDF5, safetensors, npz and PyTorch files, all in terms of messages.

This package imports ``errors``, ``locks``, ``schema`` and ``geometry`` only, and torch only inside functions.
"""

"""Files and messages: prototxt, caffemodel, HDF5, safetensors, npz and PyTorch's, read into and written from one form.

This room imports ``errors``, ``locks``, ``schema`` and ``geometry`` only, and torch only inside functions that need it.
"""

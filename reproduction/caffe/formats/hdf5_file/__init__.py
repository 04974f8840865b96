"""HDF5 files, read without the HDF5 library, which never returns from some damaged files.

This room imports ``errors`` and ``formats.files`` only.
"""

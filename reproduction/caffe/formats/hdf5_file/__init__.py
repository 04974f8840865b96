"""Reader of HDF5 files that does not use the HDF5 library, which never returns from some damaged files.

This package imports ``errors``, ``geometry`` and ``formats.files`` only.
"""

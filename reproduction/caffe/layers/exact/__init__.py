"""Bit-exact results of Caffe's CPU build: sums in the order of its BLAS, and functions of its C library.

From ``reproduction``, this package imports only ``geometry``. Layers use it instead of torch if ``in_blas_order``.
"""

"""Caffe's last digit: sums in the order of its BLAS, and functions as its C library computes them.

This room imports ``geometry`` only; the layers choose between it and torch by ``in_blas_order``.
"""

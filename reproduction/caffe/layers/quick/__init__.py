"""Faster implementations with the same results and gradients: convolution by a matrix product, and repeated borders.

From ``reproduction``, this package imports only ``geometry``.
"""

"""Faster implementations with the same results and gradients: of convolutions, repeated borders, and normalization.

From ``reproduction``, this package imports only ``geometry`` and ``typing``.
"""

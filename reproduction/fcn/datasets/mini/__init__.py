"""Mini-VOC: a small synthetic data set in the file formats of VOC and SBD.

This package imports ``datasets.base``, ``datasets.voc`` and ``images``.
"""

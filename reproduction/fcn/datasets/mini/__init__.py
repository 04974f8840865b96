"""Mini-VOC: a small data set of drawn images, in the file formats of VOC and SBD.

This package imports ``datasets.base``, ``datasets.voc`` and ``images``.
"""

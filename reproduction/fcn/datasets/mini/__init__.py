"""Mini-VOC: a small data set that is drawn, not downloaded, in the layouts of the real ones.

This room imports ``datasets.base``, ``datasets.voc`` and ``images``.
"""

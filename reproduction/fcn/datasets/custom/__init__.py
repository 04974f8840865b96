"""Users' folders of images and labels as data sets, labels painted in colours, and a check of both.

This package imports ``datasets.base``, ``images`` and ``nets``.
"""

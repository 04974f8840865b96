"""Users' images and labels: folders, labels painted in colours, and a check of both.

This package imports ``datasets.base``, ``images`` and ``nets``.
"""

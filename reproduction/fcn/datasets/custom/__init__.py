"""Anybody's pictures and labels: folders, labels painted in colours, and the check of both.

This room imports ``datasets.base``, ``images`` and ``nets``.
"""

"""Runs programs that import caffe: installs module aliases, and restores names that libraries have removed.

This room imports all other rooms of ``pycaffe``.
"""

"""Runs programs that import caffe: installs module aliases, and restores names that libraries have removed.

This package imports all others of ``pycaffe``.
"""

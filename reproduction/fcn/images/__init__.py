"""Decoding of image files, the preprocessing of Caffe's data layers, and label maps in colour.

This package imports only ``caffe``.
"""

"""Pixels, arrays and colours: decode pictures, prepare them as Caffe's inputs, and show labels as colours.

This room imports ``caffe`` only.
"""

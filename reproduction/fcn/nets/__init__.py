"""The published nets and those of Mini-VOC as prototxt, the figures of Table 1, and net surgery.

This package imports only ``caffe``; ``prototxt/`` is generated from it.
"""

"""The published nets and those of Mini-VOC by name, their prototxts, the figures of Table 1, and net surgery.

This package imports ``caffe`` and ``datasets``, whose records say which nets there are; ``prototxt/`` is generated from
it.
"""

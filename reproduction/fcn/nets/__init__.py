"""The published nets and those of Mini-VOC: their records by name, their prototxts, Table 1, and net surgery.

This package imports ``caffe`` and ``datasets``, whose records say which nets there are; ``prototxt/`` is generated from
it.
"""

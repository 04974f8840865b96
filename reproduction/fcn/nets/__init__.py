"""The nets by name: the published 15 and those of Mini-VOC, the figures of Table 1, and weights from net to net.

This room imports ``caffe`` only; it writes ``prototxt/``.
"""

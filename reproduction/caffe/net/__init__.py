"""Build an ``nn.Module`` from a NetParameter, copy weights, write nets in Python and export them as ONNX.

This package imports ``formats`` and ``layers``; it contains no training code.
"""

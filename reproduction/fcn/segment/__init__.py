"""Inference with a trained net, the model card that accompanies its weights, and export to other runtimes.

This package imports ``scoring``, ``fetch`` and the packages below them.
"""

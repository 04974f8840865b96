"""Inference with a trained net, the model card stored with its weights, and export to ONNX and ``torch.export``.

This package imports ``scoring``, ``fetch`` and the packages below them.
"""

"""From a NetParameter to a module that runs: the graph, the net, copying weights, writing nets in Python, ONNX.

This room imports ``formats`` and ``layers``; nothing here knows how a net is trained.
"""

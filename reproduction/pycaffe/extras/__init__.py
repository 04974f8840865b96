"""pycaffe's tools around Net: Classifier, Detector, ``io`` and ``draw``.

This package imports ``pycaffe.net`` and ``pycaffe.proto``.
"""

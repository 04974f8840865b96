"""pycaffe's tools around Net: Classifier, Detector, ``io`` and ``draw``.

This room imports ``pycaffe.net`` and ``pycaffe.proto``.
"""

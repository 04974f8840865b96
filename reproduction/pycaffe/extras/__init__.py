"""What pycaffe ships beside its Net: Classifier, Detector, ``io`` and ``draw``.

This room imports ``pycaffe.net`` and ``pycaffe.proto``.
"""

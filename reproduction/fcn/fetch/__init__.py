"""Published files: the manifest of what there is, downloads that resume, and archives that are not trusted.

This room imports ``caffe`` and ``nets``.
"""

"""Published files: the manifest that lists them, resumable downloads, and safe unpacking of archives.

This package imports ``caffe`` and ``datasets``.
"""

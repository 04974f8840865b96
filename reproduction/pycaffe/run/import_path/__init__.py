"""The folder that ``fcn caffe install`` adds to the import path; it contains the package ``caffe``."""

__all__: list[str] = []  # a program imports the package by the name caffe

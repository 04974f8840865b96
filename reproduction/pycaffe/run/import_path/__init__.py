"""The folder that ``fcn caffe install`` adds to the import path; it contains the package ``caffe``."""

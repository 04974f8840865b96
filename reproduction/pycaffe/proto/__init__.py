"""Caffe's messages as programs know them from protobuf: ``caffe_pb2``, and ``text_format``."""

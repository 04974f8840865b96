"""Caffe's messages with protobuf's Python interface: ``caffe_pb2`` and ``text_format``."""

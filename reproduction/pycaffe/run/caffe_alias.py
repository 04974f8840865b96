"""Aliases under which programs import this package: ``caffe`` and its modules, and protobuf's ``text_format``."""

from __future__ import annotations

import importlib
import sys
import types

from reproduction import pycaffe
from reproduction.caffe.errors import CaffemodelError, ReproductionError
from reproduction.caffe.schema import Message
from reproduction.pycaffe import _caffe
from reproduction.pycaffe.proto import text_format
from reproduction.pycaffe.proto.message import ProtoMessage

# Source: BVLC/caffe@9b89154 python/caffe: the modules of pycaffe, and where each is here.
_CAFFE_MODULES = {
    "_caffe": "_caffe",
    "classifier": "extras.classifier",
    "coord_map": "net.coord_map",
    "detector": "extras.detector",
    "draw": "extras.draw",
    "io": "extras.io",
    "net_spec": "net.net_spec",
    "proto": "proto",
    "proto.caffe_pb2": "proto.caffe_pb2",
}


def install() -> None:
    """Make ``import caffe`` import this package in this process, by entries in ``sys.modules``.

    Also replace ``google.protobuf.text_format`` by a module that supports the messages of ``caffe_pb2``. If Google's
    protobuf is not installed, install a stand-in for ``google.protobuf.message`` too.
    """
    sys.modules["caffe"] = sys.modules["caffe.pycaffe"] = pycaffe
    pycaffe.pycaffe = pycaffe  # type: ignore[attr-defined]
    for name, home in _CAFFE_MODULES.items():
        module = importlib.import_module(f"{pycaffe.__name__}.{home}")
        sys.modules[f"caffe.{name}"] = module
        if "." not in name:
            setattr(pycaffe, name, module)
    for name, value in vars(_caffe).items():
        if isinstance(value, type) and not issubclass(value, Message):  # messages are classes of caffe_pb2
            value.__name__ = value.__qualname__ = name
            value.__module__ = "caffe._caffe"
    try:
        importlib.import_module("google.protobuf.message")
    except ImportError:
        _create_stand_in("google").protobuf = _create_stand_in("google.protobuf")  # type: ignore[attr-defined]
        message = _create_stand_in("google.protobuf.message")
        message.__dict__.update(Message=ProtoMessage, DecodeError=CaffemodelError, Error=ReproductionError)
        sys.modules["google.protobuf"].message = message  # type: ignore[attr-defined]
    sys.modules["google.protobuf"].text_format = text_format  # type: ignore[attr-defined]
    sys.modules["google.protobuf.text_format"] = text_format


def _create_stand_in(name: str) -> types.ModuleType:
    module = types.ModuleType(name, "What programs for Caffe need of Google's package, which is not installed.")
    module.__path__ = []
    sys.modules[name] = module
    return module

"""The names by which programs import this package: ``caffe`` with its modules, and ``google.protobuf.text_format``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types

from reproduction import pycaffe
from reproduction.caffe.errors import CaffemodelError, ReproductionError
from reproduction.pycaffe import _caffe
from reproduction.pycaffe.proto import text_format
from reproduction.pycaffe.proto.message import ProtoMessage


def install() -> None:
    """Let ``import caffe`` find this package from now on, in this process; ``text_format`` takes our messages, too."""
    _alias(pycaffe.__name__, "caffe")
    for module in pkgutil.walk_packages(pycaffe.__path__, f"{pycaffe.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            _alias(module.name, f"caffe{module.name.removeprefix(pycaffe.__name__)}")
    _alias(pycaffe.__name__, "caffe.pycaffe")  # which has no home of its own here
    setattr(pycaffe, "pycaffe", pycaffe)  # noqa: B010 - it is no attribute for mypy
    for name, kind in _caffe.CLASSES.items():
        kind.__name__ = kind.__qualname__ = name
        kind.__module__ = "caffe._caffe"
    try:
        importlib.import_module("google.protobuf.message")
    except ImportError:
        _stand_in("google").protobuf = _stand_in("google.protobuf")  # type: ignore[attr-defined]
        message = _stand_in("google.protobuf.message")
        message.__dict__.update(Message=ProtoMessage, DecodeError=CaffemodelError, Error=ReproductionError)
        sys.modules["google.protobuf"].message = message  # type: ignore[attr-defined]
    sys.modules["google.protobuf"].text_format = text_format  # type: ignore[attr-defined]
    sys.modules["google.protobuf.text_format"] = text_format


def _alias(name: str, alias: str) -> None:
    sys.modules[alias] = sys.modules[name]


def _stand_in(name: str) -> types.ModuleType:
    module = types.ModuleType(name, "What programs for Caffe need of Google's package, which is not installed.")
    module.__path__ = []
    sys.modules[name] = module
    return module

"""Google's protobuf, if it is installed, for messages that are not Caffe's."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from typing import Any

from reproduction.caffe.errors import ReproductionError


@functools.cache
def load_text_format() -> Any:
    """Load Google's own ``text_format``, even if ``sys.modules`` has this project's under that name.

    Raises:
        ReproductionError: If Google's protobuf is not installed.
    """
    name = "google.protobuf.text_format"
    try:
        from google import protobuf

        spec = importlib.machinery.PathFinder.find_spec(name, protobuf.__path__)
    except ImportError:
        spec = None
    if spec is None or spec.loader is None:
        raise ReproductionError(
            "this is no message of Caffe's, and Google's protobuf is not installed",
            remedy="Install it: pip install protobuf.",
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

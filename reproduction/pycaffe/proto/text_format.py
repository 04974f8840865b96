"""``google.protobuf.text_format`` for Caffe's messages; other messages go to Google's protobuf, if it is installed.

Source: protobuf.dev/reference/python; googleapis.dev/python/protobuf google.protobuf.text_format.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from collections.abc import Iterable
from typing import Any, TextIO

from reproduction.caffe.errors import PrototxtError, ReproductionError
from reproduction.caffe.formats import prototxt
from reproduction.pycaffe.proto.message import ProtoMessage, unwrap

#: Raised when a text cannot be parsed as the message.
ParseError = PrototxtError


def Merge(text: str | bytes, message: Any, **options: Any) -> Any:
    """Parse a prototxt, merge its fields into a message, and return the message.

    Args:
        text: The prototxt.
        message: The message to change. One that is not Caffe's is passed to Google's protobuf.
        options: Options of Google's protobuf; they have no effect on Caffe's messages.

    Raises:
        PrototxtError: If the text is not a prototxt of this message type.
    """
    if not isinstance(message, ProtoMessage):
        return _load_google_text_format().Merge(text, message, **options)
    decoded = text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
    mine = unwrap(message)
    mine.merge(prototxt.loads(decoded, type(mine)))
    mine.present = True
    return message


#: The same as ``Merge``.
Parse = Merge


def MergeLines(lines: Iterable[str | bytes], message: Any, **options: Any) -> Any:
    """Parse the lines of a prototxt, merge its fields into a message, and return the message.

    Args:
        lines: The lines, such as those of an open file.
        message: The message to change; see ``Merge``.
        options: Options of Google's protobuf; they have no effect on Caffe's messages.

    Raises:
        PrototxtError: If the text is not a prototxt of this message type.
    """
    texts = [line.decode("utf-8", "surrogateescape") if isinstance(line, bytes) else line for line in lines]
    return Merge("".join(text if text.endswith("\n") else f"{text}\n" for text in texts), message, **options)


ParseLines = MergeLines


def MessageToString(message: Any, as_one_line: bool = False, **options: Any) -> str:
    """Return a message as prototxt.

    Args:
        message: The message. One that is not Caffe's is passed to Google's protobuf.
        as_one_line: Whether to return a single line rather than one for each field.
        options: Options of Google's protobuf; they have no effect on Caffe's messages.
    """
    if not isinstance(message, ProtoMessage):
        return str(_load_google_text_format().MessageToString(message, as_one_line=as_one_line, **options))
    text = prototxt.dumps(unwrap(message))
    return " ".join(line.strip() for line in text.splitlines()) if as_one_line else text


def PrintMessage(message: Any, out: TextIO, **options: Any) -> None:
    """Write a message as prototxt to the open file ``out``; ``options`` are those of ``MessageToString``."""
    out.write(MessageToString(message, **options))


@functools.cache
def _load_google_text_format() -> Any:
    """Load Google's own ``text_format``, even if ``sys.modules`` has this module under that name."""
    name = "google.protobuf.text_format"
    try:
        from google import protobuf

        spec = importlib.machinery.PathFinder.find_spec(name, protobuf.__path__)
    except ImportError:
        spec = None
    if spec is None or spec.loader is None:
        raise ReproductionError(
            "this is not one of Caffe's messages, and Google's protobuf is not installed",
            remedy="Install it: pip install protobuf.",
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # such as __all__: the names in Google's are not those of this module
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_load_google_text_format(), name)
